"""Elastic constants, stresses and lattice parameters of a model that ships, with settings other than in training.

Larger cells, shorter time steps, less friction and several replicas, at the temperatures of the training
and at as many others; hours on two cores. Each temperature is stored as soon as it is done, and a call for the same
model with the same settings continues from there.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import record
from fusedff import results
from fusedff.potential import Potential
from fusedff.properties.thermal import elastic
from fusedff.properties.thermal.elastic import ElasticConfig
from fusedff.runtime import storage
from fusedff.simulation.elasticity import CoupledStrains
from fusedff.simulation.langevin import LangevinConfig
from fusedff.study import comparison, presets

TEMPERATURES = (923, 323, 973, 473, 23, 623, 173, 773)  # K, of training and others in turn
SETTINGS = ElasticConfig(
    estimator=CoupledStrains(0.005),
    repeats=(6, 6, 4),  # 288 atoms
    replicas=2,
    langevin=LangevinConfig(timestep_fs=4.0, friction_per_ps=5.0, steps_per_snapshot=13),
    equilibration=20,  # 1 ps
    snapshots=48,  # 2.5 ps of each replica
    blocks=3,  # of 0.8 ps, four times the time in which the friction acts: shorter ones would give too small an error
    seed=7,
)
DRY = replace(
    SETTINGS, repeats=(2, 2, 1), replicas=1, equilibration=2, snapshots=4, blocks=2,
    langevin=replace(SETTINGS.langevin, steps_per_snapshot=4),
)  # fmt: skip


def run(model: str, into: Path, settings: ElasticConfig = SETTINGS, temperatures=TEMPERATURES) -> Iterator[dict]:
    """Yield the results so far, after every temperature: {"model", "digest", "settings", "by_temperature_K"}."""
    potential = Potential.load(f"titanium-{model}")
    asked = {"model": model, "digest": storage.digest(potential.params), "settings": presets.as_dict(settings)}
    done = record.load_if_same(name_of(model), asked, into).get("by_temperature_K", {})
    table = {point.temperature: point for point in comparison.measured(presets.HOURS)}
    for temperature in temperatures:
        if f"{temperature:g}" not in done:
            own = replace(settings, seed=settings.seed + temperature)  # independent noise at every temperature
            result = elastic.run(potential, [table[temperature]], own, f"{results.TITLES[model]}, {temperature} K")
            done = done | result.by_temperature()
        yield asked | {"by_temperature_K": dict(sorted(done.items(), key=lambda item: float(item[0])))}


def name_of(model: str) -> str:
    """Name of the result of a model."""
    return f"independent-{model}"


def text(found: dict, about: dict) -> str:
    """Report in Markdown: deviations from the measured values, and how many constants are within 2 %."""
    settings, rows, off = found["settings"], [], []
    for t, point in found["by_temperature_K"].items():
        row = [t]
        for entry in point["elastic"].values():
            deviation, noise = results.relative_deviation(entry)
            off.append(abs(deviation))
            row.append(f"{deviation:+.1f} ± {noise:.1f}")
        for entry in point["stress"].values():
            row.append("{:+.2f} ± {:.2f}".format(*results.absolute_deviation(entry)))
        for entry in point["lattice"].values():
            row.append("{:+.3f} ± {:.3f}".format(*results.relative_deviation(entry)))
        rows.append(row)
    first = next(iter(found["by_temperature_K"].values()))
    head = ["T / K", *(f"{name}, %" for name in first["elastic"]), *(f"σ{name}, GPa" for name in first["stress"]),
            *(f"{name}, %" for name in first["lattice"])]  # fmt: skip
    mean, noise = results.elastic_deviation(found["by_temperature_K"])
    atoms = 2 * int(np.prod(settings["repeats"]))
    langevin = settings["langevin"]
    return f"""# The {results.TITLES[found["model"]]} model, evaluated with settings that its training did not use

{record.describe(about)} Cells of {atoms} atoms, {settings["replicas"]} replicas,
steps of {langevin["timestep_fs"]:g} fs, friction {langevin["friction_per_ps"]:g} / ps,
strains of {settings["estimator"]["strain"]:g}; {record.picoseconds(settings):g} ps of each replica.

Deviation of (adiabatic) elastic constants, of stresses and of lattice parameters at zero stress from the measured ones,
with one standard error of the sampling. {sum(x <= 2 for x in off)} of {len(off)} constants are within 2 %;
on average they are {mean:.1f} ± {noise:.1f} % off.

{record.table(head, rows)}
"""
