"""Crystals: lattice parameters, standard axes, and the elastic constants that are independent by symmetry."""
