"""The periodic cells of a simulation: state points, replicas and strains side by side, all with the same atoms."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from fusedff.data.validation import frame_checks
from fusedff.geometry import systems

MAX_ATOMS = 10_000_000  # of all cells together


def require_affordable(n_cells: int, n_atoms: int) -> None:
    """Raise ValueError for more cells of `n_atoms` atoms each than memory holds."""
    if n_cells * n_atoms > MAX_ATOMS:
        raise ValueError(
            f"{n_cells} cells of {n_atoms} atoms are more than {MAX_ATOMS} atoms in all; take fewer of them"
        )


class Springs(NamedTuple):
    """Springs between atoms and their sites: cells have the energy coupling U + (1 - coupling) sum k/2 |r - site|^2."""

    coupling: jax.Array  # (n_cells,) share of the potential U: 1 is the crystal, 0 an Einstein crystal
    stiffness: jax.Array  # (n_cells, n) k in eV/Å^2


class SimulationCells(NamedTuple):
    """The cells to simulate, all with the same atoms."""

    sites: jax.Array  # (n_cells, n, 3) Å, positions to start from
    lattice: jax.Array  # (n_cells, 3, 3) Å, rows are lattice vectors
    temperature: jax.Array  # (n_cells,) K
    noise_id: jax.Array  # (n_cells,) int32; cells with the same number share their random numbers
    numbers: jax.Array  # (n,) atomic numbers
    masses: jax.Array  # (n_cells, n) amu
    springs: Springs | None = None

    @property
    def n_cells(self) -> int:
        return self.lattice.shape[0]

    @property
    def volumes(self) -> np.ndarray:
        """Cell volumes (n_cells,), Å^3, in double precision (outside jit)."""
        return np.abs(np.linalg.det(np.asarray(self.lattice, float)))

    @property
    def spacing(self) -> np.ndarray:
        """About the distance between neighbours, the cube root of the volume per atom: (n_cells,), Å (outside jit)."""
        return np.cbrt(self.volumes / len(self.numbers))

    def subset(self, which: slice) -> "SimulationCells":
        """Some of the cells."""
        return self._replace(
            sites=self.sites[which], lattice=self.lattice[which], temperature=self.temperature[which],
            noise_id=self.noise_id[which], masses=self.masses[which],
            springs=jax.tree.map(lambda x: x[which], self.springs),
        )  # fmt: skip

    def system(self, positions: jax.Array) -> systems.System:
        """The cells with the given positions (n_cells, n, 3)."""
        return systems.stack(positions, self.lattice, self.numbers)


def replicate(
    frames: Sequence[Atoms], temperatures: Sequence[float], replicas: int = 1, dtype=jnp.float32
) -> SimulationCells:
    """`replicas` independent copies of every frame at its temperature (K), the copies of a frame side by side.

    Masses are those of the frame (isotopes set with `set_masses`, else the standard ones of the elements).
    Raises TypeError for anything but a list of `ase.Atoms`, and ValueError unless there is one positive temperature per
    frame and all frames are periodic cells with the same atoms, two or more, in the same order, none on top of another,
    with positive masses.
    """
    for n, frame in enumerate(frames):
        if not isinstance(frame, Atoms):
            raise TypeError(f"frame {n} is {frame!r}; give a list of ase.Atoms, of a Crystal crystals.supercell")
    if not frames or len(frames) != len(temperatures):
        raise ValueError(f"{len(frames)} frames and {len(temperatures)} temperatures; give one temperature per frame")
    for n, (frame, temperature) in enumerate(zip(frames, temperatures, strict=True)):
        frame_checks.check_geometry(frame, f"frame {n}")
        if len(frame) < 2:
            raise ValueError(f"frame {n} has 1 atom, which cannot move against others; repeat the cell")
        if not temperature > 0:
            raise ValueError(f"frame {n}: temperature is {temperature:g} K, but must be positive; give Kelvin")
        if not np.array_equal(frame.numbers, frames[0].numbers):
            raise ValueError(f"frame {n} holds other atoms than frame 0; simulate different compositions apart")
        if len(bad := np.flatnonzero(~((masses := frame.get_masses()) > 0) | ~np.isfinite(masses))):
            raise ValueError(f"frame {n}: mass of atom {bad[0]} is {masses[bad[0]]:g}; give positive masses in amu")
    require_affordable(len(frames) * replicas, len(frames[0]))
    return SimulationCells(
        jnp.asarray(np.repeat([systems.wrapped(frame).positions for frame in frames], replicas, 0), dtype),
        jnp.asarray(np.repeat([frame.cell.array for frame in frames], replicas, 0), dtype),
        jnp.asarray(np.repeat(temperatures, replicas), dtype),
        jnp.arange(len(frames) * replicas, dtype=jnp.int32),
        jnp.asarray(frames[0].numbers, jnp.int32),
        jnp.asarray(np.repeat([frame.get_masses() for frame in frames], replicas, 0), dtype),
    )


PER_CELL = SimulationCells(
    sites=0, lattice=0, temperature=0, noise_id=0, numbers=None, masses=0, springs=0
)  # which axis counts cells
