"""The script that labels structures: its plan, its resumption and its settings, without running DFT."""

import csv
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read, write
from ase.neighborlist import neighbor_list

from fusedff.data import datasets, labelled_frames, splits
from fusedff.interfaces import calculators
from fusedff.units import GPA

SCRIPT = Path(__file__).parents[1] / "scripts" / "make_dft_labels.py"
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
PULAY = 0.054  # eV per atom, of the titanium set


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_dft_labels", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def plan(script):
    return {name: (kind, atoms) for kind, name, atoms in script.structures()}


def frame_with_labels(script, name="a", settings=None):
    atoms = bulk("Al", "fcc", a=4.05, cubic=True)
    zeros = np.zeros((4, 3)), np.zeros(6)
    return script.with_labels(atoms, "fcc", name, -14.0, *zeros, settings or script.DEFAULTS)


def test_the_script_needs_neither_gpaw_to_be_read_nor_this_package(script):
    assert "fusedff" not in "".join(line for line in SCRIPT.read_text().splitlines() if "import" in line)
    assert "gpaw" not in sys.modules


# k-point spacing of snapshots of simulations and other structures that no plan holds: fusedff/data/files/README.md.
_OTHERS = "hcp-hot", "bcc-hot", "fcc-hot", "omega-hot", "burgers", "bain", "bcc-rattled-2", "omega-rattled-3"
SNAPSHOTS = {"liquid": 0.5, "hcp-fault-relaxed": 0.31} | dict.fromkeys((*_OTHERS, "hcp-fault-rattled"), 0.42)


def calculated(plan_only=False):
    """The packaged frames but the atom alone, whose energy was measured; and but snapshots, which no plan holds."""
    left_out = ("atom", *SNAPSHOTS) if plan_only else ("atom",)
    return [frame for frame in datasets.load_frames() if frame.info["config_type"] not in left_out]


def test_every_packaged_frame_is_the_structure_the_plan_says(plan):
    for frame in calculated(plan_only=True):
        kind, atoms = plan[frame.info["config_id"]]
        assert frame.info["config_type"] == kind
        np.testing.assert_allclose(frame.cell.array, atoms.cell.array, atol=1e-10)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)


def test_no_structure_is_labelled_twice():
    names = [frame.info["config_id"] for frame in datasets.load_frames()]
    assert len(set(names)) == len(names)


def test_no_packaged_frame_has_a_coarser_k_mesh_than_the_default_settings_say(script):
    for frame in calculated():
        mesh = [int(n) for n in frame.info["k_mesh"].split("x")]
        large = float(re.search(r"/([\d.]+)-MP", frame.info["dft"])[1])
        assert large == SNAPSHOTS.get(frame.info["config_type"], 0.31)
        assert all(np.array(mesh) >= script.k_mesh(frame, script.DEFAULTS._replace(k_spacing_large=large)))


def test_one_k_mesh_serves_all_volumes_of_a_phase():
    """A mesh that changes with the volume puts a step of some meV/atom into the curve."""
    meshes = {(frame.info["config_type"], frame.info["k_mesh"]) for frame in datasets.load_frames()
              if frame.info["config_type"].endswith("-eos")}  # fmt: skip
    assert len(meshes) == 4


def test_the_plan_is_reproducible_and_physically_sound(script, plan):
    assert len(plan) == 385  # ids are unique: a dictionary would be shorter
    for _, name, again in itertools.islice(script.structures(), 90):
        np.testing.assert_array_equal(again.positions, plan[name][1].positions)
        assert script.shortest_distance(again) > 1.95
    assert all(np.linalg.det(atoms.cell.array) > 0 for _, atoms in plan.values())


def test_cleaved_crystals_are_whole_halves_a_gap_apart(script):
    whole = script.PHASES["hcp"]() * (2, 1, 1)
    for axis, plane in ((2, [1, 1, 0]), (0, [0, 1, 1])):
        apart = script.cleaved(whole, axis, 1.5)
        np.testing.assert_array_equal(apart.positions, whole.positions)
        face = np.linalg.norm(np.cross(*whole.cell.array[np.array(plane, bool)]))
        assert apart.get_volume() - whole.get_volume() == pytest.approx(1.5 * face)
        within = np.array(plane, bool)
        np.testing.assert_array_equal(apart.cell.array[within], whole.cell.array[within])


