"""The table of checkpoint layouts, and how one is detected and read."""
