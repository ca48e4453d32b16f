"""Liquid titanium of the models that ship at 2000 and 3000 K: 128 atoms for 50 ps, beside measured values.

The density is the measured one of the melt, also at 3000 K. About 20 minutes per model on two cores; results are stored
after every model.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import record, shipped
from fusedff import results
from fusedff.crystallography import crystals
from fusedff.measurements import references
from fusedff.properties.thermal import liquid
from fusedff.properties.thermal.liquid import LiquidConfig
from fusedff.simulation.langevin import LangevinConfig
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
    """Yield the results so far, after every model, see `shipped.run`: numbers and g(r) by temperature."""
    start = crystals.prototype("Ti", "bcc", VOLUME) * REPEATS

    def compute(model, potential):
        title = f"{results.TITLES[model]}, liquid"
        melt = liquid.run(potential, [start] * len(TEMPERATURES), TEMPERATURES, settings, title)
        return melt.as_dict() | _curves(melt)

    return shipped.run("liquids", models, settings, into, compute)


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
                results.TITLES[model], temperature, record.number(diffusion, 1, 10),
                "{:.2f}, {:.2f}".format(*_peak(result["r_A"], result["g"]["value"][t])),
                record.number(around, 1), record.number(pressure, 1),
            ])  # fmt: skip
    failed = "".join(f"\n{results.TITLES[model]}: {why}\n" for model, why in shipped.failures(found).items())
    settings = found["settings"]
    picoseconds = record.picoseconds(settings)
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
