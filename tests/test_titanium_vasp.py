"""Titanium frames of another group (VASP): read from the published layout, verified, cleaned, split by run."""

import hashlib
import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
from archives import downloader, npy
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from fusedff.data import datasets, labelled_frames, splits, titanium_vasp
from fusedff.data.validation import duplicates
from fusedff.study import comparison, presets

RUN = "iter0/T475/1_mp-46/elastic/run_3"
OTHER = "iter0/T1900/3_mp-73/interstitials_HCP2/inter_10"


def sets(n=3, atoms=2, seed=0):
    """Arrays of one DeePMD set in flat rows, single precision like the published ones: atoms on springs of 5 eV/Å^2."""
    rng = np.random.default_rng(seed)
    cell = bulk("Ti", "hcp", a=2.95, c=4.68) if atoms == 2 else bulk("Ti", "bcc", a=3.25, cubic=True) * (2, 1, 1)
    moved = rng.normal(scale=0.05, size=(n, len(cell), 3))
    moved -= moved.mean(1, keepdims=True)  # so that forces add up to zero
    arrays = {
        "box.npy": np.tile(cell.cell.array.ravel(), (n, 1)),
        "coord.npy": (cell.positions + moved).reshape(n, -1),
        "energy.npy": -7.6 * len(cell) + 2.5 * np.sum(moved**2, (1, 2)),
        "force.npy": -5.0 * moved.reshape(n, -1),
        "virial.npy": rng.normal(size=(n, 9)),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def members(**changed):
    """Names and contents of an archive of two runs, the second one in two sets."""
    files = {f"{RUN}/type.raw": b"0\n0\n", f"{OTHER}/type.raw": b"0\n" * 4}
    for folder, arrays in (
        (f"{RUN}/set.000", changed.get("first", sets())),
        (f"{OTHER}/set.000", sets(2, 4, 1)),
        (f"{OTHER}/set.001", sets(1, 4, 2)),
    ):
        files |= {f"{folder}/{name}": npy(array) for name, array in arrays.items()}
    return files


def packed(files, links=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()


PUBLISHED = titanium_vasp.PUBLISHED


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that writes an archive, as if it was the published one, and returns its path."""

    def make(content=None):
        content = packed(members()) if content is None else content
        path = tmp_path / "iter0_Ti.tar.xz"
        path.write_bytes(content)
        ids = {
            "size": len(content),
            "git id": titanium_vasp.git_blob_sha1(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        monkeypatch.setattr(titanium_vasp, "PUBLISHED", ids)
        return path

    return make


def test_the_archive_becomes_frames_of_one_source_in_runs_without_stress(published):
    path = published()
    frames = titanium_vasp.load(path)
    assert [f.info["config_id"] for f in frames] == [
        *(f"T1900/3_mp-73/interstitials_HCP2/inter_10#{n}" for n in range(3)),
        *(f"T475/1_mp-46/elastic/run_3#{n}" for n in range(3)),
    ]
    assert [f.info["config_type"] for f in frames] == ["bcc-interstitial-small-T1900"] * 3 + ["hcp-elastic-T475"] * 3
    assert {labelled_frames.source(f) for f in frames} == {"vasp"}
    assert not any(labelled_frames.use_virial(f) for f in frames)
    arrays = sets()
    for n, frame in enumerate(frames[3:]):
        np.testing.assert_array_equal(frame.positions, arrays["coord.npy"][n].reshape(-1, 3))
        np.testing.assert_array_equal(frame.cell.array, arrays["box.npy"][n].reshape(3, 3))
        energy, forces, stress = labelled_frames.labels(frame)
        assert energy == arrays["energy.npy"][n]
        np.testing.assert_array_equal(forces, arrays["force.npy"][n].reshape(-1, 3))
        assert np.isnan(stress).all()
    assert {labelled_frames.run(f) for f in frames} == {"1_mp-46/elastic/run_3", "3_mp-73/interstitials_HCP2/inter_10"}


def test_an_extended_xyz_file_of_the_same_content_reads_the_same(published, tmp_path):
    path = published()
    frames = titanium_vasp.load(path)
    bare = [f.copy() for f in frames]
    for copy, frame in zip(bare, frames, strict=True):
        copy.calc = frame.calc
        copy.info = {key: frame.info[key] for key in ("config_type", "config_id")}
    write(tmp_path / "same.extxyz", bare)
    again = titanium_vasp.load(tmp_path / "same.extxyz")
    for one, two in zip(frames, again, strict=True):
        assert one.info == two.info
        np.testing.assert_allclose(labelled_frames.labels(one).forces, labelled_frames.labels(two).forces, atol=1e-7)


def test_copies_and_frames_that_did_not_converge_are_dropped_and_counted(published):
    arrays = sets(5)
    arrays["force.npy"][1, 0] += 0.2  # a net force
    for array in arrays.values():
        array[4] = array[0]
    path = published(packed(members(first=arrays)))
    with pytest.warns(UserWarning, match=r"1 with a net force above 0\.05 eV/Å .* and 1 exact copies of 8 frames"):
        frames = titanium_vasp.load(path)
    assert [f.info["config_id"][-2:] for f in frames[3:]] == ["#0", "#2", "#3"]  # the others keep their names


def test_only_the_published_archive_is_opened(published, monkeypatch):
    path = published()
    content = path.read_bytes()
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: pytest.fail("opened before it was verified"))
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for damaged in (flipped, content[:-100], b"", content + b"\0"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"iter0_Ti\.tar\.xz: (size|git id) .* is not the published .*delete it"):
            titanium_vasp.load(path)
    monkeypatch.setattr(titanium_vasp, "PUBLISHED", PUBLISHED)
    with pytest.raises(ValueError, match="not the published 1884948"):
        titanium_vasp.load(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda files: files.pop(f"{RUN}/type.raw"), "run_3: type.raw is missing"),
        (lambda files: files.update({f"{RUN}/type.raw": b"0 1"}), r"type\.raw: type 1 is none of"),
        (lambda files: files.pop(f"{RUN}/set.000/force.npy"), r"force\.npy: is missing"),
        (lambda files: files.update({f"{RUN}/set.000/box.npy": npy(np.eye(3))}), r"box\.npy: shape \(3, 3\) is not 3"),
        (
            lambda files: files.update({f"{RUN}/set.000/box.npy": npy(np.array([{}]), allow_pickle=True)}),
            "not a plain numeric array",
        ),
        (lambda files: files.update({"x/set.000/coord.npy": b""}), "not a folder like T475/1_mp-46/elastic/run_3"),
        (lambda files: files.clear(), "no folder holds box.npy"),
    ],
)
def test_an_archive_of_another_layout_is_one_clear_error(published, change, says):
    files = members()
    change(files)
    path = published(packed(files))
    with pytest.raises(ValueError, match=says):
        titanium_vasp.load(path, verify=False)


def test_a_truncated_archive_is_one_clear_error(published):
    path = published(packed(members())[:-200])
    with pytest.raises(ValueError, match=r"iter0_Ti\.tar\.xz cannot be unpacked .*delete it"):
        titanium_vasp.load(path, verify=False)


def test_nothing_is_unpacked_to_disk_whatever_names_and_links_say(published, tmp_path):
    files = members() | {"/etc/evil": b"x", "../../evil/box.npy": npy(np.eye(3))}
    path = published(packed(files, links=[("iter0/T475/1_mp-46/elastic/run_3/set.001/coord.npy", "/etc/passwd")]))
    before = set(tmp_path.rglob("*"))
    assert len(titanium_vasp.load(path, verify=False)) == 6
    assert set(tmp_path.rglob("*")) == before


def test_an_archive_that_unpacks_to_too_much_is_refused(published, monkeypatch):
    path = published(packed(members() | {f"{RUN}/set.000/notes": b"0" * 4000}))
    monkeypatch.setattr(titanium_vasp, "_MAX_BYTES", 3000)
    with pytest.raises(ValueError, match="unpacks to more than 3000 bytes"):
        titanium_vasp.load(path, verify=False)
    monkeypatch.setattr(titanium_vasp, "_MAX_MEMBER_BYTES", 200)
    with pytest.raises(ValueError, match="more than 200 bytes"):
        titanium_vasp.load(path, verify=False)


def test_the_archive_is_downloaded_once_verified_and_kept(published, tmp_path):
    path = published()
    content, calls = path.read_bytes(), []
    arguments = {"cache_dir": tmp_path / "cache", "_downloader": downloader(content, calls)}
    first = titanium_vasp.fetch(**arguments)
    assert titanium_vasp.fetch(**arguments) == first
    assert calls == [titanium_vasp.URL]
    first.write_bytes(content[:-1])  # damaged in the cache: fetched again
    assert titanium_vasp.fetch(**arguments).read_bytes() == content
    with pytest.raises(ValueError, match=r"size \d+ is not the published .* deleted"):
        titanium_vasp.fetch(tmp_path / "other", _downloader=downloader(b"hello", []))
    assert not list((tmp_path / "other").iterdir())


def test_without_a_network_the_error_says_what_to_do(tmp_path):
    offline = downloader(OSError("no route to host"), [])
    with pytest.raises(ConnectionError, match=r"no route to host; go online, or place the file at .*\.xz by hand"):
        titanium_vasp.fetch(tmp_path, _downloader=offline)


def test_without_a_network_one_sentence_says_that_the_embedded_frames_are_used(published, monkeypatch):
    preset = replace(presets.get("demo"), data="embedded+vasp")

    def offline():
        raise ConnectionError("cannot download x; go online")

    monkeypatch.setattr(titanium_vasp, "fetch", offline)
    with pytest.warns(UserWarning, match="only the embedded frames are used: cannot download x; go online"):
        alone = comparison.frames(preset)
    assert [len(part) for part in alone] == [len(part) for part in splits.split(datasets.load_frames())]


def test_the_second_set_comes_after_the_embedded_frames_whose_split_stays(published, monkeypatch):
    more = [frame for k in range(10) for frame in made("vasp", 10, 1, f"kind-{k}")]
    monkeypatch.setattr(titanium_vasp, "load", lambda path: more)
    monkeypatch.setenv(comparison.VASP_FILE, "some.extxyz")
    preset = replace(presets.get("demo"), data="embedded+vasp")
    both, alone = comparison.frames(preset), splits.split(datasets.load_frames())
    for part, mine, share in zip(both, alone, (70, 10, 20), strict=True):
        assert [f.info["config_id"] for f in part[: len(mine)]] == [f.info["config_id"] for f in mine]
        assert len(part) == len(mine) + share


# ---- splits by run, energies by source ----


def made(source, n_runs, per_run, family="hcp"):
    """Frames of runs, two atoms each, no two of them alike."""
    frames = []
    for run in range(n_runs):
        for step in range(per_run):
            frame = bulk("Ti", "hcp", a=2.95, c=4.68)
            frame.rattle(0.1, rng=np.random.default_rng([*source.encode(), *family.encode(), run, step]))
            frame.info.update(config_type=family, config_id=f"{family}/{run}#{step}", source=source)
            frames.append(frame)
    return frames


def parts_of(frames):
    split = splits.split(frames)
    return {id(f): part for part, members in split._asdict().items() for f in members}


def test_frames_of_one_run_stay_together_and_appending_moves_none():
    frames = made("vasp", 20, 5) + made("vasp", 20, 3, "bcc")
    parts = parts_of(frames)
    by_run = {labelled_frames.run(f): parts[id(f)] for f in frames}
    assert all(parts[id(f)] == by_run[labelled_frames.run(f)] for f in frames)
    for family in ("hcp", "bcc"):
        shares = [part for run, part in by_run.items() if run.startswith(family)]
        assert (shares.count("validation"), shares.count("test")) == (2, 4)
    more = frames + made("gpaw", 12, 1) + made("vasp", 25, 2)[40:]
    after = parts_of(more)
    assert {key: after[key] for key in parts} == parts


def test_a_run_that_repeats_a_frame_of_another_one_goes_with_it():
    frames = made("vasp", 20, 3)
    parts = parts_of(frames)
    tested = next(n for n in range(3, 60) if parts[id(frames[n])] == "test")
    trained = next(n for n in range(60) if parts[id(frames[n])] == "train")
    for n in (tested, trained):
        copy = frames[n].copy()
        copy.positions = copy.positions[::-1] + 0.1 + copy.cell[0]  # in another order, shifted and in another image
        copy.info["config_id"] = "hcp/again#0"
        other = made("vasp", 1, 1, "other")[0]
        other.info["config_id"] = "hcp/again#1"
        assert parts_of([*frames, copy, other])[id(other)] == parts[id(frames[n])]


def test_runs_that_begin_with_the_same_crystal_without_forces_are_not_one():
    frames = made("vasp", 20, 3)
    for n in range(0, 60, 3):
        frames[n].positions = bulk("Ti", "hcp", a=2.95, c=4.68).positions
        frames[n].calc = SinglePointCalculator(frames[n], energy=-13.0, forces=np.zeros((2, 3)))
    assert max(splits.connected(frames, duplicates.pairs(frames))) == 19


def test_no_frame_of_the_published_set_is_tested_on_that_is_nearly_one_trained_on():
    """At the lower temperature atoms move by 0.1 Å, so that a frame closer than that is no independent one."""
    given = os.environ.get(comparison.VASP_FILE)
    if not given:
        pytest.skip(f"{comparison.VASP_FILE} names no file")
    split = splits.split(titanium_vasp.load(given))
    for frame in split.test:
        alike = [
            f for f in split.train if len(f) == len(frame) and np.abs(f.cell.array - frame.cell.array).max() < 0.01
        ]
        if alike:
            off = np.array([f.get_scaled_positions(wrap=False) for f in alike]) - frame.get_scaled_positions(wrap=False)
            off -= off[:, :1]
            off -= np.rint(off)
            off -= off.mean(1, keepdims=True)
            apart = np.sqrt((((off - np.rint(off)) @ frame.cell.array) ** 2).sum(-1).mean(-1))
            assert apart.min() > 0.1


def test_runs_of_two_sources_with_one_name_are_two_runs():
    frames = made("gpaw", 10, 1) + made("vasp", 10, 1)
    parts = parts_of(frames)
    for source in ("gpaw", "vasp"):
        shares = [parts[id(f)] for f in frames if labelled_frames.source(f) == source]
        assert (shares.count("validation"), shares.count("test")) == (1, 2)


def test_the_split_of_the_embedded_frames_is_what_it_was():
    split = splits.split(datasets.load_frames())
    ids = repr([[f.info["config_id"] for f in part] for part in split])
    if [len(part) for part in split] == [88, 11, 24]:  # until the set grows
        assert hashlib.sha256(ids.encode()).hexdigest().startswith("2d32c35730bc7f2c")
    assert {labelled_frames.source(f) for f in datasets.load_frames()} == {"gpaw"}


def test_frames_without_ids_are_runs_of_their_own(tmp_path):
    frames = [bulk("Ti", "hcp", a=2.95 + 0.01 * n, c=4.68) for n in range(10)]
    for n, frame in enumerate(frames):
        frame.calc = SinglePointCalculator(frame, energy=-13.0 - 0.001 * n, forces=np.full((2, 3), 0.01))
    write(tmp_path / "mine.extxyz", frames)
    loaded = datasets.load_frames(tmp_path / "mine.extxyz")
    assert [len(part) for part in splits.split(loaded)] == [7, 1, 2]
    assert {labelled_frames.source(f) for f in loaded} == {"mine"}


def test_reference_energies_are_those_of_one_source():
    frames = made("gpaw", 3, 1) + made("vasp", 2, 1)
    for frame in frames:
        energy = -13.0 if labelled_frames.source(frame) == "gpaw" else -15.0
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=np.zeros((2, 3)))
    assert datasets.fit_reference_energies(frames) == pytest.approx({"Ti": -6.5})
    assert datasets.fit_reference_energies(frames, "vasp") == pytest.approx({"Ti": -7.5})
    with pytest.raises(ValueError, match="no frames of source 'qe' .*'gpaw', 'vasp'"):
        datasets.fit_reference_energies(frames, "qe")
