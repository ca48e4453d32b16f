"""One labelled frame: what it holds, and what makes it unfit to learn from.

A frame is an `ase.Atoms` with a calculator that holds energy (eV), forces (eV/Å) and maybe stress (eV/Å^3,
positive in tension), and in `info` a `config_type`, a unique `config_id` and optionally `use_virial`.
"""

from typing import NamedTuple

import ase
import numpy as np

from fusedff import neighbors, plausibility
from fusedff.units import to_voigt

MAX_FORCE = 200.0  # eV/Å
MAX_STRESS = 1.0  # eV/Å^3, 160 GPa
MAX_ENERGY = 1e6  # eV per atom; all-electron total energies of the heaviest elements stay below


class Labels(NamedTuple):
    """DFT labels: energy () eV, forces (n_atoms, 3) eV/Å, stress (6,) eV/Å^3 or nan where missing."""

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def results(frame: ase.Atoms) -> dict:
    """All that the calculator of a frame holds; empty without one."""
    return getattr(frame.calc, "results", {})


def labels(frame: ase.Atoms) -> Labels:
    """Energy, forces and stress of a frame; a missing stress is six nans, so weigh by `use_virial`.

    Where only a free energy is given, as for smeared occupations, it is the energy: forces derive from it.
    """
    found = results(frame)
    energy = found.get("energy", found.get("free_energy"))
    stress = np.asarray(found["stress"], float) if has_stress(frame) else np.full(6, np.nan)
    return Labels(
        energy=float(energy),
        forces=np.asarray(found["forces"], float),
        stress=stress if stress.shape == (6,) else to_voigt(stress),
    )


def has_stress(frame: ase.Atoms) -> bool:
    """Whether the frame carries a stress."""
    return results(frame).get("stress") is not None


def use_virial(frame: ase.Atoms) -> bool:
    """Whether training may use the frame's stress: it has one and `info['use_virial']` does not forbid it."""
    return has_stress(frame) and bool(frame.info.get("use_virial", True))


def check_frame(frame: ase.Atoms, where="frame") -> None:
    """Raise ValueError, naming `where`, value and remedy, unless a frame can be learned from.

    Refused: no atoms; a cell that is flat, left-handed or not periodic; nan or inf; missing energy or forces;
    forces of the wrong shape; atoms closer than 0.5 Å, images included; magnitudes that only another unit
    explains (|F| > 200 eV/Å, |stress| > 1 eV/Å^3, |energy| > 1e6 eV per atom); a virial in place of a stress; a
    stress that is not symmetric, or that is 0 where forces are not.
    """
    check_geometry(frame, where)
    check_labels(frame, where)


def check_geometry(frame: ase.Atoms, where="frame") -> None:
    """The part of `check_frame` that is about atoms and cell."""
    if len(frame) == 0:
        raise ValueError(f"{where}: has no atoms; drop the frame")
    if not frame.numbers.all():
        raise ValueError(f"{where}: atom {frame.numbers.argmin()} is of element 'X'; write its chemical symbol")
    if not np.isfinite(frame.cell.array).all():
        raise ValueError(f"{where}: the cell is not finite; drop the frame or repair its cell")
    _check_per_atom(frame.positions, "position of", "drop the frame or repair it", where)
    if not frame.pbc.all():
        raise ValueError(
            f"{where}: periodic along {frame.pbc.tolist()} only; set pbc to T T T, with vacuum for a cluster"
        )
    volume = np.linalg.det(frame.cell.array)
    if abs(volume) <= 1e-6 * max(np.prod(frame.cell.lengths()), 1e-30):
        raise ValueError(f"{where}: the cell has no volume ({volume:g} Å^3); give three independent vectors (Lattice)")
    if volume < 0:
        raise ValueError(f"{where}: the cell is left-handed (volume {volume:.3f} Å^3); exchange two cell vectors")
    first, second, distance = neighbors.pairs("ijd", frame, plausibility.MIN_DISTANCE, f"{where}: ")
    if len(distance):
        k = distance.argmin()
        remedy = "give lengths in Å"
        if plausibility.looks_transposed(frame):
            remedy = "the cell looks transposed: give lattice vectors as rows"
        elif unit := plausibility.length_unit(plausibility.closest(frame)[1], frame.numbers):
            remedy = f"lengths look {unit}"
        raise ValueError(
            f"{where}: atoms {first[k]} and {second[k]} (or their images) are {distance[k]:.3f} Å apart; {remedy}, "
            "or drop the frame"
        )


