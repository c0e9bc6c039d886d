"""Comparisons of dictionaries: the functions, their results, and the text of the reports."""
