"""Compiled loops (numba, triton) and the threads that run them."""
