"""Conversion of outputs of DFT programs to labelled frames: the same numbers, one energy, one run per calculation."""

import gzip
import lzma
import re

import ase.io
import numpy as np
import outputs
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from copper import copper, relabelled

from fusedff.commands import cli, conversion
from fusedff.commands.conversion import ConversionConfig, convert
from fusedff.data import datasets, labelled_frames, splits
from fusedff.units import from_voigt

PROGRAMS = {  # name of a file -> who writes it, source of its frames
    "OUTCAR": (outputs.outcar, "vasp"),
    "vasprun.xml": (outputs.vasprun, "vasp"),
    "pw.out": (outputs.espresso, "espresso"),
    "aims.out": (outputs.fhi_aims, "aims"),
}


def assert_same(found, wanted, atol=2e-8):
    """Geometry and labels agree to the digits of the files."""
    np.testing.assert_allclose(found.cell.array, wanted.cell.array, atol=atol)
    np.testing.assert_allclose(found.positions, wanted.positions, atol=atol)
    assert (found.numbers == wanted.numbers).all()
    for one, two in zip(labelled_frames.labels(found), labelled_frames.labels(wanted), strict=True):
        np.testing.assert_allclose(one, two, atol=atol)


@pytest.mark.parametrize("name", PROGRAMS)
def test_labels_are_those_of_the_program_and_unconverged_steps_are_dropped(name, tmp_path):
    write, source = PROGRAMS[name]
    frames = copper(5)
    (tmp_path / name).write_text(write(frames, unconverged=(1, 4)))
    done = convert([tmp_path / name], tmp_path / "frames.extxyz")
    assert done.dropped == {conversion.UNCONVERGED: 2}
    back = datasets.load_frames(tmp_path / "frames.extxyz")
    for found, wanted in zip(back, [frames[0], frames[2], frames[3]], strict=True):
        assert_same(found, wanted)
    assert [frame.info["config_id"] for frame in back] == [f"{name}#0", f"{name}#2", f"{name}#3"]
    assert {labelled_frames.run(frame) for frame in back} == {name}
    assert {labelled_frames.source(frame) for frame in back} == {source}


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_the_free_energy_is_kept_and_the_report_says_so(name, tmp_path, recwarn):
    (frame,) = copper(1)
    (tmp_path / name).write_text(PROGRAMS[name][0]([frame]))
    done = convert([tmp_path / name], tmp_path / "frames.extxyz")
    (back,) = datasets.load_frames(tmp_path / "frames.extxyz")
    results = labelled_frames.calculator_results(back)
    assert results["energy"] == pytest.approx(labelled_frames.labels(frame).energy, abs=1e-7)
    assert "free_energy" not in results
    assert "the free energy, from which the forces derive" in done.report()
    assert "up to 3 meV per atom from it" in done.report()  # 12 meV of 4 atoms
    assert not recwarn.list


def test_a_calculation_that_was_interrupted_gives_its_complete_steps(tmp_path):
    frames = copper(3)
    for name, keep in (("OUTCAR", -150), ("vasprun.xml", -900)):
        (tmp_path / name).write_text(PROGRAMS[name][0](frames)[:keep])
        done = convert([tmp_path / name], tmp_path / f"{name}.extxyz")
        assert len(done.frames) == 2


@pytest.mark.filterwarnings("ignore:.*as if the run was interrupted")
@pytest.mark.parametrize("name", PROGRAMS)
def test_wherever_a_file_ends_no_frame_is_another(name, tmp_path):
    """An end within a number leaves another number, or a line that cannot be read."""
    frames = copper(2)
    write, _ = PROGRAMS[name]
    text = write(frames)
    for end in range(len(write(frames[:1])), len(text), 9):
        (tmp_path / name).write_text(text[:end])
        done = convert([tmp_path / name], tmp_path / f"{end}.extxyz")
        for found, wanted in zip(done.frames, frames, strict=False):
            for one, other in zip(labelled_frames.labels(found), labelled_frames.labels(wanted), strict=True):
                missing = np.isnan(one)  # the stress, which comes last
                np.testing.assert_allclose(one, np.where(missing, one, other), atol=2e-8)


