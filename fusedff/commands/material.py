"""A material to train on: a settings file with the frames, the structure and the table of measurements that it names.

Settings that the file does not give are those of a preset.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from ase import Atoms

from fusedff.commands import sections, targets
from fusedff.commands.targets import NamedTarget
from fusedff.crystallography import crystals
from fusedff.data import datasets, labelled_frames, splits
from fusedff.data.validation import label_checks
from fusedff.data.validation.unit_checks import closest
from fusedff.measurements import experiments, state_points
from fusedff.measurements.state_points import StatePoint
from fusedff.runtime import limits, storage
from fusedff.study import comparison, presets
from fusedff.study.presets import Preset
from fusedff.units import PER_GPA

SHORTEST_EDGE = 7.0  # Å, of the simulated cells, unless `repeats` says otherwise
MAX_SEEDS = 1000  # trainings of a committee
SECTIONS = ("network", "dft", "experiment", "fused", "evaluation")  # of a preset, that a file may change


@dataclass(frozen=True)
class Material:
    """The contents of a settings file and of the files that it names, read and checked."""

    output: Path
    frames: tuple[Atoms, ...]
    points: tuple[StatePoint, ...]
    train_points: tuple[StatePoint, ...]  # those to train on, with isothermal constants
    preset: Preset
    seeds: tuple[int, ...] = ()  # of a committee; without them, the one of the preset
    targets: tuple[NamedTarget, ...] = ()

    @cached_property
    def split(self) -> splits.Split:
        """The frames, split by family into training, validation and test."""
        return splits.split(self.frames, seed=self.preset.seed)

    @property
    def members(self) -> dict[str, "Material"]:
        """The trainings of a committee by seed, each with a folder of its own."""
        return {
            str(seed): replace(
                self, output=self.output / f"seed-{seed}", preset=presets.with_seed(self.preset, seed), seeds=()
            )
            for seed in self.seeds
        }

    @property
    def formula(self) -> str:
        """Formula of the crystal, e.g. 'NiAl'."""
        return self.points[0].crystal.symbol


def load(path: str | Path) -> Material:
    """Read a settings file and everything that it names; paths in it are relative to the file.

    Raises FileNotFoundError, or ValueError naming the file, the setting and the remedy: settings unknown, missing or of
    another kind, frames and tables that cannot be right, frames without an element of the crystal.
    """
    path = Path(path)
    storage.require_file(path, "give a settings file (`fusedff new` writes a template)")
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:  # no TOML, no UTF-8
        raise ValueError(f"{path.name}: {error}; `fusedff new` writes a template") from error
    top = ("frames", "table", "symbol", "structure", "output", "preset")
    for section, inside in said.items():
        if isinstance(inside, dict) and (found := [name for name in (*top, "seeds", "units") if name in inside]):
            raise ValueError(f"{path.name}: {found[0]} stands below [{section}]; move it above the first section")
    sections.require_known(said, (*top, "seed", "seeds", "repeats", "units", "targets", *SECTIONS), path.name)
    for name in top:
        if name not in said and name in ("frames", "table", "structure"):
            raise ValueError(f"{path.name}: {name!r} is missing; add it (`fusedff new` writes a template)")
        listed = name == "frames" and isinstance(said["frames"], list) and said["frames"]
        for value in listed or [said.get(name, "none")]:
            if not isinstance(value, str) or not value:
                wrong = "is empty" if value in ("", []) else "is no text; write it in quotation marks"
                raise ValueError(f"{path.name}: {name} = {value!r} {wrong}")
    here = path.parent
    output = here / said.get("output", path.stem)
    there = storage.nearest_existing(output)
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ValueError(
            f"{path.name}: output = {str(said.get('output', path.stem))!r}: {there} "
            f"{'cannot be written to' if there.is_dir() else 'is a file'}; name another folder"
        )
    structure = said["structure"] if said["structure"] in crystals.STRUCTURES else here / said["structure"]
    if isinstance(structure, Path) and not structure.is_file():
        raise ValueError(
            f"{path.name}: structure = {said['structure']!r} is neither a file nor one of "
            f"{', '.join(crystals.STRUCTURES)}; name one of them, or {crystals.FILES}"
        )
    if isinstance(structure, str) and "symbol" not in said:
        raise ValueError(f"{path.name}: {structure} of what? Add symbol, e.g. {crystals.STRUCTURES[structure]!r}")
    units_of_frames, units_of_table = _units(said, path.name)
    points = experiments.load_state_points(
        here / said["table"], symbol=said.get("symbol"), structure=structure, units=units_of_table
    )
    files = said["frames"] if isinstance(said["frames"], list) else [said["frames"]]
    frames = datasets.load_files([here / name for name in files], units_of_frames)
    crystal = dict.fromkeys(crystals.unit_cell(points[0].crystal).symbols, f"the crystal of {said['table']}")
    _require_elements(crystal, frames, files)
    _require_volumes(points, frames, said["table"])
    if all(point.role != "train" for point in points):
        raise ValueError(f"{said['table']}: every row is held out; give at least one the role train")
    seeds = _seeds(said, path.name)
    preset = _preset(presets.get(said.get("preset", "demo")), said, points, path.name)
    points = comparison.measured(preset, points)
    try:
        train_points = comparison.targets(preset, points)
    except ValueError as error:
        raise ValueError(f"{said['table']}: {error}") from None
    _require_reach(points[0].crystal, preset.network.cutoff, path.name)
    context = targets.Context(here, points, preset.evaluation.repeats, preset.experiment.sampling)
    further = targets.load(said.get("targets", []), context, path.name)
    _require_elements(targets.elements(further), frames, files)
    return Material(output, frames, points, train_points, preset, seeds, further)


def _require_elements(needed: Mapping[str, str], frames, files) -> None:
    """Raise ValueError unless all elements (symbol -> what has it) are in a frame."""
    for symbol in sorted(set(needed) - {symbol for frame in frames for symbol in frame.symbols}):
        raise ValueError(f"{', '.join(files)}: no frame contains {symbol}, which {needed[symbol]} does; add frames")


def _require_reach(crystal, cutoff: float, file: str) -> None:
    """Raise ValueError if the network would see no neighbours in the crystal."""
    nearest = closest(crystals.unit_cell(crystal))[0]
    if cutoff <= nearest:
        raise ValueError(
            f"{file}, [network]: cutoff = {cutoff:g}, but nearest neighbours are {nearest:.3g} Å apart; give Å, about "
            f"{2 * nearest:.2g}"
        )


def _require_volumes(points, frames, table: str) -> None:
    """Raise ValueError for a crystal far from the volumes of the frames of its composition, if there are any."""
    compound = crystals.unit_cell(points[0].crystal).symbols.formula.reduce()[0]
    alike = [frame for frame in frames if frame.symbols.formula.reduce()[0] == compound and frame.pbc.all()]
    volumes = [frame.get_volume() / len(frame) for frame in alike]
    for point in points if volumes else ():
        cell = crystals.unit_cell(point.crystal)
        volume = cell.get_volume() / len(cell)
        if not 0.8 * min(volumes) < volume < 1.25 * max(volumes):
            raise ValueError(
                f"{table}: {point.crystal} at {point.temperature:g} K has {volume:.4g} Å^3 per atom, the frames have "
                f"{min(volumes):.4g} to {max(volumes):.4g}; give the lattice constants of the conventional cell in Å, "
                "or frames near this volume"
            )


def _units(said: Mapping, file: str) -> tuple[str | None, str | None]:
    """The units of the frames and of the elastic constants in the table that the settings state."""
    stated = said.get("units", [])
    stated = stated if isinstance(stated, list) else [stated]
    of_frames, of_table = ([unit for unit in stated if unit in known] for known in (("ase",), tuple(PER_GPA)))
    if len(of_frames) + len(of_table) < len(stated) or len(of_frames) > 1 or len(of_table) > 1:
        raise ValueError(
            f"{file}: units = {said['units']!r} are unknown; use 'ase' for the frames, one of "
            f"{', '.join(PER_GPA)} for the table, or a list of both"
        )
    return next(iter(of_frames), None), next(iter(of_table), None)


def _seeds(said: Mapping, file: str) -> tuple[int, ...]:
    """The seeds of a committee: those listed, or for a number n those from 0 to n - 1; none for a single training."""
    if "seeds" not in said:
        return ()
    seeds = said["seeds"]
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        seeds = list(range(min(seeds, MAX_SEEDS + 1)))
    if (
        not isinstance(seeds, list)
        or not all(map(_is_seed, seeds))
        or not 2 <= len(set(seeds)) == len(seeds) <= MAX_SEEDS
    ):
        raise ValueError(
            f"{file}: seeds = {said['seeds']!r}; give how many (2 to {MAX_SEEDS}), or a list of different ones"
        )
    if "seed" in said:
        raise ValueError(f"{file}: seed and seeds are both given; leave out one of them")
    return tuple(seeds)


def _is_seed(value) -> bool:
    """Whether it is a whole number in range, as one more is, the seed of the evaluation."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limits.MAX_VALUES["seed"][0]


