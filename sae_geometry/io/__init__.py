"""Files, tables and text. Independent of the science and of `Dictionary`."""
