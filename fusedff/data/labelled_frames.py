"""Labelled frames: what a frame holds, and how it is read.

A frame is an `ase.Atoms` with a calculator that holds energy (eV), forces (eV/Å) and optionally stress (eV/Å^3,
positive in tension), and in `info` a `config_type`, a unique `config_id` and optionally `use_virial`, `source` (the
calculation that labelled it) and `run` (the simulation it is a snapshot of). Use `labels` to read labels from the
calculator's results: `Atoms.get_forces` would set the forces on fixed atoms to zero. With `info["units"] == "ase"`
numbers are taken to be in eV and Å, however unusual their magnitude. `validation.frame_checks` checks single frames.
"""

from typing import NamedTuple

import ase
import numpy as np
from ase.calculators.singlepoint import SinglePointCalculator

from fusedff.units import to_voigt

MAX_STRESS = 1.0  # eV/Å^3, 160 GPa
MAX_VIRIAL = 16.0  # eV per atom: titanium has 14 at half its volume (230 GPa), and 17 if 1 GPa is taken for 1 eV/Å^3

_NO = {"f", "false", "n", "no", "off", "none", "0", "0.0"}
_YES = {"t", "true", "y", "yes", "on", "1", "1.0"}


class Labels(NamedTuple):
    """Labels of a frame: energy () eV, forces (n_atoms, 3) eV/Å, stress (6,) eV/Å^3, nan if it is not to be used."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def calculator_results(frame: ase.Atoms) -> dict:
    """All results of the calculator of a frame; empty if it has no calculator."""
    return getattr(frame.calc, "results", {})


def energy_of(frame: ase.Atoms):
    """The energy (eV) whose derivatives are the forces: the free energy if given, else the energy; None without both.

    The two differ in calculations with smeared occupations.
    """
    found = calculator_results(frame)
    return found.get("energy") if found.get("free_energy") is None else found["free_energy"]


def labels(frame: ase.Atoms) -> Labels:
    """Energy, forces and stress of a frame; the stress is nan unless `use_virial`."""
    found = calculator_results(frame)
    stress = np.asarray(found["stress"], float) if use_virial(frame) else np.full(6, np.nan)
    return Labels(
        energy=float(energy_of(frame)),
        forces=np.asarray(found["forces"], float),
        stress=stress if stress.shape == (6,) else to_voigt(stress),
    )


def stress_label(stress: np.ndarray) -> np.ndarray:
    """Voigt form (6,) of a stress (3, 3), or the stress itself if it is not symmetric, which `frame_checks` refuse."""
    return stress if skewness(stress) else to_voigt((stress + stress.T) / 2)


def skewness(stress: np.ndarray) -> float:
    """Largest difference of entries (i, j) and (j, i), or 0 if it can be rounding."""
    skew = np.abs(stress - stress.T).max()
    return float(skew) if skew > 0.01 * np.abs(stress).max() + 1e-5 else 0.0


def is_large(stress: np.ndarray, volume_per_atom: float) -> bool:
    """Whether a stress (eV/Å^3) is implausibly large, so that it may be in GPa or kbar; volume per atom in Å^3.

    It is, if stress and stress times volume per atom exceed `MAX_STRESS` and `MAX_VIRIAL`.
    """
    size = np.abs(stress).max()
    return bool(size > MAX_STRESS and size * volume_per_atom > MAX_VIRIAL)


def has_stress(frame: ase.Atoms) -> bool:
    """Whether the frame has a stress."""
    return calculator_results(frame).get("stress") is not None


def use_virial(frame: ase.Atoms) -> bool:
    """Whether the frame has a stress that is a label: `info['use_virial']` is true or missing.

    Raises ValueError for a value that means neither yes nor no.
    """
    return has_stress(frame) and wants_virial(frame)


def source(frame: ase.Atoms) -> str:
    """Name of the calculation that labelled the frame, '' if not given; every source has its own zero of energy."""
    return str(frame.info.get("source", ""))


def count_atoms(frames, pairs) -> np.ndarray:
    """Numbers of atoms (n_frames, n_pairs) in every frame for each of `pairs` (source, atomic number)."""
    return np.array([[np.sum(f.numbers == z) * (source(f) == of) for of, z in pairs] for f in frames], float)


def family(frame: ase.Atoms) -> str:
    """Family of structures that the frame belongs to: `config_type`."""
    return str(frame.info.get("config_type", "unlabelled"))


def run(frame: ase.Atoms) -> str | None:
    """Name of the simulation that a frame is a snapshot of: `run`, else `config_id` up to #, else None."""
    if "run" in frame.info:
        return str(frame.info["run"])
    return str(frame.info["config_id"]).split("#")[0] if "config_id" in frame.info else None


def bare(frame: ase.Atoms) -> ase.Atoms:
    """The atoms and the cell of a frame and nothing else: no labels, no ids, no constraints."""
    return ase.Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)


def right_handed(frame: ase.Atoms) -> ase.Atoms:
    """The frame itself; if its cell was left-handed, with its first two lattice vectors exchanged (labels are kept)."""
    if np.linalg.det(frame.cell.array) < 0:
        found = calculator_results(frame)
        frame.set_cell(frame.cell.array[[1, 0, 2]])
        frame.calc = SinglePointCalculator(frame, **found)
    return frame


def wants_virial(frame: ase.Atoms) -> bool:
    """Whether `info` does not exclude the stress from the labels; ValueError for a value that is neither yes nor no."""
    word = str(frame.info.get("use_virial", True)).lower()
    if word not in _YES | _NO:
        raise ValueError(f"use_virial is {frame.info['use_virial']!r}; write use_virial=T or use_virial=F")
    return word in _YES


def has_declared_units(frame: ase.Atoms) -> bool:
    """Whether `info` states that the numbers are in eV and Å, so that an unusual magnitude is no error."""
    return frame.info.get("units") == "ase"


def named_like(part: str, names) -> str | None:
    """Name of an entry that may be the missing label."""
    return next((name for name in names if part in name.lower()), None)
