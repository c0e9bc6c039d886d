"""Files, tables and text. No science, and no Dictionary."""
