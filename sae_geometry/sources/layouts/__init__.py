"""The table of checkpoint layouts, and detection and reading by it."""
