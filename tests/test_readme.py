"""Statements of README.md and the pages it links to: imports, links, results, speeds."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import yaml

from fusedff import results
from fusedff.commands import release
from fusedff.data import FILES
from fusedff.measurements import experiments
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import run_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SPEED_PAGE = (ROOT / "docs" / "speed.md").read_text()
RECORD = run_folder.shipped_record()


def test_every_import_in_the_readme_and_the_docs_works():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    lines = {line for page in pages for line in re.findall(r"^from fusedff.* import .*$", page.read_text(), re.M)}
    assert len(lines) > 10
    for line in lines:
        exec(line, {})


def test_every_file_the_readme_links_to_exists():
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert targets
    assert not missing


SPEED = {  # row of the table -> what was timed
    "energy and forces": (150, "forces"),
    "one Langevin step": (150, "md"),
    "force-matching gradient": (150, "force_matching"),
    "Born stress and stiffness": (150, "born"),
    "DiffTRe gradient by stress fluctuation, 96 atoms": (96, "difftre"),
    "DiffTRe gradient by coupled strains (our default; stress fluctuation in chemtrain), 96 atoms": (
        96,
        "difftre_default",
    ),
}


def test_the_speed_is_that_of_the_recorded_benchmark():
    rows = json.loads((ROOT / "benchmarks" / "results" / "comparison.json").read_text())["rows"]
    timed = {(row["n_atoms"], row["quantity"]): row["ratio"] for row in rows}
    for title, key in SPEED.items():
        ratios = [f"{timed[key][peer]['median']:.2g}" if peer in timed[key] else "–" for peer in ("tight", "example")]
        assert f"| {title} | {' | '.join(ratios)} |" in SPEED_PAGE


def test_the_results_are_those_of_the_recorded_run():
    assert release.front_page(RECORD) in README
    assert release.results_page(FILES, RECORD) == (ROOT / release.RESULTS).read_text()


def test_the_sentences_under_the_picture_are_what_the_record_says():
    tests = {model: found["test"] for model, found in RECORD["models"].items()}
    forces, energies = (
        {model: errors[key] for model, errors in tests.items()}
        for key in ("force_mae_meV_per_A", "energy_mae_meV_per_atom")
    )
    held_out = {
        model: results.elastic_deviation(results.split_by_training(found, RECORD["temperatures"]["train"])["held_out"])[
            0
        ]
        for model, found in RECORD["temperatures"]["models"].items()
    }
    temperatures = len(RECORD["temperatures"]["train"])
    for page in (README, (ROOT / "docs" / "index.md").read_text()):
        said = " ".join(page.split())
        assert f"elastic constants {held_out['dft']:.1f} % off the measured ones" in said
        assert f"{7 * temperatures} measured numbers" in said  # five constants and two stresses each
        ratios = [errors["experiment"] / errors["dft"] for errors in (energies, forces)]
        assert "those of energies are {:.1f} times as large, those of forces {:.1f} times".format(*ratios) in said
        change = 100 * (energies["fused"] / energies["dft"] - 1)
        of_energies = f"its energy errors {abs(change):.0f} % {'larger' if change > 0 else 'smaller'}"
        assert f"force errors are {100 * (forces['fused'] / forces['dft'] - 1):.0f} % larger" in said
        assert of_energies in said
    assert min(ratios) > 1.5
    assert forces["fused"] < results.BOUNDS["force"] * forces["dft"]
    assert held_out["fused"] < 1


def test_the_first_command_is_on_the_first_screen():
    assert README[: README.index("make run")].count("\n") < 40


def test_the_readme_of_a_release_on_pypi_has_addresses_for_every_picture_and_link(tmp_path):
    """The step of the workflow that builds the wheel, run as it stands there."""
    steps = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())["jobs"]["wheel"]["steps"]
    (command,) = [step["run"] for step in steps if "README.md" in step.get("run", "")]
    (tmp_path / "README.md").write_text(README)
    release_of = {"GITHUB_REPOSITORY": "someone/fusedff", "GITHUB_REF_NAME": "v0.1.0", "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=release_of, check=True)
    text = (tmp_path / "README.md").read_text()
    assert "](https://raw.githubusercontent.com/someone/fusedff/v0.1.0/notebooks/images/two_questions.png)" in text
    assert "](https://github.com/someone/fusedff/blob/v0.1.0/docs/results.md)" in text
    assert text.count("https://doi.org/") == README.count("https://doi.org/")
    assert not re.findall(r"\]\((?!https://)", text)


def test_the_independent_evaluation_is_of_the_model_that_ships_and_says_what_readme_and_notebook_say():
    found = json.loads((ROOT / "benchmarks" / "results" / "independent-fused.json").read_text())
    assert found["digest"] == storage.digest(Potential.load("titanium-fused").params)
    points = found["by_temperature_K"]
    mean = "{:.1f} ± {:.1f} %".format(*results.elastic_deviation(points))
    assert mean in README
    off = {(t, c): results.relative_deviation(entry) for t in points for c, entry in points[t]["elastic"].items()}
    (where, (worst, noise)) = max(off.items(), key=lambda item: abs(item[1][0]))
    stresses = [results.absolute_deviation(entry)[0] for point in points.values() for entry in point["stress"].values()]
    lattice = [results.relative_deviation(entry)[0] for point in points.values() for entry in point["lattice"].values()]
    assert max(map(abs, lattice)) < 0.1
    notebook = (ROOT / "notebooks" / "07_targets_and_held_out_temperatures.ipynb").read_text()
    for said in (
        f"{mean} off on average; {sum(abs(x) <= 2 for x, _ in off.values())} of {len(off)} are within 2 %",
        f"that of {where[1]} at {where[0]} K, {worst:+.1f} ± {noise:.1f} %",
        f"Stresses are within {max(map(abs, stresses)):.2f} GPa",
    ):
        assert said in notebook


def test_what_further_measurements_would_tell_is_of_the_model_that_ships_and_as_the_questions_say():
    found = json.loads((ROOT / "benchmarks" / "results" / "next_measurement.json").read_text())
    assert found["digest"] == storage.digest(Potential.load("titanium-fused").params)
    names, removed = found["names"], found["with labels"]["removed"]
    share = {(a, b): 100 * removed[i][j] for i, a in enumerate(names) for j, b in enumerate(names) if i < j}
    most = sorted(share, key=share.get, reverse=True)
    assert most[:2] == [("fcc above hcp", "basal fault"), ("surface 0001", "surface 10-10")]
    gone = [100 * (1 - left) for left in found["with labels"]["left"]]
    page = " ".join((ROOT / "docs" / "faq.md").read_text().split())
    for said in (
        f"remove {share[most[0]]:.0f} % of the variance", f"one surface energy {share[most[1]]:.0f} %",
        f"shares {share[most[2]]:.0f} % or less", f"remove {min(gone):.0f} to {max(gone):.0f} % of the variance",
    ):  # fmt: skip
        assert said in page


def test_straight_lines_between_the_trained_temperatures_are_as_close_as_the_pages_say():
    points = experiments.load_state_points()
    trained = [point for point in points if point.temperature in RECORD["temperatures"]["train"]]
    at = [point.temperature for point in trained]
    off = [
        abs(np.interp(point.temperature, at, [known.elastic[name] for known in trained]) / constant - 1)
        for point in points if point not in trained for name, constant in point.elastic.items()
    ]  # fmt: skip
    assert f"do as well ({100 * np.mean(off):.1f} %)" in (ROOT / release.RESULTS).read_text()
