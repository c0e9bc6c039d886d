"""What the reproductions share: runs and published values from TOML, steps that resume, figures with sidecars, a table
of published v ours, and the command line."""
