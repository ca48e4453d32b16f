"""Evaluation of potentials: static crystals, frames and finite temperature, where the answers are known."""

import json
import re
from dataclasses import replace
from pathlib import Path

import ase.data
import ase.units
import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import write
from copper import copper, relabelled
from pairs import smooth_lennard_jones, springs

from fusedff.commands import cli, evaluation
from fusedff.crystallography import crystals
from fusedff.data import datasets
from fusedff.interfaces import calculators
from fusedff.interfaces.ase import FusedCalculator
from fusedff.properties.static import phonons, summary, zone_center
from fusedff.properties.static.relax import RelaxationConfig, relax_crystal
from fusedff.properties.thermal import elastic
from fusedff.simulation import langevin
from fusedff.study import presets
from fusedff.training import label_errors
from fusedff.units import GPA

K, LENGTH = 1.5, 2.5  # eV/Å^2, Å
THZ = 1e3 * ase.units.fs / (2 * np.pi)  # per sqrt(eV/Å^2/amu)


def test_optical_phonons_of_springs_are_those_of_the_textbook():
    """Diamond: four springs leave 4k/3 on each of two atoms; rock salt: two springs along every axis."""
    diamond = bulk("Si", "diamond", a=LENGTH * 4 / np.sqrt(3), cubic=True)
    salt = bulk("NaCl", "rocksalt", a=2 * LENGTH, cubic=True)
    mass = diamond.get_masses()[0]
    sodium, chlorine = salt.get_masses()[:2]
    for crystal, square in ((diamond, 8 * K / (3 * mass)), (salt, 2 * K * (1 / sodium + 1 / chlorine))):
        ((frequency, count),) = zone_center.modes(zone_center.optical(crystal, springs(K, LENGTH), 1e-3))
        assert count == 3
        assert frequency == pytest.approx(THZ * np.sqrt(square), rel=1e-5)  # springs turn: (0.001 / 2.5)^2


def test_isotopes_vibrate_with_their_own_masses():
    """Two isotopes on the sublattices of diamond have the reduced mass; in one cell of each, the atoms differ."""
    diamond = bulk("Si", "diamond", a=LENGTH * 4 / np.sqrt(3), cubic=True)
    diamond.set_masses(np.tile([28.0, 42.0], 4))
    ((frequency, count),) = zone_center.modes(zone_center.optical(diamond, springs(K, LENGTH), 1e-3))
    assert count == 3
    assert frequency == pytest.approx(THZ * np.sqrt(4 * K / 3 * (1 / 28 + 1 / 42)), rel=1e-5)


def test_optical_phonons_of_hcp_are_those_of_a_supercell():
    calculator = smooth_lennard_jones(2.4)
    cell = relax_crystal(bulk("Ar", "hcp", a=1.1, c=1.8), calculator, RelaxationConfig(1e-6))
    found = zone_center.optical(cell, calculator, 1e-3)
    by_phonopy = phonons.run(cell, calculator, (2, 2, 1), 1e-3, (0.0,), name=None).at("G")
    np.testing.assert_allclose(found, by_phonopy[3:], rtol=1e-3)
    assert [count for _, count in zone_center.modes(found)] == [2, 1]


def test_one_atom_has_no_optical_phonons():
    assert len(zone_center.optical(bulk("Cu", "fcc", a=3.6, cubic=True), EMT())) == 0


def test_a_crystal_of_springs_has_the_constants_of_the_textbook():
    """fcc: C11 = 2k/a, C12 = C44 = k/a, B = 4k/3a, and every atom is a centre of symmetry: no relaxation of ions."""
    found = summary.run(summary.start("Cu", "fcc"), springs(K, LENGTH), phases=())
    value = {entry.quantity: entry.value for entry in found.entries}
    a = LENGTH * np.sqrt(2)
    assert value["a"] == pytest.approx(a, rel=1e-5)
    assert value["volume"] == pytest.approx(a**3 / 4, rel=1e-3)
    for name, wanted in {"C11": 2, "C12": 1, "C44": 1, "bulk_modulus": 4 / 3}.items():
        assert value[name] == pytest.approx(wanted * K / a / GPA, rel=5e-3)  # anharmonic: strains of 0.2 and 2 %
    for name in ("C11", "C12", "C44"):
        assert value[f"{name}_clamped"] == pytest.approx(value[name], rel=1e-4)
    assert found.stable


