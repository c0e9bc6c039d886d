"""Data on one pair of dictionaries: matchings with their null expectation, confounds, double counting."""