def _preset(base: Preset, said: Mapping, points, file: str) -> Preset:
    """The preset with the crystal's cells, temperatures and time step, and with the settings of the file."""
    repeats, seed = said.get("repeats", repeats_of(points[0].crystal)), said.get("seed", base.seed)
    try:
        crystals.supercell(points[0].crystal, repeats)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    if not _is_seed(seed):
        raise ValueError(
            f"{file}: seed = {seed!r}; give a whole number from 0 on, below {limits.MAX_VALUES['seed'][0]}"
        )
    lightest = crystals.unit_cell(points[0].crystal).get_masses().min()
    preset = presets.for_lightest(presets.with_seed(base, seed), lightest)
    preset = presets.with_simulations(preset, partial(replace, repeats=tuple(repeats)))
    trained = tuple(point.temperature for point in state_points.select(points, role="train"))
    preset = replace(preset, train_temperatures=trained)
    # weights of sources are those of titanium's frames, whatever calculations made these
    dft, fused = replace(preset.dft, source_weights=()), preset.fused
    preset = replace(preset, dft=dft, fused=replace(fused, dft=replace(fused.dft, source_weights=())))
    return sections.changed(preset, {name: said[name] for name in SECTIONS if name in said}, file)


def repeats_of(crystal: crystals.Crystal) -> tuple[int, int, int]:
    """How often the conventional cell is repeated for edges of 7 Å or more."""
    a, b, c = np.ceil(SHORTEST_EDGE / crystals.unit_cell(crystal).cell.lengths() - 1e-6)
    return int(a), int(b), int(c)


