"""Benchmarks on one NVIDIA GPU, within a time limit: `python -m benchmarks gpu`.

Needs Python 3.11 or newer, a JAX that sees the GPU, jax-md, dm-haiku, optax, ase and their dependencies; the package
itself need not be installed. Every stage writes its results when it ends or earlier, so that an interruption loses at
most one stage.
"""

import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures, fusedff_side, record, titanium
from benchmarks.case import FRICTION_PER_PS, TEMPERATURE, TIMESTEP_FS
from benchmarks.statistics import timed
from fusedff.data.batching import FrameStore
from fusedff.geometry import neighbors, systems
from fusedff.network.dimenet import DimeNet
from fusedff.potential import Evaluation, Potential
from fusedff.simulation import cells, langevin
from fusedff.simulation.elasticity import CoupledStrains, StressFluctuation
from fusedff.study import comparison, presets
from fusedff.training import force_matching, force_matching_loss, fused, loop
from fusedff.training.config import ForceMatchingConfig

CHEMTRAIN_EPOCH_S = 239.0  # an epoch of fused training on one GPU, as published with chemtrain's titanium example
STEPS = 20  # of dynamics in one call
LANGEVIN = langevin.LangevinConfig(timestep_fs=TIMESTEP_FS, friction_per_ps=FRICTION_PER_PS, steps_per_snapshot=STEPS)
LANGEVIN_SMALL_SKIN = replace(LANGEVIN, skin=1.0)


class Plan:
    """Sizes of cells and batches in the stages; `dry` makes them tiny, to test the program on a CPU."""

    def __init__(self, dry: bool):
        self.dry = dry
        self.network = presets.SMOKE.network if dry else DimeNet()
        # (repeats of the unit cell, repeats of that supercell) of a single cell: 54 to 97 200 atoms
        self.sizes = (
            [((2, 2, 1), (1, 1, 1)), ((2, 2, 2), (1, 2, 3))] if dry
            else [((3, 3, 3), (1, 1, 1)), ((5, 5, 3), (1, 1, 1)), ((3, 3, 3), (3, 3, 2)), ((5, 5, 3), (4, 4, 4)),
                  ((5, 5, 3), (9, 9, 8))]
        )  # fmt: skip
        self.stacks = ((2, 2, 1), (1, 2)) if dry else ((5, 5, 3), (8, 128))  # repeats, and numbers of cells at once
        self.dynamics = (
            [((2, 2, 1), 1), ((2, 2, 1), 2)] if dry
            else [((3, 3, 3), 1), ((3, 3, 3), 32), ((3, 3, 3), 1024), ((5, 5, 3), 1), ((5, 5, 3), 128), ((9, 9, 6), 1)]
        )  # fmt: skip
        self.gradients = (2, 1) if dry else (2, 64)  # cells in a batch of force matching
        self.gradient_size = (2, 2, 1) if dry else (5, 5, 3)
        self.full = presets.SMOKE if dry else presets.FULL
        self.seconds_per_measurement = 0.1 if dry else 1.0


def run(seconds: float = 450.0, into: Path = record.RESULTS, dry: bool = False, stages=None) -> dict:
    """Run the stages for at most `seconds` and return their results.

    gpu.json in `into` is written after every stage, figures at the end. A stage that raises leaves its error message.
    """
    began = time.monotonic()
    into.mkdir(parents=True, exist_ok=True)
    # Autotuning every product and fusion of a program this size takes a minute per program and gains little.
    os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_autotune_level=0"
    plan = Plan(dry)
    found = {"about": record.circumstances() | _device()}

    def left():
        return seconds - (time.monotonic() - began)

    def keep():
        (into / "gpu.json").write_text(json.dumps(record.to_dicts(found), indent=1) + "\n")

    watchdog = threading.Timer(seconds + 20, os._exit, [0])  # the only way to interrupt a compilation
    watchdog.daemon = True
    watchdog.start()
    for name in stages or STAGES:
        if left() < 10:
            found[name] = {"skipped": "no time left"}
            continue
        start = time.monotonic()
        try:
            found[name] = STAGES[name](plan, left, into, partial(_partly, found, name, keep))
        except Exception as error:
            traceback.print_exc()
            found[name] = (found.get(name) or {}) | {"failed": f"{type(error).__name__}: {error}"}
        found.setdefault("stage_seconds", {})[name] = time.monotonic() - start
        keep()
        print(f"--- {name}: {time.monotonic() - start:.0f} s, {left():.0f} s left", flush=True)
    for name, draw in (("gpu-forces", figures.gpu_forces), ("gpu-dynamics", figures.gpu_dynamics)):
        try:
            draw(found).savefig(into / f"{name}.png")
        except (KeyError, ValueError) as error:  # the stage failed or was skipped
            print(f"no figure {name}: {error!r}")
    watchdog.cancel()
    return found