@pytest.mark.parametrize("structure", ["hcp", "fcc"])
def test_an_element_of_a_file_has_the_phases_references_and_modes_of_its_name(tmp_path, structure):
    crystal = summary.start("Al", structure)
    write(tmp_path / "POSCAR", crystals.unit_cell(crystal), format="vasp")
    named, read = (summary.run(one, EMT()) for one in (crystal, crystals.from_structure(tmp_path / "POSCAR")))
    assert f"bcc_energy_above_{structure}" in [entry.quantity for entry in read.entries]
    for one, other in zip(named.entries, read.entries, strict=True):
        assert (one.quantity, one.references) == (other.quantity, other.references)
        assert other.value == pytest.approx(one.value, rel=1e-3, abs=0.02)
    assert read.table().splitlines()[0] == f"{structure} Al, {crystals.symmetry(crystal)}, at rest (0 K)"


def test_the_command_prints_a_table_beside_references_and_writes_json(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", "emt", "--structure", "fcc", "--symbol", "Al", "--output", "emt.json"]) == 0
    said = capsys.readouterr().out
    assert "fcc Al, cubic, at rest (0 K)" in said
    assert re.search(r"C11 +\d+\.\d GPa +measured 114\.3 \(unconfirmed\) at 0 K", said)
    assert re.search(r"volume +\d+\.\d+ Å\^3/atom +DFT 16\.48", said)
    found = json.loads((tmp_path / "emt.json").read_text())
    rest = found["at_rest"]["properties"]
    assert found["calculator"] == "EMT"
    # from stress at strains of 0.2 %, and from energies over 6 % of the volume
    isotropic = (rest["C11"]["value"] + 2 * rest["C12"]["value"]) / 3
    assert rest["bulk_modulus"]["value"] == pytest.approx(isotropic, rel=0.02)
    atoms = bulk("Al", "fcc", a=rest["a"]["value"])
    atoms.calc = EMT()
    assert rest["energy"]["value"] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert {"hcp_energy_above_fcc", "bcc_energy_above_fcc"} <= set(rest)


def test_labels_of_the_calculator_itself_have_no_error_whatever_their_zero_of_energy(tmp_path):
    frames = copper(6)
    shifted = [relabelled(f, energy=f.get_potential_energy() + 3.7 * len(f)) for f in frames]
    write(tmp_path / "frames.extxyz", shifted)
    found = evaluation.evaluate("emt", frames=tmp_path / "frames.extxyz", say=lambda text: None)["frames"]
    assert found["zero_of_energy_fitted"]
    assert found["energy_rmse_meV_per_atom"] < 1e-3  # a file has eight decimals
    assert found["force_rmse_meV_per_A"] < 1e-3
    assert found["stress_rmse_GPa"] < 1e-5
    assert "at_rest" not in found


def test_errors_of_a_calculator_are_those_of_the_potential_behind_it():
    frames = datasets.load_frames()[:3] + datasets.load_frames()[-2:]
    potential = replace(argon(0.5, 2.5, 5.0), numbers=(22,), reference=(-6.0,), source="gpaw")
    one = label_errors.errors(potential, frames)
    two = label_errors.errors_of_calculator(FusedCalculator(potential), frames)
    for name in ("force_mae_meV_per_A", "force_rmse_meV_per_A", "stress_mae_GPa", "stress_rmse_GPa"):
        assert two[name] == pytest.approx(one[name], rel=1e-6)
    assert two["energy_rmse_meV_per_atom"] <= one["energy_rmse_meV_per_atom"]  # its zero is fitted


def test_constants_at_temperature_are_simulated_for_our_own_potentials(tmp_path, capsys, monkeypatch):
    """The simulation, which takes a minute to compile, has its own tests: here is what it is asked for."""
    asked = []

    def simulate(potential, points, settings):
        asked.append((potential.numbers, [p.temperature for p in points], settings.repeats))
        step = presets.for_lightest(presets.get("smoke"), ase.data.atomic_masses[18]).evaluation.langevin.timestep_fs
        assert settings.langevin.timestep_fs == step < presets.get("smoke").evaluation.langevin.timestep_fs
        one, three = np.ones((1, 1)), np.array([[4.25, 2.0, 2.0]])
        return elastic.ElasticResult(
            points, ("C11", "C12", "C44"), three, three / 50, three + 0.1, three / 50, np.zeros(1), np.full(1, 0.01),
            0 * one, 0.01 * one, 5.31 * one, 0.001 * one, settings,
        )  # fmt: skip

    monkeypatch.setattr(elastic, "run", simulate)
    monkeypatch.setattr(summary, "PHASES", ())
    argon(dtype=jnp.float32, cutoff=5.0).save(tmp_path / "argon.safetensors")
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,C11_GPa\n20,5.31,4.0\n")
    found = evaluation.evaluate(
        str(tmp_path / "argon.safetensors"), "fcc", "Ar", table=tmp_path / "measured.csv", preset="smoke"
    )
    assert asked == [((18,), [20.0], (2, 2, 2))]  # edges of 10.6 Å
    said = capsys.readouterr().out
    assert re.search(r"C11 +\d\.\d GPa +measured 4 at 20 K", said)
    assert re.search(r"20 K C11 +4\.25 ± 0\.0[89]  measured 4\.0 +isothermal", said)
    assert "*** smoke" in said
    assert set(found["at_temperature"]["by_temperature_K"]["20"]["elastic"]) == {"C11", "C12", "C44"}


def test_a_table_for_a_model_that_ships_is_of_its_crystal(tmp_path, monkeypatch):
    def measured_at(crystal, calculator, measured):
        raise RuntimeError([point.crystal.structure for point in measured])

    monkeypatch.setattr(summary, "run", measured_at)
    (tmp_path / "ti.csv").write_text("temperature_K,a_A,c_A,C11_GPa\n300,2.95,4.68,160\n")
    with pytest.raises(RuntimeError, match="hcp"):
        evaluation.evaluate("titanium-fused", table=tmp_path / "ti.csv")


def test_what_was_found_is_kept_when_a_simulation_fails(tmp_path, monkeypatch):
    def explode(*arguments):
        raise langevin.ExplodedTrajectoryError("cell 0 at 20 K exploded", 0)

    monkeypatch.setattr(elastic, "run", explode)
    monkeypatch.setattr(summary, "PHASES", ())
    argon(dtype=jnp.float32, cutoff=5.0).save(tmp_path / "argon.safetensors")
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,C11_GPa\n20,5.31,4.0\n")
    where = ["--structure", "fcc", "--symbol", "Ar", "--table", str(tmp_path / "measured.csv"), "--preset", "smoke"]
    output = tmp_path / "found.json"
    assert cli.main(["evaluate", str(tmp_path / "argon.safetensors"), *where, "--output", str(output)]) != 0
    assert "at_rest" in json.loads(output.read_text())


def test_a_calculator_that_does_not_know_an_element_is_one_sentence(tmp_path, capsys):
    write(tmp_path / "titanium.extxyz", datasets.load_frames()[:2])
    assert cli.main(["evaluate", "emt", "--frames", str(tmp_path / "titanium.extxyz")]) == 2
    assert re.search("this calculator cannot do Ti.*; take another one", capsys.readouterr().err)


def test_for_another_calculator_a_table_stands_beside_the_crystal_at_rest(tmp_path, capsys):
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,C11_GPa\n300,3.615,168.4\n")
    where = ["--structure", "fcc", "--symbol", "Cu", "--table", str(tmp_path / "measured.csv")]
    assert cli.main(["evaluate", "emt", *where]) == 0
    said = capsys.readouterr().out
    assert re.search(r"C11 +\d+\.\d GPa +measured 168\.4 at 300 K", said)
    assert "constants at temperature: left out, they need a potential of fusedff" in said
    (tmp_path / "measured.csv").write_text("temperature_K,a_A,C11_GPa\n300,4.05,106.7\n")  # a packaged one is colder
    assert cli.main(["evaluate", "emt", *where[:3], "Al", *where[4:]]) == 0
    assert re.search(r"C11 +\d+\.\d GPa +measured 106\.7 at 300 K\n", capsys.readouterr().out)


def test_a_calculator_is_found_by_its_name_or_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("emt").mkdir()  # as `fusedff new emt` does
    assert isinstance(calculators.by_name("emt"), EMT)
    assert isinstance(calculators.by_name("ase.calculators.emt:EMT"), EMT)
    assert calculators.by_name("lj", {"sigma": 2.5}).parameters["sigma"] == 2.5
    ours = calculators.by_name("titanium-fused")
    assert calculators.potential_of(ours).numbers == (22,)
    assert calculators.potential_of(EMT()) is None


@pytest.mark.parametrize(("arguments", "says"), [
    (["no_such_package:Calculator"], "No module named 'no_such_package'; install the package that no_such_package"),
    (["unobtainium"], r"unobtainium is neither a file nor a potential .*, nor a calculator \(emt, lj, "),
    (["math:sqrt"], r"math:sqrt: sqrt makes no calculator \("),
    (["math:nothing"], "math:nothing: math has no nothing"),
    (["mine:make"], r"mine:make: mine cannot be imported \(name 'nonsense' is not defined\); correct it"),
    (["ase.build:bulk", "--set", "name=Cu"], "bulk makes a Atoms, which is not an ASE calculator"),
    (["titanium-fused", "--set", "sigma=1"], "titanium-fused is a potential of fusedff, which takes no settings"),
    (["emt"], r"which crystal of what\? Name a structure \(hcp, bcc, "),
    (["emt", "--symbol", "Cu"], r"which crystal of Cu\?"),
    (["emt", "--structure", "fcc"], r"fcc of what\? Name a chemical symbol, e\.g\. 'Al'"),
    (["emt", "--structure", "POSCAR"], "POSCAR does not exist; give a POSCAR, CIF"),
    (["emt", "--structure", "copper.cif", "--symbol", "Au"], "the structure is of Cu, not Au"),
    (["."], r"\. is a folder; give a file in it"),
    (["titanium-fused", "--frames", "copper.xyz"], "the potential knows Ti but not Cu"),
    (["emt", "--structure", "hcp", "--symbol", "Ti"], r"this calculator cannot do Ti \(No EMT-potential for Ti\)"),
    (["emt", "--structure", "fcc", "--symbol", "Cu", "--preset", "large", "--table", "measured.csv"],
     "preset 'large' is unknown"),
    (["emt", "--structure", "fcc", "--symbol", "Cu", "--preset", "smoke"], "--preset is for the temp.* of --table"),
    (["emt", "--structure", "fcc", "--symbol", "Cu", "--output", "mine.py"], r"mine\.py exists already; name another"),
    (["emt", "--structure", "fcc", "--symbol", "Cu", "--output", "mine.py/a.json"], r"since .*mine\.py is a file"),
    (["lj", "--set", "sigm=1"], "lj: setting 'sigm' is unknown; there are epsilon, sigma, rc"),
    (["lj", "--set", "sigma=1", "--set", "sigma=2"], "--set gives sigma 2 times; give it once"),
    (["emt", "--frames", "missing.extxyz"], r"missing\.extxyz does not exist"),
])  # fmt: skip
def test_what_cannot_be_evaluated_is_one_sentence(arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text("nonsense\n")
    write(tmp_path / "copper.cif", bulk("Cu", "fcc", a=3.6))
    write(tmp_path / "copper.xyz", copper(2), format="extxyz")
    assert cli.main(["evaluate", *arguments]) == 2
    computed, said = capsys.readouterr()
    assert not computed
    assert said.count("\n") == 1
    assert re.search(f"^error: .*{says}", said), said
