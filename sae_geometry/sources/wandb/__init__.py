"""Access to W&B runs and artifacts."""
