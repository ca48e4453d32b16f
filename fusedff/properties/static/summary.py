"""Properties of a crystal at 0 K from one call: cell, energy-volume curve, elastic constants, optical phonons.

For any ASE calculator. Values from the literature (`measurements.references`) or from a table of measurements are added
where there are some. Most of them were measured at room temperature, so that they differ from those of 0 K.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import ase.data
from ase.calculators.calculator import PropertyNotImplementedError

from fusedff.crystallography import crystals, elastic_symmetry
from fusedff.crystallography.crystals import Crystal
from fusedff.measurements import references
from fusedff.measurements.state_points import StatePoint
from fusedff.properties.static import elastic, energy_volume, relax, zone_center
from fusedff.properties.static.relax import DEFAULT, NotRelaxedError, RelaxationConfig

PHASES = ("hcp", "bcc", "fcc")
_UNITS = {"a": "Å", "b": "Å", "c": "Å", "alpha": "degrees", "beta": "degrees", "gamma": "degrees"}
_OPTICAL_OF_HCP = {2: "phonon_E2g", 1: "phonon_B1g"}  # by how many modes have the frequency


@dataclass(frozen=True)
class Entry:
    """One number: its name as in `measurements.references`, unit, value, digits to show, and literature values."""

    quantity: str
    unit: str
    value: float
    digits: int
    references: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {"unit": self.unit, "value": self.value, "references": list(self.references)}


@dataclass(frozen=True)
class Summary:
    """Properties of a crystal at 0 K."""

    crystal: Crystal  # relaxed
    entries: tuple[Entry, ...]
    stable: bool  # whether every small strain costs energy
    left_out: dict[str, str] = field(default_factory=dict)  # what could not be computed, and why

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return {
            "crystal": str(self.crystal),
            "symmetry": crystals.symmetry(self.crystal),
            "parameters": self.crystal.parameters,
            "properties": {entry.quantity: entry.as_dict() for entry in self.entries},
            "elastically_stable": self.stable,
            "left_out": self.left_out,
        }

    def table(self) -> str:
        """The numbers as text, one row each."""
        lines = [f"{self.crystal.structure} {self.crystal.symbol}, {crystals.symmetry(self.crystal)}, at rest (0 K)"]
        for e in self.entries:
            row = f"  {e.quantity:<22} {e.value:>12.{e.digits}f} {e.unit:<9} {'; '.join(e.references)}"
            lines.append(row.rstrip())
        if not self.stable:
            lines.append("  elastically unstable: some small strain lowers the energy")
        lines += [f"  {what}: left out, {why}" for what, why in self.left_out.items()]
        return "\n".join(lines)


def start(symbol: str, structure: str) -> Crystal:
    """A crystal of one of `crystals.STRUCTURES` to relax, with a volume estimated from its elements."""
    numbers = crystals.prototype(symbol, structure, 20.0).numbers
    guess = crystals.prototype(symbol, structure, sum(map(_volume, numbers)) / len(numbers))
    a, _, c, *_ = guess.cell.cellpar()
    return Crystal(symbol, structure, a, c if structure == "hcp" else None)


def run(
    crystal: Crystal,
    calculator,
    phases: Sequence[str] | None = None,
    measured: Sequence[StatePoint] = (),
    relaxation: RelaxationConfig = DEFAULT,
) -> Summary:
    """Relax a crystal of any Laue class and compute its properties at 0 K.

    `phases` are other structures (of `crystals.STRUCTURES`, or omega) whose energies relative to the crystal are
    computed, by default hcp, bcc and fcc for an element in one of them (`crystals.named`); one that cannot be relaxed
    is left out. Of the `measured` points of the same crystal the coldest is given as a reference. Raises
    NotRelaxedError, and ValueError for a calculator without stress or an element that it does not know.
    """
    crystal = crystals.named(crystal)
    try:
        rest = relax.equilibrium(crystal, calculator, relaxation)
    except PropertyNotImplementedError as error:
        raise ValueError(f"this calculator has no stress ({error}), without which no cell can be relaxed") from error
    except NotImplementedError as error:  # how EMT says that it does not know an element
        raise ValueError(f"this calculator cannot do {crystal.symbol} ({error}); take another one") from error
    cell, symmetry = crystals.unit_cell(rest), crystals.symmetry(rest)
    name = str(rest.structure)
    curve = energy_volume.run({name: cell}, calculator, relaxation=relaxation).curves[name]
    found = elastic.run(cell, calculator, symmetry, relaxation=relaxation)
    clamped = elastic_symmetry.reduce_stiffness(found.clamped_gpa, symmetry)
    entries = [Entry(name, _UNITS[name], value, 4) for name, value in rest.parameters.items()]
    entries += [
        Entry("volume", "Å^3/atom", curve.volume, 3),
        Entry("energy", "eV/atom", curve.energy, 4),
        Entry("bulk_modulus", "GPa", curve.bulk_modulus_gpa, 1),
        Entry("bulk_modulus_slope", "GPa/GPa", curve.bulk_modulus_slope, 2),
        *(Entry(name, "GPa", value, 1) for name, value in found.constants_gpa.items()),
        *(Entry(f"{name}_clamped", "GPa", float(value), 1) for name, value in clamped.items()),
    ]
    if phases is None:
        phases = PHASES if name in PHASES else ()
    above, left_out = _energies_above(rest, curve, phases, calculator, relaxation)
    entries += [*above, *_optical_phonons(name, cell, calculator)]
    known = _known(rest.symbol, name, measured)
    entries = [replace(entry, references=tuple(known[entry.quantity])) for entry in entries]
    return Summary(rest, tuple(entries), found.stable, left_out)


def _energies_above(crystal, curve, phases, calculator, relaxation) -> tuple[list[Entry], dict[str, str]]:
    """Energies of other phases above that of the crystal, and which of them are left out, with the reason."""
    name, entries, left_out = str(crystal.structure), [], {}
    for phase in phases:
        if phase == name:
            continue
        cell = crystals.prototype(crystal.symbol, phase, curve.volume)
        try:
            energy = energy_volume.run({phase: cell}, calculator, relaxation=relaxation).curves[phase].energy
            entries.append(Entry(f"{phase}_energy_above_{name}", "meV/atom", 1e3 * (energy - curve.energy), 1))
        except NotRelaxedError as error:
            left_out[f"energy of {phase}"] = str(error)
    return entries, left_out


def _optical_phonons(name, cell, calculator) -> list[Entry]:
    """Frequencies at the zone centre; those of hcp have names."""
    modes, entries = zone_center.modes(zone_center.optical(cell, calculator)), []
    for n, (frequency, count) in enumerate(modes):
        called = _OPTICAL_OF_HCP[count] if name == "hcp" and len(modes) == 2 else f"phonon_gamma_{n + 1} (x{count})"
        entries.append(Entry(called, "THz", frequency, 2))
    return entries


def _volume(number) -> float:
    """Å^3 of an atom in the element's own crystal, where ASE has one of a simple structure, else from its radius."""
    state = ase.data.reference_states[number] or {}
    per_atom = {"fcc": 1 / 4, "bcc": 1 / 2, "diamond": 1 / 8}.get(state.get("symmetry"))
    if per_atom:
        return per_atom * state["a"] ** 3
    if state.get("symmetry") == "hcp":
        return 3**0.5 / 4 * state["c/a"] * state["a"] ** 3
    return 5.7 * ase.data.covalent_radii[number] ** 3  # close-packed spheres


def _known(symbol, phase, measured) -> dict[str, list[str]]:
    """Quantity -> what is known of it: `measured` values, else packaged ones, of the coldest state; all of DFT."""
    experiments, others = defaultdict(list), defaultdict(list)
    for r in references.load():
        above = r.quantity == f"energy_above_{phase}"
        if r.material != symbol or not (r.phase == phase or above):
            continue
        quantity = f"{r.phase}_{r.quantity}" if above else r.quantity
        doubt = "" if r.confirmed else " (unconfirmed)"
        if r.kind == "experiment":
            experiments[quantity].append((r.temperature or 0.0, f"measured {r.value:g}{doubt}"))
        else:
            others[quantity].append(f"DFT {r.value:g}{doubt}")
    given = defaultdict(list)
    for point in measured:
        for name, value in (point.elastic_gpa | point.crystal.parameters).items():
            given[name].append((point.temperature, f"measured {value:.5g}"))
    experiments |= given
    for quantity, found in experiments.items():
        temperature, text = min(found)
        others[quantity].insert(0, f"{text} at {temperature:g} K")
    return others