def _partly(found, name, keep, result):
    found[name] = result
    keep()


def _device():
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        card = ""
    return {"card": card, "devices": [str(device) for device in jax.devices()], "platform": jax.default_backend()}


# --- timing ---------------------------------------------------------------------------------------------------


def _first_call(run) -> float:
    """Seconds of tracing, compiling and running once."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _time(run, about: float):
    """Spread of the seconds of a call, from calls for `about` so many seconds."""
    return timed(run, about=about, most=50)[0]


def _compile_at_once(runs: dict, seconds: float) -> dict:
    """Call each function once, in parallel threads: name -> seconds of the first call, or an error message.

    Compilations that take longer than `seconds` are not waited for.
    """
    found = dict.fromkeys(runs, f"not compiled after {seconds:.0f} s")

    def attempt(name, run):
        try:
            found[name] = _first_call(run)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error)[:300]}"

    threads = [threading.Thread(target=attempt, args=item, daemon=True) for item in runs.items()]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return dict(found)


# --- stages: each takes the plan, a function of the seconds left, the folder and a function that stores results -----


def machine(plan, left, into, keep):
    """Peak speeds of the card: matrix products in single precision and with TF32, and copies."""
    n = 256 if plan.dry else 8192
    a = jax.random.normal(jax.random.PRNGKey(0), (n, n), jnp.float32)
    found = {}
    for name, precision in (("float32", "highest"), ("tf32", "default")):
        product = jax.jit(partial(jnp.matmul, precision=precision))
        found[f"matmul_{name}_TFLOPs"] = 2e-12 * n**3 / _time(lambda f=product: f(a, a), 0.3).median
    scale = jax.jit(lambda x: 1.0001 * x)
    found["copy_GB_per_s"] = 2e-9 * a.nbytes / _time(lambda: scale(a), 0.3).median
    return found


def _stack(plan, repeats, n_cells):
    frames = titanium.frames(repeats, min(n_cells, 4))
    return [frames[i % len(frames)] for i in range(n_cells)]


def _network(plan):
    return titanium.with_forces(titanium.network(plan.network), titanium.frames((3, 3, 2), 1)[0])


def _flops(function, *arguments):
    """Floating-point operations of the program as written, before XLA simplifies it."""
    cost = jax.jit(function).lower(*arguments).cost_analysis()
    return float((cost[0] if isinstance(cost, list) else cost).get("flops", np.nan))


def _tiled(atoms, near, tiles):
    """System and neighbours of a cell repeated `tiles` (3,) times, from the neighbours `near` of the cell itself."""
    n, capacity = near.source.shape
    tile = np.stack(np.meshgrid(*map(np.arange, tiles), indexing="ij"), -1).reshape(-1, 3)
    positions = (atoms.positions + (tile @ atoms.cell.array)[:, None]).reshape(-1, 3)
    image, home = np.divmod(tile[:, None, None] + near.image, tiles)  # of the neighbour's tile: (tiles, n, capacity, 3)
    source = np.ravel_multi_index(np.moveaxis(home, -1, 0), tiles) * n + near.source
    flat = (len(positions), capacity)
    source, image, mask = source.reshape(flat), image.reshape(*flat, 3), np.tile(near.mask, (len(tile), 1))
    own = np.arange(source.size).reshape(flat)
    reverse = np.where(mask, source * capacity + np.tile(near.reverse % capacity, (len(tile), 1)), own)
    source = np.where(mask, source, np.arange(len(positions))[:, None])
    image = np.where(mask[..., None], image, 0)
    cell = atoms.cell.array * np.array(tiles)[:, None]
    system = systems.stack(
        jnp.asarray(positions, jnp.float32)[None], jnp.asarray(cell, jnp.float32)[None],
        np.full(len(positions), atoms.numbers[0]),
    )  # fmt: skip
    indices = (jnp.asarray(x, jnp.int32) for x in (source, image, reverse))
    return system, neighbors.Neighbors(*indices, jnp.asarray(mask), jnp.int32(near.needed))


def _tiles(repeats, tiles, network):
    atoms = titanium.frames(repeats, 1)[0]
    return _tiled(atoms, neighbors.from_frames(atoms, network.cutoff), tiles)


def forces(plan, left, into, keep):
    """Energy, forces and stress against the size of one cell and against the number of cells."""
    network = _network(plan)
    problems = {}
    for repeats, tiles in plan.sizes:
        system, near = _tiles(repeats, tiles, network)
        problems[f"{len(system.positions)} x 1"] = (system, near)
    repeats, stacks = plan.stacks
    for n_cells in stacks:
        frames = _stack(plan, repeats, n_cells)
        near = jax.tree.map(jnp.asarray, neighbors.from_frames(frames, network.cutoff))
        problems[f"{len(frames[0])} x {n_cells}"] = (systems.from_atoms(frames), near)
    evaluate = jax.jit(Potential.evaluate)
    runs = {name: partial(evaluate, network, *problem) for name, problem in problems.items()}
    found = {"compile_alone_s": _first_call(runs[f"{len(problems[next(iter(problems))][0].positions)} x 1"])}
    found["first_call_s"] = _compile_at_once(runs, min(90, 0.4 * left()))
    found["rows"] = []
    for name, run in runs.items():
        if not isinstance(found["first_call_s"][name], float) or left() < 5:
            continue
        system = problems[name][0]
        flops = _flops(Potential.evaluate, network, *problems[name])
        seconds = _time(run, plan.seconds_per_measurement)
        row = {"cells": name, "n_atoms": len(system.positions), "n_cells": system.n_cells, "seconds": seconds}
        row |= {"flops": flops, "TFLOPs_per_s": 1e-12 * flops / seconds.median}
        row["us_per_atom"] = 1e6 * seconds.median / row["n_atoms"]
        found["rows"].append(row)
        print(f"forces {name}: {1e3 * seconds.median:.3g} ms, {row['TFLOPs_per_s']:.3g} TFLOP/s", flush=True)
        keep(found)
    return found


def precision(plan, left, into, keep):
    """Errors of energy, forces and stress by precision of matrix products, against double precision on the CPU."""
    network = _network(plan)
    frames = titanium.frames(plan.gradient_size, 2)
    near = neighbors.from_frames(frames, network.cutoff)
    system = systems.from_atoms(frames)
    exact = _in_double(network, frames, near)
    found = {}
    for name in ("default", "tensorfloat32", "highest"):
        with jax.default_matmul_precision(name):
            run = jax.jit(lambda *a: Potential.evaluate(*a))
            got = run(network, system, near)
            seconds = _time(partial(run, network, system, near), plan.seconds_per_measurement)
        row = {"ms": 1e3 * seconds.median}
        for quantity in ("energy", "forces", "stress"):
            want, have = np.asarray(getattr(exact, quantity)), np.asarray(getattr(got, quantity), float)
            row[f"{quantity}_relative_error"] = float(np.linalg.norm(have - want) / np.linalg.norm(want))
        found[name] = row
        print(f"products in {name}: {row}", flush=True)
        keep(found)
    return found


def _in_double(network, frames, near):
    """Energy, forces and stress in double precision, computed on the CPU by another process."""
    from safetensors.numpy import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        model, out = f"{folder}/model.safetensors", f"{folder}/found.safetensors"
        network.save(model)
        arrays = {
            "positions": np.stack([f.positions for f in frames]),
            "cells": np.stack([f.cell.array for f in frames]),
        }
        save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, f"{folder}/frames.safetensors")
        script = (
            "import jax; jax.config.update('jax_enable_x64', True); import numpy as np, ase\n"
            "from safetensors.numpy import load_file, save_file\n"
            "from fusedff.geometry import neighbors, systems\n"
            "from fusedff.potential import Potential\n"
            f"a = load_file('{folder}/frames.safetensors'); m = Potential.load('{model}')\n"
            "m = m.with_params(jax.tree.map(lambda x: np.asarray(x, float), m.params))\n"
            "f = [ase.Atoms('Ti%d' % len(p), p, cell=c, pbc=True)"
            " for p, c in zip(a['positions'], a['cells'])]\n"
            "e = jax.jit(Potential.evaluate)(m, systems.from_atoms(f), neighbors.from_frames(f, m.cutoff))\n"
            f"save_file({{k: np.asarray(v) for k, v in e._asdict().items()}}, '{out}')\n"
        )
        subprocess.run(
            [sys.executable, "-c", script], check=True, env=os.environ | {"JAX_PLATFORMS": "cpu"},
            cwd=Path(__file__).parents[1],
        )  # fmt: skip
        return Evaluation(**load_file(out))


def _ensemble(repeats, n_cells):
    frames = titanium.frames(repeats, min(n_cells, 4))
    kinds = [frames[i % len(frames)] for i in range(n_cells)]
    return cells.replicate(kinds, [TEMPERATURE] * n_cells)


def dynamics_(plan, left, into, keep):
    """Time of a Langevin step against the number of replicas and the size of the cell, neighbour search included."""
    network = _network(plan)
    runs, shapes = {}, {}
    for repeats, n_cells in plan.dynamics:
        ensemble = _ensemble(repeats, n_cells)
        skin = LANGEVIN if len(ensemble.numbers) < 500 else LANGEVIN_SMALL_SKIN
        simulation = langevin.Simulation(ensemble, skin, network.cutoff)
        state = langevin.start(ensemble, jax.random.PRNGKey(0))
        name = f"{len(ensemble.numbers)} x {n_cells}"
        runs[name], shapes[name] = partial(_advance, simulation, network, state), (len(ensemble.numbers), n_cells)
    found = {"first_call_s": _compile_at_once(runs, min(90, 0.4 * left())), "rows": []}
    for name, run in runs.items():
        if not isinstance(found["first_call_s"][name], float) or left() < 5:
            continue
        seconds = _time(run, plan.seconds_per_measurement)
        n_atoms, n_cells = shapes[name]
        step = seconds.median / STEPS
        row = {"cells": name, "n_atoms": n_atoms, "n_cells": n_cells, "step_seconds": step}
        row |= {"us_per_atom_step": 1e6 * step / (n_atoms * n_cells), "steps_per_s": 1 / step}
        found["rows"].append(row)
        print(f"dynamics {name}: {1e3 * step:.3g} ms per step", flush=True)
        keep(found)
    return found


def _advance(simulation, network, state):
    return simulation.run(network, state, 1)[0].positions


def gradients(plan, left, into, keep):
    """Time of parameter gradients: force matching by batch size, DiffTRe per snapshot with both estimators."""
    network = _network(plan)
    frames = titanium.frames(plan.gradient_size, 2)
    runs, units = {}, {}
    for n_cells in plan.gradients:
        labelled = _labelled(_stack(plan, plan.gradient_size, n_cells))
        store = FrameStore(labelled, network.cutoff)
        batch = store.batch(np.arange(n_cells), n_cells, sum(map(len, labelled)))
        settings = ForceMatchingConfig()

        def loss(params, batch, settings=settings):
            return force_matching_loss.loss(settings, network.with_params(params), batch)

        name = f"force matching, {n_cells} cells"
        runs[name], units[name] = partial(jax.jit(jax.value_and_grad(loss)), network.params, batch), n_cells
    positions = np.stack([atoms.positions for atoms in frames])
    for estimator in (CoupledStrains(), StressFluctuation()):
        update = fusedff_side.stored_update(network, plan.gradient_size, positions, estimator)
        name = f"DiffTRe, {type(estimator).__name__}"
        runs[name], units[name] = update, len(positions)
    found = {"atoms": len(frames[0]), "first_call_s": _compile_at_once(runs, min(90, 0.4 * left())), "rows": []}
    for name, run in runs.items():
        if not isinstance(found["first_call_s"][name], float) or left() < 5:
            continue
        seconds = _time(run, plan.seconds_per_measurement)
        found["rows"].append({"quantity": name, "seconds_per_unit": seconds.median / units[name]})
        print(f"{name}: {1e3 * seconds.median / units[name]:.3g} ms per cell or snapshot", flush=True)
        keep(found)
    return found


def _labelled(frames):
    from ase.calculators.singlepoint import SinglePointCalculator

    generator = np.random.default_rng(1)
    made = [frame.copy() for frame in frames]
    for frame in made:
        forces = generator.normal(0, 0.1, (len(frame), 3))
        frame.calc = SinglePointCalculator(frame, energy=0.0, forces=forces, stress=np.full(6, 1e-3))
    return made


def profile(plan, left, into, keep):
    """Number and time of the GPU kernels in one evaluation and in one Langevin step, from JAX's profiler."""
    network = _network(plan)
    system, near = _tiles(plan.gradient_size, (1, 1, 1), network)
    evaluate = jax.jit(Potential.evaluate)
    ensemble = _ensemble(plan.gradient_size, 1)
    simulation = langevin.Simulation(ensemble, LANGEVIN, network.cutoff)
    state = langevin.start(ensemble, jax.random.PRNGKey(0))
    found = {}
    for name, run, units in (
        ("forces", partial(evaluate, network, system, near), 1),
        ("langevin step", partial(_advance, simulation, network, state), STEPS),
    ):
        jax.block_until_ready(run())
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder, create_perfetto_trace=True):
                jax.block_until_ready(run())
            found[name] = _kernels(Path(folder), units)
        keep(found)
        print(f"kernels per {name}: {found[name].get('kernels')}", flush=True)
    return found


