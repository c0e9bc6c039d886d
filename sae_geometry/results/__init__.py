"""Saving, reading and logging of results."""
