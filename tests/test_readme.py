"""Statements of README.md and the pages it links to: imports, links, results, speeds."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml

from fusedff import results
from fusedff.commands import release
from fusedff.data import FILES
from fusedff.measurements import adiabatic, experiments, references
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
        assert f"force errors are {100 * (forces['fused'] / forces['dft'] - 1):.0f} % larger" in said
        assert f"{held_out['dft']:.1f} % off the measured ones (in cells of the measured size)" in said
    change = 100 * (energies["fused"] / energies["dft"] - 1)
    assert f"its energy errors {abs(change):.0f} % {'larger' if change > 0 else 'smaller'}" in said  # the book's page
    own = {
        model: next(row for row in found["by_family"] if (row["source"], row["family"]) == ("gpaw", "all"))
        for model, found in RECORD["models"].items()
    }
    grown = " to ".join(f"{own[model]['energy_mae_meV_per_atom']:.1f}" for model in ("dft", "fused"))
    stress = 100 * (own["fused"]["stress_mae_GPa"] / own["dft"]["stress_mae_GPa"] - 1)
    assert f"energy errors grow from {grown} meV/atom, and its stress errors by {stress:.0f} %" in said
    assert min(ratios) > 1.5
    assert forces["fused"] < results.BOUNDS["force"] * forces["dft"]
    assert held_out["fused"] < 1


OFF_TARGET = {row["quantity"]: row for row in RECORD["off_target"]}


def of_model(quantity, model="fused"):
    return OFF_TARGET[quantity]["models"][model]["value"]


def of_dft(quantity):
    """Smallest and largest value by DFT."""
    known = [reference["value"] for reference in OFF_TARGET[quantity]["references"] if reference["kind"] == "DFT"]
    return min(known), max(known)


def test_the_book_says_what_is_right_and_what_is_not_beyond_the_targets():
    said = " ".join((ROOT / "docs" / "index.md").read_text().split())
    for structure in ("bcc", "fcc", "omega"):
        name = f"{structure} above hcp"
        assert abs(of_model(name) - of_dft(name)[0]) < 1
    assert "bcc, fcc and omega above hcp are within 1 meV/atom of DFT" in said
    vacancy, fault, slope = "vacancy formation", "basal stacking fault", "hcp bulk modulus, slope dB/dp"
    assert "the vacancy ({:.2f} eV; DFT {:.2f} to {:.2f})".format(of_model(vacancy), *of_dft(vacancy)) in said
    assert f"the basal stacking fault ({of_model(fault):.3f} J/m²; DFT {of_dft(fault)[0]:.3f})" in said
    assert (
        "the slope of the bulk modulus ({:.1f}; DFT {:.1f} to {:.1f})".format(of_model(slope), *of_dft(slope)) in said
    )


def test_the_take_aways_of_the_comparisons_answer_their_titles_with_numbers_of_the_models_that_ship():
    verdict, beyond = (
        (ROOT / "notebooks" / f"{name}.ipynb").read_text() for name in ("06_verdict", "08_beyond_the_targets")
    )
    force = {model: found["test"]["force_mae_meV_per_A"] for model, found in RECORD["models"].items()}
    measured = {model: found["experiment"] for model, found in RECORD["models"].items()}
    meets = {
        model: (
            results.elastic_deviation(found)[0] <= results.BOUNDS["elastic"],
            results.largest_stress(found)[0] <= results.BOUNDS["stress"],
            force[model] <= results.BOUNDS["force"] * force["dft"],
        )
        for model, found in measured.items()
    }
    assert meets == {"dft": (False, False, True), "experiment": (True, True, False), "fused": (True, True, True)}
    assert f"the force error of experiment-only is {force['experiment'] / force['dft']:.2f} times" in verdict
    change = {name: of_model(name) / of_model(name, "dft") - 1 for name in OFF_TARGET}
    energies = [name for name in OFF_TARGET if re.search("above hcp|vacancy|surface|fault", name)]
    assert f"faults change by {100 * max(abs(change[name]) for name in energies):.0f} % at most" in beyond
    phonons = [name for name in OFF_TARGET if "phonon" in name]
    low, high = sorted(100 * change[name] for name in phonons)
    assert f"the optical phonons rise by {low:.0f} to {high:.0f} %, away from DFT" in beyond
    assert all(of_model(name, "dft") > of_dft(name)[1] for name in phonons)
    slope = "hcp bulk modulus, slope dB/dp"
    assert (
        f"dB/dp falls from {of_model(slope, 'dft'):.1f} to {of_model(slope):.1f} (DFT {of_dft(slope)[0]:.1f})" in beyond
    )


def test_the_phonons_of_the_example_of_a_target_are_those_of_the_references():
    page = (ROOT / "docs" / "extending" / "target.md").read_text()
    for mode, kind in (("E2g", "experiment"), ("B1g", "DFT")):
        (known,) = references.select(references.load(), "Ti", "hcp", f"phonon_{mode}", kind)
        assert f'Mode("{mode}", {known.value:.2f}, ' in page


def test_speeds_in_words_are_those_of_the_recorded_benchmarks():
    rows = json.loads((ROOT / "benchmarks" / "results" / "comparison.json").read_text())["rows"]
    alike = [row["ratio"]["tight"]["median"] for row in rows if row["quantity"] != "difftre_default"]
    assert f"{min(alike):.1f} to {max(alike):.1f} times faster than chemtrain on the same cells" in README
    samplers = json.loads((ROOT / "benchmarks" / "results" / "noise.json").read_text())["samplers"]
    cost = {one["name"]: one["seconds"] * np.mean(np.square(one["stderr"]), 1) for one in samplers}  # at 323 and 923 K
    plain, ours = cost["stress fluctuation"], cost["strains, coupled noise, 8 fs, every 40 fs"]
    cold, hot = plain / ours
    said = " ".join(SPEED_PAGE.split())
    assert f"[{round(cold, -1):.0f} times less CPU time]" in said
    assert f"at 323 K and {hot:.0f} times less at 923 K" in said
    assert "and {:.0f} and {:.0f} times less than".format(*cost["stress fluctuation, 8 fs"] / ours) in said
    assert "needs {:.1f} and {:.1f} times less time".format(*plain / cost["stress fluctuation, 8 replicas"]) in said
    assert (cost["strains, independent noise"] > plain).all()


def test_adiabatic_and_isothermal_constants_differ_by_what_the_pages_say():
    tables = {
        "Ti": experiments.load_state_points(),
        "Al": experiments.load_state_points(experiments.ALUMINIUM_TABLE, symbol="Al", structure="fcc"),
    }
    above = {
        (symbol, measured.temperature, name): (value - converted.elastic_gpa[name], value / converted.elastic_gpa[name])
        for symbol, table in tables.items()
        for measured, converted in zip(table, adiabatic.isothermal(table, table), strict=True)
        for name, value in measured.elastic_gpa.items()
    }
    percent = {key: 100 * (ratio - 1) for key, (_, ratio) in above.items()}
    most = max((key for key in percent if key[0] == "Ti"), key=percent.get)
    assert most == ("Ti", 973, "C13")
    c11, c12 = percent["Al", 700, "C11"], percent["Al", 700, "C12"]
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    assert f"in titanium by up to {percent[most]:.0f} % (C13 at 973 K)" in glossary
    assert f"by {c11:.0f} % (C11) and {c12:.0f} % (C12) at 700 K" in glossary
    notebook = (ROOT / "notebooks" / "09_another_material.ipynb").read_text()
    said = (
        f"the difference is {above['Al', 700, 'C11'][0]:.0f} GPa at 700 K, which is {c11:.0f} % of C11 and {c12:.0f} %"
    )
    assert said in notebook


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
    usual = {t: RECORD["temperatures"]["models"]["fused"][t] for t in points}
    as_usual, _ = results.elastic_deviation(usual)
    hot = [
        np.array([results.relative_deviation(found[t]["elastic"]["C33"]) for t in points if float(t) > 400])
        for found in (points, usual)
    ]
    c33 = [(off[:, 0].mean(), np.linalg.norm(off[:, 1]) / len(off)) for off in hot]
    notebook = (ROOT / "notebooks" / "07_targets_and_held_out_temperatures.ipynb").read_text()
    for said in (
        f"{mean} off on average; {sum(abs(x) <= 2 for x, _ in off.values())} of {len(off)} are within 2 %",
        f"that of {where[1]} at {where[0]} K, {worst:+.1f} ± {noise:.1f} %",
        f"Stresses are within {max(map(abs, stresses)):.2f} GPa",
        f"the mean deviation rises from {as_usual:.1f} to {results.elastic_deviation(points)[0]:.1f} %",
        f"C33 is {-c33[0][0]:.1f} ± {c33[0][1]:.1f} % too small",
        f"({abs(c33[1][0]):.1f} ± {c33[1][1]:.1f} %)",
    ):
        assert said in notebook


def test_the_take_away_of_notebook_07_is_as_the_models_that_ship_do():
    notebook = (ROOT / "notebooks" / "07_targets_and_held_out_temperatures.ipynb").read_text()
    found, train = RECORD["temperatures"]["models"], RECORD["temperatures"]["train"]
    parts = results.split_by_training(found["fused"], train)
    trained, held_out = (
        "{:.1f} ± {:.1f} %".format(*results.elastic_deviation(parts[p])) for p in ("trained", "held_out")
    )
    assert f"{trained} off at trained and {held_out} off at held-out temperatures" in notebook

    def expansion(model, edge, kind="value"):
        """Per million and kelvin, above 200 K."""
        at = [t for t in found[model] if float(t) > 200]
        lengths = [found[model][t]["lattice"][edge][kind] for t in at]
        return 1e6 * np.polyfit(list(map(float, at)), np.log(lengths), 1)[0]

    fused, dft = (" and ".join(f"{expansion(model, edge):.1f}" for edge in "ac") for model in ("fused", "dft"))
    table = " and ".join(f"{expansion('fused', edge, 'measured'):.1f}" for edge in "ac")
    assert f"{fused} millionths per kelvin along a and c (table: {table}; DFT-only: {dft})" in notebook


def test_the_committee_is_of_the_models_that_ship_and_as_the_notebook_says():
    found = json.loads((ROOT / "benchmarks" / "results" / "committee.json").read_text())
    for seed, member in found["members"].items():
        for model, result in member.items():
            name = f"titanium-{model}" + (f"-seed{seed}" if seed != "0" else "")
            assert result["digest"] == storage.digest(Potential.load(name).params), name
    mean = {
        model: results.average_members([member[model] for member in found["members"].values()])
        for model in ("experiment", "fused")
    }
    members = found["members"].values()
    force = {
        model: [
            one[model]["test"]["force_mae_meV_per_A"] / one["dft"]["test"]["force_mae_meV_per_A"] for one in members
        ]
        for model in ("experiment", "fused")
    }
    more = {model: f"{100 * min(of) - 100:.0f} to {100 * max(of) - 100:.0f} % larger" for model, of in force.items()}
    off = [results.elastic_deviation(member["fused"]["experiment"])[0] for member in found["members"].values()]
    omega = {model: found["beyond"]["omega_energy_above_hcp"] for model, found in mean.items()}
    assert (
        f"the fused models' elastic constants are {min(off):.1f} to {max(off):.1f} % off and their force errors "
        f"{more['fused']} than those of DFT-only; without DFT frames, force errors are {more['experiment']}"
    ) in " ".join(README.split())
    text = (ROOT / "notebooks" / "06_verdict.ipynb").read_text().replace("\N{MINUS SIGN}", "-")
    for said in (
        f"fused models are off by {min(off):.2f} to {max(off):.2f} %",
        f"their force errors are {min(force['fused']):.2f} to {max(force['fused']):.2f} times those",
        f"experiment-only models {min(force['experiment']):.2f} to {max(force['experiment']):.2f} times",
        "with two other seeds {:.2f} and {:.2f} times".format(*force["experiment"][1:]),
        "is {value:.0f} meV/atom with a standard deviation of {spread:.0f} meV/atom".format(**omega["fused"]),
        "but {value:.0f} with a standard deviation of {spread:.0f} in".format(**omega["experiment"]),
    ):
        assert said in text
    change = {
        name: [one["fused"]["beyond"][name]["value"] / one["dft"]["beyond"][name]["value"] - 1 for one in members][1:]
        for name in ("phonon_E2g", "phonon_B1g", "stacking_fault_prismatic")
    }
    phonons = sorted(100 * x for name in ("phonon_E2g", "phonon_B1g") for x in change[name])
    fault = sorted(100 * x for x in change["stacking_fault_prismatic"])
    text = (ROOT / "notebooks" / "08_beyond_the_targets.ipynb").read_text().replace("\N{MINUS SIGN}", "-")
    assert (
        f"the optical phonons change by {round(phonons[-1]):d} to {phonons[0]:.0f} % and the prismatic fault by "
        f"{fault[0]:.0f} and {fault[1]:.0f} %"
    ) in text
    vacancy = [one["fused"]["beyond"]["vacancy_formation_energy"]["value"] for one in members]
    text = (ROOT / "notebooks" / "10_use_the_models.ipynb").read_text()
    assert f"the fused models give {min(vacancy):.2f} to {max(vacancy):.2f} eV" in text


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


def test_the_learning_curve_ends_at_the_model_that_ships_and_is_what_the_notebook_says():
    found = json.loads((ROOT / "benchmarks" / "results" / "learning.json").read_text())
    assert (found["preset"], found["data"].split(",")[:3]) == (RECORD["preset"], RECORD["data"].split(",")[:3])
    first, *_, last = found["curve"]
    for row in RECORD["models"]["dft"]["by_family"]:
        if row["family"] == "all":
            assert last["test"][row["source"]]["force_mae_meV_per_A"] == pytest.approx(
                row["force_mae_meV_per_A"], rel=1e-3
            )
    ends = {
        source: [row["test"][source]["force_mae_meV_per_A"] for row in (first, last)] for source in ("gpaw", "vasp")
    }
    text = (ROOT / "notebooks" / "02_force_matching.ipynb").read_text()
    assert (
        "from {:.0f} to {:.0f} meV/Å (GPAW) and from {:.0f} to {:.0f} meV/Å (VASP)".format(*ends["gpaw"], *ends["vasp"])
        in text
    )
    more = last["n_frames"] / first["n_frames"]
    powers = [np.log(end / begin) / np.log(more) for begin, end in ends.values()]
    assert f"With {more:.0f} times as many frames" in text
    assert f"to the power of −{-np.mean(powers):.2f}" in text
    assert 2 ** (-1 / np.mean(powers)) == pytest.approx(40, rel=0.1)  # "about forty times"
    energies = [row["test"]["vasp"]["energy_mae_meV_per_atom"] for row in found["curve"]]
    assert max(energies[1:]) < 1.15 * min(energies[1:]) < 0.75 * energies[0]


def test_straight_lines_between_the_trained_temperatures_are_as_close_as_the_pages_say():
    points = experiments.load_state_points()
    trained = [point for point in points if point.temperature in RECORD["temperatures"]["train"]]
    at = [point.temperature for point in trained]
    off = [
        abs(np.interp(point.temperature, at, [known.elastic[name] for known in trained]) / constant - 1)
        for point in points if point not in trained for name, constant in point.elastic.items()
    ]  # fmt: skip
    found = RECORD["temperatures"]["models"]["fused"]
    held_out = results.split_by_training(found, RECORD["temperatures"]["train"])["held_out"]
    noise = [results.relative_deviation(entry)[1] for at in held_out.values() for entry in at["elastic"].values()]
    perfect = np.sqrt(2 / np.pi) * np.mean(noise)  # mean absolute value of what is normally distributed
    page = " ".join((ROOT / release.RESULTS).read_text().split())
    assert f"are closer ({100 * np.mean(off):.2f} %), but" in page
    assert f"even a perfect model would be {perfect:.2f} % off" in page