def test_optical_displacements_are_what_their_ids_say(plan):
    perfect = plan["hcp-eos-+0.00"][1].get_scaled_positions()
    cells = {name: atoms for name, (kind, atoms) in plan.items() if kind == "hcp-optical"}
    assert len(cells) == 25
    for name, atoms in cells.items():
        axis, size = re.match(r"hcp-optical-([xyz])([+-]\d\.\d+)-v", name).groups()
        moved = (atoms.get_scaled_positions() - perfect) @ atoms.cell.array
        expected = float(size) * np.eye(3)["xyz".index(axis)]
        np.testing.assert_allclose(moved, [np.zeros(3), expected], atol=1e-9)


def test_the_stable_basal_fault_has_the_neighbours_of_close_packing_and_no_fewer(script, plan):
    """One layer of fcc stacking: all twelve nearest neighbours stay where they were, at the same distances."""
    perfect, fault = plan["hcp-eos-+0.00"][1], plan["hcp-fault-basal+1.00+0.0"][1]
    near = [np.sort(neighbor_list("d", atoms, 3.2)) for atoms in (perfect * (1, 1, 4), fault)]
    np.testing.assert_allclose(near[1], near[0], atol=1e-9)


def test_slipping_by_a_whole_lattice_vector_changes_nothing(script):
    hcp = script.PHASES["hcp"]() * (1, 4, 1)
    near = [np.sort(neighbor_list("d", atoms, 5)) for atoms in (hcp, script.slipped(hcp, 1, hcp.cell[0]))]
    np.testing.assert_allclose(near[1], near[0], atol=1e-9)


def test_prismatic_slip_is_between_two_pairs_of_planes(plan):
    """Within a pair, where planes are half as far apart, atoms would come closer than 2.5 Å."""
    fault = plan["hcp-fault-prismatic+0.50+0.0"][1]
    height = np.sort(np.unique(np.round(fault.get_scaled_positions()[:, 1], 6)))
    assert height[0] + 1 - height[-1] == pytest.approx(np.diff(height).max(), abs=1e-5)


def test_long_cells_are_slanted_where_planes_have_slipped(script, plan):
    assert not script.slanted(plan["hcp-cleaved-0001+0.6"][1])
    assert not any(script.slanted(plan[f"{phase}-eos-+0.00"][1]) for phase in ("hcp", "bcc", "fcc", "omega"))
    assert script.slanted(plan["hcp-fault-basal+1.00+0.1"][1])
    assert script.slanted(plan["hcp-fault-prismatic+0.25+0.0"][1])


@pytest.mark.parametrize(
    ("crystal", "sizes"),
    [(("Al", "fcc", 4.04), (1, 4, 8)), (("Mg", "hcp", 3.2, 5.2), (2, 8, 16)), (("Nb", "bcc", 3.3), (1, 8, 16))],
)
def test_any_elemental_crystal_has_a_plan_that_a_longer_run_only_adds_to(script, crystal, sizes):
    everything = list(script.structures_of(*crystal))
    names = [name for _, name, _ in everything]
    assert len(set(names)) == len(names)
    for (_, name, atoms), (_, again, same) in zip(everything[:70], script.structures_of(*crystal), strict=False):
        assert name == again
        np.testing.assert_array_equal(atoms.positions, same.positions)
    primitive, cell, large = sizes
    expected = {"eos": {primitive}, "strain": {primitive}, "rattled": {cell}, f"rattled-{large}": {large}}
    for family, counts in expected.items():
        kinds = [len(atoms) for kind, _, atoms in everything[:70] if kind == f"{crystal[1]}-{family}"]
        assert set(kinds) == counts
    nearest = min(script.shortest_distance(atoms) for _, name, atoms in everything if name.endswith("+0.00"))
    assert all(script.shortest_distance(atoms) > 0.67 * nearest for _, _, atoms in everything)


def test_the_plans_of_elements_never_change(script):
    """Labels are resumed by id: these numbers are those of the first published plan."""
    atoms = {name: atoms for _, name, atoms in script.structures_of("Al", "fcc", 4.04)}
    assert len(atoms) == 214
    assert atoms["fcc-rattled-000-1"].positions[0] == pytest.approx(
        [0.025703933606, 0.189420997258, -0.075837239636], abs=1e-10
    )


