"""What a run will take, on this machine and on a cluster, and what this machine can do."""
