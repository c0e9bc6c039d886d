"""Cost estimates for a command, on this machine or on a cluster, and a diagnosis of this machine."""
