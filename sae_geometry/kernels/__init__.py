"""Tensors in, tensors out: the exact sweep over C = A·Bᵀ. Knows no Dictionary and does no I/O. See README.md here."""
