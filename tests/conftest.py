"""Every test runs on the CPU, in double precision, from a fixed seed; every worker on cores of its own."""

import gc
import os
from importlib.metadata import version

# Before NumPy and JAX count the cores. Workers that each start a thread per core spend most of their time waiting for
# one another's threads: pinned, two of them take a third of the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: workers] or cores)

# Before jax is imported: the platform is read once. JAX_PLATFORMS=cuda from outside wins: the gpu tests.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Three quarters of the time of most tests go to compilation, which takes 40 % of it without optimization, and about
# half of that with the older of XLA's two ways to write loops, in one piece because a worker has one core. So do the
# processes that tests start. test_optimization.py holds what comes out against what users get. Where more time goes to
# long dynamics, which takes four times as long without optimization, `OPTIMIZED = True` in a test file asks for its
# first level: as fast as what users get, and compiled in four fifths of the time.
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if version("jaxlib").startswith("0.10."):  # XLA ends a process that asks for what it does not know
        os.environ.setdefault(
            "XLA_FLAGS",
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
            " --xla_backend_optimization_level=1",
        )

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)

# Tests compile what they test. For whoever runs them again and again: a folder here, and most compilation is skipped.
cache = os.environ.get("FUSEDFF_TEST_CACHE")
jax.config.update("jax_enable_compilation_cache", bool(cache))
if cache:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))


# Workers take whole files (Makefile). The long ones come first, so that no worker has to wait for one at the end.
LONG = [
    f"test_{name}.py"
    for name in (
        "notebooks", "elasticity", "dynamics", "thermal_crystals", "material", "lattice", "deformation", "liquid",
        "transition", "solutions", "lammps_ranks", "benchmarks", "targets", "devices", "difftre", "fused", "extending",
        "defects", "kernel", "startup",
    )
]  # fmt: skip


def pytest_collection_finish():
    """What is imported stays until the end: to search it for garbage, every 700 new objects, is a fifteenth of all."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """Optimize or not, and drop what a file has compiled: some thousand programs take all memory maps of a process."""
    asked = jax.config.read("jax_disable_most_optimizations")
    if getattr(request.module, "OPTIMIZED", False):
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", asked)
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Processes that tests start share what they compile, those of all workers, for as long as this run lasts."""
    base = tmp_path_factory.getbasetemp()
    cache = os.environ.get("FUSEDFF_TEST_CACHE") or (base.parent if worker else base) / "compiled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", os.path.expanduser(cache))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it finds there
        yield


@pytest.fixture
def key():
    """A JAX key; split it for more."""
    return jax.random.key(0)


@pytest.fixture
def rng():
    """A NumPy generator."""
    return np.random.default_rng(0)


@pytest.fixture
def table(tmp_path):
    """A function that writes lines into mine.csv and returns its path."""

    def write(*lines):
        path = tmp_path / "mine.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
