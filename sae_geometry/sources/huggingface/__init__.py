"""Access to repositories on Hugging Face."""
