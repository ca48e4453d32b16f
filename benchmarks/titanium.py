"""Test problems: displaced cells of hcp titanium, and a network of the paper's size with random weights."""

import ase
import jax
import numpy as np
from ase.neighborlist import neighbor_list

from benchmarks.case import SNAPSHOTS, Case
from benchmarks.mapping import to_chemtrain
from fusedff.crystallography import crystals
from fusedff.geometry import neighbors, systems
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential

CRYSTAL = crystals.Crystal("Ti", "hcp", 2.95, 4.686)
REPEATS = {54: (3, 3, 3), 96: (4, 4, 3), 150: (5, 5, 3)}
DISPLACEMENT = 0.1  # Å, standard deviation of every coordinate
FORCE = 0.02  # eV/Å, root mean square: so small that in dynamics the crystal stays a crystal despite random weights


def network(model: DimeNet | None = None, seed: int = 0) -> Potential:
    """An untrained network (default: DimeNet()) with random biases and output weights, which `init` sets to zero."""
    start = Potential.create(jax.random.PRNGKey(seed), model or DimeNet(), {"Ti": 0.0})
    generator = np.random.default_rng(seed)

    def shake(path, x):
        if path[0].key.endswith("_final") or path[-1].key == "b":
            return generator.normal(0, 0.1, x.shape).astype(np.float32)
        return np.asarray(x)

    return start.with_params(jax.tree_util.tree_map_with_path(shake, start.params))


def frames(repeats, n: int, seed: int = 0) -> list[ase.Atoms]:
    """`n` copies of the supercell with random displacements."""
    generator = np.random.default_rng(seed)
    copies = [crystals.supercell(CRYSTAL, repeats) for _ in range(n)]
    for atoms in copies:
        atoms.positions += generator.normal(0, DISPLACEMENT, (len(atoms), 3))
    return copies


def counts(frames: list[ase.Atoms], cutoff: float) -> dict[str, int]:
    """Largest numbers of neighbours of an atom, and of edges and triplets of a snapshot."""
    degree = np.stack([np.bincount(neighbor_list("i", atoms, cutoff), minlength=len(atoms)) for atoms in frames])
    return {
        "neighbors": degree.max(),
        "edges": degree.sum(1).max(),
        "triplets": (degree * (degree - 1)).sum(1).max(),
    }


def make(n_atoms: int) -> Case:
    """The problem for cells of `n_atoms` atoms, one of `REPEATS`."""
    atoms = frames(REPEATS[n_atoms], SNAPSHOTS)
    potential = with_forces(network(), atoms[0])
    generator = np.random.default_rng(1)
    return Case(
        positions=np.stack([a.positions for a in atoms]),
        cell=atoms[0].cell.array,
        energy=generator.normal(0, 1, len(atoms)),
        forces=generator.normal(0, FORCE, (len(atoms), n_atoms, 3)),
        stress=generator.normal(0, 0.01, (len(atoms), 6)),
        **counts(atoms, potential.cutoff),
        params=potential.params,
        peer_params=to_chemtrain(potential.params, potential.model),
    )


def with_forces(potential: Potential, atoms: ase.Atoms) -> Potential:
    """The potential with its last weights scaled so that the root mean square force is `FORCE`."""
    near = neighbors.from_frames(atoms, potential.cutoff)
    forces = jax.jit(Potential.evaluate)(potential, systems.from_atoms(atoms), near).forces
    scale = np.float32(FORCE / np.sqrt(np.mean(np.asarray(forces) ** 2)))
    params = {
        module: {leaf: scale * x if module.endswith("_final") else x for leaf, x in leaves.items()}
        for module, leaves in potential.params.items()
    }
    return potential.with_params(params)
