"""Comparisons of dictionaries, one module per question: pairs, seeds, encoders, spans, splits, checkpoints."""
