"""Errors of a potential on labelled frames: of each frame, of each family, and of all together."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.data import frames as labelled
from fusedff.data.batching import FrameStore
from fusedff.interfaces import calculators
from fusedff.potential import Potential
from fusedff.units import GPA


def store_of(potential: Potential, frames: Sequence[Atoms], offset_of: Sequence | None = None) -> FrameStore:
    """The frames as a `FrameStore` whose energies count from the reference energies of `potential`.

    `offset_of` are the (source, atomic number) that have a fitted zero of energy; by default all of the frames that are
    of another source than the potential. Raises ValueError for elements that the potential does not know, for frames of
    several sources if it does not name its own, and for a source without a zero.
    """
    for n, frame in enumerate(frames):
        potential.require_species(frame.numbers, f"frame {n}: ")
    sources = list(dict.fromkeys(map(labelled.source, frames)))
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


def fit_zeros(potential: Potential, store: FrameStore) -> np.ndarray:
    """Zeros of energy (n_offsets,) of the other sources, eV per atom; they are subtracted from the store's energies.

    They are a least-squares fit to the labels minus the predictions per atom, so that a potential that is already
    trained need not change. A first fit is to the labels alone: large energies would lose digits in the single
    precision in which predictions are compared with them.
    """
    fractions = store.offsets / store.sizes[:, None]
    weights = store.weight**0.5
    zeros = np.zeros(len(store.offset_of))
    for left in (lambda: store.energy / store.sizes, lambda: -frame_errors(potential, store).energy):
        if len(zeros):
            other = fractions.any(1)
            wanted = (weights * left())[other]
            more, *_ = np.linalg.lstsq(weights[other, None] * fractions[other], wanted, rcond=None)
            store.energy -= store.offsets @ more
            zeros += more
    return zeros


class FrameErrors(NamedTuple):
    """Predictions minus labels of each frame (n_frames,): eV/atom, eV/Å, eV/Å^3; nan where there is no stress label."""

    energy: np.ndarray  # with its sign
    force_absolute: np.ndarray  # means over components
    force_squared: np.ndarray
    stress_absolute: np.ndarray
    stress_squared: np.ndarray


ATOMS_AT_ONCE = 4096  # in a batch


def frame_errors(potential: Potential, store: FrameStore) -> FrameErrors:
    """Errors of each frame of a store."""
    n_batches = min(-(-int(store.sizes.sum()) // ATOMS_AT_ONCE), len(store.frames))
    batches = store.balanced(np.arange(len(store.frames)), n_batches)
    n_frames, n_atoms = max(map(len, batches)), max(int(store.sizes[batch].sum()) for batch in batches)
    found = FrameErrors(*np.full((len(FrameErrors._fields), len(store.frames)), np.nan))
    for indices in batches:
        of_batch = _frame_errors(potential, store.batch(indices, n_frames, n_atoms))
        for whole, part in zip(found, of_batch, strict=True):
            whole[indices] = np.asarray(part)[: len(indices)]
    unlabelled = store.has_virial == 0
    found.stress_absolute[unlabelled] = found.stress_squared[unlabelled] = np.nan
    return found


@jax.jit
def _frame_errors(potential, batch):
    predicted, labels = potential.evaluate(batch.system, batch.neighbors), batch.labels
    atoms, index = jnp.maximum(labels.atoms, 1), batch.system.cell_index
    force, stress = predicted.forces - labels.forces, predicted.stress - labels.stress

    def per_component(values):
        return jax.ops.segment_sum(jnp.sum(values, 1), index, len(atoms)) / (3 * atoms)

    return (
        (predicted.energy - labels.energy) / atoms,
        per_component(jnp.abs(force)), per_component(force**2),
        jnp.mean(jnp.abs(stress), 1), jnp.mean(stress**2, 1),
    )  # fmt: skip


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
    sizes = np.array([len(frame) for frame in frames])
    found = FrameErrors(*np.full((len(FrameErrors._fields), len(frames)), np.nan))
    for n, frame in enumerate(frames):
        label, said = labelled.labels(frame), calculators.labels(calculator, frame)
        force, stress = said.forces - label.forces, said.stress - label.stress  # nan where one has no stress
        found.energy[n] = (said.energy - label.energy) / len(frame)
        found.force_absolute[n], found.force_squared[n] = np.mean(np.abs(force)), np.mean(force**2)
        found.stress_absolute[n], found.stress_squared[n] = np.mean(np.abs(stress)), np.mean(stress**2)
    pairs = sorted({(labelled.source(frame), int(z)) for frame in frames for z in frame.numbers})
    counts = [[np.mean(f.numbers == z) * (labelled.source(f) == source) for source, z in pairs] for f in frames]
    counts = np.array(counts)
    zeros, *_ = np.linalg.lstsq(counts, found.energy, rcond=None)
    return _summary(found._replace(energy=found.energy - counts @ zeros), sizes)


def errors_by_family(potential: Potential, frames: Sequence[Atoms]) -> list[dict]:
    """`errors` of all frames of each source (family "all"), and of each of its families.

    Every row also has source, family and n_frames. Raises ValueError without frames.
    """
    return errors_and_families(potential, frames)[1]


def errors_and_families(potential: Potential, frames: Sequence[Atoms]) -> tuple[dict[str, float | None], list[dict]]:
    """`errors` and `errors_by_family` from one evaluation of the frames."""
    if not len(frames):
        raise ValueError("no frames to test on: give at least one labelled frame; a small split may have none")
    store = store_of(potential, frames)
    fit_zeros(potential, store)
    found, sizes = frame_errors(potential, store), store.sizes
    source, family = np.array([(labelled.source(f), labelled.family(f)) for f in frames]).T
    rows = []
    for s in dict.fromkeys(source.tolist()):
        chosen = {"all": source == s} | {f: (source == s) & (family == f) for f in dict.fromkeys(family[source == s])}
        for name, members in chosen.items():
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
