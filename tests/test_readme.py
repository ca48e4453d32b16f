"""What the README tells people to type works as written, for a material that is not titanium."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from fusedff import release
from fusedff.study import run_folder

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
RECORD = run_folder.shipped_record()


@pytest.fixture
def copper_files(tmp_path):
    """Copper frames labelled with ASE's EMT in place of DFT, and a table of measured constants."""
    rng = np.random.default_rng(7)
    frames = []
    for _ in range(24):
        atoms = bulk("Cu", "fcc", a=3.6 * rng.uniform(0.98, 1.03), cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.01, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = (atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress())
        atoms.calc = SinglePointCalculator(atoms, **dict(zip(("energy", "forces", "stress"), labels, strict=True)))
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,C11_GPa,C12_GPa,C44_GPa\n300,3.615,168.4,121.4,75.4\n")
    return tmp_path


def test_the_own_material_example_trains_copper(copper_files, monkeypatch, capsys):
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "load_frames" in b)
    monkeypatch.chdir(copper_files)
    exec(compile(block.replace('"demo"', '"smoke"'), "README.md", "exec"), {})
    assert (copper_files / "copper.safetensors").exists()
    assert "force_mae_meV_per_A" in capsys.readouterr().out


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
        assert f"| {title} | {' | '.join(ratios)} |" in README


def test_the_results_are_those_of_the_recorded_run():
    assert release.front_page(run_folder.SHIPPED, RECORD) in README