def test_own_structures_keep_their_ids_or_get_the_files(script, tmp_path):
    path = tmp_path / "mine.extxyz"
    named = bulk("Cu", "fcc", a=3.6)
    named.info.update(config_id="cu", config_type="fcc")
    write(path, [named, bulk("Al", "fcc", a=4.05)])
    (kind, name, atoms), (other_kind, other_name, _) = script.structures_from(path)
    assert (kind, name, str(atoms.symbols)) == ("fcc", "cu", "Cu")
    assert (other_kind, other_name) == ("unlabelled", "mine.extxyz#1")
    write(path, [named, named])
    with pytest.raises(ValueError, match=r"mine\.extxyz, frame 1: config_id 'cu' was used before; give"):
        list(script.structures_from(path))
    named.pbc = (True, True, False)
    write(path, [named])
    with pytest.raises(ValueError, match=r"mine\.extxyz, frame 0 \(cu\): not periodic; set pbc"):
        list(script.structures_from(path))


def test_all_structures_are_read_past_blank_lines_and_whatever_the_file_is_called(script, tmp_path):
    path = tmp_path / "mine@300K.extxyz"
    write(tmp_path / "mine.extxyz", [bulk("Al", "fcc", a=a) for a in (4.0, 4.1)])
    one = (tmp_path / "mine.extxyz").read_text().splitlines(True)
    path.write_text("".join([*one[:3], "\n", *one[3:], "\n"]))
    assert [name for _, name, _ in script.structures_from(path)] == ["mine@300K.extxyz#0", "mine@300K.extxyz#1"]


def test_structures_without_ids_are_a_run_each_and_of_no_other_source(script, tmp_path):
    """So that their labels can be shared out for training, validation and test, with a zero of energy of their own."""
    structures = [bulk("Al", "fcc", a=a) for a in np.linspace(3.9, 4.2, 10)]
    for atoms in structures:
        atoms.info.update(config_type="fcc-eos", source="chgnet")
    write(tmp_path / "mine.extxyz", structures)
    frames = []
    for kind, name, atoms in script.structures_from(tmp_path / "mine.extxyz"):
        energy, forces, stress = calculators.compute_labels(EMT(), atoms)
        frames.append(script.with_labels(atoms, kind, name, energy, forces, stress))
    write(tmp_path / "out.extxyz", frames)
    found = datasets.load_frames(tmp_path / "out.extxyz")
    assert [len(part) for part in splits.split(found)] == [7, 1, 2]
    assert {labelled_frames.source(frame) for frame in found} == {"gpaw"}


@pytest.mark.skipif(not (shutil.which("mpirun") and os.path.exists("/usr/bin/python3")), reason="needs mpirun")
def test_two_processes_label_ones_own_structures(script, tmp_path):
    """Structures are read before the first calculation; ASE must know by then that there are two processes."""
    python = "/usr/bin/python3"  # GPAW is a package of the system, not of the environment
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if subprocess.run([python, "-c", "import gpaw"], env=clean, capture_output=True).returncode:
        pytest.skip("needs gpaw")
    write(tmp_path / "mine.extxyz", [bulk("Al", "fcc", a=a) for a in (4.0, 4.1)])
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-np", "2", python, script.__file__, "out.extxyz"]
    crude = "--structures mine.extxyz --cutoff 120 --k-spacing 3 --k-spacing-large 3".split()
    done = subprocess.run(
        [*command, *crude], env={**clean, "OMP_NUM_THREADS": "1"}, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(tmp_path / "out.extxyz", ":")
    assert [frame.info["config_id"] for frame in found] == ["mine.extxyz#0", "mine.extxyz#1"]
    assert done.stdout.count("eV/atom") == 2  # said once, not by each


def test_labels_are_written_as_the_package_reads_them(script, tmp_path):
    write(tmp_path / "out.extxyz", [frame_with_labels(script)])
    (frame,) = datasets.load_frames(tmp_path / "out.extxyz")
    assert frame.info["k_mesh"] == "6x6x6"
    assert frame.info["dft"] == "GPAW-PBE-PW500-k0.26/0.31-MP0.2"
    assert labelled_frames.labels(frame).energy == -14.0


@pytest.mark.parametrize("cut", [0, 1, 30, 200, 330, 500])
def test_a_half_written_last_frame_is_cut_off_and_nothing_else(cut, script, tmp_path):
    path = tmp_path / "out.extxyz"
    write(path, [frame_with_labels(script, "a"), frame_with_labels(script, "b")])
    size_of_one = path.stat().st_size // 2
    write(path, [frame_with_labels(script, "c")], append=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - cut])
    removed = script.cut_incomplete_frame(path)
    kept = 3 if cut == 0 else 2
    assert path.read_bytes() == whole[: kept * size_of_one]
    assert removed == len(whole) - cut - kept * size_of_one
    assert script.labelled_ids(path) == set("abc"[:kept])
    assert len(read(path, ":")) == kept
    assert script.cut_incomplete_frame(path) == 0


