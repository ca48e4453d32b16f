"""Measurements by name: the sections `[[targets]]` of a settings file, beside the constants of its table.

Each section has a `kind`, one of `KINDS`, whose fields are its settings. A kind that needs a simulation has its own
state: temperature, cell and density (`SimulatedState`).
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols

from fusedff.commands import sections
from fusedff.crystallography import crystals
from fusedff.data.validation import frame_checks
from fusedff.measurements import curves
from fusedff.measurements.state_points import StatePoint
from fusedff.potential import Potential
from fusedff.properties.static import zone_center
from fusedff.properties.thermal.config import SolidConfig
from fusedff.runtime import limits
from fusedff.simulation import distributions, langevin
from fusedff.simulation.cells import SimulationCells, replicate
from fusedff.simulation.sampling import sample
from fusedff.simulation.statistics import entry, jackknife
from fusedff.training.config import SamplingConfig
from fusedff.training.phonon_target import Mode, PhononTarget
from fusedff.training.targets import HeatCapacityTarget, PressureTarget, RadialTarget, StaticTarget, Target
from fusedff.training.terms import Simulated
from fusedff.units import G_CM3, GPA, MAX_DENSITY

RADII = {"r_A": 1.0, "r_nm": 10.0}  # Å


@dataclass(frozen=True, eq=False)
class NamedTarget:
    """A measurement by name. The target reports one number, which is to be `measured`."""

    name: str
    target: Target | StaticTarget
    measured: float
    unit: str
    text: str  # the rest of what `fusedff check` says
    sampling: Mapping = field(default_factory=dict)  # what differs from the settings of other simulations
    key: str | None = None  # in the history, if it is not the name

    @property
    def cells(self) -> SimulationCells | None:
        """The cells to simulate; None for a target that needs no simulation."""
        return getattr(self.target, "cells", None)

    def in_training(self, potential: Potential, sampling: SamplingConfig) -> Target | StaticTarget | Simulated:
        """The target for a training that begins with `potential` and samples as `sampling` says."""
        if self.cells is None:
            return self.target
        return Simulated(self.for_potential(potential), sections.changed(sampling, self.sampling, self.name), self.name)

    def for_potential(self, potential: Potential):
        """The target for simulations with `potential`."""
        return self.target.from_rest(potential) if isinstance(self.target, HeatCapacityTarget) else self.target

    def last(self, history: Sequence[Mapping]) -> float:
        """The number before the last update of a training."""
        return history[-1][self.key or self.name]


class Context(NamedTuple):
    """What a section may refer to."""

    folder: Path  # of the settings file
    points: Sequence[StatePoint]
    repeats: Sequence[int]  # of the crystal in simulations
    sampling: SamplingConfig


@dataclass(frozen=True, kw_only=True)
class Phonon:
    """A mode at the zone centre, harmonic, in the cell measured nearest to `temperature_K`.

    The mode is given by either `index`, among the optical frequencies in ascending order, or `displacements` of the
    atoms of the conventional cell (`crystals.unit_cell`), the same for atoms that are equal by a translation of the
    lattice; see `phonon_target.Mode`.
    """

    kind: ClassVar = "phonon"
    name: str
    frequency_THz: float
    temperature_K: float
    stderr_THz: float = 0.1
    weight: float = 1.0
    displacements: list | None = None
    index: int | None = None

    def __post_init__(self):
        limits.require(self, positive=["weight"], not_negative=["temperature_K"])
        if (self.displacements is None) == (self.index is None):
            raise ValueError(f"which mode is {self.name}? Give either displacements or index")
        for row in self.displacements or ():
            if (
                not isinstance(row, list)
                or len(row) != 3
                or not all(isinstance(x, (int, float)) and isfinite(x) for x in row)
            ):
                raise ValueError(f"displacements = {self.displacements}; give a list of three numbers for each atom")

    def as_target(self, context: Context) -> NamedTarget:
        """The frequency as a target."""
        point = _nearest(context.points, self.temperature_K)
        cell = crystals.unit_cell(point.crystal)
        primitive = zone_center.primitive_cell(cell)
        if len(primitive) == 1:
            raise ValueError(
                f"{point.crystal.structure} {point.crystal.symbol} has one atom in its primitive cell and so no "
                f"optical modes; leave out {self.name}"
            )
        frame, which = (cell, self.displacements) if self.index is None else (primitive, self.index)
        mode = Mode(self.name, self.frequency_THz, which, self.stderr_THz)
        target = PhononTarget(frame, (mode,), self.weight)
        if self.displacements is not None:
            _require_zone_centre(self.displacements, cell)
        text = (
            f"{self.frequency_THz:g} ± {self.stderr_THz:g} THz, at 0 K in the cell measured at {point.temperature:g} K"
        )
        (key,) = target.report(np.zeros(1))
        return NamedTarget(self.name, target, self.frequency_THz, "THz", text, key=key)


@dataclass(frozen=True, kw_only=True)
class SimulatedState:
    """A state to simulate: the cell in the file `structure`, else the crystal measured nearest to `temperature_K`.

    With `density_g_cm3` the cell is scaled to it. `sampling` holds what differs from the settings of the other
    simulations, e.g. `langevin.timestep_fs`.
    """

    temperature_K: float
    structure: str | None = None
    density_g_cm3: float | None = None
    repeats: list | None = None
    replicas: int = 1
    sampling: dict = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self):
        limits.require(
            self, count=["replicas"],
            positive=["temperature_K", "weight", *(["density_g_cm3"] if self.density_g_cm3 is not None else [])],
        )  # fmt: skip
        if self.density_g_cm3 is not None:
            limits.between(self, "density_g_cm3", high=MAX_DENSITY, why="give g/cm^3 (1 g/cm^3 = 1000 kg/m^3)")

    def cells(self, context: Context) -> tuple[SimulationCells, str]:
        """The cells to simulate, and what they are."""
        sections.changed(context.sampling, self.sampling, "sampling")
        if self.structure is None:
            point = _nearest(context.points, self.temperature_K)
            unit, said = crystals.unit_cell(point.crystal), f"the crystal measured at {point.temperature:g} K"
        else:
            (unit, said), point = crystals.read(context.folder / self.structure), None
        default = (1, 1, 1) if point is None else context.repeats
        frame_checks.check_geometry(unit, said)
        frame = crystals.repeated(unit, default if self.repeats is None else self.repeats)
        if self.density_g_cm3 is not None:
            volume = frame.get_masses().sum() / (self.density_g_cm3 * G_CM3)
            factor = (volume / frame.get_volume()) ** (1 / 3)
            frame.set_cell(factor * frame.cell.array, scale_atoms=True)
        edges = ", ".join(f"{x:.1f}" for x in frame.cell.lengths())
        density = frame.get_masses().sum() / frame.get_volume() / G_CM3
        return (
            replicate([frame], [self.temperature_K], self.replicas),
            f"{said}, {len(frame)} atoms, {density:.4g} g/cm³, edges {edges} Å"
            + (f", {self.replicas} replicas" if self.replicas > 1 else ""),
        )


@dataclass(frozen=True, kw_only=True)
class RadialDistribution(SimulatedState):
    """g(r) from a CSV table with the columns r_A (or r_nm), g and, if known, stderr; of all atoms, or of a `pair`.

    It is compared at steps of `spacing_A` up to `r_max_A`, the end of the table or half the cell, whatever is first.
    """

    kind: ClassVar = "radial_distribution"
    file: str
    name: str = "g(r)"
    pair: list | None = None
    spacing_A: float = 0.1
    r_max_A: float | None = None
    stderr: float = 0.05

    def __post_init__(self):
        super().__post_init__()
        limits.require(self, positive=["spacing_A", "stderr", *(["r_max_A"] if self.r_max_A is not None else [])])
        limits.between(self, "spacing_A", low=1e-3, why="no curve is measured in steps below 0.001 Å")
        if self.pair is not None and (len(self.pair) != 2 or not all(s in chemical_symbols[1:] for s in self.pair)):
            raise ValueError(f'pair = {self.pair}; give two chemical symbols, e.g. ["O", "H"]')

    def as_target(self, context: Context) -> NamedTarget:
        """The curve as a target."""
        cells, said = self.cells(context)
        radii, g, stderr = _radial(context.folder / self.file)
        half = distributions.largest_radius(cells.lattice)
        last = min(radii[-1], self.r_max_A or np.inf, half - self.spacing_A)
        steps = np.arange(max(1, np.ceil(radii[0] / self.spacing_A - 1e-6)), last / self.spacing_A + 1e-6)
        if len(steps) < 3:
            raise ValueError(
                f"{self.file} has {radii[0]:g} to {radii[-1]:g} Å, of which the cell (half of it: {half:.1f} Å) leaves "
                f"{len(steps)} steps of {self.spacing_A:g} Å; give a larger cell or smaller spacing_A"
            )
        r = np.round(self.spacing_A * steps, 6)
        errors = self.stderr if stderr is None else np.interp(r, radii, stderr)[None]
        pair = self.pair and tuple(atomic_numbers[symbol] for symbol in self.pair)
        target = RadialTarget(cells, r, np.interp(r, radii, g)[None], self.weight, errors, pair)
        cut = f" (of {radii[-1]:.4g} measured)" if last < radii[-1] - 1e-6 else ""
        text = (
            f"of {self.file}{' for ' + '-'.join(self.pair) if self.pair else ''} at {self.temperature_K:g} K, from "
            f"{r[0]:.4g} to {r[-1]:.4g} Å{cut}, ± {np.mean(errors):.2g}; {said}"
        )
        return NamedTarget(self.name, target, 0.0, "", text, self.sampling)


@dataclass(frozen=True, kw_only=True)
class HeatCapacity(SimulatedState):
    """The heat capacity at constant volume in k_B per atom, classical: compare it well above the Debye temperature."""

    kind: ClassVar = "heat_capacity"
    heat_capacity_kB: float
    stderr_kB: float = 0.1
    name: str = "C_V"

    def __post_init__(self):
        super().__post_init__()
        limits.require(self, positive=["heat_capacity_kB", "stderr_kB"])

    def as_target(self, context: Context) -> NamedTarget:
        """The heat capacity as a target."""
        cells, said = self.cells(context)
        target = HeatCapacityTarget(cells, np.array([self.heat_capacity_kB]), self.weight, self.stderr_kB)
        text = f"{self.heat_capacity_kB:g} ± {self.stderr_kB:g} k_B per atom at {self.temperature_K:g} K; {said}"
        return NamedTarget(self.name, target, self.heat_capacity_kB, "k_B", text, self.sampling)


@dataclass(frozen=True, kw_only=True)
class Density(SimulatedState):
    """A measured density, e.g. of a liquid: in cells of this density the pressure is to be the measured one.

    The density of a crystal belongs in the table.
    """

    kind: ClassVar = "density"
    density_g_cm3: float
    pressure_GPa: float = 0.0
    stderr_GPa: float = 0.1
    name: str = "P at density"

    def __post_init__(self):
        super().__post_init__()
        limits.require(self, positive=["stderr_GPa", "density_g_cm3"])  # a density that is left out is None

    def as_target(self, context: Context) -> NamedTarget:
        """The pressure at the measured density as a target."""
        cells, said = self.cells(context)
        target = PressureTarget(cells, np.array([self.pressure_GPa * GPA]), self.weight, self.stderr_GPa * GPA)
        text = f"{self.pressure_GPa:g} ± {self.stderr_GPa:g} GPa at {self.temperature_K:g} K; {said}"
        return NamedTarget(self.name, target, self.pressure_GPa, "GPa", text, self.sampling)


KINDS = {kind.kind: kind for kind in (Phonon, RadialDistribution, HeatCapacity, Density)}
RESERVED = ("epoch", "loss", "dft_loss", "n_eff", "halvings", "simulations")  # of histories


def load(said, context: Context, file: str) -> tuple[NamedTarget, ...]:
    """The sections `[[targets]]` of a settings file as targets; ValueError names file, section and remedy."""
    if not isinstance(said, list) or not all(isinstance(section, dict) for section in said):
        raise ValueError(f"{file}: targets = {said!r} does not fit; make each target a section [[targets]]")
    found = []
    for n, section in enumerate(said, start=1):
        kind = section.get("kind")
        where = f"{file}, [[targets]] {n}"
        if kind not in tuple(KINDS):
            what = "'kind' is missing" if kind is None else f"kind {kind!r} is unknown"
            raise ValueError(f"{where}: {what}; use one of {', '.join(KINDS)}")
        where = f"{where} ({kind})"
        settings = sections.made(KINDS[kind], {key: x for key, x in section.items() if key != "kind"}, where)
        try:
            one = settings.as_target(context)
        except (ValueError, OSError) as error:
            raise ValueError(f"{where}: {error}") from error
        if not file_name(one.name) or "@" in one.name or one.name in RESERVED:
            raise ValueError(f"{where}: name = {one.name!r} cannot be used; give a name with letters, without @")
        if file_name(one.name) in {file_name(other.name) for other in found}:
            raise ValueError(f"{where}: another target is called {one.name!r} too; give each a name of its own")
        found.append(one)
    return tuple(found)


def describe(targets: Sequence[NamedTarget]) -> list[str]:
    """A line on each target."""
    return [f"target        {one.name} {one.text}" for one in targets]


def elements(targets: Sequence[NamedTarget]) -> dict[str, str]:
    """Chemical symbols in the cells of targets, with the name of a target that has them."""
    return {
        symbol: one.name
        for one in targets if one.cells is not None
        for symbol in Atoms(np.asarray(one.cells.numbers)).symbols
    }  # fmt: skip


def file_name(name: str) -> str:
    """A name with nothing but letters, digits and single hyphens."""
    return re.sub(r"[\W_]+", "-", name).strip("-").lower()


def evaluate(
    targets: Sequence[NamedTarget], potential: Potential, settings: SolidConfig, sampling: SamplingConfig, name: str
) -> dict:
    """Predictions of a potential for every target, on trajectories that no training step used, as plain data.

    `targets` are entries as in `fusedff.results`, by name; `curves` hold what a target of a curve averages. Both are
    without values, with a warning, if the simulation explodes: a liquid may be unstable with a model not trained on it.
    """
    entries, lines = {}, {}
    for one in targets:
        known = {"measured": one.measured, "unit": one.unit}
        if one.cells is None:
            (value,) = one.target.report(jax.jit(one.target.observe)(potential)).values()
            entries[one.name] = {"value": float(value), "stderr": None} | known
            continue
        target = one.for_potential(potential)
        try:
            observed = _sampled(one, target, potential, settings, sampling, f"{name}: {one.name}")
        except langevin.ExplodedTrajectoryError as error:
            warnings.warn(f"{name}, {one.name}: {error}", stacklevel=2)
            observed = None
        entries[one.name] = _number(target, observed, settings.blocks) | known
        if isinstance(target, RadialTarget):
            lines[one.name] = None if observed is None else _curve(target, observed, settings.blocks)
    return {"targets": entries, "curves": lines}


def _number(target, observed, blocks) -> dict:
    """The number that a target reports, from what it observed."""
    if observed is None:
        return {"value": None, "stderr": None}
    estimate = jackknife(observed, lambda means: np.array([*target.report(means).values()]), blocks)
    return entry(estimate.value[0], estimate.stderr[0])


def _curve(target: RadialTarget, observed, blocks) -> dict:
    found = jackknife(observed, lambda means: means.mean(0), blocks)
    curves = {"r_A": target.r, "measured": target.measured[0], "g": found.value, "g_stderr": found.stderr}
    return {name: curve.tolist() for name, curve in curves.items()}


def _sampled(one: NamedTarget, target: Target, potential, settings, sampling, name):
    """What the target observes (n_snapshots, n_cells, n_quantities), at least as long as in a training."""
    own = sections.changed(sampling, one.sampling, one.name)
    dynamics = sections.changed(settings.langevin, one.sampling.get("langevin", {}), one.name)
    return sample(
        potential, target.cells, dynamics, equilibration=max(settings.equilibration, own.first_equilibration),
        snapshots=max(settings.snapshots, own.snapshots), seed=settings.seed, observe=target.observe, name=name,
    ).observed  # fmt: skip


def _require_zone_centre(displacements, cell: Atoms) -> None:
    """Raise ValueError unless atoms that are equal by a translation of the lattice move alike."""
    first = {}
    for n, image in enumerate(zone_center.images(cell)):
        other = first.setdefault(image, n)
        if not np.allclose(displacements[n], displacements[other], rtol=1e-6):
            raise ValueError(
                f"displacements of {cell.symbols}: atoms {other} and {n}, from 0, are equal by a translation of the "
                "lattice and move alike in a mode at the zone centre; give both the same displacement"
            )


def _nearest(points, temperature: float) -> StatePoint:
    """The point measured nearest to a temperature; warns if that is far, where the crystal has another volume."""
    nearest = min(points, key=lambda point: abs(point.temperature - temperature))
    if abs(nearest.temperature - temperature) > max(100.0, 0.2 * temperature):
        warnings.warn(
            f"a target at {temperature:g} K takes the cell measured at {nearest.temperature:g} K, which is far; add a "
            "row with the lattice constants at its temperature",
            stacklevel=4,
        )
    return nearest


def _radial(path: Path):
    """Radii in Å, g, and its standard errors or None, from a table."""
    columns = curves.load(path)
    radius = next(iter(columns))
    if radius not in RADII or list(columns)[1:] not in (["g"], ["g", "stderr"]):
        raise ValueError(
            f"{path.name} has the columns {', '.join(columns)}; give {' or '.join(RADII)}, g and, if known, stderr"
        )
    radii, g, stderr = RADII[radius] * columns[radius], columns["g"], columns.get("stderr")
    if len(radii) < 3 or (np.diff(radii) <= 0).any() or radii[0] < 0:
        raise ValueError(f"{path.name}: the radii of its {len(radii)} rows must ascend from 0 on; sort them")
    if g.min() < -0.2:
        raise ValueError(f"{path.name}: g is {g.min():g} at its smallest; give g(r), which is 1 far away, not g(r) - 1")
    if stderr is not None and (stderr <= 0).any():
        raise ValueError(f"{path.name}: a stderr is not above 0; give one standard error of each g, or leave it out")
    return radii, g, stderr