def describe(material: Material) -> str:
    """Summary of what will be trained on, in some lines."""
    point, split = material.points[0], material.split
    families = sorted(set(map(labelled_frames.family, material.frames)))
    sources = dict.fromkeys(map(labelled_frames.source, material.frames))
    cell = crystals.supercell(point.crystal, material.preset.evaluation.repeats)
    trained, held = (
        ", ".join(f"{p.temperature:g}" for p in material.points if (p.role == "train") == wanted)
        for wanted in (True, False)
    )
    conditions = ", ".join(dict.fromkeys(p.condition for p in material.points if p.elastic)) or point.condition
    many = "family" if len(families) == 1 else "families"
    compared, possible = label_checks.compared(material.frames, list(map(labelled_frames.labels, material.frames)))
    return "\n".join([
        f"crystal       {point.crystal.structure} {material.formula}, {crystals.symmetry(point.crystal)}, in standard "
        f"axes {', '.join(f'{name} = {value:.5g}' for name, value in point.crystal.parameters.items())} (Å, degrees) "
        f"at {point.temperature:g} K",
        f"frames        {len(material.frames)}: {len(split.train)} to train on, {len(split.validation)} to watch it, "
        f"{len(split.test)} held out; {len(families)} {many} ({', '.join(families)})"
        + (f"; each of {', '.join(sources)} has its own zero of energy" if len(sources) > 1 else ""),
        f"{'':13} labels of {compared} of {possible} frames compared with those of a similar frame before",
        f"measured      {', '.join(measured_names(material.points)) or 'no elastic constants'} ({conditions}); "
        f"trained on {trained} K; held out {held + ' K' if held else 'none'}",
        *_measured_ranges(material.points),
        *targets.describe(material.targets),
        f"simulations   {len(cell)} atoms, edges {', '.join(f'{x:.1f}' for x in cell.cell.lengths())} Å, steps of "
        f"{material.preset.experiment.sampling.langevin.timestep_fs:g} fs",
        f"preset        {material.preset.name}: {material.preset.dft.epochs} epochs of force matching, "
        f"{material.preset.experiment.updates} updates from experiment, {material.preset.fused.epochs} rounds of fused "
        "training",
        *([f"committee     seeds {', '.join(map(str, material.seeds))}: every model is trained with each"]
          if material.seeds else []),
        f"output        {material.output}",
    ])  # fmt: skip


def _measured_ranges(points) -> list[str]:
    """Lines with the ranges of the measured constants, of their standard errors and of the pressures, for a look."""
    names, values, pressures = state_points.measured_gpa(points)
    errors = state_points.stderr_gpa(points)
    said = {name: _range(column) for name, column in zip(names, values.T, strict=True)}
    constants = ", ".join(f"{name} {found}" for name, found in said.items() if found)
    lines = {"": constants, "standard errors ": _range(errors), "pressures ": _range(pressures[pressures != 0])}
    return [f"{'':13} {what}{found} GPa" for what, found in lines.items() if found]


def _range(values) -> str:
    """The smallest and the largest of the numbers, one if they are equal, '' if there are none."""
    found = np.asarray(values, float)[np.isfinite(values)]
    return " to ".join(f"{x:.4g}" for x in dict.fromkeys([found.min(), found.max()])) if len(found) else ""


def measured_names(points) -> list[str]:
    """Names of the elastic constants that are in the table at any temperature."""
    names, values, _ = state_points.measured_gpa(points)
    return [name for name, column in zip(names, values.T, strict=True) if np.isfinite(column).any()]
