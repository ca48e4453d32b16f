"""Crystals with their lattice parameters, standard axes, and what symmetry leaves of their elastic constants."""
