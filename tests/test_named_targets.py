"""Sections [[targets]] of a settings file: how they are read, and that training meets these targets."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import refusals
from ase.build import bulk
from ase.io import write
from copper import copper

from fusedff import results, tables
from fusedff.commands import cli, material, targets
from fusedff.crystallography import crystals
from fusedff.crystallography.crystals import Crystal
from fusedff.data import datasets
from fusedff.interfaces.ase import FusedCalculator
from fusedff.measurements.state_points import StatePoint
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Potential
from fusedff.properties.static import zone_center
from fusedff.simulation import langevin
from fusedff.training import difftre
from fusedff.training.config import SamplingConfig

SETTINGS = """\
frames = "frames.extxyz"
table = "measured.csv"
symbol = "Ar"
structure = "hcp"
output = "models"
preset = "smoke"
repeats = [2, 2, 1]
evaluation.langevin = {timestep_fs = 10.0, friction_per_ps = 2.0, steps_per_snapshot = 20, skin = 0.6}
evaluation.equilibration = 20
evaluation.snapshots = 60
experiment.updates = 5
experiment.stress_weight = 0.0
experiment.sampling.reuse_above = 1.0
experiment.optimizer.relaxation = 1.0
experiment.optimizer.final_relaxation = 0.3
experiment.sampling.langevin = {timestep_fs = 10.0, friction_per_ps = 2.0, steps_per_snapshot = 20, skin = 0.6}
experiment.sampling.first_equilibration = 20
experiment.sampling.equilibration = 5
experiment.sampling.snapshots = 12
"""
LIQUID = """
[[targets]]
kind = "density"
structure = "liquid.extxyz"
density_g_cm3 = 1.11
temperature_K = 120
pressure_GPa = {pressure}
stderr_GPa = 0.01
replicas = 4

[[targets]]
kind = "radial_distribution"
file = "gr.csv"
structure = "liquid.extxyz"
density_g_cm3 = 1.11
temperature_K = 120
r_max_A = 5.6
spacing_A = 0.2
stderr = 0.05
replicas = 4
"""
HEAT = """
[[targets]]
kind = "heat_capacity"
heat_capacity_kB = {heat}
temperature_K = 20
repeats = [2, 2, 2]
replicas = 4
sampling.langevin.steps_per_snapshot = 10
"""
PHONON = """
[[targets]]
kind = "phonon"
name = "E2g"
frequency_THz = {frequency}
stderr_THz = 0.01
temperature_K = 10
displacements = [[1, 0, 0], [-1, 0, 0]]
"""


def argon(epsilon, sigma) -> Potential:
    """Short-ranged Lennard-Jones; epsilon in units of 0.104 eV."""
    params = {"epsilon": jnp.array([epsilon], jnp.float32), "sigma": jnp.array([sigma], jnp.float32)}
    return Potential(params, LennardJones(5.1), (18,), (0.0,), 0.104)


TRUTH, WRONG = argon(0.1, 3.4), argon(0.085, 3.46)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A study of argon, whose frames are those of copper under another name: nothing here learns from them."""
    frames = copper(24)
    for frame in frames:
        frame.numbers[:] = 18
        frame.set_cell(1.45 * frame.cell.array, scale_atoms=True)
    monkeypatch.setattr(datasets, "load_files", lambda *_: tuple(frames))
    liquid = bulk("Ar", "fcc", a=6.0, cubic=True) * (2, 2, 2)  # melts by itself at 60 % of the density of the crystal
    liquid.rattle(0.4, seed=0)
    write(tmp_path / "liquid.extxyz", liquid)
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,c_A\n4,3.70,6.05\n")
    (tmp_path / "gr.csv").write_text("# made up\nr_nm,g\n0.29,0.0\n0.4,2.0\n0.8,1.0\n")
    return tmp_path


def loaded(folder, *sections, **values):
    (folder / "study.toml").write_text(SETTINGS + "".join(sections).format(**values))
    return material.load(folder / "study.toml")


def evaluated(mine, potential):
    sampling = mine.preset.experiment.sampling
    return targets.evaluate(mine.targets, potential, mine.preset.evaluation, sampling, "argon")


