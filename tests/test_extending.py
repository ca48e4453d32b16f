"""The how-tos of docs/extending: their code runs as printed, with the results they state."""

import inspect
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.io import read
from pairs import Pairs

from fusedff.commands import cli
from fusedff.commands import material as material_command
from fusedff.data import FILES
from fusedff.interfaces import calculators
from fusedff.runtime import storage
from fusedff.training import difftre, force_matching, fused

PAGES = Path(__file__).parents[1] / "docs" / "extending"


def blocks(page: str, language: str) -> list[str]:
    """What a page has between ```language and ```, in order."""
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)


def run(page: str) -> dict:
    """Execute the Python blocks of a page in order, as a reader would, and return the names that they define."""
    names = {"__name__": page}
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    return names


def test_a_target_pulls_the_mean_energy_to_its_measured_value():
    history = run("target.md")["history"]
    first, last = (abs(history[n]["U@20K"] + 0.075) for n in (0, -1))
    # what is left is the noise of 20 snapshots of 4 atoms: kT = 1.7 meV, over the square root of a few dozen modes
    assert last < 1.5e-3 < 0.2 * first


def test_an_estimator_agrees_with_ours_within_the_errors_and_has_larger_ones():
    found = run("estimator.md")["found"]
    ours, apart = found["CoupledStrains"], found["IndependentStrains"]
    error = np.hypot(ours.elastic_stderr, apart.elastic_stderr)
    assert np.all(np.abs(ours.elastic - apart.elastic) < 4 * error)
    assert apart.elastic_stderr.sum() > 1.5 * ours.elastic_stderr.sum()


def test_a_property_gives_the_cohesive_energy_that_emt_was_fitted_to():
    copper = run("property.md")["copper"]
    assert copper.eV_per_atom == pytest.approx(3.51, abs=0.03)
    assert copper.lattice_constant_A == pytest.approx(3.59, abs=0.01)


