"""Detect the layout in which a checkpoint stores dictionaries, and read the dictionaries."""
