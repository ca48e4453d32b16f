"""Freed memory is found again without page faults; what was compiled once is found by the next process."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
{first}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = 200 << 20

def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    place = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(place, 1, ctypes.c_size_t(size))
    libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

touch()
print(touch())
"""


def faults(first):
    run = subprocess.run([sys.executable, "-c", SCRIPT.format(first=first)], capture_output=True, text=True, check=True)
    return int(run.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_importing_fusedff_keeps_freed_memory():
    without, with_ = faults(""), faults("import fusedff")
    assert with_ < 100
    if without < 1000:
        pytest.skip(f"the system hands out huge pages: {without} faults for 200 MiB even when memory is returned")


COMPILE = """
import fusedff
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3))).block_until_ready()
"""


def compile_in(cache, **environment):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | environment
    environment |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=True)
    return run.stdout.strip(), run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is named as on Linux")
def test_a_second_process_finds_what_the_first_has_compiled(tmp_path):
    folder, _ = compile_in(tmp_path)
    assert folder.startswith(str(tmp_path / "fusedff" / "compiled"))
    made = {path.name for path in tmp_path.rglob("*-cache")}
    assert made
    assert compile_in(tmp_path) == (folder, "")  # and XLA says nothing about it
    assert {path.name for path in tmp_path.rglob("*-cache")} == made


def test_nothing_is_kept_where_xla_would_warn(tmp_path):
    script = "import jax, fusedff; print(jax.config.jax_compilation_cache_dir)"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "None"


def test_the_users_own_cache_folder_wins(tmp_path):
    assert compile_in(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))[0] == str(tmp_path / "mine")


LEAVE = """
import ctypes, re
import fusedff, jax
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

place = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(200 << 20)))
libc.memset(place, 1, ctypes.c_size_t(200 << 20))
libc.free(place)
kept = resident()
jax.monitoring.record_event_duration_secs("/jax/core/compile/backend_compile_duration", {seconds})
print(kept - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(("seconds", "returned"), [(0.1, False), (2.0, True)])
def test_memory_goes_back_after_a_long_compilation(seconds, returned):
    script = LEAVE.format(seconds=seconds)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (float(run.stdout.splitlines()[-1]) > 150) == returned
