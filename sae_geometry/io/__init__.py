"""Readers, writers and formatters of files, tables and text, independent of `Dictionary`."""
