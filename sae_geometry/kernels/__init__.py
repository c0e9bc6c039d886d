"""The exact sweep over C = A·Bᵀ on plain tensors, and its settings; README.md has the algorithm and its proofs."""
