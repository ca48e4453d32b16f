"""Liquid titanium of the models that ship at 2000 and 3000 K: 128 atoms for 50 ps, beside measured values.

The density is the measured one of the melt, also at 3000 K. About 20 minutes per model on two cores; results are stored
after every model.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import record
from fusedff import results
from fusedff.crystallography import crystals
from fusedff.measurements import references
from fusedff.potential import Potential
from fusedff.properties.thermal import liquid
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.runtime import storage
from fusedff.simulation.langevin import ExplodedTrajectoryError, LangevinConfig
from fusedff.study import presets
from fusedff.study.run_folder import MODELS

VOLUME = 19.2  # Å^3 per atom, measured in the melt
REPEATS = (4, 4, 4)  # of the bcc cube of two atoms that is melted
TEMPERATURES = (2000.0, 3000.0)  # K
SETTINGS = LiquidConfig(
    replicas=2,
    langevin=LangevinConfig(timestep_fs=2.0, friction_per_ps=10.0, steps_per_snapshot=25),
    melting_factor=1.6,
    melting=20,  # 1 ps
    equilibration=40,  # 2 ps
    snapshots=1000,  # 50 ps
)


def run(into: Path, models: Sequence[str] = MODELS[::-1], settings: LiquidConfig = SETTINGS) -> Iterator[dict]:
    """Yield the results so far, after every model: settings, digests and `models`.

    A model has the numbers and g(r) by temperature, or the error message of a run that failed.
    """
    potentials = {model: Potential.load(f"titanium-{model}") for model in MODELS}
    digests = {model: storage.digest(potential.params) for model, potential in potentials.items()}
    asked = {"settings": presets.as_dict(settings), "digests": digests}
    found = record.load_if_same("liquids", asked, into).get("models", {})
    start = crystals.prototype("Ti", "bcc", VOLUME) * REPEATS
    for model in models:
        if model not in found:
            try:
                melt = liquid.run(
                    potentials[model], [start] * len(TEMPERATURES), TEMPERATURES, settings,
                    f"{results.TITLES[model]}, liquid",
                )  # fmt: skip
                found = found | {model: melt.as_dict() | _curves(melt)}
            except (ExplodedTrajectoryError, ValueError) as error:  # also a result: this model has no liquid
                found = found | {model: {"failed": str(error)}}
        yield asked | {"models": found}


def text(found: dict, about: dict) -> str:
    """Report in Markdown: diffusion, first peak of g(r), neighbours and pressure of every model."""
    measured = references.load_curve("titanium liquid g(r)")
    known = references.select(references.load(), "Ti", phase="liquid", quantity="self_diffusion")[0]
    rows = [
        ["D measured", f"{known.temperature:g}", f"{known.value:g} ± {known.uncertainty:g}", "-", "-", "-"],
        ["g(r) measured", "near melting", "-", "{:.2f}, {:.2f}".format(*_peak(*measured)), "-", "-"],
    ]
    for model, result in found["models"].items():
        for t, (temperature, point) in enumerate(result.get("by_temperature_K", {}).items()):
            diffusion, around, pressure = (
                point[name] for name in ("diffusion_A2_per_ps", "coordination", "pressure_GPa")
            )
            rows.append([
                results.TITLES[model], temperature, _said(diffusion, 1, 10),
                "{:.2f}, {:.2f}".format(*_peak(result["r_A"], result["g"]["value"][t])),
                _said(around, 1), _said(pressure, 1),
            ])  # fmt: skip
    failed = "".join(
        f"\n{results.TITLES[model]}: {result['failed']}\n"
        for model, result in found["models"].items()
        if "failed" in result
    )
    settings = found["settings"]
    langevin = settings["langevin"]
    picoseconds = settings["snapshots"] * langevin["steps_per_snapshot"] * langevin["timestep_fs"] / 1000
    return f"""# Liquid titanium

{record.describe(about)} {2 * int(np.prod(REPEATS))} atoms at {VOLUME:g} Å^3 per atom, the density that was measured
near the melting point; {settings["replicas"]} replicas of {picoseconds:g} ps at either temperature. ± is one standard
error of the sampling, from the replicas. D is not corrected for the size of the cell.

{record.table(["model", "T / K", "D, 1e-9 m^2/s", "first peak of g(r): r / Å, height", "neighbours", "P / GPa"], rows)}
{failed}"""


def _curves(melt: liquid.LiquidResult) -> dict:
    """Radii (n_radii,) and g(r) (n_temperatures, n_radii) as plain data."""
    g = {key: values.round(4).tolist() for key, values in melt.radial._asdict().items()}
    return {"r_A": melt.r.round(4).tolist(), "g": g}


def _peak(r, g) -> tuple[float, float]:
    """Radius (Å) and height of the highest value of g(r)."""
    return float(r[int(np.argmax(g))]), float(np.max(g))


def _said(entry: dict, digits: int, unit: float = 1.0) -> str:
    return f"{unit * entry['value']:.{digits}f} ± {unit * entry['stderr']:.{digits}f}"
