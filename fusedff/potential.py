"""Potentials (force fields): energy, forces, stress and elastic stiffness from a model, its parameters and species.

Total energies of all electrons are thousands of eV per atom, which single precision resolves to a few meV only. So
compiled functions compute binding energies, relative to the reference energies of the atoms; `Potential.total` adds
these in double precision.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from fusedff.data import FILES
from fusedff.geometry.coverage import Coverage
from fusedff.geometry.neighbors import Neighbors, displacements, swap_direction
from fusedff.geometry.systems import System
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.network.repulsion import kept_apart, repulsion
from fusedff.runtime import devices, storage
from fusedff.units import strain_from_voigt, to_voigt


def require_potential(potential) -> None:
    """Raise TypeError for an object that is not a `Potential`."""
    if not isinstance(potential, Potential):
        raise TypeError(f"{potential!r} is no potential; give one, as fusedff.load returns it")


class Model(Protocol):
    """Interface of a model: a cut-off, and per-atom energies as a function of arrays.

    `init` returns random parameters. `atomic_energies` returns energies (n_atoms,), in units of `Potential.scale`, from
    the vectors to the neighbours (n_atoms, capacity, 3) in Å and the indices (n_atoms,) of the species.
    """

    repulsive: bool  # whether its own energies rise when atoms nearly touch
    cutoff: float  # Å, of pairs

    @property
    def interaction_range(self) -> float: ...  # Å, distance up to which the energy of an atom depends on other atoms

    def init(self, key: jax.Array, n_species: int) -> Any: ...

    def atomic_energies(self, params, displacements, neighbors: Neighbors, species) -> jax.Array: ...


class Evaluation(NamedTuple):
    """Energy (n_cells,) eV, forces (n_atoms, 3) eV/Å, stress (n_cells, 6) eV/Å^3 in ASE's sign and order.

    `energies` (n_atoms,) eV are the shares of the atoms in `energy`. All are binding energies, until reference energies
    are added (`total`).
    """

    energy: jax.Array
    forces: jax.Array
    stress: jax.Array
    energies: jax.Array


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["params"],
    meta_fields=["model", "numbers", "reference", "scale", "repulsion", "source"],
    drop_fields=["coverage"],  # compiled code does not depend on it
)
@dataclass(frozen=True, eq=False)
class Potential:
    """A model, its parameters, and what gives energies in eV: E_i = reference[species] + scale * model_i + ZBL_i.

    `energies` and `evaluate` leave out the first term, for which single precision would not suffice; `total` adds it.
    The last term, the short-range repulsion of the nuclei (`network.repulsion`), is present if `repulsion` is true.
    `source` names the DFT calculation that the reference energies belong to; every source has its own zero of energy.
    `coverage` is the range of the training frames; inside compiled functions it is None.
    """

    params: Any = field(repr=False)
    model: Model
    numbers: tuple[int, ...]  # atomic numbers of its species (elements), ascending
    reference: tuple[float, ...]  # eV per atom, in the order of `numbers`
    scale: float = 1.0  # eV
    repulsion: bool = False
    source: str = ""
    coverage: Coverage | None = None

    @property
    def cutoff(self) -> float:
        """Cut-off of pairs, Å."""
        return self.model.cutoff

    @property
    def interaction_range(self) -> float:
        """Distance (Å) up to which the energy of an atom depends on other atoms."""
        return self.model.interaction_range

    def with_params(self, params) -> "Potential":
        """The same potential with other parameters."""
        return replace(self, params=params)

    @classmethod
    def create(
        cls, key: jax.Array, model: Model, reference: dict[str, float], scale: float = 1.0, source: str = ""
    ) -> "Potential":
        """A potential with random parameters for the species in `reference` (chemical symbol -> eV per atom).

        `scale` is in eV. `source` names the calculation that `reference` belongs to; it is needed for training on
        frames of several sources. A model that is not `repulsive` gets the short-range repulsion. Raises ValueError for
        an unknown symbol, no species, an energy that is not finite and a scale that is not positive.
        """
        if unknown := [symbol for symbol in reference if symbol not in chemical_symbols[1:]]:
            raise ValueError(f"chemical symbol {unknown[0]!r} of a reference energy is unknown; write it like 'Ti'")
        if not reference or not np.isfinite([*reference.values(), scale]).all() or scale <= 0:
            raise ValueError(
                f"reference energies {reference} eV and scale {scale} eV; give a finite energy for each element, e.g. "
                "of datasets.fit_reference_energies, and a positive scale"
            )
        energy_of = {atomic_numbers[symbol]: float(energy) for symbol, energy in reference.items()}
        numbers = tuple(sorted(energy_of))
        energies = tuple(energy_of[z] for z in numbers)
        return cls(model.init(key, len(numbers)), model, numbers, energies, float(scale), not model.repulsive, source)

    def require_species(self, numbers, where: str = "") -> None:
        """Raise ValueError if `numbers` holds an element that is none of the potential's species (call it outside jit).

        `where` begins the message.
        """
        unknown = sorted(set(np.asarray(numbers).tolist()) - set(self.numbers))
        if unknown:
            known = ", ".join(chemical_symbols[z] for z in self.numbers)
            raise ValueError(
                f"{where}the potential knows {known} but not {', '.join(chemical_symbols[z] for z in unknown)}; "
                "train one on frames that contain every element"
            )

    def reference_energies(self, numbers) -> np.ndarray:
        """Reference energies (n_atoms,) of atoms with `numbers` (n_atoms,), eV, in double precision (outside jit).

        Raises ValueError for an element that the potential does not know.
        """
        self.require_species(numbers)
        return np.asarray(self.reference, float)[np.searchsorted(self.numbers, np.asarray(numbers))]

    def reference_energy(self, numbers) -> float:
        """Sum of `reference_energies`, eV."""
        return float(np.sum(self.reference_energies(numbers)))

    def total(self, binding, frames: Sequence[Atoms]) -> np.ndarray:
        """Total energies (n_frames,) in eV, in double precision, from binding energies (n_frames,) in eV."""
        return np.asarray(binding, float) + [self.reference_energy(frame.numbers) for frame in frames]

    def atomic_energies(self, vectors: jax.Array, neighbors: Neighbors, numbers: jax.Array) -> jax.Array:
        """Binding energies (n_atoms,), eV, from vectors to neighbours (n_atoms, capacity, 3), Å, and atomic numbers."""
        species = jnp.searchsorted(jnp.asarray(self.numbers), numbers)
        seen = kept_apart(vectors, neighbors, numbers) if self.repulsion else vectors
        energies = self.scale * self.model.atomic_energies(self.params, seen, neighbors, species)
        return energies + repulsion(vectors, neighbors, numbers) if self.repulsion else energies

    def energies(self, system: System, neighbors: Neighbors) -> jax.Array:
        """Binding energy of every cell (n_cells,), eV."""
        vectors = displacements(system, neighbors)
        return system.per_cell(self.atomic_energies(vectors, neighbors, system.numbers))

    def evaluate(self, system: System, neighbors: Neighbors, own: jax.Array | None = None) -> Evaluation:
        """Binding energy, forces and stress of every cell, from one gradient with respect to the displacement vectors.

        Every pair has a vector in the list of each of its atoms, so the force on an atom follows from its own slots and
        their reverse slots, without a scatter. With `own` (n_atoms,) bool, the energy is the sum over these atoms only,
        and forces and stress are its derivatives; the results of the parts of a cell add up to that of the cell.
        """
        vectors = displacements(system, neighbors)

        def summed(vectors):
            per_atom = self.atomic_energies(vectors, neighbors, system.numbers)
            per_atom = per_atom if own is None else jnp.where(own, per_atom, 0)
            return jnp.sum(per_atom), per_atom

        gradient, per_atom = jax.grad(summed, has_aux=True)(vectors)
        forces = jnp.sum(gradient, 1) - jnp.sum(swap_direction(gradient, neighbors.reverse), 1)
        virial = system.per_cell(jnp.einsum("abx,aby->axy", vectors, gradient))
        return Evaluation(system.per_cell(per_atom), forces, to_voigt(virial) / system.volumes[:, None], per_atom)

    def strained_energies(self, system: System, neighbors: Neighbors, strain: jax.Array) -> jax.Array:
        """Binding energy (n_cells,), eV, after a small Lagrangian strain (n_cells, 6), Voigt with engineering shear.

        For a strain eta the deformation is sqrt(1 + 2 eta), expanded to second order, so that first and second
        derivatives at zero strain are exact.
        """
        eta = strain_from_voigt(strain)
        stretch = eta - eta @ eta / 2
        vectors = displacements(system, neighbors)
        vectors = vectors + jnp.einsum("abx,axy->aby", vectors, system.per_atom(stretch))
        return system.per_cell(self.atomic_energies(vectors, neighbors, system.numbers))

    def born(self, system: System, neighbors: Neighbors) -> tuple[jax.Array, jax.Array]:
        """Born stress (n_cells, 6) and stiffness (n_cells, 6, 6), eV/Å^3: (1/V) dU/d eta and (1/V) d2U/d eta d eta.

        eta is the Lagrangian strain; all atoms move with the cell (Born & Huang, Dynamical Theory of Crystal Lattices
        (1954)). The gradient is linearized once, and its derivative taken in six Voigt directions.
        """
        zero = jnp.zeros((system.n_cells, 6), system.positions.dtype)
        gradient = jax.grad(lambda strain: jnp.sum(self.strained_energies(system, neighbors, strain)))
        stress, derivative = jax.linearize(gradient, zero)
        directions = jnp.eye(6, dtype=zero.dtype)
        stiffness = jax.lax.map(lambda direction: derivative(jnp.broadcast_to(direction, zero.shape)), directions)
        volumes = system.volumes[:, None]
        return stress / volumes, jnp.moveaxis(stiffness, 0, 1) / volumes[..., None]

    def save(self, path: str | Path, **about) -> None:
        """Write parameters and architecture to one safetensors file, with any JSON-able metadata `about`.

        Raises OSError if it cannot be written.
        """
        config = {
            "model": type(self.model).__name__,
            "settings": asdict(self.model),
            "numbers": self.numbers,
            "reference": self.reference,
            "scale": self.scale,
            "repulsion": self.repulsion,
            "source": self.source,
            "coverage": self.coverage,
        }
        storage.write_tree(path, self.params, {"format": _FORMAT, "potential": config, "about": about})

    @classmethod
    def load(cls, path: str | Path) -> "Potential":
        """Load the potential in a file that `save` wrote, or one that ships with fusedff, e.g. 'titanium-fused'.

        Raises FileNotFoundError, storage.DamagedFileError for a file that is not a potential or was damaged, or
        ValueError if JAX_PLATFORMS names a device that does not exist.
        """
        devices.require_platform()
        shipped = {file.stem: file for file in FILES.glob("*.safetensors")}
        path = shipped.get(str(path), Path(path))
        if not path.exists():
            known = ", ".join(sorted(shipped))
            raise FileNotFoundError(f"{path} is neither a file nor a potential that ships with fusedff ({known})")
        metadata = storage.read_metadata(path)
        if metadata.get("format") != _FORMAT:
            raise storage.DamagedFileError(f"{path} is not a fusedff potential; give a file written by Potential.save")
        try:
            config = metadata["potential"]
            potential = cls(
                params=None,
                model=_MODELS[config["model"]](**config["settings"]),
                numbers=tuple(config["numbers"]),
                reference=tuple(config["reference"]),
                scale=config["scale"],
                repulsion=bool(config.get("repulsion", False)),  # older files have neither this nor a source
                source=str(config.get("source", "")),
                coverage=Coverage(*config["coverage"]) if config.get("coverage") else None,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise storage.DamagedFileError(
                f"{path} describes a model that fusedff does not know ({error}); train it again"
            ) from error
        _require_description(path, potential.numbers, potential.reference, potential.scale)
        template = jax.eval_shape(lambda: potential.model.init(jax.random.PRNGKey(0), len(potential.numbers)))
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), template)
        return potential.with_params(storage.read_tree(path, template)[0])


def load_committee(name: str) -> tuple[Potential, ...]:
    """Load a potential that ships with fusedff, e.g. 'titanium-fused', and those of its training with other seeds.

    They are a committee for `FusedCalculator`. Raises FileNotFoundError for a name that does not ship.
    """
    others = sorted(FILES.glob(f"{name}-seed*.safetensors"))
    return (Potential.load(name), *map(Potential.load, others))


_MODELS = {model.__name__: model for model in (DimeNet, LennardJones)}
_FORMAT = "fusedff potential 1"


def _require_description(path, numbers, reference, scale):
    """Raise DamagedFileError unless there is one finite reference energy per species and a positive scale."""
    finite = np.isfinite([*reference, scale]).all()
    if not numbers or len(reference) != len(numbers) or not finite or scale <= 0:
        raise storage.DamagedFileError(
            f"{path} describes species {list(numbers)} with reference energies {list(reference)} eV and scale {scale} "
            "eV; restore it or train again"
        )
