"""The exact sweep over C = A·Bᵀ, on plain tensors and without I/O; README.md has the algorithm and its proofs."""
