"""Files are written completely or not at all, and read only if their content is as expected."""

import json
import os
import resource
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from fusedff.runtime import storage

TREE = {"layer": {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3)}, "steps": (np.int32(7),)}


def test_a_tree_comes_back_bit_for_bit_with_its_metadata(tmp_path):
    path = tmp_path / "deep" / "tree.safetensors"
    storage.write_tree(path, TREE, {"about": {"x": [1, 2.5, None]}, "text": "Å"})
    back, metadata = storage.read_tree(path, TREE)
    np.testing.assert_array_equal(back["layer"]["w"], TREE["layer"]["w"])
    assert back["steps"][0] == 7
    assert back["steps"][0].dtype == jnp.int32
    assert metadata == {"about": {"x": [1, 2.5, None]}, "text": "Å"}
    assert storage.read_metadata(path) == metadata


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch, moment):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, TREE, {"version": 1})
    before = path.read_bytes()

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, crash)
    with pytest.raises(KeyboardInterrupt):
        storage.write_tree(path, TREE, {"version": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_clear_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, TREE, {"version": 1})
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"cannot write .*tree\.safetensors \(File too large\); what was there is kept"
        ):
            storage.write_tree(path, TREE, {"version": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("checksum", [{}, {"sha256": "null"}])
def test_a_file_without_a_checksum_is_refused(tmp_path, checksum):
    path = tmp_path / "tree.safetensors"
    path.write_bytes(save({"['x']": np.ones(2)}, {"version": "1", **checksum}))
    with pytest.raises(storage.DamagedFileError, match=r"tree.safetensors is damaged: it has no checksum; restore it"):
        storage.read_tree(path, {"x": np.zeros(2)})


def test_a_link_that_lies_in_wait_is_never_written_through(tmp_path, monkeypatch):
    victim, path = tmp_path / "victim", tmp_path / "tree.json"
    victim.write_text("precious")
    names = iter(["foreseen", "other"])
    monkeypatch.setattr(storage.secrets, "token_hex", lambda _: next(names))
    (tmp_path / ".tree.json.foreseen.part").symlink_to(victim)
    with pytest.raises(OSError, match="cannot write .*tree.json"):
        storage.write_json(path, {"x": 1})
    path.symlink_to(victim)  # a link in place of the file itself is replaced
    storage.write_json(path, {"x": 1})
    assert victim.read_text() == "precious"
    assert storage.read_json(path) == {"x": 1}


def test_names_of_unfinished_files_cannot_be_foreseen(tmp_path, monkeypatch):
    seen = set()
    monkeypatch.setattr(os, "replace", lambda old, new: seen.add(old))
    for _ in range(3):
        storage.write_json(tmp_path / "a.json", {})
    assert len(seen) == 3
    assert not any(str(os.getpid()) in path.name.split(".") for path in seen)


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    dead, living = (tmp_path / f".a.json.{name}.part" for name in ("dead", "living"))
    dead.touch()
    with open(living, "xb") as file:
        assert storage._hold(file)
        storage.write_json(tmp_path / "a.json", {})
        assert sorted(tmp_path.iterdir()) == [living, tmp_path / "a.json"]
    storage.write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


HOLD = """
import sys
from fusedff.runtime import storage
with storage.lock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_keeps_others_out_until_its_process_is_dead(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(storage.InUseError, match="checkpoint.safetensors is being written by another process; wait"):
        storage.lock(path).__enter__()
    holder.kill()
    holder.communicate()
    with storage.lock(path):
        pass
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class Described:
    x: np.ndarray
    names: dict

    def describe(self):
        return self.names


def test_a_digest_tells_every_difference_and_nothing_else():
    def data(**changes):
        plain = {"a": [1, 2.5, None], "b": (jnp.arange(3.0), "text"), "c": Described(np.eye(2), {"x": 1, "y": 2})}
        return plain | changes

    assert storage.digest(data()) == storage.digest(dict(reversed(data().items())))
    others = [
        data(a=[1, 2.5]), data(a=[1, 2.5, 0]), data(a=[1, np.nextafter(2.5, 3), None]),
        data(b=(jnp.arange(3.0).at[2].set(2.0000002), "text")), data(b=(jnp.arange(3), "text")),
        data(c=Described(np.eye(2), {"x": 2, "y": 1})), data(c=Described(np.eye(2)[::-1], {"x": 1, "y": 2})),
        data(a=[[1], 2.5, None]), data(d=None), data(d=Path("a")), data(d=Path("b")), data(d=range(3)), data(d=1j),
        data(d=range(5)), data(d=2j), data(d=partial(min, 1)), data(d=partial(max, 1)), data(d=partial(min, 2)),
        data(d=deque([1])), data(d=deque([2])), data(d=min), data(d=[1].append), data(d=[2].count), data(d="a".join),
        data(d="b".join), data(d=Described(1, {}).describe), data(d=Described(2, {}).describe),
    ]  # fmt: skip
    assert len({storage.digest(x) for x in [data(), *others]}) == 1 + len(others)


@pytest.fixture
def deep_recursion():
    """Python's recursion limit as symfc leaves it, at which deep JSON would end the process."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.parametrize(("text", "says"), [
    ("{}", r"it lacks 'seconds'"),
    ("[1]", r"it lacks 'seconds'"),
    ("{", "Expecting"),
    ("[" * 100_000, "nested"),
    ('{"a":' * 100_000, "nested"),
])  # fmt: skip
def test_json_that_is_damaged_is_one_error_with_a_remedy(tmp_path, text, says, deep_recursion):
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(storage.DamagedFileError, match=rf"settings.json is damaged \(.*{says}.*\); restore it"):
        storage.read_json(path, "seconds")


def test_a_tree_of_another_shape_is_refused_with_the_array_and_the_remedy(tmp_path):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, TREE, {})
    for like, complaint in [
        ({**TREE, "more": np.zeros(2)}, "lacks array .*more"),
        ({"layer": TREE["layer"]}, "holds the unexpected array .*steps"),
        ({**TREE, "layer": {"w": np.zeros((3, 3))}}, r"w.* has shape \(2, 3\), expected \(3, 3\)"),
    ]:
        with pytest.raises(storage.DamagedFileError, match=f"tree.safetensors.*{complaint}.*delete it and run again"):
            storage.read_tree(path, like)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, {"x": np.array([1.0, np.inf])}, {})
    with pytest.raises(storage.DamagedFileError, match="not finite"):
        storage.read_tree(path, {"x": np.zeros(2)})


def test_a_damaged_or_missing_file_says_so(tmp_path):
    path = tmp_path / "tree.safetensors"
    with pytest.raises(FileNotFoundError, match="tree.safetensors does not exist"):
        storage.read_metadata(path)
    storage.write_tree(path, TREE, {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(storage.DamagedFileError, match="tree.safetensors is damaged"):
        storage.read_tree(path, TREE)


def test_json_for_people_is_atomic_and_ends_in_a_line_break(tmp_path):
    storage.write_json(tmp_path / "a.json", {"x": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'
    with pytest.raises(TypeError):
        storage.write_json(tmp_path / "a.json", {"x": object()})
    assert storage.json_roundtrip({"x": (1, 2)}) == {"x": [1, 2]}
    storage.write_json(tmp_path / "a.json", {"x": [float("nan"), np.float64("inf"), 1.0], "n": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, None, 1.0], "n": 2}
    assert (tmp_path / "a.json").read_text().startswith("{")