def test_deepmd_folders_at_any_depth_are_one_run_each(tmp_path):
    frames = copper(6)
    outputs.deepmd(tmp_path / "data" / "hot" / "b", frames[:4], (3, 1))
    outputs.deepmd(tmp_path / "data" / "a", frames[4:], (2,), types="1\n", type_map="O Cu\n")
    convert([tmp_path / "data"], tmp_path / "frames.extxyz")
    back = datasets.load_frames(tmp_path / "frames.extxyz")
    for found, wanted in zip(back, frames[4:] + frames[:4], strict=True):
        assert_same(found, wanted)
    assert [labelled_frames.run(frame) for frame in back] == 2 * ["a"] + 4 * ["hot/b"]


def test_elements_of_a_deepmd_folder_may_be_named(tmp_path):
    outputs.deepmd(tmp_path / "run", copper(2), (2,), type_map=None)
    with pytest.raises(ValueError, match=r"type_map\.raw is missing; name the elements"):
        convert([tmp_path / "run"], tmp_path / "frames.extxyz")
    with pytest.raises(ValueError, match=r"format 'vasp-out' is of files, and only DeePMD folders are given; leave it"):
        convert([tmp_path / "run"], tmp_path / "frames.extxyz", ConversionConfig(format="vasp-out", species=("Cu",)))
    done = convert([tmp_path / "run"], tmp_path / "frames.extxyz", ConversionConfig(species=("Cu",)))
    assert str(done.frames[0].symbols) == "Cu4"
    outputs.deepmd(tmp_path / "named", copper(2), (2,), type_map="Ni\n")
    with pytest.raises(ValueError, match=r"named: type_map\.raw says Ni, not Cu; name no elements"):
        convert([tmp_path / "named"], tmp_path / "more.extxyz", ConversionConfig(species=("Cu",)))


def test_a_run_that_goes_on_from_the_end_of_another_one_is_a_part_of_it(tmp_path):
    """The frame that both have is dropped once; afterwards nothing else would show that they belong together."""
    frames = copper(9)
    for name, part in (("first", frames[:5]), ("second", frames[4:]), ("alone", copper(3, seed=8))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "OUTCAR").write_text(outputs.outcar(part))
    done = convert([tmp_path / n / "OUTCAR" for n in ("first", "second", "alone")], tmp_path / "all.extxyz")
    assert len(done.frames) == 12
    assert done.runs == 2
    assert len({labelled_frames.run(frame) for frame in datasets.load_frames(tmp_path / "all.extxyz")[:9]}) == 1


def test_calculations_are_shared_out_whole_and_a_long_one_can_be_cut(tmp_path):
    frames = copper(30)
    for n in range(10):
        (tmp_path / f"run-{n}").mkdir()
        (tmp_path / f"run-{n}" / "OUTCAR").write_text(outputs.outcar(frames[3 * n : 3 * n + 3]))
    whole = convert(sorted(tmp_path.glob("run-*/OUTCAR")), tmp_path / "whole.extxyz")
    parts = splits.split(datasets.load_frames(tmp_path / "whole.extxyz"))
    assert [len(part) for part in parts] == [21, 3, 6]
    assert not {labelled_frames.run(f) for f in parts.train} & {labelled_frames.run(f) for f in parts.test}
    assert whole.runs == 10
    (tmp_path / "OUTCAR").write_text(outputs.outcar(frames))
    one = convert([tmp_path / "OUTCAR"], tmp_path / "one.extxyz")
    assert "ten or more are needed" in one.report()
    cut = convert([tmp_path / "OUTCAR"], tmp_path / "cut.extxyz", ConversionConfig(run_length=3))
    assert cut.runs == 10
    assert [f.info["config_id"] for f in cut.frames[2:4]] == ["OUTCAR/0#2", "OUTCAR/1#3"]


def test_extended_xyz_keeps_its_names_and_loses_what_cannot_be_learned_from(tmp_path):
    frames = copper(4)
    frames[0].info.update(config_type="hot", run="md-1", source="gpaw")
    frames[1] = frames[1].copy()  # no labels
    close = frames[2].copy()
    close.positions[1] = close.positions[0] + 0.1
    close.calc = SinglePointCalculator(close, energy=0.0, forces=np.zeros((4, 3)))
    same = frames[0].copy()
    same.positions += 0.3
    frames += [close, relabelled(same)]
    (tmp_path / "mine.extxyz").write_text(outputs.text_of(frames))
    done = convert([tmp_path / "mine.extxyz"], tmp_path / "frames.extxyz", ConversionConfig(family="cold"))
    back = datasets.load_frames(tmp_path / "frames.extxyz")
    assert [f.info["config_id"] for f in back] == ["mine.extxyz#0", "mine.extxyz#2", "mine.extxyz#3"]
    assert [labelled_frames.run(f) for f in back] == ["md-1", "mine.extxyz#2", "mine.extxyz#3"]
    assert [labelled_frames.family(f) for f in back] == ["hot", "cold", "cold"]
    assert [labelled_frames.source(f) for f in back] == ["gpaw", "frames", "frames"]
    (unfit,) = (why for why in done.dropped if "unfit" in why)
    assert "mine.extxyz#4: atoms 0 and 1 (or their images) are 0.173 Å apart" in unfit
    assert {why: n for why, n in done.dropped.items() if why != unfit} == {
        conversion.NO_ENERGY: 1, "the same structure as an earlier frame": 1,
    }  # fmt: skip


