"""Labelled frames: reading, checking, splitting, and the paper's archive."""

import zipfile
from collections import Counter, defaultdict

import numpy as np
import pytest
from archives import downloader, npy, paper_arrays, paper_zip, zipped
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st

from fusedff.data import datasets, labelled_frames, splits, titanium_paper
from fusedff.data.download import git_blob_sha1
from fusedff.data.validation import frame_checks
from fusedff.units import GPA


def frame(symbol="Ti", energy=-13.0, stress=0.01, scale=1.0, **info):
    """A good frame of two atoms."""
    atoms = bulk("Ti", "hcp", a=2.95 * scale, c=4.68 * scale)
    atoms.symbols[:] = symbol
    results = {"energy": energy, "forces": np.array([[0.1] * 3, [-0.1] * 3])}
    if stress is not None:
        results["stress"] = np.full(6, stress)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(info)
    return atoms


# ---- reading ----


def test_the_packaged_frames_are_titanium_with_all_labels():
    frames = datasets.load_frames()
    assert len(frames) >= 60
    assert {s for f in frames for s in f.symbols} == {"Ti"}
    assert [f.info["config_id"] for f in frames if not labelled_frames.use_virial(f)] == ["atom"]
    assert len({f.info["config_id"] for f in frames}) == len(frames)
    assert {"hcp-eos", "hcp-strain", "hcp-rattled", "bcc-rattled"} <= {f.info["config_type"] for f in frames}


def test_stress_is_positive_in_tension_in_the_packaged_frames():
    energies, volumes, pulls = [], [], []
    for f in datasets.load_frames():
        if f.info["config_type"] == "hcp-eos":
            energies.append(labelled_frames.labels(f).energy)
            volumes.append(f.get_volume())
            pulls.append(labelled_frames.labels(f).stress[:3].mean())
    assert np.sign(pulls[0]) == -1  # compressed
    assert np.sign(pulls[-1]) == 1  # stretched
    slopes = np.polyval(np.polyder(np.polyfit(volumes, energies, 4)), volumes)
    np.testing.assert_allclose(pulls, slopes, atol=1.0 * GPA)


def test_reference_energies_leave_little_to_learn():
    frames = datasets.load_frames()
    references = datasets.fit_reference_energies(frames)
    left = {f.info["config_id"]: labelled_frames.labels(f).energy / len(f) - references["Ti"] for f in frames}
    atom = left.pop("atom")
    assert atom - min(left.values()) == pytest.approx(4.85, abs=0.05)  # eV, the cohesive energy
    assert max(left.values()) < 4.0  # at half of the volume
    assert max(energy for name, energy in left.items() if "far--0.50" not in name) < 2.0
    assert min(left.values()) > -2.0


def test_frames_survive_a_round_trip_with_default_type_id_and_missing_stress(tmp_path):
    path = tmp_path / "mine.extxyz"
    changed = frame(energy=-12.9, scale=1.01, stress=None, config_type="slab", config_id=7)
    write(path, [frame(), changed, frame(scale=1.02, use_virial=False)])
    first, second, third = datasets.load_frames(path)
    assert (first.info["config_type"], first.info["config_id"]) == ("unlabelled", "mine.extxyz#0")
    assert (second.info["config_type"], second.info["config_id"]) == ("slab", 7)
    assert [labelled_frames.has_stress(f) for f in (first, second, third)] == [True, False, True]
    assert [labelled_frames.use_virial(f) for f in (first, second, third)] == [True, False, False]
    assert np.isnan(labelled_frames.labels(second).stress).all()
    np.testing.assert_allclose(labelled_frames.labels(first).stress, 0.01)
    assert labelled_frames.labels(first).forces.shape == (2, 3)


def test_a_free_energy_alone_is_the_energy():
    atoms = frame()
    atoms.calc.results = {"free_energy": -13.5, "forces": np.zeros((2, 3))}
    frame_checks.check_frame(atoms)
    assert labelled_frames.labels(atoms).energy == -13.5