def test_what_one_potential_shows_is_learned_by_another(folder):
    """Measured on the true potential, taught to a wrong one, found in what has been trained: by the same settings."""
    guess = {"pressure": 0.0, "frequency": 1.0}
    found = evaluated(loaded(folder, LIQUID, PHONON, **guess), TRUTH)
    true = {name: entry["value"] for name, entry in found["targets"].items()}
    curve = found["curves"]["g(r)"]
    rows = [f"{r:.3f},{g:.5f}" for r, g in zip(curve["r_A"], curve["g"], strict=True)]
    (folder / "gr.csv").write_text("\n".join(["r_A,g", *rows]) + "\n")
    mine = loaded(folder, LIQUID, PHONON, pressure=true["P at density"], frequency=true["E2g"])
    experiment = mine.preset.experiment
    points = [*mine.train_points, *(one.in_training(WRONG, experiment.sampling) for one in mine.targets)]
    trained, history = difftre.train(WRONG, points, experiment)
    measured = {one.name: one.measured for one in mine.targets}
    for name in ("P at density", "g(r)"):
        assert abs(history[-1][name] - measured[name]) < 0.7 * abs(history[0][name] - measured[name])
    after = evaluated(mine, trained)["targets"]
    assert after["E2g"]["value"] == pytest.approx(true["E2g"], rel=5e-3)  # it has no noise; the start is 4 % off
    assert after["E2g"]["stderr"] is None
    pressure = after["P at density"]
    # the start is 0.025 GPa off; what is left is the noise of five short trajectories, some 0.005 GPa
    assert abs(pressure["value"] - pressure["measured"]) < 0.0125
    assert 0 < pressure["stderr"] < 0.005
    assert after["g(r)"]["value"] < 0.05  # the noise of both curves; 0.08 at the start
    # they start 15 % and 2 % off; the frequency fixes epsilon / sigma^2, the pressure, with noise, the rest
    assert float(trained.params["epsilon"][0]) == pytest.approx(0.1, rel=0.08)
    assert float(trained.params["sigma"][0]) == pytest.approx(3.4, rel=5e-3)


def test_a_cold_crystal_has_the_heat_capacity_of_dulong_and_petit_in_single_precision(folder):
    """kT/2 for every vibration and every momentum; the centre of mass rests."""
    (found,) = evaluated(loaded(folder, HEAT, heat=3.0), TRUTH)["targets"].values()
    # 4 x 60 snapshots tell a variance to 9 %, correlated ones to less
    assert found["value"] == pytest.approx(3.0, abs=0.4)
    assert 0.02 < found["stderr"] < 0.3


SALT = Crystal("NaCl", "rocksalt", 5.0)


def phonon(crystal, **which):
    context = targets.Context(Path(), [StatePoint(300.0, crystal)], (1, 1, 1), SamplingConfig())
    return targets.Phonon(name="TO", frequency_THz=5.0, temperature_K=300.0, **which).as_target(context).target


def test_an_optical_mode_is_one_of_the_zone_centre_in_a_cell_of_several_primitive_ones():
    """Rock salt has one, three times degenerate: Na against Cl, by whichever name."""
    params = {"epsilon": jnp.full(2, 0.05), "sigma": jnp.full(2, 2.6)}
    model = Potential(params, LennardJones(8.0), (11, 17), (0.0, 0.0))
    cell = crystals.unit_cell(SALT)
    optical = zone_center.optical(cell, FusedCalculator(model), 1e-3)
    opposite = [[1, 1, 0] if symbol == "Na" else [-1, -1, 0] for symbol in cell.symbols]
    for which in ({"index": 0}, {"index": 2}, {"displacements": opposite}):
        assert float(phonon(SALT, **which).observe(model)[0]) == pytest.approx(optical.mean(), rel=1e-4)


def test_modes_of_the_zone_boundary_are_refused():
    argon = Crystal("Ar", "fcc", 5.3)
    layers = [[1, 0, 0], [1, 0, 0], [-1, 0, 0], [-1, 0, 0]]
    for which in ({"index": 0}, {"displacements": layers}):
        with pytest.raises(ValueError, match="fcc Ar has one atom in its primitive cell and so no optical modes; leav"):
            phonon(argon, **which)
    with pytest.raises(ValueError, match=r"of NaClNaClNaClNaCl: atoms 0 and 2, from 0, are equal by a translation"):
        phonon(SALT, displacements=2 * layers)
    with pytest.raises(ValueError, match="index 3 of 3; give 0 to 2"):
        phonon(SALT, index=3)


