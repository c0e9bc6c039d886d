"""Fast approximate passes over C = A·Bᵀ with a proven error bound, one module per device or number format.

A screen only proposes candidates. It returns, for every row (and column), its K best *screened* scores with a proven
bound ε on their error, and a proven bound on every score it left out; `decide` selects the exact best.
"""
