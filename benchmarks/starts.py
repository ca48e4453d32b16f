"""Properties that elastic constants alone do not determine: experiment-only and fused models from several starts.

All experiment-only models are trained on the same measured values. Their training starts from models of DFT frames
(three seeds of weights, split and trajectories) or from a model of a Lennard-Jones crystal, which has only the
nearest-neighbour distance and the bulk modulus of titanium. The fused models of the trainings on DFT frames are listed
for comparison. Two of the trainings are repeated with one more measurement, the E2g phonon at the zone centre. Hours on
two cores; a training that was interrupted is resumed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from benchmarks import record
from fusedff import results
from fusedff.commands import training
from fusedff.commands.material import Material
from fusedff.commands.targets import Context, Phonon
from fusedff.data import datasets, labelled_frames
from fusedff.interfaces import calculators
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements import experiments, references, state_points
from fusedff.measurements.references import Reference
from fusedff.potential import Potential
from fusedff.properties.static import defects, summary
from fusedff.properties.static.relax import NotRelaxedError
from fusedff.study import comparison, presets
from fusedff.study.presets import DEMO, Preset
from fusedff.training import label_errors

SEEDS = (0, 1, 2)
LENNARD_JONES = "Lennard-Jones"
WITH_PHONON = ", E2g too"
STARTS = (
    *(f"seed {seed}" for seed in SEEDS), LENNARD_JONES, LENNARD_JONES + WITH_PHONON, f"seed {SEEDS[0]}" + WITH_PHONON,
)  # fmt: skip
# C. Stassis et al., Phys. Rev. B 19, 181 (1979): neutron scattering
E2G = Phonon(name="E2g", frequency_THz=4.18, stderr_THz=0.1, temperature_K=295.0, displacements=[[1, 0, 0], [-1, 0, 0]])
SIGMA, EPSILON = 2.663, 0.218  # Å, eV: nearest-neighbour distance of titanium, and about its bulk modulus
HIGHEST_FORCE, HIGHEST_STRESS = 20.0, 0.5  # eV/Å, eV/Å^3, limits for Lennard-Jones labels: its repulsion is steeper
TEMPERATURE = 323.0  # K, of the elastic constants that are shown


def calculator() -> LennardJones:
    """Lennard-Jones calculator with the nearest-neighbour distance of titanium."""
    return LennardJones(sigma=SIGMA, epsilon=EPSILON, rc=5.0, ro=3.8, smooth=True)


def lennard_jones(frames: Sequence[Atoms]) -> list[Atoms]:
    """Frames with labels by `calculator`, without single atoms and frames whose forces or stresses are too large."""
    found = []
    for frame in frames:
        labels = calculators.compute_labels(calculator(), frame)
        gentle = np.abs(labels.forces).max() < HIGHEST_FORCE and np.abs(labels.stress).max() < HIGHEST_STRESS
        if gentle and len(frame) > 1:
            copy = frame.copy()
            copy.info["source"] = "lennard-jones"
            copy.calc = SinglePointCalculator(copy, **labels._asdict())
            found.append(copy)
    return found


def study_of(start: str, into: Path, preset: Preset = DEMO) -> Material:
    """Input of the training from a start, as for `fusedff train`."""
    frames, begin = datasets.load_frames(), start.removesuffix(WITH_PHONON)
    if begin == LENNARD_JONES:
        frames = tuple(lennard_jones(frames))
        preset = replace(preset, fused=replace(preset.fused, epochs=1))  # not used: these labels are not DFT
    else:
        preset = presets.with_seed(preset, int(begin.split()[1]))
    table = comparison.measured(preset)
    shown = state_points.select(table, temperatures=[TEMPERATURE])
    context = Context(into, table, preset.evaluation.repeats, preset.experiment.sampling)
    return Material(
        into / start.replace(",", "").replace(" ", "-"), frames, shown, comparison.targets(preset, table), preset,
        targets=(E2G.as_target(context),) if begin != start else (),
    )  # fmt: skip


def run(into: Path, preset: Preset = DEMO, starts: Sequence[str] = STARTS) -> Iterator[dict]:
    """Yield the results so far, after every start: settings, data and `models` (start, model, elastic and beyond)."""
    split = comparison.frames(preset)
    asked = {"settings": presets.as_dict(preset), "data": comparison.data_version(preset, split)}
    rows = record.load_if_same("starts", asked, into).get("models", [])
    for start in starts:
        if start not in [row["start"] for row in rows]:
            study = study_of(start, into / "starts", preset)
            trained = training.train(study)
            for model in ("experiment",) if start.startswith(LENNARD_JONES) else ("experiment", "fused"):
                potential = Potential.load(study.output / model / "potential.safetensors")
                point = trained["models"][model]["experiment"][f"{TEMPERATURE:g}"]
                beyond = untrained_quantities(potential) | {"forces": force_error(potential, split.test)}
                found = {"elastic": point["elastic"], "beyond": beyond}
                rows = [*rows, {"start": start, "model": model} | found]
        yield asked | {"models": rows}


def untrained_quantities(potential: Potential) -> dict[str, float | None]:
    """Quantities of `QUANTITIES` but the forces; none if the model has no minimum near hcp titanium."""
    model = FusedCalculator(potential)
    point = state_points.select(experiments.load_state_points(), temperatures=[TEMPERATURE])[0]
    try:
        rest = summary.run(point.crystal, model, phases=("bcc", "fcc", "omega"))
    except NotRelaxedError:
        return {}
    entries = {e.quantity: e.value for e in rest.entries}
    wanted = [name for name in entries if "energy_above" in name or name.startswith("phonon_")]
    found = {name: entries[name] for name in wanted}
    found["vacancy_formation_energy"] = defects.vacancy(rest.crystal, model, (4, 4, 3), name=None).formation_energy
    for facet in ("0001", "10-10"):
        found[f"surface_energy_{facet}"] = defects.surface(rest.crystal, facet, model, name=None).energy_j_per_m2
    for plane in ("basal", "prismatic"):
        fault = defects.stacking_fault(rest.crystal, plane, model, name=None)
        found[f"stacking_fault_{plane}"] = fault.energy_mj_per_m2 / 1000
    return found


def force_error(potential: Potential, test: Sequence[Atoms]) -> float:
    """Mean absolute force error on frames, meV/Å."""
    compared = replace(potential, source=labelled_frames.source(test[0]))  # only forces are compared
    return label_errors.errors(compared, test)["force_mae_meV_per_A"]


def text(found: dict, about: dict) -> str:
    """Report in Markdown: every number of every model."""
    rows = []
    for model in ("experiment", "fused"):
        for row in (row for row in found["models"] if row["model"] == model):
            numbers = [f"{entry['value']:.1f}" for entry in row["elastic"].values()]
            numbers += [f"{row['beyond'][name]:.{digits}f}" if name in row["beyond"] else "-"
                        for name, digits in QUANTITIES.items()]  # fmt: skip
            rows.append([results.TITLES[model], row["start"], *numbers])
    head = ["model", "start", *(f"{name}, GPa" for name in found["models"][0]["elastic"]), *QUANTITIES]
    return f"""# What elastic constants alone determine

{record.describe(about)} Elastic constants at {TEMPERATURE:g} K;
{UNITS}. Data: {found["data"]}.

{record.table(head, rows)}
"""


def value_of_pbe(known: Sequence[Reference], quantity: str) -> float:
    """The first DFT value of one of `QUANTITIES` among references of titanium."""
    above = "energy_above" in quantity
    phase, name = (quantity.split("_")[0], "energy_above_hcp") if above else ("hcp", quantity)
    return references.select(known, phase=phase, quantity=name, kind="DFT")[0].value


QUANTITIES = {  # quantity -> digits to show
    "bcc_energy_above_hcp": 0, "fcc_energy_above_hcp": 0, "omega_energy_above_hcp": 0, "phonon_E2g": 2, "phonon_B1g": 2,
    "vacancy_formation_energy": 2, "surface_energy_0001": 2, "surface_energy_10-10": 2, "stacking_fault_basal": 2,
    "stacking_fault_prismatic": 2, "forces": 0,
}  # fmt: skip
UNITS = (
    "energies above hcp in meV/atom, phonons in THz, vacancies in eV, surfaces and stacking faults in J/m^2, mean\n"
    "absolute force errors on held-out DFT frames in meV/Å"
)
