"""Results for one pair of dictionaries: matchings with their null expectation, confounds, and double counting."""
