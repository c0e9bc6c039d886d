"""One module per question: two dictionaries, one with itself, many seeds, encoders, spans, splits, checkpoints."""
