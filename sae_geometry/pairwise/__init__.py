"""What belongs to one pair of dictionaries, as data: matchings with their null, confounds, double counting."""
