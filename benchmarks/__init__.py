"""Benchmarks: each prints its figures with the ratio to a peer or a floor measured in the same run."""
