"""Files are written whole or not at all, and read back only if they are what they should be."""

import json
import os
import resource

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save

from fusedff import storage

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


def test_a_file_from_before_there_were_checksums_is_read(tmp_path):
    path = tmp_path / "tree.safetensors"
    path.write_bytes(save({"['x']": np.ones(2)}, {"version": "1"}))
    tree, metadata = storage.read_tree(path, {"x": np.zeros(2)})
    np.testing.assert_array_equal(tree["x"], 1)
    assert metadata == {"version": 1}


def test_a_tree_of_another_shape_is_refused_with_the_array_and_the_remedy(tmp_path):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, TREE, {})
    for like, complaint in [
        ({**TREE, "more": np.zeros(2)}, "lacks array .*more"),
        ({"layer": TREE["layer"]}, "holds the unexpected array .*steps"),
        ({**TREE, "layer": {"w": np.zeros((3, 3))}}, r"w.* has shape \(2, 3\), expected \(3, 3\)"),
    ]:
        with pytest.raises(storage.DamagedFile, match=f"tree.safetensors.*{complaint}.*delete it and run again"):
            storage.read_tree(path, like)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "tree.safetensors"
    storage.write_tree(path, {"x": np.array([1.0, np.inf])}, {})
    with pytest.raises(storage.DamagedFile, match="not finite"):
        storage.read_tree(path, {"x": np.zeros(2)})


def test_a_damaged_or_missing_file_says_so(tmp_path):
    path = tmp_path / "tree.safetensors"
    with pytest.raises(FileNotFoundError, match="tree.safetensors does not exist"):
        storage.read_metadata(path)
    storage.write_tree(path, TREE, {})
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(storage.DamagedFile, match="tree.safetensors is damaged"):
        storage.read_tree(path, TREE)


def test_json_for_people_is_atomic_and_ends_in_a_line_break(tmp_path):
    storage.write_json(tmp_path / "a.json", {"x": 1})
    assert (tmp_path / "a.json").read_text() == '{\n  "x": 1\n}\n'
    with pytest.raises(TypeError):
        storage.write_json(tmp_path / "a.json", {"x": object()})
    assert storage.plain({"x": (1, 2)}) == {"x": [1, 2]}
    storage.write_json(tmp_path / "a.json", {"x": [float("nan"), np.float64("inf"), 1.0], "n": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [None, None, 1.0], "n": 2}
    assert (tmp_path / "a.json").read_text().startswith("{")
