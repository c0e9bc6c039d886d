"""W&B: runs, their records and files."""
