"""Devices and processes: results do not depend on their number.

Everything runs in double precision, where another order of summation changes the fifteenth digit; in a few dozen steps
of dynamics and training that grows to 1e-9 at most. A part that is lost or counted twice changes the first digits.
"""

import os
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import jax

if __name__ == "__main__" and len(sys.argv) > 2:  # one of two processes; they must meet before jax-md is imported
    jax.distributed.initialize(coordinator_address=sys.argv[2], num_processes=2, process_id=int(sys.argv[3]))

import jax.numpy as jnp
import numpy as np
import pytest
from argon import argon
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from safetensors.numpy import load_file

from fusedff.crystallography.crystals import Crystal
from fusedff.data.batching import FrameStore
from fusedff.measurements.state_points import StatePoint
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Potential
from fusedff.runtime import devices
from fusedff.simulation.langevin import LangevinConfig
from fusedff.training import force_matching, fused, label_errors
from fusedff.training.config import DiffTReConfig, ForceMatchingConfig, FusedConfig, SamplingConfig
from fusedff.training.optimizers import Adam
from fusedff.units import GPA

LANGEVIN = LangevinConfig(timestep_fs=8.0, friction_per_ps=10.0, steps_per_snapshot=5, skin=0.6)
NETWORK = DimeNet(
    cutoff=4.2, embedding=4, blocks=1, radial=3, spherical=2, interaction=4, basis=4, type_embedding=4, output=4,
    output_layers=1, layers_before_skip=0, layers_after_skip=1,
)  # fmt: skip


def frames():
    """Argon cells of 1 and 4 atoms, rattled, with any labels; the second has no stress."""
    made = [bulk("Ar", "fcc", a=a, cubic=cubic) for a, cubic in [(5.2, 0), (5.3, 1), (5.4, 0), (5.1, 1), (5.25, 1)]]
    rng = np.random.default_rng(0)
    for n, frame in enumerate(made):
        frame.rattle(0.08, seed=n)
        labels = {"energy": -0.05 * len(frame), "forces": 0.02 * rng.normal(size=(len(frame), 3))}
        if n != 1:
            labels["stress"] = 1e-3 * rng.normal(size=6)
        frame.calc = SinglePointCalculator(frame, **labels)
    return made


def shares_of_cells():
    """Sums, maxima and results of five cells, whatever places they take on the devices."""

    def function(shift, cells, weights):
        return cells + shift, devices.max_over_devices(cells.max()), devices.sum_over_devices(weights @ cells)

    cells = jnp.arange(10.0, 15.0)
    on_devices = devices.shard_map_cells(function, in_axes=(None, 0, 0), out_axes=(0, None, None), n=5)
    return jax.jit(lambda: on_devices(0.5, cells, devices.zero_for_repeats(jnp.arange(5.0), 0)))()


def both_teachers(folder):
    """DiffTRe on six cells, the second update with the snapshots of the first, and force matching on five frames.

    The checkpoint holds all there is: trajectories, where the simulation stands, parameters, both optimizers.
    """
    elastic = {"C11": 4.4 * GPA, "C12": 2.3 * GPA, "C44": 2.4 * GPA}
    points = [StatePoint(t, Crystal("Ar", "fcc", 5.2), elastic, 0.1 * GPA) for t in (10.0, 15.0, 20.0)]
    experiment = DiffTReConfig(
        optimizer=Adam(1e-5, 1e-5), repeats=(1, 1, 1),
        sampling=SamplingConfig(LANGEVIN, first_equilibration=1, equilibration=1, snapshots=4, reuse_above=0.3),
    )  # fmt: skip
    dft = ForceMatchingConfig(batch=3, learning_rate=1e-5, final_learning_rate=1e-5)
    settings, checkpoint = FusedConfig(epochs=2, experiment=experiment, dft=dft), Path(folder, "checkpoint.safetensors")
    trained, history = fused.train(argon(epsilon=0.0095), points, frames(), settings, checkpoint)
    assert history[1]["n_eff"] < 1 - 1e-6  # really reused
    gauss_newton_sketch = force_matching.ForceMatchingTrainer(dft, trained, frames()).gauss_newton_sketch(
        trained.params, 0, 8
    )
    return trained.params, history, gauss_newton_sketch, load_file(checkpoint) if devices.is_first_process() else {}


def network():
    """Two epochs of force matching of a network, with validation, and the potential used on one device afterwards."""
    start = Potential.create(jax.random.PRNGKey(0), NETWORK, {"Ar": -0.05})
    settings = ForceMatchingConfig(epochs=2, batch=3, learning_rate=1e-3)
    trained, history = force_matching.train(start, frames(), frames()[:2], settings)
    return trained.params, history, label_errors.errors(trained, frames()[:2])


def numbers(results) -> dict[str, np.ndarray]:
    """All numbers in the results of the functions above, by name."""
    leaves = jax.tree_util.tree_flatten_with_path(results)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def launch(n_devices, *arguments):
    """This file as a program with so many CPU devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={n_devices}"
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"},
    )  # fmt: skip


def output(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out, err


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-8, atol=1e-9, err_msg=name)


@cache
def on_one_device():
    assert devices.device_count() == 1
    return numbers([shares_of_cells(), both_teachers(tempfile.mkdtemp())])


def test_four_devices_find_what_one_finds(tmp_path):
    process = launch(4, tmp_path / "found.npz")
    expected = on_one_device()  # meanwhile
    _, err = output(process)
    assert_same(dict(np.load(tmp_path / "found.npz")), expected)
    assert "6 cells on 4 devices, 2 on each: 2 of 8 places stay idle; choose replicas" in err


@pytest.mark.slow
def test_two_processes_find_what_one_finds_and_only_the_first_writes_and_talks(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [launch(2, tmp_path / f"found_{k}.npz", address, k, tmp_path / f"folder_{k}") for k in (0, 1)]
    first, second = (output(process)[0] for process in processes)
    found = [dict(np.load(tmp_path / f"found_{k}.npz")) for k in (0, 1)]
    trained = numbers(network())
    for k in (0, 1):
        assert_same({name: found[k].pop(f"network{name}") for name in trained}, trained)
    assert_same(found[0], on_one_device())
    assert_same(found[1], {name: on_one_device()[name] for name in found[1]})
    assert len(found[1]) > 10
    assert "fused training: 2/2" in first
    assert "training" not in second
    assert not (tmp_path / "folder_1").exists()


def test_frames_are_dealt_once_each_and_evenly(monkeypatch):
    monkeypatch.setattr(devices, "device_count", lambda: 2)
    store = FrameStore(frames(), 4.0)
    parts = store.partition(np.array([4, 0, 1, 3]))
    assert sorted(np.concatenate(parts)) == [0, 1, 3, 4]
    assert [len(share) for share in parts] == [2, 2]
    assert abs(store.sizes[parts[0]].sum() - store.sizes[parts[1]].sum()) <= 3  # no more than frames differ


if __name__ == "__main__":
    path, *several = sys.argv[1:]
    folder = several[2] if several else tempfile.mkdtemp()
    found = numbers([shares_of_cells(), both_teachers(folder)])
    if several:
        found |= {f"network{name}": value for name, value in numbers(network()).items()}
    np.savez(path, **found)
