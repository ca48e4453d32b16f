"""The models: DimeNet++ and what it is made of, Lennard-Jones, short-range repulsion."""