def test_labels_may_have_other_names_and_a_virial_becomes_a_stress(tmp_path):
    """As MACE (REF_energy) and GAP (virial) call them; the extended XYZ of a frame says nothing of their meaning."""
    frames, renamed = copper(12), []
    for frame in frames:
        found, other = labelled_frames.calculator_results(frame), labelled_frames.bare(frame)
        stress = from_voigt(np.asarray(found["stress"]))
        other.info.update(REF_energy=found["energy"], REF_stress=stress, virial=-frame.get_volume() * stress)
        other.arrays["REF_forces"] = found["forces"]
        renamed.append(other)
    ase.io.write(tmp_path / "mace.xyz", renamed, format="extxyz")
    with pytest.raises(ValueError, match=r"12: no energy, but REF_energy \(--labels energy=REF_energy\)"):
        convert([tmp_path / "mace.xyz"], tmp_path / "frames.extxyz")
    with pytest.raises(ValueError, match=r"12: no 'energies' \(--labels\); there are REF_energy, REF_forces, .*virial"):
        convert([tmp_path / "mace.xyz"], tmp_path / "frames.extxyz", ConversionConfig(labels={"energy": "energies"}))
    (tmp_path / "empty.xyz").touch()
    with pytest.raises(ValueError, match=r"empty\.xyz is empty: the calculation wrote nothing"):
        convert([tmp_path / "mace.xyz", tmp_path / "empty.xyz"], tmp_path / "frames.extxyz")
    for other in renamed:  # ASE writes what a calculator computed last beside them, a free energy as well
        other.calc = SinglePointCalculator(other, energy=-1.0, free_energy=-1.0)
    ase.io.write(tmp_path / "mace.xyz", renamed, format="extxyz")
    names = ["energy=REF_energy", "forces=REF_forces"]
    for stress in ("stress=REF_stress", "virial=virial"):
        output = tmp_path / f"{stress}.extxyz"
        assert cli.main(["convert", str(tmp_path / "mace.xyz"), str(output), "--labels", *names, stress]) == 0
        for found, expected in zip(datasets.load_frames(output), frames, strict=True):
            assert_same(found, expected)


def test_labels_of_one_calculation_come_without_the_stress_of_another_one(tmp_path, capsys):
    """Beside REF_energy and REF_forces, energy, forces and stress are often those of another model."""
    frames, path = copper(12), tmp_path / "two.xyz"
    for n, frame in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(frame)
        frame.info["REF_energy"], frame.arrays["REF_forces"] = energy, forces
        frames[n] = relabelled(frame, energy=energy + 1, forces=0.9 * forces, stress=stress + 0.01)
    ase.io.write(path, frames, format="extxyz")
    names = ["energy=REF_energy", "forces=REF_forces"]
    assert cli.main(["convert", str(path), str(tmp_path / "ref.extxyz"), "--labels", *names]) == 0
    said = capsys.readouterr().out
    assert "12 frames with energy and forces, 0 with stress" in said
    assert "without the stress of the file, which --labels does not name (stress=stress does)" in said
    for found, frame in zip(datasets.load_frames(tmp_path / "ref.extxyz"), frames, strict=True):
        assert labelled_frames.labels(found).energy == pytest.approx(frame.info["REF_energy"])
        assert not labelled_frames.has_stress(found)
    assert cli.main(["convert", str(path), str(tmp_path / "all.extxyz"), "--labels", *names, "stress=stress"]) == 0
    said = capsys.readouterr().out
    assert "12 with stress" in said
    assert "without the stress" not in said
    with pytest.raises(ValueError, match=r"12: no forces, but REF_forces \(--labels forces=REF_forces\)"):
        convert([path], tmp_path / "new.extxyz", ConversionConfig(labels={"energy": "REF_energy"}))
    done = convert([path], tmp_path / "kept.extxyz", ConversionConfig(labels={"stress": "stress"}))
    assert_same(done.frames[0], frames[0])
    ase.io.write(tmp_path / "one.xyz", copper(1), format="extxyz")
    with pytest.raises(ValueError, match=r"1: no forces, but forces \(--labels forces=forces\)"):
        convert([tmp_path / "one.xyz"], tmp_path / "new.extxyz", ConversionConfig(labels={"energy": "energy"}))