def material(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run("material.md")
    assert (tmp_path / "copper.safetensors").exists()
    assert names["symmetry"] == "tetragonal 4/mmm"
    assert list(names["point"].elastic_stderr) == ["C44"]
    return names


def test_the_steps_for_a_material_fit_together(tmp_path, monkeypatch):
    """With trainings that return what they get: tests/test_material.py and notebook 09 train by the same calls."""
    given = {}

    def stand_in(module):
        signature = inspect.signature(module.train)

        def train(*arguments):
            given[module.__name__] = signature.bind(*arguments).arguments
            return arguments[0], []

        return train

    for module in (force_matching, fused):
        monkeypatch.setattr(module, "train", stand_in(module))
    names = material(tmp_path, monkeypatch)
    for bound in given.values():
        assert bound["start"].numbers == (29,)
        assert len(bound["frames"]) == 16
    assert [point.temperature for point in given[fused.__name__]["target"]] == [300.0]
    assert names["potential"].reference[0] == pytest.approx(names["reference"]["Cu"])


@pytest.mark.slow
def test_a_material_is_trained_from_frames_and_a_table(tmp_path, monkeypatch):
    names = material(tmp_path, monkeypatch)
    assert {"C11@300K", "dft_loss"} <= set(names["history"][-1])


@pytest.fixture
def compound(tmp_path, monkeypatch):
    """The folder of a reader who has copied the files and written the settings of compound.md."""
    monkeypatch.chdir(tmp_path)
    for path in FILES.glob("mgo_*"):
        shutil.copy(path, ".")
    (settings,) = blocks("compound.md", "toml")
    Path("study.toml").write_text(settings)
    return tmp_path


def test_the_frames_of_a_compound_are_labels_of_the_structures_of_its_page(compound, capsys):
    run("compound.md")
    structures, labelled = read("structures.extxyz", ":"), read("mgo_pbe.extxyz", ":")
    assert f"stopped after {len(labelled)} of the {len(structures)}" in (PAGES / "compound.md").read_text()
    for structure, frame in zip(structures, labelled, strict=False):
        assert frame.info["config_id"] == structure.info["config_id"]
        np.testing.assert_allclose(frame.positions, structure.positions, atol=1e-7)
        np.testing.assert_allclose(frame.cell, structure.cell, atol=1e-7)
        assert frame.info["dft"] == "GPAW-PBE-PW700-k0.26/0.8-MP0.2"  # as the command of the page says
    label, command = (block for block in blocks("compound.md", "bash") if "label" in block)
    assert cli.main(shlex.split(label)[1:]) == 0
    printed = re.search(r"mpirun .*", capsys.readouterr().out).group().split()
    assert [Path(word).name for word in printed] == [Path(word).name for word in command.split()[1:] if word != "\\"]


def test_the_table_and_the_settings_of_a_compound_are_understood(compound, capsys):
    rows = [line for line in Path("mgo_experiment.csv").read_text().splitlines() if not line.startswith("#")]
    assert blocks("compound.md", "text")[0].splitlines() == rows
    assert cli.main(["check", "study.toml"]) == 0
    said = capsys.readouterr().out
    assert "rocksalt MgO, cubic" in said
    assert "(adiabatic); trained on 300, 700, 1100 K; held out 500, 900, 1300 K" in said


@pytest.mark.slow
def test_the_models_of_a_compound_are_trained(compound):
    """Minutes: `python -m pytest -m slow tests/test_extending.py`."""
    settings = Path("study.toml").read_text().replace('"demo"', '"smoke"')
    Path("study.toml").write_text("\n".join(line for line in settings.splitlines() if "snapshots" not in line))
    assert cli.main(["train", "study.toml"]) == 0
    summary = storage.read_json(compound / "models" / "summary.json")
    assert set(summary["models"]["fused"]["experiment"]) == {"300", "500", "700", "900", "1100", "1300"}


def test_every_page_is_listed():
    index = (PAGES.parent / "index.md").read_text()
    assert {f"extending/{page.stem}" for page in PAGES.glob("*.md")} == set(
        re.findall(r"^(extending/\w+)$", index, re.M)
    )


def soft_repulsion():
    """2 eV (1 - r / 5 Å)^3, which ends smoothly."""
    return Pairs(lambda r: 2 * (1 - r / 5) ** 3, lambda r: -1.2 * (1 - r / 5) ** 2, 5.0)


def test_the_steps_from_a_universal_potential_fit_together(tmp_path, monkeypatch, capsys):
    """With a potential of pairs in the place of CHGNet, and without the training."""
    page = "../universal_potentials.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(calculators.KNOWN, "chgnet", f"{__name__}:soft_repulsion")
    run(page)
    (settings,) = blocks(page, "toml")
    Path("study.toml").write_text(settings)
    commands = [line for block in blocks(page, "bash") for line in block.splitlines()]
    for name in ("label", "check"):
        (command,) = (line for line in commands if line.startswith(f"fusedff {name} "))
        assert cli.main(shlex.split(command)[1:]) == 0
    said, text = capsys.readouterr().out, (PAGES / page).read_text()
    (number,) = re.findall(r"The (\d+) structures", text)
    assert f"labelled    {number} of {number} structures, 0 of them before; 0 failed" in said
    assert f"frames        {number}: " in said
    assert "trained on 23, 323, 623, 923 K" in said
    cells, atoms, updates, calls = re.search(
        r"in (\d+) cells of (\d+) atoms.* its (\d+) rounds of fused training,\s+([\d ]+) evaluations",
        text,
        flags=re.DOTALL,
    ).groups()
    loaded = material_command.load("study.toml")
    sampling, target = (
        loaded.preset.fused.experiment.sampling,
        difftre.elastic_target(loaded.train_points, loaded.preset.fused.experiment),
    )
    assert target.cells.sites.shape == (int(cells), int(atoms), 3)
    snapshots = sampling.first_equilibration - sampling.equilibration
    snapshots += int(updates) * (sampling.equilibration + sampling.snapshots)
    assert int(calls.replace(" ", "")) == int(cells) * snapshots * sampling.langevin.steps_per_snapshot
    assert int(updates) == loaded.preset.fused.epochs
