"""Temperature and latent heat of the transition from hcp to bcc titanium: the models that ship, beside measured values.

None of the three was trained on it. Tens of minutes per model on two cores; results are stored after every model.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import record, shipped
from fusedff import results
from fusedff.crystallography.crystals import Crystal
from fusedff.properties.thermal import transition
from fusedff.properties.thermal.lattice import LatticeConfig
from fusedff.properties.thermal.transition import TransitionConfig
from fusedff.simulation.langevin import LangevinConfig
from fusedff.study.run_folder import MODELS

PHASES = (Crystal("Ti", "hcp", 2.96, 4.70), Crystal("Ti", "bcc", 3.30))
TEMPERATURES = (1055.0, 1155.0, 1255.0)  # K
MEASURED = {"transition_K": 1155.0, "latent_heat_kJ_per_mol": 4.13}
SETTINGS = TransitionConfig(
    repeats=(3, 3, 3),  # of cells of two atoms in either phase
    replicas=2,
    langevin=LangevinConfig(timestep_fs=2.0, steps_per_snapshot=50),
    lattice=LatticeConfig(replicas=1, passes=2, snapshots=100),
)


def run(into: Path, models: Sequence[str] = MODELS, settings: TransitionConfig = SETTINGS) -> Iterator[dict]:
    """Yield the results so far, after every model, see `shipped.run`."""

    def compute(model, potential):
        title = f"{results.TITLES[model]}, hcp to bcc"
        return transition.run(potential, PHASES, TEMPERATURES, settings, title).as_dict()

    return shipped.run("transition", models, settings, into, compute)


def text(found: dict, about: dict) -> str:
    """Report in Markdown: differences of Gibbs energies, transition temperatures and latent heats."""
    settings, failed = found["settings"], shipped.failures(found)
    done = {model: result for model, result in found["models"].items() if model not in failed}
    names = {"transition_K": ("transition temperature, K", 0), "latent_heat_kJ_per_mol": ("latent heat, kJ/mol", 2)}
    rows = [
        [title, f"{MEASURED[key]:.{digits}f}", *(record.number(result[key], digits) for result in done.values())]
        for key, (title, digits) in names.items()
    ]
    for t in TEMPERATURES:
        differences = [result["by_temperature_K"][f"{t:g}"]["difference_eV_per_atom"] for result in done.values()]
        rows.append(
            [f"G of bcc minus G of hcp at {t:g} K, meV/atom", "-", *(record.number(d, 1, 1e3) for d in differences)]
        )
    picoseconds = record.picoseconds(settings)
    notes = "".join(f"\n{results.TITLES[model]}: {why}\n" for model, why in failed.items())
    return f"""# The transition from hcp to bcc titanium

{record.describe(about)} Classical free energies at zero pressure by integration from Einstein crystals,
{2 * math.prod(settings["repeats"])} atoms of either phase, {settings["replicas"]} replicas of {picoseconds:g} ps at
every temperature and node; ± is one standard error of the sampling. The latent heat was measured at 1166 K.
`-`: no sign change between {TEMPERATURES[0]:g} and {TEMPERATURES[-1]:g} K. A difference of 1 meV/atom shifts the
transition by about 27 K.

{record.table(["hcp to bcc", "measured", *(results.TITLES[model] for model in done)], rows)}
{notes}"""