def _kernels(folder, units):
    """Number and time (µs) of the kernels in a trace, per unit of work, and the longest of them."""
    trace = next(folder.rglob("perfetto_trace.json.gz"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    names = {e["pid"]: e["args"].get("name", "") for e in events if e.get("name") == "process_name"}
    threads = {(e["pid"], e["tid"]): e["args"].get("name", "") for e in events if e.get("name") == "thread_name"}
    kernels = {}
    for event in events:
        place = names.get(event.get("pid"), ""), threads.get((event.get("pid"), event.get("tid")), "")
        if event.get("ph") == "X" and "GPU" in place[0] and "Stream" in place[1]:
            count, total = kernels.get(event["name"], (0, 0.0))
            kernels[event["name"]] = count + 1, total + event["dur"]
    longest = sorted(kernels.items(), key=lambda item: -item[1][1])[:25]
    return {
        "kernels": sum(count for count, _ in kernels.values()) / units,
        "busy_us": sum(total for _, total in kernels.values()) / units,
        "longest": [{"name": name, "count": count / units, "us": total / units} for name, (count, total) in longest],
    }


def tests(plan, left, into, keep):
    """Run the tests marked `gpu` in another process."""
    if plan.dry:
        return {"skipped": "dry run"}
    environment = os.environ | {"JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True,
            timeout=min(100, left()),
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return {"failed": f"not done after {error.timeout:.0f} s"}
    print(done.stdout[-3000:])
    return {"exit_status": done.returncode, "said": done.stdout.strip().splitlines()[-15:]}


def full(plan, left, into, keep):
    """Time of fused epochs of the preset `full`, from a network trained on DFT for a few epochs, until time is up."""
    preset = plan.full
    split = comparison.frames(preset)
    points = comparison.targets(preset)
    reference = comparison.datasets.fit_reference_energies(split.train)
    start = Potential.create(jax.random.PRNGKey(0), preset.network, reference, preset.energy_scale)
    began = time.perf_counter()
    dft = replace(preset.dft, epochs=2 if plan.dry else 30)
    start, history = force_matching.train(start, split.train, split.validation, dft)
    found = {"dft_epochs": dft.epochs, "dft_seconds": time.perf_counter() - began, "dft_last": history[-1]}
    keep(found)
    stamps = [time.perf_counter()]

    def stamp(history):
        stamps.append(time.perf_counter())
        found["epochs"] = [b - a for a, b in zip(stamps, stamps[1:], strict=False)]
        found["chemtrain_epoch_s"] = CHEMTRAIN_EPOCH_S
        found["history"] = history
        keep(found)
        print(f"fused epoch {len(history)}: {found['epochs'][-1]:.1f} s, loss {history[-1]['loss']:.4g}", flush=True)
        if left() < 1.3 * found["epochs"][-1] + 10:
            raise _Enough

    try:
        fused.train(start, points, split.train, preset.fused, into / "full-fused.safetensors", on_epoch=stamp)
    except (_Enough, loop.DivergedError) as end:
        found["ended"] = type(end).__name__
    return found


class _Enough(Exception):
    """No time for another epoch."""


STAGES = {
    "machine": machine,
    "forces": forces,
    "dynamics": dynamics_,
    "profile": profile,
    "tests": tests,
    "gradients": gradients,
    "precision": precision,
    "full": full,
}
