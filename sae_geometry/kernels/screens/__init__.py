"""Fast approximate passes over C = A·Bᵀ with a proven error bound, one module per device or number format."""