@pytest.mark.parametrize(("ids", "runs"), [
    ([{}] * 7, ["md.xyz/0"] * 3 + ["md.xyz/1"] * 3 + ["md.xyz/2"]),
    ([{"config_id": f"step{n}"} for n in range(7)], ["md.xyz/0"] * 3 + ["md.xyz/1"] * 3 + ["md.xyz/2"]),
    ([{"config_id": f"a#{n}", "run": f"a#{n}"} for n in range(4)], ["md.xyz/0"] * 3 + ["md.xyz/1"]),
    ([{"config_id": f"{'hot' if n % 2 else 'cold'}#{n}"} for n in range(8)],
     ["cold/0", "hot/0"] * 3 + ["cold/1", "hot/1"]),
    ([{"run": "hot"}, {}, {"config_id": "one"}, *[{"run": "hot"}] * 3, {}, {}],
     ["hot/0", "md.xyz/0", "md.xyz/0", "hot/0", "hot/0", "hot/1", "md.xyz/0", "md.xyz/1"]),
], ids=["no ids", "an id each", "a run each", "two runs", "some with a run"])  # fmt: skip
def test_runs_of_extended_xyz_can_be_cut_however_they_are_named(ids, runs, tmp_path):
    frames = copper(len(ids))
    for frame, names in zip(frames, ids, strict=True):
        frame.info.update(names)
    ase.io.write(tmp_path / "md.xyz", frames, format="extxyz")
    done = convert([tmp_path / "md.xyz"], tmp_path / "frames.extxyz", ConversionConfig(run_length=3))
    assert [labelled_frames.run(frame) for frame in datasets.load_frames(tmp_path / "frames.extxyz")] == runs
    assert (done.runs, done.own_runs) == (len(set(runs)), 0)


def test_runs_that_are_cut_count_frames_that_are_dropped_and_keep_the_name_of_their_file(tmp_path):
    for name in "ab":
        frames = copper(6, seed=ord(name))
        for frame in frames:
            frame.info["run"] = "md"
        frames[1].calc = None
        ase.io.write(tmp_path / f"{name}.xyz", frames, format="extxyz")
    paths = [tmp_path / "a.xyz", tmp_path / "b.xyz"]
    done = convert(paths, tmp_path / "frames.extxyz", ConversionConfig(run_length=3))
    cut = [f"{name}.xyz:md/{part}" for name in "ab" for part in (0, 0, 1, 1, 1)]
    assert [labelled_frames.run(frame) for frame in done.frames] == cut


@pytest.mark.parametrize("name", ["md@300K.traj", "md@2.traj", "OUTCAR@300K", "md@300K.extxyz"])
def test_the_name_of_a_file_may_have_an_at_sign(name, tmp_path):
    frames, path = copper(3), tmp_path / name
    if path.suffix:
        ase.io.write(path, frames)
    else:
        path.write_text(outputs.outcar(frames))
    done = convert([path], tmp_path / "frames.extxyz")
    for found, expected in zip(done.frames, frames, strict=True):
        assert_same(found, expected)


def test_a_trajectory_of_ase_is_one_run(tmp_path):
    frames = copper(12)
    ase.io.write(tmp_path / "md.traj", frames)
    done = convert([tmp_path / "md.traj"], tmp_path / "frames.extxyz", ConversionConfig(source="emt"))
    assert done.runs == 1
    for found, expected in zip(done.frames, frames, strict=True):
        assert_same(found, expected)


def test_a_left_handed_cell_is_the_same_crystal_with_two_vectors_exchanged(tmp_path):
    (frame,) = copper(1)
    other = Atoms(frame.numbers, frame.positions, cell=frame.cell.array[[1, 0, 2]], pbc=True)
    other.calc = SinglePointCalculator(other, **labelled_frames.calculator_results(frame))
    (tmp_path / "OUTCAR").write_text(outputs.outcar([other]))
    (found,) = convert([tmp_path / "OUTCAR"], tmp_path / "frames.extxyz").frames
    assert_same(found, frame)


