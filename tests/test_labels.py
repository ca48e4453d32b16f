"""Labels in files as users have them: each is read as it was meant, or refused with one clear sentence."""

import re
import warnings
from functools import cache

import numpy as np
import outputs
import pytest
from argon import argon
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import write
from copper import copper, relabelled

from fusedff import tables
from fusedff.data import datasets, deepmd, labelled_frames, splits
from fusedff.data.batching import FrameStore
from fusedff.data.validation import duplicates, frame_checks
from fusedff.potential import Potential
from fusedff.study import comparison
from fusedff.training import force_matching, label_errors
from fusedff.training.config import ForceMatchingConfig
from fusedff.units import GPA


@cache
def twelve():
    return tuple(copper(12))


def model() -> Potential:
    return Potential(argon().params, argon().model, (29,), (0.0,))


@pytest.fixture
def cu(tmp_path):
    """A function that writes frames as cu.extxyz, edits the text, and returns the path."""

    def make(frames=None, edit=lambda text: text, name="cu.extxyz"):
        write(tmp_path / "plain.extxyz", list(frames or twelve()[:3]))
        (tmp_path / name).write_text(edit((tmp_path / "plain.extxyz").read_text()))
        return tmp_path / name

    return make


# ---- one reader ----


def test_training_sees_the_forces_of_the_file_also_where_atoms_are_fixed(cu):
    frames = [frame.copy() for frame in twelve()]
    for frame, given in zip(frames, twelve(), strict=True):
        frame.set_constraint(FixAtoms([0, 1]))
        frame.calc = given.calc
    loaded = datasets.load_frames(cu(frames))
    assert loaded[0].constraints  # ASE wrote them as `move_mask`
    batch = FrameStore(loaded, 5.0).batch(np.array([0]), 1, 4)
    np.testing.assert_allclose(batch.labels.forces, twelve()[0].calc.results["forces"], atol=1e-8)  # eight decimals
    np.testing.assert_allclose(batch.labels.forces[0], [-1.85581025, -1.19469958, -0.658684], atol=1e-8)


def test_frames_with_a_free_energy_alone_are_trained_on(cu):
    def edit(text):
        return re.sub(r" energy=", " free_energy=", re.sub(r" free_energy=\S+", "", text))

    loaded = datasets.load_frames(cu(edit=edit))
    assert all("energy" not in frame.calc.results for frame in loaded)
    expected = [frame.get_potential_energy() for frame in twelve()[:3]]
    np.testing.assert_allclose(FrameStore(loaded, 5.0).energy, expected, rtol=1e-12)


def test_of_two_energies_the_one_that_forces_belong_to_is_taken_and_a_note_says_so_once(cu):
    frames = [relabelled(frame, free_energy=frame.get_potential_energy() - 0.08) for frame in twelve()[:3]]
    with pytest.warns(UserWarning, match="differ in 3 of 3 frames, by up to 20 meV per atom; the free energy") as notes:
        loaded = datasets.load_frames(cu(frames))
    assert len(notes) == 1
    expected = [frame.get_potential_energy() - 0.08 for frame in twelve()[:3]]
    np.testing.assert_allclose(FrameStore(loaded, 5.0).energy, expected, rtol=1e-12)


def test_frames_may_be_wrapped_after_loading_but_not_moved(cu):
    loaded = datasets.load_frames(cu())
    before = FrameStore(loaded, 5.0)
    for frame in loaded:
        frame.wrap()
    after = FrameStore(loaded, 5.0)
    np.testing.assert_array_equal(after.energy, before.energy)
    loaded[1].rattle(0.01)
    with pytest.raises(ValueError, match="frame 1: atoms or cell were changed since they were labelled"):
        FrameStore(loaded, 5.0)


def test_stress_errors_are_of_the_same_frames_everywhere(cu):
    frames = list(twelve()[:3])
    frames[1] = frames[1].copy()
    frames[1].calc = twelve()[1].calc
    frames[1].info["use_virial"] = False
    expected, predicted = comparison.predictions(model(), frames)
    assert expected["stress"].shape == (12,)
    mean = np.mean(np.abs(predicted["stress"] - expected["stress"]))
    assert label_errors.errors(model(), frames)["stress_mae_GPa"] == pytest.approx(mean, rel=1e-6)


