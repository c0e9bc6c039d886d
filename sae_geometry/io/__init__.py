"""Readers, writers and formatters of files, tables and text; they know nothing of `Dictionary`."""