def test_the_command_says_what_it_did_and_what_comes_next(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "OUTCAR").write_text(outputs.outcar(copper(12), unconverged=(3,)))
    assert cli.main(["convert", "OUTCAR", "frames.extxyz", "--run-length", "1", "--family", "md"]) == 0
    said = capsys.readouterr().out
    assert "12 frames: VASP OUTCAR" in said
    assert "1: SCF not converged" in said
    assert "11 frames with energy and forces, 11 with stress" in said
    assert 'frames = "frames.extxyz"' in said
    assert {labelled_frames.family(f) for f in datasets.load_frames("frames.extxyz")} == {"md"}


@pytest.mark.parametrize(("content", "arguments", "says"), [
    ("nonsense\n", ["OUTCAR", "new.extxyz"], r"OUTCAR cannot be read as VASP OUTCAR \(Incomplete OUTCAR\); leave it"),
    ("nonsense\n", ["mine.dat", "new.extxyz"], r"mine\.dat looks like nothing that can be converted; name its format"),
    ("nonsense\n", ["mine.xz", "new.extxyz"], r"mine\.xz looks like nothing that can be converted; name its format"),
    (gzip.compress(b"nonsense", mtime=0), ["OUTCAR", "new.extxyz"], r"OUTCAR is compressed \(gzip\); give plain text"),
    (lzma.compress(b"nonsense")[:20], ["mine.dat", "new.extxyz"], r"mine\.dat is compressed \(xz\); give plain text"),
    (None, ["OUTCAR", "old.extxyz"], r"old\.extxyz exists already; name another file"),
    (None, ["OUTCAR", "frames.csv"], r"frames\.csv: .*end the name in \.extxyz"),
    (None, ["missing", "new.extxyz"], r"missing does not exist; give files or DeePMD folders"),
    (None, [".", "new.extxyz"], r"is a folder without DeePMD sets"),
    (None, ["OUTCAR", "./OUTCAR", "new.extxyz"], r"OUTCAR is given twice; give it once"),
    (None, ["OUTCAR", "new.extxyz", "--format", "vasp"], r"format 'vasp' is unknown; use one of vasp-out"),
    (None, ["OUTCAR", "new.extxyz", "--run-length", "0"], r"run_length = 0; give 1 or more"),
    (None, ["OUTCAR", "new.extxyz", "--species", "Cu"], r"species Cu are of DeePMD folders, and none is given; leave"),
    (None, ["OUTCAR", "OUTCAR/new.extxyz"], r"new\.extxyz cannot be written, since .*OUTCAR is a file; name another"),
    (None, ["OUTCAR", "new.extxyz", "--labels", "energy=E"], r"labels energy are of extended XYZ, and none is given"),
    (None, ["OUTCAR", "new.extxyz", "--labels", "charge=q"], r"label 'charge' is unknown; name one of energy, forces"),
    (None, ["OUTCAR", "new.extxyz", "--labels", "stress=s", "virial=v"], r"labels name a stress and a virial; leave"),
    (outputs.outcar(copper(1), unconverged=(0,)), ["OUTCAR", "new.extxyz"],
     r"no frame is left of 1 \(1: SCF not converged\); give files with energies and forces"),
])  # fmt: skip
def test_a_slip_is_one_sentence_and_writes_nothing(content, arguments, says, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("OUTCAR", "mine.dat", "mine.xz"):
        text = outputs.outcar(copper(2)) if content is None else content
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "old.extxyz").touch()
    assert cli.main(["convert", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(f"^error: .*{says}", said), said
    assert not (tmp_path / "new.extxyz").exists()


def test_if_most_frames_are_in_another_unit_none_is_written(tmp_path):
    frames = copper(12)
    for n, frame in enumerate(frames):  # stresses in GPa: some are too small to be noticed alone
        stress = labelled_frames.calculator_results(frame)["stress"] * (1e-3 if n < 3 else 160.2)
        frame.calc = SinglePointCalculator(frame, **{**labelled_frames.calculator_results(frame), "stress": stress})
    ase.io.write(tmp_path / "mine.xyz", frames, format="extxyz")
    with pytest.raises(ValueError, match=r"9 of 12 frames are unfit to learn from: .*; correct the files"):
        convert([tmp_path / "mine.xyz"], tmp_path / "frames.extxyz")
    assert not (tmp_path / "frames.extxyz").exists()