def test_a_stress_that_is_not_symmetric_is_refused_by_its_frame_though_ase_would_keep_half_of_it(cu, tmp_path):
    def edit(text):
        lines = text.splitlines(keepends=True)
        stress = re.search(r'stress="(\S+) (\S+) ', lines[7])
        lines[7] = lines[7].replace(stress[0], f'stress="{stress[1]} {float(stress[2]) + 0.02} ')
        return "".join(lines)

    assert datasets.load_frames(cu())[1].calc.results["stress"].shape == (6,)
    with pytest.raises(ValueError, match=r"frame 1 .*stress is not symmetric, entries differ by 0\.02 eV/Å\^3"):
        datasets.load_frames(cu(edit=edit))
    outputs.deepmd(tmp_path / "run", twelve()[:3], (3,))
    virial = np.load(tmp_path / "run" / "set.000" / "virial.npy")
    virial[1, 1] += 1.0
    np.save(tmp_path / "run" / "set.000" / "virial.npy", virial)
    for n, frame in enumerate(deepmd.load(tmp_path / "run")):
        if n != 1:
            frame_checks.check_frame(frame)
            continue
        with pytest.raises(ValueError, match="frame 1: stress is not symmetric"):
            frame_checks.check_frame(frame, "frame 1")


def test_without_any_stress_label_the_error_is_none_and_is_called_so():
    errors = label_errors.errors(model(), copper(3, keys=("energy", "forces")))
    assert errors["stress_mae_GPa"] is None
    assert tables.stress_error(errors) == "no stress labels"
    assert tables.stress_error({"stress_mae_GPa": 0.314}) == "0.31 GPa"


# ---- other names, and words for yes and no ----


@pytest.mark.parametrize(
    ("name", "remedy"),
    [(name, "write `stress=`") for name in ("REF_stress", "dft_stress", "stresses", "Stress", "stress_vasp")]
    + [(name, "write `stress=`") for name in ("virial_stress",)]
    + [(name, "write stress = -virial / volume") for name in ("REF_virial", "dft_virials", "virial", "Virial")],
)
def test_a_stress_under_another_name_is_named_with_the_remedy(cu, name, remedy):
    path = cu(edit=lambda text: text.replace(" stress=", f" {name}="))
    with pytest.raises(ValueError, match=rf"frame 0 .*has `{name}` but no stress; {re.escape(remedy)}"):
        datasets.load_frames(path)
    text = path.read_text().replace(f" {name}=", f" use_virial=F {name}=")
    path.write_text(text)
    assert not any(map(labelled_frames.use_virial, datasets.load_frames(path)))


def test_weights_and_per_atom_stresses_are_no_stress_under_another_name(cu):
    text = datasets.load_frames(cu(edit=lambda text: re.sub(' stress="[^"]*"', " config_stress_weight=0.5", text)))
    assert not any(map(labelled_frames.has_stress, text))


@pytest.mark.parametrize(
    ("word", "used"),
    [(w, False) for w in ("F", "False", "false", "f", "0", "no", "No", "off", "none", "None", '"F"', "0.0", "n")]
    + [(w, True) for w in ("T", "true", "yes", "on", "1")],
)
def test_words_for_no_are_read_as_no(cu, word, used):
    path = cu(edit=lambda text: text.replace(" energy=", f" use_virial={word} energy="))
    assert [labelled_frames.use_virial(frame) for frame in datasets.load_frames(path)] == [used] * 3


def test_what_is_neither_yes_nor_no_is_refused(cu):
    path = cu(edit=lambda text: text.replace(" energy=", " use_virial=maybe energy="))
    with pytest.raises(ValueError, match=r"cu\.extxyz, frame 0 .*: use_virial is 'maybe'; write use_virial=T or"):
        datasets.load_frames(path)


# ---- files ----


