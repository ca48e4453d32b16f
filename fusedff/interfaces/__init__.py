"""A potential in other programs: ASE and LAMMPS."""
