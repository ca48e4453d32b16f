"""Properties at 0 K, from any ASE calculator."""
