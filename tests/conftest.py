"""Set-up of all tests: on the CPU, in double precision, from a fixed seed, with cores of its own for every worker."""

import gc
import os
from importlib.metadata import version

# Before NumPy and JAX count the cores. Workers that each start a thread per core mostly wait for one another; pinned to
# cores of their own, two workers take a third of the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[int(worker.removeprefix("gw")) :: workers] or cores)

# Before jax is imported, which reads the platform once. The gpu tests set JAX_PLATFORMS=cuda,cpu from outside.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Three quarters of the time of most tests is compilation. Without optimization it takes 40 % of its time, and about
# half of that with the older of XLA's two emitters of loops, in one piece since a worker has one core. Processes that
# tests start inherit this. test_optimization.py compares the results with those of the default options. Long dynamics
# takes four times as long without optimization: test files with `OPTIMIZED = True` get its first level, which is as
# fast as the default and compiles in four fifths of the time.
if os.environ["JAX_PLATFORMS"] == "cpu":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if version("jaxlib").startswith("0.10."):  # XLA ends a process with unknown flags
        os.environ.setdefault(
            "XLA_FLAGS",
            "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
            " --xla_backend_optimization_level=1",
        )

import jax
import numpy as np
import pytest

jax.config.update("jax_enable_x64", True)

# With a folder in FUSEDFF_TEST_CACHE, compiled programs are kept, and repeated runs skip most compilation.
cache = os.environ.get("FUSEDFF_TEST_CACHE")
jax.config.update("jax_enable_compilation_cache", bool(cache))
if cache:
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(cache))


# Workers take whole files (Makefile). The longest come first, so that they do not run alone at the end.
LONG = [
    f"test_{name}.py"
    for name in (
        "notebooks", "elasticity", "langevin", "thermal_crystals", "material", "lattice", "deformation", "liquid",
        "transition", "solutions", "lammps_ranks", "benchmarks", "targets", "devices", "difftre", "fused", "extending",
        "defects", "kernel", "jax_setup",
    )
]  # fmt: skip


def pytest_collection_finish():
    """Exclude imported objects from garbage collection, which would search them every 700 new objects.

    That takes a fifteenth of the time of all tests.
    """
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="module", autouse=True)
def programs(request):
    """Set XLA's optimization for a file, and drop its programs after it: thousands exhaust a process's memory maps."""
    asked = jax.config.read("jax_disable_most_optimizations")
    if getattr(request.module, "OPTIMIZED", False):
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", asked)
    jax.clear_caches()


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory):
    """Share compiled programs between the processes that tests of all workers start, for the duration of this run."""
    base = tmp_path_factory.getbasetemp()
    cache = os.environ.get("FUSEDFF_TEST_CACHE") or (base.parent if worker else base) / "compiled"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", os.path.expanduser(cache))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")  # else XLA prints a long warning per program loaded
        yield


@pytest.fixture
def key():
    """A JAX random key; split it for more."""
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