def test_check_says_what_it_has_read(folder, capsys):
    loaded(folder, LIQUID, HEAT, PHONON, pressure=0.0, heat=3.1, frequency=1.0)
    assert cli.main(["check", str(folder / "study.toml")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("target")]
    liquid = "liquid.extxyz, 32 atoms, 1.11 g/cm³, edges 12.4, 12.4, 12.4 Å, 4 replicas"
    assert said == [
        f"target        P at density 0 ± 0.01 GPa at 120 K; {liquid}",
        f"target        g(r) of gr.csv at 120 K, from 3 to 5.6 Å (of 8 measured), ± 0.05; {liquid}",
        "target        C_V 3.1 ± 0.1 k_B per atom at 20 K; the crystal measured at 4 K, 16 atoms, 1.85 g/cm³, "
        "edges 7.4, 7.4, 12.1 Å, 4 replicas",
        "target        E2g 1 ± 0.01 THz, at 0 K in the cell measured at 4 K",
    ]


def test_the_targets_of_the_page_are_understood(folder):
    page = (Path(__file__).parents[1] / "docs" / "extending" / "material.md").read_text()
    (text,) = re.findall(r"```toml\n(\[\[targets.*?)```", page, flags=re.DOTALL)
    (folder / "gr.csv").rename(folder / "liquid_gr.csv")
    phonon, curve = loaded(folder, text).targets
    assert (phonon.name, phonon.measured, phonon.cells) == ("E2g", 4.18, None)
    assert curve.cells.n_cells == 2
    sampling = material.load(folder / "study.toml").preset.experiment.sampling
    assert curve.in_training(TRUTH, sampling).sampling.langevin == (
        langevin.LangevinConfig(timestep_fs=2.0, friction_per_ps=2.0, steps_per_snapshot=20, skin=0.6)
    )


def test_settings_of_a_target_are_those_of_the_training_but_for_what_it_says(folder):
    (heat,) = loaded(folder, HEAT, heat=3.1).targets
    mine = loaded(folder, HEAT, heat=3.1).preset.experiment.sampling
    sampling = heat.in_training(TRUTH, mine).sampling
    assert sampling.langevin.steps_per_snapshot == 10
    assert (sampling.snapshots, sampling.langevin.timestep_fs) == (mine.snapshots, mine.langevin.timestep_fs)


def test_a_curve_is_read_in_steps_up_to_half_the_cell_with_its_errors(folder):
    r = np.arange(2.95, 9.0, 0.05)
    g = 1 + np.sin(r) / r
    rows = [f"{x:.3f},{y:.6f},{0.01 * x:.5f}" for x, y in zip(r, g, strict=True)]
    (folder / "gr.csv").write_text("\n".join(["r_A,g,stderr", *rows]) + "\n")
    _, found = loaded(folder, LIQUID.replace("r_max_A = 5.6\n", ""), pressure=0.0).targets
    half, r = 0.5 * float(found.target.cells.lattice[0, 0, 0]), found.target.r
    np.testing.assert_allclose(r, 0.2 * np.arange(15, 15 + len(r)))
    assert r[-1] + 0.2 <= half < r[-1] + 0.4
    np.testing.assert_allclose(found.target.measured[0], 1 + np.sin(r) / r, atol=1e-4)
    np.testing.assert_allclose(found.target.stderr[0], 0.01 * r, atol=1e-5)


def test_tables_and_lines_tell_measured_found_and_seen_in_training():
    def model(value, seen):
        entries = {
            "E2g": {"value": value, "stderr": None, "measured": 4.18, "unit": "THz"},
            "g(r)": {"value": 0.05, "stderr": 0.01, "measured": 0.0, "unit": ""},
        }
        return {"targets": entries, "in_training": seen}

    models = {"dft": model(3.9, {}), "fused": model(4.2, {"E2g": 4.15, "g(r)": 0.04})}
    assert tables.target_lines(models) == [
        "             E2g: measured 4.18 THz; DFT-only 3.90, fused 4.20 [4.15]",
        "            g(r): root mean square deviation from the measured curve; DFT-only 0.050 ± 0.010, "
        "fused 0.050 ± 0.010 [0.040]",
        "",
    ]
    assert results.target_rows(models)[2] == {
        "model": "fused", "target": "E2g", "unit": "THz", "value": 4.2, "stderr": None, "measured": 4.18,
        "deviation": pytest.approx(0.02), "in_training": 4.15,
    }  # fmt: skip
    both = results.average_members([models, {"dft": model(4.1, {}), "fused": model(4.4, {"E2g": 4.25, "g(r)": 0.06})}])
    assert "E2g: measured 4.18 THz; DFT-only 4.00 (0.14), fused 4.30 (0.14) [4.20]" in tables.target_lines(both)[0]


STATE = "temperature_K = 120\npressure"
BEGINS = "error: study.toml"
NEXT = 'replicas = 4\n\n[[targets]]\nkind = "radial'


@pytest.mark.parametrize(("old", "new", "says"), [
    ("density_g_cm3 = 1.11\n", "", "density_g_cm3 = None.* a number above 0"),
    ('kind = "density"', 'kind = "densty"', r"\[\[targets\]\] 1: kind 'densty' is unknown; use one of phonon, radial"),
    ('kind = "density"', "kind = []", r"\[\[targets\]\] 1: kind \[\] is unknown; use one of phonon, radial"),
    ('kind = "density"\n', "", r"\[\[targets\]\] 1: 'kind' is missing; use one of phonon, radial_distribution"),
    ("stderr_GPa", "stderr_Gpa", r"1 \(density\): setting 'stderr_Gpa' is unknown; did you mean 'stderr_GPa'\?"),
    ("density_g_cm3 = 1.11", "density_g_cm3 = 1110.0", r"Density: density_g_cm3 = 1110\.0; give g/cm\^3"),
    (STATE, "pressure", r"\(density\): 'temperature_K' is missing; add it"),
    (STATE, f"temperature_K = -1\n{STATE[20:]}", r"temperature_K = -1; give a number above 0"),
    ("pressure_GPa = 0", 'pressure_GPa = "none"', r"pressure_GPa = 'none' is not a number; correct it"),
    ('"liquid.extxyz"', '"gas.extxyz"', r"1 \(density\): .*gas\.extxyz does not exist"),
    (NEXT, NEXT.replace("replicas = 4", "repeats = [0, 1, 1]"), r"repeats = \[0, 1, 1\]: give three positive whole"),
    (NEXT, NEXT.replace("replicas = 4", "repeats = []"), r"repeats = \[\]: give three positive whole"),
    ('"liquid.extxyz"', '"molecule.xyz"', r"1 \(density\): molecule\.xyz: periodic along .* only; set pbc to T T T"),
    ('"liquid.extxyz"', '"empty.xyz"', r"1 \(density\): empty\.xyz: cannot be read as extxyz \(StopIteration\); give"),
    (NEXT, NEXT.replace("replicas = 4", "sampling.snapshot = 3"),
     r"\(density\): sampling: setting 'snapshot' is unknown; did you mean 'snapshots'\?"),
    ('"gr.csv"', '"rg.csv"', r"2 \(radial_distribution\): .*rg\.csv does not exist"),
    ("stderr = 0.05", "stderr = 0", r"stderr = 0; give a number above 0"),
    ("stderr = 0.05", 'pair = ["Ar"]', r"pair = \['Ar'\]; give two chemical symbols"),
    ("stderr = 0.05", 'pair = ["Ar", "Kr"]', r"the cells have no pair of the elements"),
    ("stderr = 0.05", 'name = "P at density"', r"another target is called 'P at density' too"),
    ("stderr = 0.05", 'name = "loss"', r"name = 'loss' cannot be used"),
    ("spacing_A = 0.2", "spacing_A = 1e-9", r"spacing_A = 1e-09; no curve is measured in steps below 0\.001 Å"),
    ("spacing_A = 0.2", "spacing_A = 3.0", r"gr\.csv has 2\.9 to 8 Å, of which the cell .* leaves 1 steps of 3 Å"),
])  # fmt: skip
def test_a_wrong_target_is_one_sentence(folder, capsys, old, new, says):
    (folder / "molecule.xyz").write_text("2\n\nAr 0 0 0\nAr 0 0 3.8\n")
    (folder / "empty.xyz").touch()
    refusals.check_changed(folder, capsys, SETTINGS + LIQUID.format(pressure=0), old, new, says, BEGINS)


@pytest.mark.parametrize(("old", "new", "says"), [
    ("displacements = [[1, 0, 0], [-1, 0, 0]]", "", r"\(phonon\): which mode is E2g\? Give either displacements or in"),
    ("displacements = [[1, 0, 0], [-1, 0, 0]]", "index = 3", r"mode E2g: index 3 of 3; give 0 to 2"),
    ("displacements = [[1, 0, 0], [-1, 0, 0]]", "displacements = [[1, 0, 0]]", r"mode E2g: .*give \(2, 3\)"),
    ("displacements = [[1, 0, 0], [-1, 0, 0]]", 'displacements = [["x"], 1]', r"give a list of three numbers for each"),
    ("[[1, 0, 0], [-1, 0, 0]]", "[[nan, 0, 0], [-1, 0, 0]]", r"give a list of three numbers for each"),
    ("temperature_K = 10", "temperature_K = -10", r"temperature_K = -10; give 0 or a number above"),
    ("stderr_THz = 0.01", "stderr_THz = 0", r"mode E2g: standard error 0; give a positive number"),
    ("frequency_THz = 1", "frequency_THz = -1", r"mode E2g: frequency -1; give a positive number"),
    ("frequency_THz = 1", "", r"'frequency_THz' is missing; add it"),
    ("[[targets]]", "[targets]", r"targets = .* does not fit; make each target a section \[\[targets\]\]"),
])  # fmt: skip
def test_a_wrong_phonon_is_one_sentence(folder, capsys, old, new, says):
    refusals.check_changed(folder, capsys, SETTINGS + PHONON.format(frequency=1), old, new, says, BEGINS)


@pytest.mark.parametrize(("text", "says"), [
    ("r,g\n1,0\n2,1\n3,1\n", r"gr\.csv has the columns r, g; give r_A or r_nm, g and, if known, stderr"),
    ("r_A,g\n3,0\n2,1\n4,1\n", r"gr\.csv: the radii of its 3 rows must ascend from 0 on"),
    ("r_A,g\n3,-1\n4,1\n5,0\n", r"g is -1 at its smallest; give g\(r\), which is 1 far away"),
    ("r_A,g,stderr\n3,0,0\n4,1,1\n5,1,1\n", r"a stderr is not above 0"),
    ("r_A,g\n3,zero\n4,1\n5,1\n", r"gr\.csv, line 2: g is 'zero', not a number"),
    ("r_A,g\n", r"gr\.csv, line 1: give a header of different names and at least one row"),
])  # fmt: skip
def test_a_wrong_curve_is_one_sentence(folder, capsys, text, says):
    (folder / "gr.csv").write_text(text)
    refusals.check(folder, capsys, SETTINGS + LIQUID.format(pressure=0), says, BEGINS)


@pytest.mark.filterwarnings("ignore:argon, P at density")
def test_a_simulation_that_explodes_is_said_and_leaves_no_number(folder, monkeypatch):
    """An untaught model may not bear a liquid, and the evaluation of the others is not lost."""

    def explode(*arguments):
        raise langevin.ExplodedTrajectoryError("cell 0 at 120 K exploded", 0)

    monkeypatch.setattr(langevin.Simulation, "sample", explode)
    with pytest.warns(UserWarning, match=r"argon, g\(r\): cell 0 at 120 K exploded"):
        found = evaluated(loaded(folder, LIQUID, pressure=0.0), TRUTH)
    assert found["curves"] == {"g(r)": None}
    models = {"dft": found | {"in_training": {}}}
    assert "P at density: measured 0 GPa; DFT-only exploded" in tables.target_lines(models)[0]
    assert results.target_rows(models)[0]["deviation"] is None
    fine = {"value": 0.1, "stderr": 0.01, "measured": 0.0, "unit": "GPa"}
    both = results.average_members([found["targets"]["P at density"], fine])
    assert both == {"value": None, "stderr": None, "spread": None, "measured": 0.0, "unit": "GPa"}
    assert results.average_members([{"g(r)": None}, {"g(r)": {"g": [1.0]}}]) == {"g(r)": None}
