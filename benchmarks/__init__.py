"""Benchmarks: time and memory of fusedff, also against chemtrain, and studies of the models that ship.

`python -m benchmarks --help` lists them.
"""