# ---- splitting ----

TYPES = st.lists(st.sampled_from(["hcp", "bcc", "fcc", "omega"]), max_size=80)


@given(TYPES, TYPES)
def test_appending_frames_never_moves_an_earlier_one(before, after):
    assert splits.assign(before + after)[: len(before)] == splits.assign(before)


@given(TYPES, st.sampled_from([(0.1, 0.1), (0.2, 0.1), (0.1, 0.3)]))
def test_every_type_gives_each_full_block_its_share_of_each_part(types, fractions):
    validation, test = fractions
    parts = defaultdict(list)
    for kind, part in zip(types, splits.assign(types, validation, test), strict=True):
        parts[kind].append(part)
    for members in parts.values():
        for start in range(0, len(members) - 9, 10):
            count = Counter(members[start : start + 10])
            assert count["validation"] == round(10 * validation)
            assert count["test"] == round(10 * test)


def test_the_split_of_published_datasets_is_fixed_for_good():
    parts = splits.assign(["hcp-rattled"] * 20)
    assert "".join(part[:2] for part in parts) == "tetrtrtrtrtrtrtrtevatrtetrtevatrtrtrtrtr"


def test_other_seeds_take_other_frames_for_validation_and_the_same_for_test():
    """Eight tenths that are not test, one of them validation: after eight seeds each has been it once."""
    parts = [splits.assign(["hcp-rattled"] * 20, seed=seed) for seed in range(9)]
    assert parts[0] == parts[8] == splits.assign(["hcp-rattled"] * 20)
    for frame in zip(*parts[:8], strict=True):
        assert Counter(frame) in (Counter(test=8), Counter(validation=1, train=7))
    counts = {tuple(map(one.count, ("train", "validation", "test"))) for one in parts}
    assert counts == {(14, 2, 4)}


def test_a_split_is_disjoint_complete_and_in_file_order():
    frames = datasets.load_frames()
    parts = splits.split(frames)
    ids = [f.info["config_id"] for f in frames]
    found = [[f.info["config_id"] for f in part] for part in parts]
    assert sorted(sum(found, [])) == sorted(ids)
    for part in found:
        assert part == sorted(part, key=ids.index)
    sizes = Counter(f.info["config_type"] for f in frames)
    for kind, size in sizes.items():
        if size >= 10:
            assert all(any(f.info["config_type"] == kind for f in part) for part in parts)


@pytest.mark.parametrize(
    ("fractions", "named"),
    [((0.15, 0.1), "validation = 0.15"), ((0.1, -0.1), "test = -0.1"), ((0.5, 0.5), "leave no training")],
)
def test_fractions_are_whole_tenths_that_leave_something_to_train_on(fractions, named):
    with pytest.raises(ValueError, match=named):
        splits.split([frame()], *fractions)


def test_a_single_frame_that_falls_out_of_training_is_an_error_not_an_empty_training_set():
    kind = next(k for k in map(str, range(100)) if splits.assign([k]) == ["test"])
    with pytest.raises(ValueError, match="1 frames leave none for train and validation: ten runs of one"):
        splits.split([frame(config_type=kind)])


def test_frames_of_one_run_that_are_too_few_runs_are_told_so():
    with pytest.raises(ValueError, match=r"24 frames leave none .* here are 1 at most; .*--run-length"):
        splits.split([frame(config_id=i, run="md") for i in range(24)])


def test_the_papers_split_is_70_10_20_in_file_order():
    frames = [frame(config_id=i) for i in range(20)]
    train, validation, test = splits.paper_split(frames)
    assert [f.info["config_id"] for f in train + validation + test] == list(range(20))
    assert (len(train), len(validation), len(test)) == (14, 2, 4)
    with pytest.raises(ValueError, match="2 frames are too few"):
        splits.paper_split(frames[:2])


# ---- reference energies ----


