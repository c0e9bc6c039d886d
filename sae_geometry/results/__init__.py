"""What becomes of a result: saved, read back, logged."""
