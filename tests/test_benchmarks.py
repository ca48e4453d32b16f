"""The benchmarks: arithmetic and reports; nothing here is timed, and chemtrain need not be installed."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    case,
    committee,
    compare,
    figures,
    gpu,
    independent,
    learning,
    liquids,
    next_measurement,
    noise,
    record,
    report,
    sides,
    starts,
    titanium,
    transition,
)
from benchmarks.__main__ import main
from benchmarks.compare import DisagreementError, Row
from benchmarks.mapping import to_chemtrain
from benchmarks.scaling import Cost
from benchmarks.snapshots import MemoryUse
from benchmarks.statistics import Spread, paired_ratio, spread
from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.data import labelled_frames
from fusedff.geometry import neighbors, systems
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements import experiments
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.static import elastic, relax, summary
from fusedff.simulation.statistics import Estimate
from fusedff.study import comparison, presets
from fusedff.training import gauss_newton
from fusedff.units import GPA

TINY = DimeNet(embedding=4, blocks=2, radial=3, spherical=2, interaction=2, basis=2, type_embedding=2, output=4)
ABOUT = {
    "date": "2026-01-02T03:04:05+00:00",
    "command": "python -m benchmarks",
    "commit": "abc",
    "processor": "a processor",
    "cores": 2,
    "memory_GiB": 8.0,
    "system": "Linux",
    "load_before": 0.0,
    "versions": {"python": "3.11"},
}
SPREAD = Spread(0.9, 1.0, 1.2)


def test_spread_is_median_and_quartiles():
    assert spread([4, 1, 3, 2, 5]) == Spread(2, 3, 4)


def test_ratio_is_taken_within_rounds_so_that_a_slow_round_does_not_count():
    ours, theirs = [1.0, 10.0, 1.0, 1.0], [3.0, 30.0, 3.0, 3.0]
    assert paired_ratio(theirs, ours) == Spread(3, 3, 3)
    assert np.median(theirs) / np.median(ours) == 3


def test_ratio_needs_as_many_rounds_of_either_side():
    with pytest.raises(ValueError, match="2 rounds of one side cannot be paired with 1"):
        paired_ratio([1.0, 2.0], [1.0])


def numbered(tree):
    """The tree with a different number in every entry."""
    leaves, structure = jax.tree.flatten(tree)
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    return structure.unflatten(
        [1.0 + start + np.arange(leaf.size).reshape(leaf.shape) for start, leaf in zip(starts, leaves, strict=False)]
    )


@pytest.mark.parametrize("model", [TINY, DimeNet()], ids=["tiny", "default"])
def test_mapping_uses_every_parameter_exactly_once(model, key):
    params = numbered(jax.eval_shape(lambda: model.init(key, 1)))
    mapped = to_chemtrain(params, model)
    unscaled = {
        (module, leaf): x / (0.5**1.5 if "RBF_Dense" in module or "rbf1" in module else 1)
        for module, leaves in mapped.items()
        for leaf, x in leaves.items()
    }
    entries = np.sort(np.concatenate([np.ravel(x) for x in unscaled.values()]))
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(entries, 1.0 + np.arange(total), rtol=1e-12)


def test_mapping_splits_the_common_layer_of_both_messages(key):
    params = numbered(jax.eval_shape(lambda: TINY.init(key, 1)))
    mapped = to_chemtrain(params, TINY)
    both = params["interaction_1_kj_ji"]
    for leaf in "wb":
        parts = [mapped[f"DimeNetPP/~/Interaction_1/~/Dense_{which}/~/linear"][leaf] for which in ("kj", "ji")]
        np.testing.assert_array_equal(np.concatenate(parts, -1), both[leaf])


def test_case_survives_its_file(tmp_path, rng):
    tree = {"~": {"species": rng.normal(size=(1, 2))}, "output_up": {"w": rng.normal(size=(2, 2))}}
    cells = rng.normal(size=(2, 3, 3)), rng.normal(size=(3, 3))
    labels = rng.normal(size=2), rng.normal(size=(2, 3, 3)), rng.normal(size=(2, 6))
    made = case.Case(*cells, *labels, np.array(2), np.array(6), np.array(6), tree, {"DimeNetPP/~/a": {"w": np.eye(2)}})
    made.write(tmp_path / "case.npz")
    again = case.read(tmp_path / "case.npz")
    jax.tree.map(np.testing.assert_array_equal, made._asdict(), again._asdict())
    assert again.n_atoms == 3


def test_edges_and_triplets_of_a_perfect_crystal_are_counted():
    crystal = crystals.supercell(crystals.Crystal("Cu", "fcc", 4.0), (3, 3, 3))
    found = titanium.counts([crystal], cutoff=3.0)  # the 12 nearest
    assert found == {"neighbors": 12, "edges": 12 * len(crystal), "triplets": 132 * len(crystal)}


class Fake:
    """A side that answers what it is told to."""

    def __init__(self, **answers):
        self.answers = answers

    def ask(self, do, path):
        return self.answers


def test_nothing_is_timed_unless_both_sides_agree():
    same = {"energy": -3.0, "forces": [[0.1, 0.2, 0.3]]}
    everyone = {"fusedff": Fake(**same), "tight": Fake(**same)}
    assert "forces to 0e+00" in compare._agreement(everyone, "case.npz")
    everyone["tight"] = Fake(energy=-3.0, forces=[[0.1, 0.2, 0.3001]])
    with pytest.raises(DisagreementError, match="forces to 3e-04"):
        compare._agreement(everyone, "case.npz")


def rows():
    both = {"fusedff": SPREAD, "tight": Spread(2.0, 2.1, 2.2)}
    ratio = {"tight": Spread(2.0, 2.1, 2.3)}
    whole = Row(96, "forces", both, ratio, {"fusedff": 5.0, "tight": 9.0}, {"fusedff": 10.0, "tight": 2000.0}, {})
    failed = Row(96, "born", {"fusedff": SPREAD}, {}, {"fusedff": 5.0}, {"fusedff": 1.0}, {"tight": "out of memory"})
    return [whole, failed]


def test_report_shows_ratios_and_says_what_failed():
    text = report.comparison(rows(), ["96 atoms, energy to 1e-07"], ABOUT)
    assert "| energy and forces | 96 | 1000.0 | 2100.0 | 2.1 (2.0–2.3) |" in text
    assert "| Born stress and stiffness | 96 | 1000.0 | failed | failed |" in text
    assert "chemtrain, tight: out of memory" in text
    assert "chemtrain 0.2.0" in text


def test_figures_can_be_drawn():
    costs = [Cost(54, n, SPREAD, SPREAD) for n in (1, 2)]
    drawn = (
        figures.comparison(rows()),
        figures.atoms(costs),
        figures.replicas(costs),
        figures.memory([MemoryUse(10, 1.0, 0.1), MemoryUse(100, 1.0, 1.0)]),
    )
    for figure in drawn:
        figure.savefig(io.BytesIO(), dpi=30)


def test_results_are_plain_data():
    assert record.to_dicts({"rows": rows()})["rows"][0]["ratio"]["tight"]["median"] == 2.1


def test_chemtrain_environment_is_pinned_without_addresses():
    lines = sides.REQUIREMENTS.read_text().split()
    assert all(line.count("==") == 1 and "/" not in line for line in lines)
    wanted = {"chemtrain": "0.2.0", "jax": "0.4.37", "jaxlib": "0.4.36", "jax-md": "0.2.8"}
    assert wanted.items() <= sides.pinned(wanted).items()


def test_noise_is_judged_by_variance_times_seconds():
    plain = noise.Noise("plain", 100.0, ("C11", "C12"), [[160.0, 90.0]], [[2.0, 2.0]])
    quiet = noise.Noise("quiet", 50.0, ("C11", "C12"), [[162.0, 90.0]], [[1.0, 1.0]])
    assert plain.cost == pytest.approx([400.0])  # four times the hundred seconds, for half the error
    assert quiet.cost == pytest.approx([50.0])
    assert noise.distance(quiet, plain) == pytest.approx(np.sqrt(4 / 5 / 2))
    assert "| quiet | 50 | 50 | 8.0 | 0.6 |" in report.noise([plain, quiet], [323], ABOUT)


def test_an_independent_judgement_goes_on_from_the_temperatures_that_are_done(tmp_path, monkeypatch):
    first = list(independent.run("fused", tmp_path, independent.DRY, temperatures=(323,)))[-1]
    record.write(independent.name_of("fused"), "", first, tmp_path)
    asked = []
    simulate = independent.elastic.run

    def counted(potential, points, *arguments):
        asked.extend(point.temperature for point in points)
        return simulate(potential, points, *arguments)

    monkeypatch.setattr(independent.elastic, "run", counted)
    *_, both = independent.run("fused", tmp_path, independent.DRY, temperatures=(323, 173))
    assert asked == [173]
    assert list(both["by_temperature_K"]) == ["173", "323"]
    assert both["by_temperature_K"]["323"] == first["by_temperature_K"]["323"]
    shown = independent.text(both, ABOUT)
    assert "| T / K | C11, % | C12, % | C13, % | C33, % | C44, % | σxx, GPa | σzz, GPa | a, % | c, % |" in shown
    assert "of 10 constants are within 2 %" in shown
    constants, lattice = figures.independent(both).axes
    assert [len(ax.containers) for ax in (constants, lattice)] == [5, 2]
    other = replace(independent.DRY, seed=8)  # another question: nothing of the old answer counts
    *_, anew = independent.run("fused", tmp_path, other, temperatures=(173,))
    assert list(anew["by_temperature_K"]) == ["173"]


def test_a_learning_curve_goes_on_from_the_sizes_that_are_done(tmp_path, monkeypatch):
    smoke, trained_on = presets.get("smoke"), []

    def untrained(start, frames, validation, settings, checkpoint):
        trained_on.append({frame.info["config_id"] for frame in frames})
        checkpoint.touch()
        return start, []

    monkeypatch.setattr(learning.force_matching, "train", untrained)
    first = next(learning.run(tmp_path, smoke, (12,)))
    record.write("learning", "", first, tmp_path)
    *_, both = learning.run(tmp_path, smoke, (12, 24))
    small, large = trained_on  # the second call trains on the second size alone
    assert (len(small), len(large)) == (12, 24)
    assert small < large
    assert [(row["n_frames"], row["epochs"]) for row in both["curve"]] == [(12, 6), (24, 6)]
    usual, _ = learning.comparison.below(learning.comparison.frames(smoke).test, learning.comparison.USUAL_FORCE)
    assert all(abs(frame.get_forces()).max() < 8 for frame in usual)
    assert "| 24 | 6 | gpaw |" in learning.text(both, ABOUT)
    assert [ax.get_xlabel() for ax in figures.learning(both["curve"]).axes] == ["training frames"] * 2
    assert not list(tmp_path.glob("*.checkpoint*"))


@pytest.mark.parametrize("same", [True, False])
def test_the_model_of_all_frames_ships_if_its_data_and_settings_are_the_same(tmp_path, monkeypatch, same):
    smoke, loaded = presets.get("smoke"), []
    settings = presets.as_dict(smoke if same else replace(smoke, dft=replace(smoke.dft, learning_rate=1.0)))
    data = comparison.data_version(smoke, comparison.frames(smoke))
    shipped = {"preset": "smoke", "data": data, "settings": settings}
    monkeypatch.setattr(learning.run_folder, "shipped_record", lambda: json.loads(json.dumps(shipped)))
    monkeypatch.setattr(learning, "_train", lambda *_: Potential.load("titanium-fused"))
    load = Potential.load
    monkeypatch.setattr(learning.Potential, "load", lambda name: loaded.append(name) or load(name))
    list(learning.run(tmp_path, smoke, (12, 10_000)))
    assert ("titanium-dft" in loaded) == same


def test_independent_noise_is_noisier_than_coupled(monkeypatch):
    monkeypatch.setattr(noise, "REPEATS", (2, 2, 2))
    often = replace(noise.PLAIN, steps_per_snapshot=12)
    coupled, alone = (
        next(noise.run([replace(one, snapshots=8, langevin=often)], (323,), blocks=4, equilibration_ps=0.1))
        for one in noise.SAMPLERS[3:5][::-1]
    )
    assert np.mean(coupled.stderr) < np.mean(alone.stderr)


@pytest.mark.slow
def test_run_for_a_gpu_measures_on_a_cpu_too_and_writes_stage_by_stage(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # the run adds to it
    found = gpu.run(300, tmp_path, dry=True, stages=["machine", "forces", "dynamics", "precision"])
    assert json.loads((tmp_path / "gpu.json").read_text()) == record.to_dicts(found)
    assert {row["cells"] for row in found["forces"]["rows"]} == {"8 x 1", "96 x 1", "8 x 2"}
    assert all(row["flops"] > 1e5 * row["n_atoms"] for row in found["forces"]["rows"])
    assert [row["n_cells"] for row in found["dynamics"]["rows"]] == [1, 2]
    assert found["precision"]["highest"]["forces_relative_error"] < 1e-5
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".png"}


def test_large_cells_are_measured_with_either_search(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmarks", "cells", "--dry", "--into", str(tmp_path)])
    main()
    found = json.loads((tmp_path / "cells.json").read_text())["costs"]
    assert [(cost["n_atoms"], cost["search"]) for cost in found] == [(36, "all pairs"), (384, "bins")]
    assert all(0 < cost["step"]["low"] and 0 < cost["lists"]["low"] and 0 < cost["memory"] for cost in found)
    assert "| 384 | bins |" in (tmp_path / "cells.md").read_text()
    assert (tmp_path / "cells.png").exists()


def test_tiled_cell_has_the_energy_per_atom_and_the_forces_of_the_one_cell():
    atoms = titanium.frames((2, 2, 2), 1)[0]
    network = titanium.with_forces(titanium.network(TINY), atoms)
    near = neighbors.from_frames(atoms, network.cutoff)
    evaluate = jax.jit(Potential.evaluate)
    one = evaluate(network, systems.from_atoms(atoms), near)
    many = evaluate(network, *gpu._tiled(atoms, near, (2, 1, 3)))
    np.testing.assert_allclose(many.energy, 6 * one.energy, rtol=1e-5)
    np.testing.assert_allclose(many.forces, np.tile(one.forces, (6, 1)), atol=1e-5)


def test_gpu_run_goes_on_after_a_stage_that_fails_and_when_time_is_up(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")

    def fail(plan, left, into, keep):
        keep({"half": 1})
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu, "STAGES", {"first": fail, "second": lambda *_: {"done": True}})
    found = gpu.run(100, tmp_path, dry=True)
    assert found["first"] == {"half": 1, "failed": "RuntimeError: out of memory"}
    assert found["second"] == {"done": True}
    assert gpu.run(5, tmp_path, dry=True)["second"] == {"skipped": "no time left"}


def test_starts_share_the_measurements_and_differ_in_what_labels_they_learned_from(tmp_path):
    smoke = presets.get("smoke")
    studies = {start: starts.study_of(start, tmp_path, smoke) for start in starts.STARTS}
    assert {str(study.train_points) for study in studies.values()} == {str(studies["seed 0"].train_points)}
    assert [studies[f"seed {n}"].preset.seed for n in starts.SEEDS] == list(starts.SEEDS)
    tests = [[frame.info["config_id"] for frame in studies[f"seed {n}"].split.test] for n in starts.SEEDS]
    assert tests[0] == tests[1] == tests[2]
    foreign = studies[starts.LENNARD_JONES].frames
    assert {labelled_frames.source(frame) for frame in foreign} == {"lennard-jones"}
    assert len({study.output for study in studies.values()}) == len(starts.STARTS)
    further = {start: [(one.name, one.measured) for one in study.targets] for start, study in studies.items()}
    assert [start for start in further if further[start] == [("E2g", 4.18)]] == list(starts.STARTS[-2:])
    assert not any(further[start] for start in starts.STARTS[:-2])


def test_a_committee_goes_on_from_the_seeds_that_are_done_and_shows_two_errors(tmp_path, monkeypatch):
    smoke, trained = presets.get("smoke"), []
    stress = {"value": 0.1, "stderr": 0.0, "measured": 0.0}

    def found(shift):
        constant = {"value": 170.0 + shift, "stderr": 0.3, "measured": 176.0}
        point = {"elastic": {"C11": constant}, "lattice": {}, "stress": {"xx": stress}, "pressure": stress}
        return {name: {"experiment": {"323": point}} for name in ("dft", "experiment", "fused")}

    def train(study):
        trained.append(study.preset.seed)
        for name in ("dft", "experiment", "fused"):
            Potential.load(f"titanium-{name}").save(study.output / name / "potential.safetensors")
        return {"models": found(study.preset.seed)}

    monkeypatch.setattr(committee.training, "train", train)
    monkeypatch.setattr(committee, "recorded", lambda: {name: one["experiment"] for name, one in found(0).items()})
    monkeypatch.setattr(committee.starts, "untrained_quantities", lambda potential: {"phonon_E2g": 4.0})
    first = next(committee.run(tmp_path, smoke, (0, 1)))
    assert "170.0 ± 0.3 " in committee.text(first, ABOUT)
    record.write("committee", "", first, tmp_path)
    *_, both = committee.run(tmp_path, smoke, (0, 3))
    assert trained == [3]
    shown = committee.text(both, ABOUT)
    assert "171.5 ± 0.2 (2.1)" in shown  # means of 170 and 173, errors of 0.3 over the root of two
    assert "| phonon_E2g | 4.16 | 4.00 (0.00) | 4.00 (0.00) | 4.00 (0.00) |" in shown
    assert "seeds 0, 3" in shown
    left = figures.committee(both["members"]).axes[0]
    assert [line.get_xdata()[0] for line in left.lines[1:3]] == pytest.approx([170 / 176, 173 / 176])


def test_a_committee_is_shown_without_what_a_member_lacks(tmp_path, monkeypatch):
    """A model may explode in the dynamics, or have no minimum near the crystal."""
    constant = {"value": 170.0, "stderr": 0.3, "measured": 176.0}
    point = {"elastic": {"C11": constant}, "lattice": {}, "stress": {}, "pressure": constant}
    found = {"dft": {}, "experiment": {"323": point}, "fused": {"323": point}}
    at_rest = iter([{}, {"phonon_E2g": 4.0}, {"phonon_E2g": 4.1}])
    monkeypatch.setattr(committee, "recorded", lambda: found)
    monkeypatch.setattr(committee.starts, "untrained_quantities", lambda potential: next(at_rest))
    (one,) = committee.run(tmp_path, presets.get("smoke"), (0,))
    left, _, right = figures.committee(one["members"]).axes
    assert [line.get_xdata().tolist() for line in left.lines[1:]] == [
        [pytest.approx(np.nan, nan_ok=True)],
        *2 * [[170 / 176]],
    ]
    assert [np.isfinite(line.get_xdata()).sum() for line in right.lines[1:]] == [1, 2, 2]  # all have force errors
    assert "| phonon_E2g | 4.16 | - | 4.00 | 4.10 |" in committee.text(one, ABOUT)


def test_a_transition_is_kept_for_every_model_and_a_phase_that_is_not_stable_is_told(tmp_path, monkeypatch):
    number = {"value": 1160.0, "stderr": 12.0}
    by_temperature = {f"{t:g}": {"difference_eV_per_atom": {"value": 2e-3, "stderr": 5e-4}} for t in (1055, 1155, 1255)}
    result = {"by_temperature_K": by_temperature, "transition_K": number, "latent_heat_kJ_per_mol": None}
    asked = []

    def compare(potential, phases, temperatures, settings, name):
        asked.append(name)
        if "DFT" in name:
            raise ValueError("bcc has transformed")
        return SimpleNamespace(as_dict=lambda: result)

    monkeypatch.setattr(transition.transition, "run", compare)
    first = next(transition.run(tmp_path, ("fused",)))
    record.write("transition", "", first, tmp_path)
    *_, both = transition.run(tmp_path, ("fused", "dft"))
    assert asked == ["fused, hcp to bcc", "DFT-only, hcp to bcc"]
    shown = transition.text(both, ABOUT)
    assert "| transition temperature, K | 1155 | 1160 ± 12 |" in shown
    assert "| latent heat, kJ/mol | 4.13 | - |" in shown
    assert "| G of bcc minus G of hcp at 1155 K, meV/atom | - | 2.0 ± 0.5 |" in shown
    assert "DFT-only: bcc has transformed" in shown


def test_constants_at_rest_and_their_derivatives_are_those_of_finite_differences_of_a_lennard_jones_crystal():
    argon = Potential({"epsilon": jnp.array([0.0104]), "sigma": jnp.array([3.4])}, LennardJones(8.0), (18,), (0.0,))
    cell = crystals.unit_cell(relax.equilibrium(Crystal("Ar", "hcp", 3.7, 6.1), FusedCalculator(argon)))
    quantity = next_measurement.constants_at_rest(argon, [cell, cell])
    found = np.asarray(jax.jit(quantity)(argon)).reshape(2, 7) / cell.get_volume() / GPA
    finite = elastic.run(cell, FusedCalculator(argon), "hexagonal").constants_gpa
    np.testing.assert_allclose(found[:, :5], [list(finite.values())] * 2, rtol=0.01)
    np.testing.assert_allclose(found[:, 5:], 0, atol=0.01)
    by_epsilon = next_measurement.jacobian(argon, quantity)[:, 0].reshape(2, 7) / cell.get_volume() / GPA
    np.testing.assert_allclose(0.0104 * by_epsilon, found, rtol=1e-3, atol=2e-3)  # constants are proportional to it


def test_an_exact_measurement_removes_what_conditioning_by_another_route_removes(rng):
    gradients, known, labels = rng.normal(size=(4, 12)), rng.normal(size=(2, 12)), rng.normal(size=(5, 12))
    found = next_measurement.shares(gradients, known, labels)
    floor, certain = gauss_newton.PENALTY_FLOOR * np.sum(labels**2), 1e3

    def variances(*measured):  # as observations with a small error, one rank at a time
        rows = np.concatenate([certain * np.stack([*measured]), labels]) if measured else labels
        inverse = np.linalg.inv(floor * np.eye(12) + rows.T @ rows)
        return np.einsum("ij,jk,ik->i", gradients, inverse, gradients)

    before, after = variances(), variances(*known)
    np.testing.assert_allclose(found["left"], after / before, rtol=1e-3)
    for m, gradient in enumerate(gradients):
        removed = 1 - variances(*known, gradient) / after
        np.testing.assert_allclose(np.array(found["removed"])[:, m], removed, atol=1e-3)


def test_what_a_measurement_would_tell_is_kept_and_shown(tmp_path, monkeypatch):
    smoke = presets.get("smoke")
    monkeypatch.setattr(next_measurement, "quantities", lambda potential: {
        "u": lambda potential: potential.params["a"][0], "v": lambda potential: potential.params["a"].sum()
    })  # fmt: skip
    monkeypatch.setattr(next_measurement, "constants_at_rest", lambda *_: lambda potential: potential.params["a"][1:2])
    monkeypatch.setattr(next_measurement.Potential, "load", lambda name: SimpleNamespace(
        params={"a": jnp.arange(3.0)}, with_params=lambda params: SimpleNamespace(params=params)
    ))  # fmt: skip
    monkeypatch.setattr(next_measurement, "ForceMatchingTrainer", lambda *_: SimpleNamespace(
        gauss_newton_sketch=lambda params, n, rows: np.eye(3)[:rows]
    ))  # fmt: skip
    (found,) = next_measurement.run(tmp_path, smoke, rows=1)
    np.testing.assert_allclose(found["without labels"]["left"], [1, 2 / 3], atol=1e-5)
    np.testing.assert_allclose(found["without labels"]["removed"], [[1, 0.5], [0.5, 1]], atol=1e-5)
    shown = next_measurement.text(found, ABOUT)
    assert "| u | 100 | 50 |" in shown
    record.write("next_measurement", shown, found, tmp_path)
    monkeypatch.setattr(next_measurement, "shares", None)  # not computed again
    assert next(next_measurement.run(tmp_path, smoke, rows=1)) == json.loads(json.dumps(found))


def test_liquids_are_kept_for_every_model_and_a_collapse_is_told(tmp_path, monkeypatch):
    r, number = np.arange(2.0, 5.0, 0.5), {"value": 0.53, "stderr": 0.02}
    radial = Estimate(np.array([[0.4, 2.2, 2.6, 1.5, 1.0, 1.1]] * 2), np.full((2, 6), 0.1))
    names = ("diffusion_A2_per_ps", "coordination", "pressure_GPa")
    table = {"by_temperature_K": {t: dict.fromkeys(names, number) for t in ("2000", "3000")}}
    asked = []

    def melt(potential, frames, temperatures, settings, name):
        asked.append((name, len(frames[0]), temperatures))
        if "DFT" in name:
            raise ValueError("atoms met")
        return SimpleNamespace(as_dict=lambda: table, r=r, radial=radial)

    monkeypatch.setattr(liquids.liquid, "run", melt)
    first = next(liquids.run(tmp_path, ("fused",)))
    record.write("liquids", "", first, tmp_path)
    *_, both = liquids.run(tmp_path, ("fused", "dft"))
    assert asked == [(f"{name}, liquid", 128, (2000.0, 3000.0)) for name in ("fused", "DFT-only")]
    shown = liquids.text(both, ABOUT)
    assert "| fused | 3000 | 5.3 ± 0.2 | 3.00, 2.60 | 0.5 ± 0.0 | 0.5 ± 0.0 |" in shown
    assert "2 replicas of 50 ps" in shown
    assert "DFT-only: atoms met" in shown
    (line,) = [line for line in figures.liquids(both)["liquids-3000"].axes[0].lines if line.get_label() == "fused"]
    assert line.get_ydata().tolist() == radial.value[1].tolist()
    assert figures.liquids({"models": {"dft": {"failed": "atoms met"}}}) == {}


def test_the_lennard_jones_start_has_the_size_and_stiffness_of_titanium_and_nothing_else(tmp_path):
    point = experiments.load_state_points()[0]
    found = summary.run(point.crystal, starts.calculator(), phases=("bcc", "fcc"))
    value = {entry.quantity: entry.value for entry in found.entries}
    assert value["a"] == pytest.approx(point.crystal.a, rel=0.005)
    assert value["bulk_modulus"] == pytest.approx(110, rel=0.05)
    assert value["fcc_energy_above_hcp"] < 5  # PBE: 55 meV/atom
    assert value["phonon_B1g"] > 7  # PBE: 5.7 THz


def test_the_figure_of_starts_shows_what_models_of_equal_constants_disagree_on():
    beyond = dict.fromkeys(starts.QUANTITIES, 1.0)
    elastic = {"C11": {"value": 161.0, "stderr": 1.0, "measured": 160.0}}
    rows = [
        {"start": start, "model": model, "elastic": elastic, "beyond": beyond if start != "seed 1" else {}}
        for start in starts.STARTS
        for model in ("experiment", "fused")
    ]
    fig = figures.starts(rows)
    assert [[label.get_text() for label in ax.get_yticklabels()] for ax in fig.axes][:2] == [
        ["C11"], ["bcc", "fcc", "omega"]
    ]  # fmt: skip
    assert "| experiment-only | seed 1 | 161.0 | - |" in starts.text({"models": rows, "data": ""}, ABOUT)
