"""Checks that a labelled frame can be used for training: atoms, cell, labels and their units."""

import ase
import numpy as np
from ase.constraints import FixAtoms, FixCartesian

from fusedff.data import labelled_frames
from fusedff.data.labelled_frames import calculator_results, has_declared_units, is_large, named_like
from fusedff.data.validation import unit_checks
from fusedff.geometry import neighbors
from fusedff.geometry.systems import heights

MAX_FORCE = 200.0  # eV/Å
MAX_ENERGY = 1e6  # eV per atom; all-electron total energies of the heaviest elements stay below
MAX_LENGTH = 1e4  # Å, of cell vectors: the number of images to search grows with length over height


def check_frame(frame: ase.Atoms, where="frame") -> None:
    """Raise ValueError, naming `where`, value and remedy, unless a frame can be used for training.

    Errors are: no atoms; an unknown element; a cell that is flat, left-handed or not periodic; nan or inf; missing
    energy or forces; forces of the wrong shape; atoms closer than 0.5 Å, images included, or moved since they were
    labelled; forces that a constraint has set to 0; a stress or virial under another name; a stress that is not
    symmetric. `unit_checks.ImplausibleDataError`, a ValueError, is raised, unless the frame `has_declared_units`, for
    magnitudes that another unit would explain (|F| > 200 eV/Å, a stress that `is_large`, |energy| > 1e6 eV per atom),
    and for a stress that is 0 where forces are not.
    """
    check_geometry(frame, where)
    check_labels(frame, where)


def check_geometry(frame: ase.Atoms, where="frame") -> None:
    """Check atoms and cell as `check_frame` does."""
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
    if (height := heights(frame.cell.array).min()) < neighbors.MIN_HEIGHT or frame.cell.lengths().max() > MAX_LENGTH:
        raise ValueError(
            f"{where}: cell vectors are up to {frame.cell.lengths().max():.3g} Å long, opposite faces {height:.3g} Å "
            "apart; give lengths in Å, and vectors that are not almost parallel"
        )
    if volume < 0:
        raise ValueError(f"{where}: the cell is left-handed (volume {volume:.3f} Å^3); exchange two cell vectors")
    first, second, distance = neighbors.pairs("ijd", frame, neighbors.MIN_DISTANCE, f"{where}: ")
    if len(distance):
        k = distance.argmin()
        remedy = "give lengths in Å"
        if unit_checks.looks_transposed(frame):
            remedy = "the cell looks transposed: give lattice vectors as rows"
        elif unit := unit_checks.length_unit(unit_checks.closest(frame)[1], frame.numbers):
            remedy = f"lengths look {unit}"
        raise ValueError(
            f"{where}: atoms {first[k]} and {second[k]} (or their images) are {distance[k]:.3f} Å apart; {remedy}, "
            "or drop the frame"
        )


def check_labels(frame: ase.Atoms, where="frame") -> None:
    """Check energy, forces and stress as `check_frame` does."""
    _check_energy_and_forces(frame, calculator_results(frame), where)
    _check_stress(frame, calculator_results(frame), where)
    _check_unmoved(frame, where)


def _check_unmoved(frame, where) -> None:
    """Raise ValueError unless the atoms are those of the calculator, up to shifts by periods of the cell."""
    seen = getattr(frame.calc, "atoms", None)
    if seen is None:
        return
    same = len(seen) == len(frame) and (seen.numbers == frame.numbers).all()
    if same and np.allclose(seen.cell.array, frame.cell.array, atol=1e-6):
        cell = frame.cell.complete()
        moved = cell.scaled_positions(frame.positions - seen.positions)
        same = np.abs((moved - np.rint(moved) * frame.pbc) @ cell.array).max() < 1e-4
    else:
        same = False
    if not same:
        raise ValueError(f"{where}: atoms or cell were changed since they were labelled; label the frame again")


def _raise_unless_declared(frame, message: str) -> None:
    if not has_declared_units(frame):
        raise unit_checks.ImplausibleDataError(message)


