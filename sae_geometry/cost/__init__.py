"""Estimates of the cost of a question on this machine and on a cluster, and a diagnosis of this machine."""
