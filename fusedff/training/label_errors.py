"""Errors of a potential on labelled frames: of each frame, of each family, and of all together."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from fusedff.data import labelled_frames
from fusedff.data.batching import FrameStore
from fusedff.data.labelled_frames import Labels
from fusedff.interfaces import calculators
from fusedff.potential import Potential, require_potential
from fusedff.units import GPA

ATOMS_AT_ONCE = 4096  # in a batch of predictions
SMALL = 1e-3  # eV per atom: larger deviations count by their size in a fit of zeros, smaller ones by their square


def store_of(potential: Potential, frames: Sequence[Atoms], offset_of: Sequence | None = None) -> FrameStore:
    """The frames as a `FrameStore` whose energies count from the reference energies of `potential`.

    `offset_of` are the (source, atomic number) that have a fitted zero of energy; by default all of the frames that are
    of another source than the potential. Raises ValueError for elements that the potential does not know, for frames of
    several sources if it does not name its own, and for a source without a zero.
    """
    require_potential(potential)
    for n, frame in enumerate(frames):
        if not isinstance(frame, Atoms):
            raise TypeError(f"frame {n} is {frame!r}; give labelled ase.Atoms, as datasets.load_frames reads them")
        potential.require_species(frame.numbers, f"frame {n}: ")
    sources = list(dict.fromkeys(map(labelled_frames.source, frames)))
    if len(sources) > 1 and not potential.source:
        raise ValueError(
            f"frames of {len(sources)} sources ({', '.join(map(repr, sources))}) have different zeros of energy; say "
            "whose the potential has: Potential.create(..., source=...)"
        )
    store = FrameStore(frames, potential.cutoff, potential.source, offset_of)
    known = {source for source, _ in store.offset_of} | {potential.source}
    if potential.source and (unknown := [source for source in sources if source not in known]):
        raise ValueError(
            f"frames of source {unknown[0]!r} are held out, but none of it are learned from, so that its zero of "
            "energy is unknown; share out its frames by `splits.split`"
        )
    store.energy -= [potential.reference_energy(frame.numbers) for frame in frames]  # in double precision
    return store


def predict(potential: Potential, store: FrameStore) -> list[Labels]:
    """Predictions for every frame of a store; energies are relative to the reference energies, as in the store."""
    n_batches = min(-(-int(store.sizes.sum()) // ATOMS_AT_ONCE), len(store.frames))
    batches = store.balanced(np.arange(len(store.frames)), n_batches)
    n_frames, n_atoms = max(map(len, batches)), max(int(store.sizes[batch].sum()) for batch in batches)
    found = {}
    for indices in batches:
        batch = store.batch(indices, n_frames, n_atoms)
        energy, forces, stress = map(np.asarray, _evaluate(potential, batch.system, batch.neighbors))
        ends = np.cumsum(store.sizes[indices])
        for place, (n, end) in enumerate(zip(indices.tolist(), ends, strict=True)):
            found[n] = Labels(float(energy[place]), forces[end - store.sizes[n] : end], stress[place])
    return [found[n] for n in range(len(store.frames))]


@jax.jit
def _evaluate(potential, system, near):
    found = potential.evaluate(system, near)
    return found.energy, found.forces, found.stress


def predict_frames(potential: Potential, frames: Sequence[Atoms]) -> tuple[FrameStore, list[Labels]]:
    """The frames as a store, whose zeros of other sources are fitted to the predictions, and these predictions."""
    store = store_of(potential, frames)
    found = predict(potential, store)
    fit_zeros(store, found)
    return store, found


def fit_zeros(store: FrameStore, found: Sequence[Labels]) -> np.ndarray:
    """Zeros of energy (n_offsets,) of the other sources, eV per atom; they are subtracted from the store's energies.

    They are fitted to the labels minus the predictions `found` per atom, so that a potential that is already trained
    need not change. Without other sources `found` may be empty.
    """
    zeros = np.zeros(len(store.offset_of))
    if len(zeros):
        predicted = np.array([one.energy for one in found])
        other = store.offset_counts.any(1)  # those of the potential's own source have its zero
        zeros = _zeros(*(x[other] for x in (store.offset_counts, store.energy - predicted, store.sizes, store.weight)))
        store.energy -= store.offset_counts @ zeros
    return zeros


def with_zero_of(potential: Potential, frames: Sequence[Atoms]) -> Potential:
    """The potential with energies that count from the zero of another source, which labelled `frames`.

    Forces and stresses stay as they are. The reference energies are fitted to the labels like other zeros
    (`fit_zeros`). Raises ValueError for frames of several sources, and if an element of the potential is missing in
    them.
    """
    sources = list(dict.fromkeys(map(labelled_frames.source, frames)))
    if len(sources) != 1:
        raise ValueError(f"frames of {len(sources)} sources {sources}; give labelled frames of one")
    if sources[0] == potential.source:
        return potential
    if missing := set(potential.numbers) - {int(z) for frame in frames for z in frame.numbers}:
        names = ", ".join(chemical_symbols[z] for z in sorted(missing))
        raise ValueError(
            f"no frame of {sources[0]!r} has {names}, whose reference energy is asked for; add such frames"
        )
    store = store_of(potential, frames, [(sources[0], z) for z in potential.numbers])
    shift = fit_zeros(store, predict(potential, store))
    reference = tuple((np.asarray(potential.reference) + shift).tolist())
    return replace(potential, reference=reference, source=sources[0])


def _zeros(counts, deviation, sizes, weight) -> np.ndarray:
    """Energies per atom (n_zeros,) whose sums over `counts` (n_frames, n_zeros) fit deviations (n_frames,) best.

    The mean of the absolute deviations per atom, each with its weight, is the least; below `SMALL` squares count
    instead (Huber, Ann. Math. Stat. 35, 73 (1964)). In a fit of all squares, one frame that is eV off, say of two
    atoms that collide, would shift all others. By iteratively reweighted least squares; of many solutions that of
    minimum norm.
    """
    weight = np.maximum(weight, 1e-9)  # a source that does not count in the training has a zero all the same
    rows, off = counts / sizes[:, None], deviation / sizes
    zeros, scale = np.zeros(counts.shape[1]), weight**0.5
    for _ in range(100):
        before, zeros = zeros, np.linalg.lstsq(scale[:, None] * rows, scale * off, rcond=None)[0]
        if np.allclose(zeros, before, rtol=0, atol=SMALL / 1000):
            break
        scale = (weight / np.maximum(np.abs(off - rows @ zeros), SMALL)) ** 0.5
    return zeros


class FrameErrors(NamedTuple):
    """Predictions minus labels of each frame (n_frames,): eV/atom, eV/Å, eV/Å^3; nan where there is no stress label."""

    energy: np.ndarray  # with its sign
    force_absolute: np.ndarray  # means over components
    force_squared: np.ndarray
    stress_absolute: np.ndarray
    stress_squared: np.ndarray


def compare(found: Sequence[Labels], known: Sequence[Labels]) -> FrameErrors:
    """Errors of each frame."""
    rows = []
    for one, label in zip(found, known, strict=True):
        force, stress = one.forces - label.forces, one.stress - label.stress  # nan where one has no stress
        means = [np.mean(f(x)) for x in (force, stress) for f in (np.abs, np.square)]
        rows.append([(one.energy - label.energy) / len(force), *means])
    return FrameErrors(*np.array(rows).T)


def frame_errors(potential: Potential, store: FrameStore) -> FrameErrors:
    """Errors of each frame of a store."""
    return compare(predict(potential, store), store.labels())


def errors(potential: Potential, frames: Sequence[Atoms]) -> dict[str, float | None]:
    """Mean absolute and root mean square errors on labelled frames: meV/atom, meV/Å and GPa.

    None for stress if no frame has a stress label. Energies of other sources than the potential's own count from a zero
    that is fitted to these frames. Raises ValueError without frames.
    """
    return errors_and_families(potential, frames)[0]


def errors_of_calculator(calculator, frames: Sequence[Atoms]) -> dict[str, float | None]:
    """`errors` of any ASE calculator, after a fit of its zero of energy per source and element to these frames.

    Stresses count where the frames have them as labels and the calculator can compute them. Raises ValueError without
    frames.
    """
    if not len(frames):
        raise ValueError("no frames to test on: give at least one labelled frame")
    known = [labelled_frames.labels(frame) for frame in frames]
    found = [calculators.compute_labels(calculator, frame) for frame in frames]
    sizes, errors = np.array([len(frame) for frame in frames]), compare(found, known)
    pairs = sorted({(labelled_frames.source(frame), int(z)) for frame in frames for z in frame.numbers})
    counts = labelled_frames.count_atoms(frames, pairs)
    zeros = _zeros(counts, errors.energy * sizes, sizes, np.ones(len(frames)))
    return _summary(errors._replace(energy=errors.energy - counts @ zeros / sizes), sizes)


def errors_by_family(potential: Potential, frames: Sequence[Atoms]) -> list[dict]:
    """`errors` of all frames of each source (family "all"), and of each of its families.

    Every row also has source, family and n_frames. Raises ValueError without frames.
    """
    return errors_and_families(potential, frames)[1]


def errors_and_families(potential: Potential, frames: Sequence[Atoms]) -> tuple[dict[str, float | None], list[dict]]:
    """`errors` and `errors_by_family` from one evaluation of the frames."""
    if not len(frames):
        raise ValueError("no frames to test on: give at least one labelled frame; a small split may have none")
    store, predictions = predict_frames(potential, frames)
    found, sizes = compare(predictions, store.labels()), store.sizes
    source, family = np.array([(labelled_frames.source(f), labelled_frames.family(f)) for f in frames]).T
    rows = []
    for s in dict.fromkeys(source.tolist()):
        families = [(f, (source == s) & (family == f)) for f in dict.fromkeys(family[source == s])]
        for name, members in [("all", source == s), *families]:
            summary = _summary(FrameErrors(*(values[members] for values in found)), sizes[members])
            rows.append({"source": s, "family": str(name), "n_frames": int(members.sum())} | summary)
    return _summary(found, sizes), rows


def _summary(found: FrameErrors, sizes) -> dict[str, float | None]:
    def force(values):
        return float(np.sum(sizes * values) / np.sum(sizes))

    stressed = np.isfinite(found.stress_squared).any()
    return {
        "energy_mae_meV_per_atom": float(1e3 * np.mean(np.abs(found.energy))),
        "energy_rmse_meV_per_atom": float(1e3 * np.sqrt(np.mean(found.energy**2))),
        "force_mae_meV_per_A": 1e3 * force(found.force_absolute),
        "force_rmse_meV_per_A": 1e3 * force(found.force_squared) ** 0.5,
        "stress_mae_GPa": float(np.nanmean(found.stress_absolute) / GPA) if stressed else None,
        "stress_rmse_GPa": float(np.nanmean(found.stress_squared) ** 0.5 / GPA) if stressed else None,
    }
