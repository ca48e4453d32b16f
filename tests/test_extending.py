"""The how-tos of docs/extending: their code runs as printed, and gives what they say."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from fusedff.training import force_matching, fused

PAGES = Path(__file__).parents[1] / "docs" / "extending"


def run(page: str) -> dict:
    """Execute the Python blocks of a page in order, as a reader would, and return the names that they define."""
    blocks = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(), flags=re.DOTALL)
    names = {"__name__": page}
    for block in blocks:
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


def test_every_page_is_listed():
    index = (PAGES.parent / "index.md").read_text()
    assert {f"extending/{page.stem}" for page in PAGES.glob("*.md")} == set(
        re.findall(r"^(extending/\w+)$", index, re.M)
    )
