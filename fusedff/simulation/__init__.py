"""Molecular dynamics and averages over its trajectories."""
