"""Which measurement would tell most about the others? Linear Bayesian design of experiments at the fused model.

To first order, a change d of the parameters changes a quantity q by g_q d. Let M be the metric of the training's
Gauss-Newton steps, large where the DFT labels determine the parameters (`training.gauss_newton`). With M^-1 as the
covariance of what the labels leave open, cov(q, m) = g_q M^-1 g_m^T, of which conditioning on the measured constants
removes a part. An exact measurement of m then removes the share cov(q, m)^2 / (var(q) var(m)) of the variance of q
(K. Chaloner and I. Verdinelli, Statist. Sci. 10, 273 (1995)). The share needs neither units nor the size of any error.

Of quantities at a minimum of the energy, the derivative is that at fixed positions. Some minutes on two cores.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jax.flatten_util import ravel_pytree

from benchmarks import record
from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.geometry import neighbors, systems
from fusedff.interfaces.ase import FusedCalculator
from fusedff.potential import Potential
from fusedff.properties.static import defects, relax
from fusedff.runtime import storage
from fusedff.study import comparison, presets
from fusedff.study.presets import HOURS, Preset
from fusedff.training import gauss_newton
from fusedff.training.force_matching import ForceMatchingTrainer
from fusedff.training.phonon_target import Mode, PhononTarget

ROWS = 1024  # of the sketch of the labels
PHASES = {"bcc": Crystal("Ti", "bcc", 3.25), "fcc": Crystal("Ti", "fcc", 4.10)}
KNOWN_TO = 1e-6  # the measured constants are exact up to this share of the median of their variances
Quantity = Callable[[Potential], jax.Array]  # to one number or several


def run(into: Path, preset: Preset = HOURS, rows: int = ROWS) -> Iterator[dict]:
    """Yield {"digest", "data", "settings", "names", "without labels", "with labels"}; the last two as `shares` says."""
    potential, split = Potential.load("titanium-fused"), comparison.frames(preset)
    asked = {
        "digest": storage.digest(potential.params), "data": comparison.data_version(preset, split),
        "settings": {"rows": rows, "dft": presets.as_dict(preset.dft)},
    }  # fmt: skip
    found = record.load_if_same("next_measurement", asked, into)
    if not found:
        wanted = quantities(potential)
        gradients = np.concatenate([jacobian(potential, quantity) for quantity in wanted.values()])
        cells = [crystals.unit_cell(point.crystal) for point in comparison.targets(preset)]
        constants = jacobian(potential, constants_at_rest(potential, cells))
        trainer = ForceMatchingTrainer(preset.dft, potential, split.train)
        labels = trainer.gauss_newton_sketch(potential.params, 0, rows)
        found = asked | {"names": list(wanted)}
        for title, sketch in (("without labels", labels[:0]), ("with labels", labels)):
            found[title] = shares(gradients, constants, sketch)
    yield found


def quantities(potential: Potential) -> dict[str, Quantity]:
    """Quantities that were not trained on: energies of phases and defects of hcp titanium, and its optical phonons."""
    model = FusedCalculator(potential)
    rest = relax.equilibrium(Crystal("Ti", "hcp", 2.94, 4.65), model)
    hcp = crystals.unit_cell(rest)
    phases = {name: crystals.unit_cell(relax.equilibrium(crystal, model)) for name, crystal in PHASES.items()}
    phases["omega"] = relax.relax_crystal(crystals.prototype("Ti", "omega", 17.3), model)
    structures = {f"{name} above hcp": atoms for name, atoms in phases.items()}
    structures["vacancy"] = defects.vacancy(rest, model).relaxed
    structures |= {f"surface {f}": defects.surface(rest, f, model).relaxed for f in ("0001", "10-10")}
    structures |= {f"{f} fault": defects.stacking_fault(rest, f, model).relaxed for f in ("basal", "prismatic")}
    found = {
        name: _energy([atoms, hcp], [1.0, -len(atoms) / len(hcp)], potential.cutoff)
        for name, atoms in structures.items()
    }
    for name, moved in {"E2g": [[1, 0, 0], [-1, 0, 0]], "B1g": [[0, 0, 1], [0, 0, -1]]}.items():
        found[name] = PhononTarget(hcp, (Mode(name, 1.0, moved),)).observe
    return found


def _energy(frames: Sequence[Atoms], coefficients: Sequence[float], cutoff: float) -> Quantity:
    """The sum of energies times coefficients."""
    system = systems.from_atoms(frames)
    near = jax.tree.map(jnp.asarray, neighbors.from_frames(frames, cutoff))
    return lambda potential: jnp.asarray(coefficients) @ potential.energies(system, near)


def constants_at_rest(potential: Potential, cells: Sequence[Atoms]) -> Quantity:
    """Elastic constants with relaxed ions, and stresses, of hexagonal cells at 0 K: (7 n_cells,), GPa but for a factor.

    They stand for those at the temperatures at which the cells were measured. The relaxed stiffness is the Schur
    complement of the second derivatives of the energy with respect to strain and positions (all but the first atom).
    """
    system, n_atoms = systems.from_atoms(cells), len(cells[0])
    near = jax.tree.map(jnp.asarray, neighbors.from_frames(cells, potential.cutoff))
    n = 6 + 3 * (n_atoms - 1)
    names = elastic_symmetry.elastic_names("hexagonal")
    places = np.array([(int(name[1]) - 1, int(name[2]) - 1) for name in names]).T

    def found(potential):
        def energies(changes):  # (n_cells, n)
            moved = jnp.pad(changes[:, 6:].reshape(len(cells), n_atoms - 1, 3), ((0, 0), (1, 0), (0, 0)))
            shifted = system._replace(positions=system.positions + moved.reshape(-1, 3))
            return potential.strained_energies(shifted, near, changes[:, :6])

        gradient, derivative = jax.linearize(jax.grad(lambda x: energies(x).sum()), jnp.zeros((len(cells), n)))
        hessian = jax.lax.map(lambda row: derivative(jnp.broadcast_to(row, (len(cells), n))), jnp.eye(n))
        strain, mixed, ions = (jnp.moveaxis(hessian, 0, 1)[:, a, b] for a, b in _BLOCKS)
        relaxed = strain - mixed @ jnp.linalg.solve(ions, jnp.swapaxes(mixed, 1, 2))
        return jnp.concatenate([relaxed[:, *places], gradient[:, [0, 2]]], 1).ravel()

    return found


_BLOCKS = ((slice(6), slice(6)), (slice(6), slice(6, None)), (slice(6, None), slice(6, None)))


def jacobian(potential: Potential, quantity: Quantity) -> np.ndarray:
    """Derivatives of a quantity, one or several numbers, with respect to the parameters: (n, n_params)."""

    def rows(params):
        value, pull = jax.vjp(lambda params: jnp.atleast_1d(quantity(potential.with_params(params))).ravel(), params)
        return jax.lax.map(lambda one: ravel_pytree(pull(one)[0])[0], jnp.eye(len(value), dtype=value.dtype))

    return np.asarray(jax.jit(rows)(potential.params), float)


def shares(gradients: np.ndarray, known: np.ndarray, labels: np.ndarray) -> dict:
    """What is left of each variance after the `known` quantities, and the share of it that each further one removes.

    Gradients (m, n), derivatives of known quantities (k, n) and sketch of the labels (rows, n), which may have no rows.
    Returns {"left": (m,), "removed": (m, m)}, from 0 to 1.
    """
    both = np.concatenate([gradients, known])
    covariance = gauss_newton.precondition(both, labels) @ both.T
    m = len(gradients)
    of_known = covariance[m:, m:] + KNOWN_TO * np.median(np.diag(covariance)[m:]) * np.eye(len(known))
    after = covariance[:m, :m] - covariance[:m, m:] @ np.linalg.solve(of_known, covariance[m:, :m])
    variances = np.diag(after)
    removed = after**2 / np.outer(variances, variances)
    return {"left": (variances / np.diag(covariance)[:m]).tolist(), "removed": removed.tolist()}


def text(found: dict, about: dict) -> str:
    """Report in Markdown: two tables in per cent."""
    tables = []
    for title in ("without labels", "with labels"):
        rows = [
            [name, *(f"{100 * x:.0f}" for x in row)]
            for name, row in zip(found["names"], found[title]["removed"], strict=True)
        ]
        left = ["(left by elastic constants and stresses)", *(f"{100 * x:.0f}" for x in found[title]["left"])]
        tables.append(f"## {title.capitalize()}\n\n{record.table(['%', *found['names']], [*rows, left])}")
    settings = found["settings"]
    return f"""# Which measurement would tell most about the others?

{record.describe(about)} Derivatives at the fused model that ships;
{settings["rows"]} random combinations of the labels stand for all of them. Data: {found["data"]}.

An exact measurement of the quantity of a column removes so many per cent of the variance that the elastic constants
and stresses (at rest, in the four measured cells) leave in the quantity of a row.

{(chr(10) * 2).join(tables)}
"""
