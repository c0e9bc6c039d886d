"""Read safetensors, torch and numpy files without executing their contents."""
