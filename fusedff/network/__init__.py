"""The models: DimeNet++ and its parts, Lennard-Jones, short-range repulsion."""