def test_trailing_blank_lines_go_but_foreign_text_is_left_alone(script, tmp_path):
    path = tmp_path / "out.extxyz"
    write(path, [frame_with_labels(script)])
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n\n")
    assert script.cut_incomplete_frame(path) == 2
    path.write_bytes(whole + b"notes\n" + whole)
    with pytest.raises(ValueError, match=r"out\.extxyz, frame 1: begins with 'notes'; repair it by hand"):
        script.cut_incomplete_frame(path)
    assert path.read_bytes() == whole + b"notes\n" + whole


def test_frames_of_other_settings_are_not_taken_for_done(script, tmp_path):
    path = tmp_path / "out.extxyz"
    write(path, [frame_with_labels(script, "a", script.DEFAULTS._replace(cutoff=340.0))])
    with pytest.raises(ValueError, match=r"out\.extxyz, frame 0 \(a\): labelled with .*PW340.*, now .*PW500"):
        script.labelled_ids(path)
    elsewhere = [("bulk", "b", next(script.structures())[2])]
    assert script.labelled_ids(path, plan=elsewhere) == {"a"}  # what the plan does not hold may be of other settings
    assert script.labelled_ids(path, script.DEFAULTS._replace(cutoff=340.0)) == {"a"}
    assert script.labelled_ids(tmp_path / "none.extxyz") == set()
    plan = list(script.structures())
    titanium = script.DEFAULTS._replace(pulay=PULAY)
    assert len(script.labelled_ids(datasets.TITANIUM_FRAMES, titanium, plan)) == len(datasets.load_frames())
    with pytest.raises(ValueError, match=r"labelled with .*-P0\.054, now .*MP0\.2; write to another"):
        script.labelled_ids(datasets.TITANIUM_FRAMES, plan=plan)


def test_an_id_of_another_material_is_not_taken_for_done(script, tmp_path):
    path, settings = tmp_path / "out.extxyz", script.DEFAULTS._replace(pulay=PULAY)
    with pytest.raises(ValueError, match=r"holds Ti in another cell than the Al to be labelled now; write another"):
        script.labelled_ids(datasets.TITANIUM_FRAMES, settings, script.structures_of("Al", "fcc", 4.04))
    kind, name, atoms = next(script.structures_of("Al", "fcc", 4.04))
    write(path, script.with_labels(atoms, kind, name, -3.0, np.zeros((1, 3)), np.zeros(6)))
    with pytest.raises(ValueError, match=r"holds Al in another cell than the Al"):
        script.labelled_ids(path, plan=script.structures_of("Al", "fcc", 4.05))


def test_settings_come_from_the_command_line_with_the_datasets_values_as_defaults(script):
    assert script.arguments(["out.extxyz"]).settings == script.DEFAULTS
    changed = script.arguments(["out.extxyz", "--cutoff", "340", "--k-spacing-large", "0.5"]).settings
    assert changed == script.DEFAULTS._replace(cutoff=340.0, k_spacing_large=0.5)
    assert script.arguments(["out.extxyz", "--pulay", "0.05"]).settings.pulay == 0.05
    for wrong in (
        ["--smearing", "-1"],
        ["--smearing", "0"],
        ["--pulay", "-0.1"],
        ["--pulay", "0.5"],
        ["--pulay", "nan"],
    ):
        with pytest.raises(SystemExit):
            script.arguments(["out.extxyz", *wrong])


