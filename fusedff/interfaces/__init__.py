"""Interfaces of potentials to other programs: ASE and LAMMPS."""