def check_labels(frame: ase.Atoms, where="frame") -> None:
    """The part of `check_frame` that is about energy, forces and stress."""
    _check_energy_and_forces(frame, results(frame), where)
    _check_stress(frame, results(frame), where)


def _check_energy_and_forces(frame, found, where) -> None:
    energy = found.get("energy", found.get("free_energy"))
    if energy is None:
        other = _named_like("energ", frame.info)
        raise ValueError(f"{where}: energy is missing{other}; write it as `energy=` (eV), or drop the frame")
    if not isinstance(energy, (int, float, np.integer, np.floating)):
        raise ValueError(f"{where}: energy is {energy!r}, not a number; write it as `energy=` (eV), or drop the frame")
    if not np.isfinite(energy):
        raise ValueError(f"{where}: energy is {energy}; drop the frame or relabel it")
    if abs(energy) > MAX_ENERGY * len(frame):
        raise ValueError(f"{where}: energy is {energy / len(frame):g} eV per atom; convert it to eV")
    forces = found.get("forces")
    if forces is None:
        other = _named_like("force", frame.arrays)
        raise ValueError(f"{where}: forces are missing{other}; write them as `forces` (eV/Å), or drop the frame")
    forces = _numbers(forces, "forces", where)
    if forces.shape != (len(frame), 3):
        raise ValueError(f"{where}: forces have shape {forces.shape} for {len(frame)} atoms; relabel it")
    _check_per_atom(forces, "force on", "drop the frame or relabel it", where)
    worst = np.linalg.norm(forces, axis=1).argmax()
    if (size := np.linalg.norm(forces[worst])) > MAX_FORCE:
        raise ValueError(
            f"{where}: force on atom {worst} is {size:g} eV/Å; convert it to eV/Å if it is in another unit "
            "(1 eV/Å = 964.85 kJ/mol/nm), else drop the frame"
        )


def _check_stress(frame, found, where) -> None:
    stress = found.get("stress")
    if stress is None:
        foreign = [key for key in frame.info if key.lower() in ("virial", "virials")]
        if foreign:
            raise ValueError(
                f"{where}: has `{foreign[0]}` but no stress; write stress = -virial / volume in eV/Å^3, or remove it"
            )
        return
    stress = _numbers(stress, "stress", where)
    if stress.shape not in ((6,), (3, 3)):
        raise ValueError(f"{where}: stress has shape {stress.shape}; give 6 (xx yy zz yz xz xy) or 3 x 3")
    if not np.isfinite(stress).all():
        raise ValueError(f"{where}: stress is {stress.tolist()}; remove it, drop the frame or relabel it")
    if (size := np.abs(stress).max()) > MAX_STRESS:
        raise ValueError(
            f"{where}: stress of {size:g} eV/Å^3 looks like GPa or kbar; convert it (1 GPa = 0.0062415 eV/Å^3)"
        )
    if stress.shape == (3, 3) and (skew := np.abs(stress - stress.T).max()) > 0.01 * size + 1e-5:
        raise ValueError(
            f"{where}: stress is not symmetric, entries differ by {skew:g} eV/Å^3; give xx xy xz yx yy yz zx zy zz"
        )
    if size == 0 and use_virial(frame) and np.any(found["forces"]):
        raise ValueError(
            f"{where}: stress is exactly 0 though forces are not, as if it had never been computed; remove it, or set "
            "use_virial=F"
        )


def _numbers(values, what: str, where: str) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {what} hold what is no number; drop the frame or relabel it") from None


def _named_like(part: str, names) -> str:
    """What a label that is missing may be called instead, for an error message."""
    found = [name for name in names if part in name.lower()]
    return f" (there is `{found[0]}`)" if found else ""


def _check_per_atom(values, what: str, remedy: str, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        value = values[bad[0]][~np.isfinite(values[bad[0]])][0]
        raise ValueError(f"{where}: {what} atom {bad[0]} is {value}; {remedy}")