def test_stresses_of_titanium_are_corrected_by_the_measured_pulay_stress(script):
    """Pressure times volume that stresses lack: the mean over six cells of energies' slopes minus pressures."""
    frames = {frame.info["config_id"]: frame for frame in datasets.load_frames()}
    with open(RESULTS / "pulay.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["cutoff_eV"] == "500"]
    missing = []
    for row in rows:
        frame = frames[row["config_id"]]
        volume = frame.get_volume() / len(frame)
        missing.append((float(row["slope_GPa"]) - float(row["pressure_GPa"])) * GPA * volume)
        corrected = -frame.get_stress()[:3].mean() / GPA  # the packaged label
        # the label of the smallest cell was computed before and differs by 0.045 GPa
        assert corrected == pytest.approx(float(row["pressure_GPa"]) + PULAY / volume / GPA, abs=0.05)
    assert np.mean(missing) == pytest.approx(PULAY, abs=5e-4)
    assert np.ptp(missing) < 0.3 * PULAY
    assert all(frame.info["dft"].endswith(f"-P{PULAY:g}") for frame in calculated())


def test_the_pulay_correction_is_a_pressure_times_volume_of_each_atom(script, monkeypatch):
    atoms = bulk("Al", "fcc", a=4.0, cubic=True)
    gpaw = SimpleNamespace(GPAW=lambda **_: EMT(), PW=lambda *_: None, MethfesselPaxton=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "gpaw", gpaw)
    plain, corrected = (script.label(atoms, "-", script.DEFAULTS._replace(pulay=w)) for w in (0.0, 0.05))
    assert corrected[0] == plain[0]
    missing = -(corrected[2] - plain[2]) * atoms.get_volume() / 4
    np.testing.assert_allclose(missing, [0.05, 0.05, 0.05, 0, 0, 0], atol=1e-12)


def test_forces_on_atoms_that_were_fixed_are_labelled_as_they_are(script, tmp_path, monkeypatch):
    """ASE reads a column move_mask as a constraint, under which it gives forces of 0."""
    gpaw = SimpleNamespace(GPAW=lambda **_: EMT(), PW=lambda *_: None, MethfesselPaxton=lambda *_, **__: None)
    monkeypatch.setitem(sys.modules, "gpaw", gpaw)
    atoms = bulk("Al", "fcc", a=4.0, cubic=True)
    atoms.rattle(0.1, seed=0)
    _, free, _ = script.label(atoms, "-")
    atoms.set_constraint(FixAtoms([0, 1]))
    write(tmp_path / "fixed.extxyz", atoms, columns=["symbols", "positions", "move_mask"])
    ((_, _, read),) = script.structures_from(str(tmp_path / "fixed.extxyz"))
    _, forces, _ = script.label(read, "-")
    np.testing.assert_allclose(forces, free, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--element Al", "--element needs --structure and --a"),
        ("--element Al --structure fcc", "--element needs --structure and --a"),
        ("--a 4.04", "describe a crystal of --element"),
        ("--element Al --structure fcc --a 4.04 --structures x.extxyz", "give one of the two"),
        ("--element Al --structure hcp --a 2.9", "give c for hcp, and for hcp alone"),
        ("--element Al --structure fcc --a 4.04 --c 5", "give c for hcp, and for hcp alone"),
        ("--element Aluminium --structure fcc --a 4.04", "chemical symbol 'Aluminium' is unknown"),
        ("--frames 0", "--frames must be positive"),
    ],
)
def test_half_a_crystal_is_refused(script, words, says, capsys):
    with pytest.raises(SystemExit):
        script.arguments(["out.extxyz", *words.split()])
    assert says in capsys.readouterr().err


def test_the_first_frames_of_another_element_can_be_listed(script, tmp_path, capsys):
    words = "--element Al --structure fcc --a 4.04 --frames 9 --k-spacing 0.2 --k-spacing-large 0.2 --list"
    script.main([str(tmp_path / "al.extxyz"), *words.split()])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[3] == "fcc-eos-+0.00: fcc-eos, 1 atoms, k-points (14, 14, 14)"
    assert lines[8].startswith("fcc-strain-yz+0.010: fcc-strain, 1 atoms")


def test_what_is_left_to_do_can_be_listed_without_gpaw(script, tmp_path, capsys):
    own = tmp_path / "own.extxyz"
    write(own, [bulk("Al", "fcc", a=a) for a in (4.0, 4.1)])
    script.main([str(tmp_path / "out.extxyz"), "--structures", str(own), "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["own.extxyz#0", "own.extxyz#1"]
    assert not (tmp_path / "out.extxyz").exists()
