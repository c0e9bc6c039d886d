"""Tensor files, read without running what is in them: safetensors, torch, numpy."""
