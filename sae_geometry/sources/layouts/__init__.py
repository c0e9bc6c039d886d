"""Detect how a checkpoint stores its dictionaries, and read them."""
