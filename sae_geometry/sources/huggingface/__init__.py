"""Hugging Face repositories."""
