"""Read tensor files without executing their contents: safetensors, torch, numpy."""
