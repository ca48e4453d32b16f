"""One potential evaluated: a crystal at rest, labelled frames, and constants at the temperatures of a table.

The first two are for any ASE calculator. The last needs molecular dynamics, which is run for potentials of fusedff
only; for others, the coldest row of a table is shown beside the crystal at rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from fusedff import results
from fusedff.commands import material
from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.data import FILES, datasets, labelled_frames
from fusedff.interfaces import calculators
from fusedff.measurements import experiments
from fusedff.properties.static import summary
from fusedff.properties.thermal import elastic
from fusedff.study import presets, run_folder
from fusedff.training import label_errors

TITANIUM = Crystal("Ti", "hcp", 2.95, 4.68)  # what the potentials that ship are of


def evaluate(
    model: str,
    structure: str | Path | None = None,
    symbol: str | None = None,
    frames: str | Path | None = None,
    table: str | Path | None = None,
    preset: str = "demo",
    settings: Mapping | None = None,
    say=print,
    keep: Callable[[dict], None] = lambda found: None,
) -> dict:
    """Predictions of `model` (`calculators.by_name`, with `settings`) as plain data; `say` is called with the text.

    The crystal is `structure`, a file or one of `crystals.STRUCTURES` of `symbol`; with `frames` it may be left out,
    and of a potential that ships it is hcp titanium. Simulations at the temperatures of `table` are as long as those of
    `preset`, with steps for the lightest atom. `keep` is called with the results so far after each part. Raises what
    the functions behind it raise, and ValueError if there is nothing to evaluate.
    """
    length, calculator = presets.get(preset), calculators.by_name(model, settings)
    potential = calculators.potential_of(calculator)
    crystal = _crystal(model, structure, symbol, needed=frames is None or table is not None)
    points = _points(crystal, structure, symbol, table)
    labelled_frames = _frames(frames, potential) if frames is not None else ()  # before anything is computed
    found = {"model": model, "calculator": type(calculator).__name__, "versions": run_folder.versions()}
    if crystal is not None:
        at_rest = summary.run(crystal, calculator, measured=points)
        found["at_rest"] = at_rest.as_dict()
        say(at_rest.table())
        keep(found)
    if frames is not None:
        found["frames"] = {"file": str(frames)} | _errors(calculator, potential, labelled_frames)
        say(f"\n{_error_text(found['frames'])}")
        keep(found)
    if table is not None and potential is None:
        say("\nconstants at temperature: left out, they need a potential of fusedff, whose dynamics this is")
    elif table is not None:
        masses = crystals.unit_cell(points[0].crystal).get_masses()
        length = presets.for_lightest(length, masses.min())
        presets.announce(length)
        config = replace(length.evaluation, repeats=material.repeats_of(points[0].crystal))
        found["at_temperature"] = elastic.run(potential, points, config).as_dict()
        say(f"\n{_thermal_text(found['at_temperature'])}")
        keep(found)
    return found


def _crystal(model, structure, symbol, needed: bool) -> Crystal | None:
    if structure is None and symbol is None:
        if (FILES / f"{model}.safetensors").exists():
            return TITANIUM
        if not needed:
            return None
    if structure is None:
        raise ValueError(
            f"which crystal of {symbol or 'what'}? Name a structure ({', '.join(crystals.STRUCTURES)}) and a chemical "
            f"symbol, or {crystals.FILES}"
        )
    if str(structure) not in crystals.STRUCTURES:
        return experiments.crystal_of(symbol, crystals.from_structure(structure))
    if symbol is None:
        raise ValueError(f"{structure} of what? Name a chemical symbol, e.g. {crystals.STRUCTURES[str(structure)]!r}")
    return summary.start(symbol, str(structure))


def _points(crystal, structure, symbol, table):
    """The measurements that a crystal is compared with: a table, or the packaged one of titanium."""
    if table is not None:
        symbol, structure = (symbol, structure) if structure else (crystal.symbol, crystal.structure)
        return experiments.load_state_points(table, symbol, structure)
    if crystal is None:
        return ()
    titanium = (crystal.symbol, crystals.named(crystal).structure) == (TITANIUM.symbol, TITANIUM.structure)
    return experiments.load_state_points() if titanium else ()


def _frames(path, potential):
    """The labelled frames of a file, all of elements that the potential (if it is one of fusedff) knows."""
    frames = datasets.load_frames(path)
    if potential is not None:
        potential.require_species(np.unique(np.concatenate([frame.numbers for frame in frames])))
    return frames


def _errors(calculator, potential, frames) -> dict:
    if potential is None:
        own_zero, errors = False, label_errors.errors_of_calculator(calculator, frames)
    else:
        own_zero = not potential.source or {labelled_frames.source(frame) for frame in frames} == {potential.source}
        errors = label_errors.errors(potential, frames)
    return {"n_frames": len(frames), "zero_of_energy_fitted": not own_zero} | errors


def _error_text(found) -> str:
    lines = [f"errors on all {found['n_frames']} frames of {found['file']}: mean absolute / root mean square"]
    for name, unit in (("energy", "meV_per_atom"), ("force", "meV_per_A"), ("stress", "GPa")):
        mean, rms = (found[f"{name}_{kind}_{unit}"] for kind in ("mae", "rmse"))
        said = "no stress labels" if mean is None else f"{mean:.3g} / {rms:.3g} {unit.replace('_per_', '/')}"
        lines.append(f"  {name:<10} {said.replace('/A', '/Å')}")
    if found["zero_of_energy_fitted"]:
        lines.append("  energies count from a zero fitted to these frames, for each source and element")
    return "\n".join(lines)


def _thermal_text(found) -> str:
    points = found["by_temperature_K"]
    lines = ["from molecular dynamics (GPa), ± one standard error of the sampling"]
    for row in results.elastic_rows({"": points}):
        measured = "" if row["measured_GPa"] is None else f"measured {row['measured_GPa']:.1f}"
        value = f"{row['value_GPa']:.2f} ± {row['stderr_GPa']:.2f}"
        condition = points[row["temperature_K"]]["condition"] if row["quantity"].startswith("C") else ""
        lines.append(f"  {row['temperature_K']:>6} K {row['quantity']:<4} {value:>16}  {measured:<16} {condition}")
    return "\n".join(map(str.rstrip, lines))
