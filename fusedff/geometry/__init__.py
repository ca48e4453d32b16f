"""Periodic systems of atoms and their neighbours."""