@pytest.mark.parametrize("name", ["frames@300K.extxyz", "cu@2", "cu@:2", "a*b?.extxyz", "Kupfer Ölbad [1].extxyz"])
def test_a_file_may_have_any_name(cu, name):
    assert len(datasets.load_frames(cu(twelve()[:5], name=name))) == 5


def test_blank_lines_between_frames_lose_none(cu):
    def spaced(text):
        lines = text.splitlines(True)
        return "\n" + "\n \n".join("".join(lines[k : k + 6]) for k in range(0, len(lines), 6)) + "\n\n"

    assert len(datasets.load_frames(cu(twelve(), spaced))) == 12


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (r"^4\n", "100000000\n", r"it announces 100000000 atoms in a file of \d+ bytes"),
        (r"^4\n", "40\n", "it announces 40 atoms, and 16 lines are left"),
        (r"^4\n", "-4\n", "it begins with '-4', not with a number of atoms"),
        ("forces:R:3", "forces:R:1000000000", "Properties announces 1000000004 columns, and the first atom has 7"),
        (" energy=-?", " energy=-13,0 was=", r"energy is \[-13, 0\], not a number; write it as `energy=` \(eV, with a"),
    ],
)
def test_a_header_that_promises_too_much_is_refused_before_it_costs_anything(cu, old, new, says):
    with pytest.raises(ValueError, match=rf"^cu\.extxyz, frame 0.*{says}"):
        datasets.load_frames(cu(edit=lambda text: re.sub(old, new, text, count=1)))


@pytest.mark.parametrize("factor", [1e-10, 1e10])
def test_lengths_in_other_worlds_are_refused_at_once(factor):
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array * factor, scale_atoms=True)
    with pytest.raises(ValueError, match=r"frame 7: cell vectors are up to .* Å long, .*give lengths in Å"):
        frame_checks.check_geometry(atoms, "frame 7")


def test_units_that_are_stated_are_believed(cu):
    """Copper under a stress of 1.9 eV/Å^3, 300 GPa: more than any frame that is not in GPa usually has."""
    frames = [relabelled(frame, stress=np.full(6, 300 * GPA)) for frame in twelve()[:3]]
    with pytest.raises(ValueError, match=r"looks like GPa or kbar; .* say so with units='ase'"):
        datasets.load_frames(cu(frames))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their energies deny these stresses, which is then a warning
        assert len(FrameStore(datasets.load_frames(cu(frames), units="ase"), 5.0).frames) == 3
        stated = cu(frames, lambda text: text.replace(" energy=", " units=ase energy="))
        assert len(datasets.load_frames(stated)) == 3
    with pytest.raises(ValueError, match="only 'ase'"):
        datasets.load_frames(cu(), units="nm")


# ---- duplicates ----


def again(frame, change=lambda atoms: atoms, order=slice(None), de=0.0):
    """The frame written by another tool: its labels stay those of its atoms."""
    found = labelled_frames.labels(frame)
    copy = change(frame.copy())[order]
    copy.calc = SinglePointCalculator(copy, energy=found.energy + de, forces=found.forces[order], stress=found.stress)
    return copy


def moved(by):
    def change(atoms):
        atoms.positions += by @ atoms.cell.array
        return atoms

    return change


def rounded(atoms):
    atoms.positions = np.round(atoms.positions, 3)
    atoms.set_cell(np.round(atoms.cell.array, 4))
    return atoms


def wrapped(atoms):
    atoms.positions += [5.0, -3.0, 1.0]
    atoms.wrap()
    return atoms


def rotated(atoms):
    atoms.rotate(37.0, (1, 2, 3), rotate_cell=True)
    return atoms