def _check_energy_and_forces(frame, found, where) -> None:
    energy = labelled_frames.energy_of(frame)
    if energy is None:
        other = _mentioned(named_like("energ", frame.info))
        raise ValueError(f"{where}: energy is missing{other}; write it as `energy=` (eV), or drop the frame")
    if not isinstance(energy, (int, float, np.integer, np.floating)):
        said = repr(getattr(energy, "tolist", lambda: energy)())[:60]
        raise ValueError(
            f"{where}: energy is {said}, not a number; write it as `energy=` (eV, with a decimal point), or drop the "
            "frame"
        )
    if not np.isfinite(energy):
        raise ValueError(f"{where}: energy is {energy}; drop the frame or relabel it")
    if abs(energy) > MAX_ENERGY * len(frame):
        _raise_unless_declared(frame, f"{where}: energy is {energy / len(frame):g} eV per atom; convert it to eV")
    forces = found.get("forces")
    if forces is None:
        other = _mentioned(named_like("force", frame.arrays))
        raise ValueError(f"{where}: forces are missing{other}; write them as `forces` (eV/Å), or drop the frame")
    forces = _numbers(forces, "forces", where)
    if forces.shape != (len(frame), 3):
        raise ValueError(f"{where}: forces have shape {forces.shape} for {len(frame)} atoms; relabel it")
    _check_per_atom(forces, "force on", "drop the frame or relabel it", where)
    _check_unconstrained(frame, forces, where)
    worst = np.linalg.norm(forces, axis=1).argmax()
    if (size := np.linalg.norm(forces[worst])) > MAX_FORCE:
        _raise_unless_declared(
            frame,
            f"{where}: force on atom {worst} is {size:g} eV/Å; convert it to eV/Å if it is in another unit "
            "(1 eV/Å = 964.85 kJ/mol/nm), else drop the frame",
        )


def _check_unconstrained(frame, forces, where) -> None:
    """Raise ValueError if exactly those components of forces are 0 that constraints would set to 0."""
    free = np.ones((len(frame), 3))
    for constraint in frame.constraints:
        if isinstance(constraint, (FixAtoms, FixCartesian)):
            constraint.adjust_forces(frame, free)
    if not free.all() and forces.any() and not forces[free == 0].any():
        raise ValueError(
            f"{where}: forces on the fixed atoms are exactly 0, as `get_forces` gives them; label the frame with "
            "get_forces(apply_constraint=False), or remove the constraint if they are right"
        )


def _check_stress(frame, found, where) -> None:
    try:
        wanted = labelled_frames.wants_virial(frame)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    stress = found.get("stress")
    if stress is None:
        if wanted and (other := _stress_like(frame)):
            form = "`stress=`" if "stress" in other.lower() else "stress = -virial / volume"
            raise ValueError(
                f"{where}: has `{other}` but no stress; write {form} (eV/Å^3, positive in tension), set use_virial=F, "
                "or remove it"
            )
        return
    stress = _numbers(stress, "stress", where)
    if stress.shape not in ((6,), (3, 3)):
        raise ValueError(f"{where}: stress has shape {stress.shape}; give 6 (xx yy zz yz xz xy) or 3 x 3")
    if not np.isfinite(stress).all():
        raise ValueError(f"{where}: stress is {stress.tolist()}; remove it, drop the frame or relabel it")
    size = np.abs(stress).max()
    if is_large(stress, frame.cell.volume / len(frame)):
        _raise_unless_declared(
            frame,
            f"{where}: stress of {size:g} eV/Å^3 looks like GPa or kbar; convert it (1 GPa = 0.0062415 eV/Å^3)",
        )
    if stress.shape == (3, 3) and (skew := labelled_frames.skewness(stress)):
        raise ValueError(
            f"{where}: stress is not symmetric, entries differ by {skew:g} eV/Å^3; give xx xy xz yx yy yz zx zy zz"
        )
    if size == 0 and wanted and np.any(found["forces"]):
        _raise_unless_declared(
            frame,
            f"{where}: stress is exactly 0 though forces are not, as if it had never been computed; remove it, or set "
            "use_virial=F",
        )


def _stress_like(frame) -> str | None:
    """Name of an entry that looks like a stress or virial of the cell: 6 or 9 numbers, not called `stress`."""
    for key, value in {**frame.info, **calculator_results(frame)}.items():
        named = key != "stress" and ("stress" in key.lower() or "virial" in key.lower())
        if named and np.shape(value) in ((6,), (9,), (3, 3)):
            return key
    return None


def _numbers(values, what: str, where: str) -> np.ndarray:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {what} hold something that is not a number; drop the frame or relabel it") from None


def _mentioned(other: str | None) -> str:
    return f" (there is `{other}`)" if other else ""


def _check_per_atom(values, what: str, remedy: str, where: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        value = values[bad[0]][~np.isfinite(values[bad[0]])][0]
        raise ValueError(f"{where}: {what} atom {bad[0]} is {value}; {remedy}")
