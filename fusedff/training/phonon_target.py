"""Measured phonons at the zone centre as targets: harmonic frequencies of the potential in a cell of the measured size.

The dynamical matrix at Gamma is the mass-weighted second derivative of the energy of the cell with respect to its
atoms, each of which moves with all its images: D = M^-1/2 (d2U/du du) M^-1/2. It needs no trajectory and has no noise;
its gradient with respect to the parameters is exact (the Hellmann-Feynman theorem: d(e D e) = e dD e for a normalized
eigenvector e).

Neglected: the shift of the frequency by thermal motion at constant volume (explicit anharmonicity) and the zero-point
motion; the thermal expansion is in the measured cell. Long-range electric fields, which split LO from TO in ionic
crystals, are left out as in `properties.static.zone_center`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.crystallography import crystals
from fusedff.data.validation import frame_checks
from fusedff.geometry import neighbors, systems
from fusedff.units import THZ


@dataclass(frozen=True, eq=False)
class Mode:
    """One vibrational mode of a cell and its measured frequency in THz; deviations count in units of `stderr`.

    `which` is either an index, from 0, of the frequencies in ascending order without the three translations, or the
    displacements (n_atoms, 3) of the atoms in the mode, of any length: e.g. [[1, 0, 0], [-1, 0, 0]] for E2g of hcp and
    [[0, 0, 1], [0, 0, -1]] for B1g. Displacements are the safer choice, since the order of the frequencies may change
    in training. Of a mixture of modes the root of the mean squared frequency, weighted with their shares, is taken.
    """

    name: str  # in the history
    measured: float  # THz
    which: int | Sequence[Sequence[float]]
    stderr: float = 0.1  # THz


@dataclass(frozen=True, eq=False)
class PhononTarget:
    """Frequencies of optical modes of a crystal: mean squared deviations in units of standard errors, times a weight.

    `frame` is the primitive cell of measured size. A supercell of it has more modes, some of which belong to the zone
    boundary of the primitive cell. Atoms are at the sites of the frame, which are not relaxed. Raises ValueError for a
    frame that is no periodic cell or has one atom, for modes that it does not have and frequencies that are not
    positive.
    """

    frame: Atoms
    modes: Sequence[Mode]
    weight: float = 1.0

    def __post_init__(self):
        frame_checks.check_geometry(self.frame, "cell of the phonons")
        n = len(self.frame)
        if n == 1:
            raise ValueError("the cell of the phonons has 1 atom and so no optical modes; repeat it")
        if not self.weight > 0:
            raise ValueError(f"weight of the phonons is {self.weight:g}; give a positive number, or leave them out")
        if not self.modes:
            raise ValueError("no modes; give at least one with its measured frequency")
        for mode in self.modes:
            for what, value in (("frequency", mode.measured), ("standard error", mode.stderr)):
                if not (np.isfinite(value) and value > 0):
                    raise ValueError(f"mode {mode.name}: {what} {value:g}; give a positive number in THz")
            if isinstance(mode.which, int):
                if not 0 <= mode.which < 3 * n - 3:
                    raise ValueError(f"mode {mode.name}: index {mode.which} of {3 * n - 3}; give 0 to {3 * n - 4}")
            elif np.shape(mode.which) != (n, 3) or np.linalg.norm(_direction(self.frame, mode)) < 1e-6:
                raise ValueError(
                    f"mode {mode.name}: displacements {np.asarray(mode.which).tolist()} are no vibration of {n} atoms; "
                    f"give ({n}, 3) that are no common shift"
                )

    def observe(self, potential) -> jax.Array:
        """Frequencies (n_modes,) in THz, negative for unstable ones."""
        matrix = dynamical_matrix(potential, self.frame)
        vectors = []
        for mode in self.modes:
            if isinstance(mode.which, int):
                relative = _without_translations(self.frame)
                inner = jax.lax.stop_gradient(relative.T @ matrix @ relative)
                vectors.append(relative @ jnp.linalg.eigh(inner)[1][:, mode.which])
            else:
                direction = _direction(self.frame, mode)
                vectors.append(jnp.asarray(direction / np.linalg.norm(direction), matrix.dtype))
        square = jnp.stack([vector @ matrix @ vector for vector in vectors])
        some = jnp.where(square == 0, 1, square)  # a root has no derivative at 0, where a new potential is
        return jnp.where(square == 0, 0, jnp.sign(some) * jnp.sqrt(jnp.abs(some))) / THZ

    def residuals(self, values) -> jax.Array:
        """Weighted deviations of frequencies (n_modes,) from the measured ones."""
        measured, stderr = (np.array([getattr(mode, key) for mode in self.modes]) for key in ("measured", "stderr"))
        return (self.weight / len(self.modes)) ** 0.5 * (values - measured) / stderr

    def report(self, values) -> dict:
        """THz, e.g. E2g_THz."""
        return {f"{mode.name}_THz": value for mode, value in zip(self.modes, np.asarray(values), strict=True)}


def dynamical_matrix(potential, frame: Atoms) -> jax.Array:
    """D (3 n_atoms, 3 n_atoms) of a cell at Gamma, eV/Å^2/amu, by forward over reverse differentiation.

    Raises ValueError for an element that the potential does not know.
    """
    potential.require_species(frame.numbers, "cell of the phonons: ")
    system, near = systems.from_atoms(frame), neighbors.from_frames(frame, potential.cutoff)
    near = jax.tree.map(jnp.asarray, near)

    def forces(positions):
        return potential.evaluate(system._replace(positions=positions), near).forces

    _, derivative = jax.linearize(forces, system.positions)
    directions = jnp.eye(3 * len(frame), dtype=system.positions.dtype).reshape(-1, len(frame), 3)
    hessian = -jax.lax.map(lambda direction: derivative(direction).ravel(), directions)
    roots = np.repeat(np.sqrt(frame.get_masses()), 3)
    return (hessian + hessian.T) / 2 / np.outer(roots, roots).astype(hessian.dtype)


def _without_translations(frame):
    """`crystals.relative_displacements` in jax's precision."""
    return crystals.relative_displacements(frame.get_masses()).astype(jnp.zeros(()).dtype)


def _direction(frame, mode):
    """The displacements of a mode, mass-weighted (3 n,), without what moves the centre of mass."""
    roots = np.repeat(np.sqrt(frame.get_masses()), 3)
    relative = _without_translations(frame).astype(float)
    return relative @ (relative.T @ (roots * np.ravel(np.asarray(mode.which, float))))
