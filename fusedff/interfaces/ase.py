"""A potential, or a committee of them, as an ASE calculator."""

import warnings
from collections.abc import Sequence

import numpy as np
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes

from fusedff.interfaces.evaluator import Evaluator, force_spread
from fusedff.potential import Potential
from fusedff.runtime import devices


class FusedCalculator(Calculator):
    """Energy, forces and stress of any ASE structure, periodic or not, and `energies`, the shares of the atoms.

    Single precision resolves forces to 1e-4 eV/Å; with JAX_ENABLE_X64=1 in the environment before jax is imported, all
    is in double precision. Threads may share a calculator. Stress needs a cell with a volume; where it is open along a
    vector, the length of that vector counts as in ASE.

    With a committee (potentials from trainings with different seeds or frames) these are the means, and `results` also
    contains the standard deviations over the members, component by component: `energy_std` (eV), `forces_std`
    (n_atoms, 3) in eV/Å and `stress_std` (6,) in eV/Å^3; and `forces_comm` (n_members, n_atoms, 3), the forces of every
    member. The spread is large where the training data do not determine the potential; it does not contain errors that
    all members share. With `warn_above` (eV/Å), a warning is given once if the spread of the force on an atom
    (`evaluator.force_spread`) exceeds it; it raises ValueError for a single potential.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(self, potentials: Potential | Sequence[Potential], warn_above: float | None = None):
        super().__init__()
        self._evaluate, self._limit = Evaluator(potentials), warn_above
        if len(self.members) > 1:
            spread = [f"{name}_std" for name in ("energy", "forces", "stress")]
            self.implemented_properties = [*self.implemented_properties, *spread, "forces_comm"]
        elif warn_above is not None:
            raise ValueError(f"warn_above = {warn_above:g}, but one potential has no spread; give two or more")

    def __repr__(self):
        return f"FusedCalculator({self.members[0] if len(self.members) == 1 else list(self.members)})"

    @property
    def members(self) -> tuple[Potential, ...]:
        """The potentials of the committee, or the single one."""
        return self._evaluate.members

    def get_property(self, name, atoms=None, allow_calculation=True):
        """Property of ASE's interface, by one thread at a time. Raises RuntimeError in a process forked after jax."""
        devices.require_unforked()
        with self._evaluate.lock:  # so that `results` belong to these atoms
            return super().get_property(name, atoms, allow_calculation)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill `results`, as ASE's interface requires.

        Raises PropertyNotImplementedError for the stress of a structure whose cell has no volume, and ValueError
        without a structure and like `Evaluator`.
        """
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms  # those of the last call, if none are given
        if atoms is None:
            raise ValueError("no structure is given; set atoms.calc, and call atoms.get_potential_energy()")
        if {"stress", "stress_std"} & set(properties) and atoms.cell.rank < 3:
            raise PropertyNotImplementedError("stress needs a cell with a volume; give three vectors (atoms.center)")
        found = self._evaluate.per_member(atoms)
        energy, forces, stress, energies = (np.array(values, float) for values in zip(*found, strict=True))
        every = {"energy": energy[:, 0], "forces": forces, "stress": stress[:, 0]}
        if atoms.cell.rank < 3:
            del every["stress"]
        self.results = {name: values.mean(0) for name, values in every.items()}
        self.results["energies"] = energies.mean(0)
        self.results["energy"] = self.results["free_energy"] = float(self.results["energy"])
        if len(found) > 1:
            self.results |= {f"{name}_std": values.std(0, ddof=1) for name, values in every.items()}
            self.results |= {"energy_std": float(self.results["energy_std"]), "forces_comm": forces}
            self._mention_spread(forces)

    def _mention_spread(self, forces):
        if self._limit is None or (spread := force_spread(forces)).max() <= self._limit:
            return
        atom, limit, self._limit = int(spread.argmax()), self._limit, None
        warnings.warn(
            f"the committee disagrees: the force on atom {atom} has a standard deviation of {spread[atom]:.3g} eV/Å, "
            f"more than {limit:g} eV/Å; label configurations like this one and train again (said once)",
            stacklevel=5,
        )