@pytest.mark.parametrize(
    "copy",
    [
        lambda frame: again(frame),
        lambda frame: again(frame, de=1e-7),
        lambda frame: again(frame, rounded),
        lambda frame: again(frame, moved(np.array([1.0, -2.0, 0.0]))),
        lambda frame: again(frame, wrapped),
        lambda frame: again(frame, order=[1, 0, 2, 3]),
        lambda frame: again(frame, rotated),
        lambda frame: again(frame, lambda atoms: rotated(wrapped(rounded(atoms))), [2, 0, 3, 1], 1e-6),
    ],
    ids=["exact", "energy rounded", "rounded", "translated", "wrapped", "sorted", "rotated", "all of it"],
)
def test_a_structure_given_twice_is_refused_however_it_is_written(cu, copy):
    with pytest.raises(ValueError, match=r"frame 12 .*the same atoms as frame 0 with the same energy; drop one"):
        datasets.load_frames(cu([*twelve(), copy(twelve()[0])]))


def test_equal_structures_with_different_energies_are_a_contradiction(cu):
    with pytest.raises(ValueError, match=r"frame 12 .*the same atoms as frame 3, 0.001 eV per atom apart .*keep the"):
        datasets.load_frames(cu([*twelve(), again(twelve()[3], wrapped, de=0.004)]))


def test_frames_that_differ_little_are_kept():
    """Strains of 0.1 %, displacements of 0.01 Å and of molecular dynamics within 2 fs; an image by symmetry alone."""
    base = twelve()[0]
    small = []
    for axis in range(3):
        strain = np.eye(3)
        strain[axis, axis] += 1e-3
        small.append(base.copy())
        small[-1].set_cell(base.cell.array @ strain, scale_atoms=True)
        small.append(base.copy())
        small[-1].positions[axis, axis] += 0.01
    small.append(base.copy())
    small[-1].rattle(0.003, seed=1)  # 1.5 Å/ps of copper at 100 K, 2 fs
    crystal = bulk("Ti", "hcp", a=2.95, c=4.68)
    for shear in (0.01, -0.01):
        small.append(crystal.copy())
        small[-1].set_cell(crystal.cell.array @ [[1, 0, 0], [0, 1, shear], [0, shear, 1]], scale_atoms=True)
    assert list(duplicates.pairs([base, *small])) == []


def test_a_copy_is_found_among_hundreds_of_snapshots_of_the_same_cell():
    rng, crystal = np.random.default_rng(0), bulk("Cu", cubic=True) * 3
    frames = [crystal.copy() for _ in range(300)]
    for frame in frames:
        frame.positions += rng.normal(scale=0.1, size=frame.positions.shape)
    copy = rotated(wrapped(rounded(frames[123].copy())))[rng.permutation(len(crystal))]
    assert list(duplicates.pairs([*frames, copy])) == [(123, 300)]


# ---- few frames ----


@pytest.mark.parametrize("n", [3, 5])
def test_the_part_that_few_frames_leave_empty_is_named(n):
    with pytest.raises(ValueError, match=rf"{n} frames leave none for validation and test: .*--run-length"):
        splits.split(twelve()[:n])
    assert min(map(len, splits.paper_split(twelve()[:n]))) == 1


def test_training_and_testing_name_the_part_without_frames():
    settings = ForceMatchingConfig(epochs=1, batch=4)
    for parts, name in ((([], twelve()), "training"), ((twelve(), []), "validation")):
        with pytest.raises(ValueError, match=f"no frames for {name}: .*at least one"):
            force_matching.train(model(), *parts, settings)
    with pytest.raises(ValueError, match="no frames to test on"):
        label_errors.errors(model(), [])


def test_frames_of_a_config_type_each_are_shared_out():
    frames = copper(36)
    for i, frame in enumerate(frames):
        frame.info["config_type"] = f"md-{i:03d}"
    assert min(map(len, splits.split(frames))) > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_pressures_in_place_of_stresses_are_noticed(sign):
    """Successive frames here are too different for the work of stress to be compared."""
    frames = copper(24)
    for frame in frames:
        frame.calc.results["stress"] *= sign
    if sign > 0:
        datasets.check_dataset(frames, "cu.extxyz")
    else:
        with pytest.raises(
            ValueError, match=r"cu\.extxyz, frame \d+.*stresses fall where volumes grow .*multiply it by -1"
        ):
            datasets.check_dataset(frames, "cu.extxyz")
