"""Every question that compares dictionaries: its function, its result, and the words that state it."""