def test_reference_energies_are_recovered_from_mixed_compositions():
    frames = [frame("Ti", -13.0), frame("Al", -7.0), frame(["Ti", "Al"], -10.0)]
    assert datasets.fit_reference_energies(frames) == pytest.approx({"Ti": -6.5, "Al": -3.5})


def test_inseparable_species_share_the_energy_evenly():
    frames = [frame(["Ti", "Al"], -10.0), frame(["Ti", "Al"], -10.0)]
    assert datasets.fit_reference_energies(frames) == pytest.approx({"Ti": -5.0, "Al": -5.0})
    with pytest.raises(ValueError, match="at least one"):
        datasets.fit_reference_energies([])


# ---- the paper's archive ----

PUBLISHED = titanium_paper.GIT_ID


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that writes an archive of these files, as if it was the published one, and returns its path."""

    def make(files=None, content=None):
        files = files or {name: npy(array) for name, array in paper_arrays().items()}
        content = content or paper_zip(files)
        path = tmp_path / "Data_DFT_and_Exp.zip"
        path.write_bytes(content)
        monkeypatch.setattr(titanium_paper, "GIT_ID", git_blob_sha1(content))
        return path

    return make


def test_git_object_ids_are_those_of_git(tmp_path):
    assert git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    (tmp_path / "hello").write_bytes(b"hello\n")
    assert git_blob_sha1(tmp_path / "hello") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_the_archive_becomes_frames_in_ev_and_angstrom_with_row_vectors_and_stress_of_minus_virial(published):
    path = published()
    arrays = paper_arrays()
    frames = titanium_paper.load(path)
    assert [f.info["config_type"] for f in frames] == ["paper-init", "paper-bulk"] * 2
    assert [labelled_frames.use_virial(f) for f in frames] == [True, False, True, False]
    assert [f.info["config_id"] for f in frames][:2] == ["paper-0000", "paper-0001"]
    for i, f in enumerate(frames):
        energy, forces, stress = labelled_frames.labels(f)
        np.testing.assert_array_equal(f.cell.array, arrays["box.npy"][i].reshape(3, 3))
        np.testing.assert_array_equal(f.positions, arrays["coord.npy"][i].reshape(-1, 3))
        np.testing.assert_array_equal(forces, arrays["force.npy"][i].reshape(-1, 3))
        assert energy == arrays["energy.npy"][i]
        virial = arrays["virial.npy"][i].reshape(3, 3)
        expected = -virial[[2, 1], [2, 2]] / f.get_volume() if i % 2 == 0 else [np.nan, np.nan]  # Init frames only
        assert stress[2:4] == pytest.approx(expected, nan_ok=True)


def test_unflattened_arrays_in_a_flat_archive_read_the_same(published):
    a = paper_arrays()
    n = len(a["energy.npy"])
    shapes = {"box.npy": (n, 3, 3), "virial.npy": (n, 3, 3), "coord.npy": (n, -1, 3), "energy.npy": (n, 1)}
    files = {name: npy(array.reshape(shapes.get(name, array.shape))) for name, array in a.items()}
    expected = titanium_paper.load(published())
    found = titanium_paper.load(published(files, zipped(files)))
    for f, g in zip(found, expected, strict=True):
        assert f == g
        np.testing.assert_array_equal(labelled_frames.labels(f).stress, labelled_frames.labels(g).stress)


def test_a_virial_that_is_not_used_cannot_spoil_a_frame_but_one_that_is_used_can(published):
    for i, refused in ((1, False), (0, True)):
        a = paper_arrays()
        a["virial.npy"][i] *= 1e4
        path = published({name: npy(array) for name, array in a.items()})
        if refused:
            with pytest.raises(ValueError, match=r"frame 0 \(paper-0000\): stress of"):
                titanium_paper.load(path)
        else:
            assert not labelled_frames.has_stress(titanium_paper.load(path)[i])


def test_only_the_published_file_is_opened(published, monkeypatch):
    path = published()
    content = path.read_bytes()

    def opened(*args, **kwargs):
        pytest.fail("opened before it was verified")

    monkeypatch.setattr(zipfile, "ZipFile", opened)
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (flipped, content[:-100], content[:10], b"", content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"^Data_DFT_and_Exp\.zip: git id .* not the published .*delete it"):
            titanium_paper.load(path)
    monkeypatch.setattr(titanium_paper, "GIT_ID", PUBLISHED)
    with pytest.raises(ValueError, match="not the published 6f5c28d31a11acc1450eee9c82c86de7e592833c"):
        titanium_paper.load(path)


def test_nothing_is_unpacked_to_disk_whatever_the_names_say(published, tmp_path):
    files = {name: npy(array) for name, array in paper_arrays().items()}
    outside = {f"../../evil/{name}": content for name, content in files.items()}
    path = published(files, zipped({**outside, "/etc/evil": b"x"}))
    before = set(tmp_path.rglob("*"))
    titanium_paper.load(path)
    assert set(tmp_path.rglob("*")) == before
    twice = zipped({f"{folder}/{n}": c for folder in "ab" for n, c in files.items()})
    path = published(files, twice)
    with pytest.raises(ValueError, match="2 folders hold all"):
        titanium_paper.load(path, verify=False)


# ---- the download ----


def test_the_archive_is_downloaded_once_verified_and_kept(published, tmp_path):
    path = published()
    content, calls = path.read_bytes(), []
    fetch = {"cache_dir": tmp_path / "cache", "_downloader": downloader(content, calls)}
    first = titanium_paper.fetch(**fetch)
    assert titanium_paper.fetch(**fetch) == first
    assert calls == [titanium_paper.URL]
    assert len(titanium_paper.load(first)) == 4
    first.write_bytes(content[:-1])  # damaged in the cache: fetched again
    assert titanium_paper.fetch(**fetch).read_bytes() == content
    assert len(calls) == 2


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    offline = downloader(OSError("no route to host"), [])
    with pytest.raises(ConnectionError, match=r"no route to host; go online, or place the file at .*\.zip by hand"):
        titanium_paper.fetch(tmp_path, _downloader=offline)
    assert not list(tmp_path.iterdir())


def test_forces_that_add_up_to_something_are_named_with_their_frame(tmp_path):
    frames = [frame.copy() for frame in datasets.load_frames()[:4]]
    for frame, labelled_frame in zip(frames, datasets.load_frames(), strict=False):
        forces = labelled_frame.get_forces()
        forces[:, 0] += 0.02 * (frame is frames[2])  # eV/Å on every atom, as an electric field would
        stress, energy = labelled_frame.get_stress(), labelled_frame.get_potential_energy()
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces, stress=stress)
    write(tmp_path / "pulled.extxyz", frames)
    with pytest.warns(UserWarning, match=r"frame 2 .*: the forces add up to 0.0\d+ eV/Å, to 0 in a converged"):
        datasets.load_frames(tmp_path / "pulled.extxyz")


def test_frames_in_memory_are_checked_without_ids_and_one_file_needs_no_list(tmp_path):
    frames = [frame.copy() for frame in datasets.load_frames()[:3]]
    for frame, labelled_frame in zip(frames, datasets.load_frames(), strict=False):
        frame.info.clear()
        frame.calc = SinglePointCalculator(frame, **labelled_frame.calc.results)
    assert datasets.check_dataset(frames, "mine") == tuple(frames)
    frames[1].calc.results["energy"] = np.nan
    with pytest.raises(ValueError, match="mine, frame 1: energy is nan"):
        datasets.check_dataset(frames, "mine")
    write(tmp_path / "ti.extxyz", datasets.load_frames()[:3])
    assert datasets.load_files(str(tmp_path / "ti.extxyz")) == datasets.load_frames(tmp_path / "ti.extxyz")
