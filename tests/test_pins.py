"""Pinned versions: requirements.lock is the source, every other file must agree with it.

Also `make`: it lists its targets, and says in one line what is missing.
"""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins(path: str) -> list[Requirement]:
    """The requirements of a file, without comments and hashes."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)(#|--hash=).*", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


def version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    assert specifier.operator == "==", f"{pin} is not pinned"
    return specifier.version


def locked_versions(name: str, python: str | None = None) -> set[str]:
    """The versions of `name` in the lock: several when they depend on the Python version or platform."""
    environment = default_environment() | ({"python_full_version": python} if python else {})
    return {
        version(pin)
        for pin in pins("requirements.lock")
        if canonicalize_name(pin.name) == canonicalize_name(name)
        and (python is None or pin.marker is None or pin.marker.evaluate(environment))
    }


EXTRAS = PROJECT["optional-dependencies"]
LOCKED_EXTRAS = ("notebooks", "phonons", "lammps", "dev")
DIRECT = [
    Requirement(text) for text in [*PROJECT["dependencies"], *(line for name in LOCKED_EXTRAS for line in EXTRAS[name])]
]


@pytest.mark.parametrize("dependency", DIRECT, ids=lambda dependency: dependency.name)
def test_direct_dependency_is_locked_within_its_range(dependency):
    assert not dependency.url
    versions = locked_versions(dependency.name)
    assert versions, f"{dependency.name} is not in requirements.lock: run make lock"
    assert all(dependency.specifier.contains(v, prereleases=True) for v in versions), versions


@pytest.mark.parametrize("python", ["3.11.2", "3.12.3", "3.13.0", "3.14.0"])  # 3.11.2 is Debian 12's
def test_each_python_gets_exactly_one_version_of_a_dependency(python):
    assert {d.name: len(locked_versions(d.name, python)) for d in DIRECT} == {d.name: 1 for d in DIRECT}


def test_lock_holds_what_was_measured_to_work():
    for constraint in pins("constraints.txt"):
        assert version(constraint) in locked_versions(constraint.name), str(constraint)


@pytest.mark.parametrize(
    ("name", "broken"),
    [("jax", "0.10.2"), ("jax", "0.11.1"), ("jaxlib", "0.10.2"), ("jaxlib", "0.11.1"), ("nglview", "4.0.1")],
)
def test_broken_release_is_neither_locked_nor_allowed(name, broken):
    assert broken not in locked_versions(name)
    assert not any(dependency.name == name and dependency.specifier.contains(broken) for dependency in DIRECT)


@pytest.mark.parametrize("path", ["requirements.lock", "binder/requirements.txt"])
def test_lock_names_no_address_and_hashes_every_pin(path):
    text = (ROOT / path).read_text()
    assert not re.search(r"://|--(extra-)?index-url|--find-links|^-", text, flags=re.MULTILINE)
    entries = [line for line in text.splitlines() if re.match(r"\w", line)]
    assert entries
    assert all(entry.endswith("\\") for entry in entries), "an entry without hashes"


def test_binder_pins_are_those_of_the_lock():
    binder = {str(pin) for pin in pins("binder/requirements.txt")}
    assert binder <= {str(pin) for pin in pins("requirements.lock")}
    names = {canonicalize_name(Requirement(pin).name) for pin in binder}
    needed = [*PROJECT["dependencies"], *EXTRAS["notebooks"], *EXTRAS["phonons"]]
    assert {canonicalize_name(Requirement(text).name) for text in needed} <= names


def test_every_extra_but_the_gpu_one_is_locked():
    assert set(EXTRAS) == {*LOCKED_EXTRAS, "cuda"}


def test_the_core_needs_no_notebook_library():
    core = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert not core & {
        canonicalize_name(Requirement(text).name) for name in ("notebooks", "phonons") for text in EXTRAS[name]
    }


def test_binder_and_conda_take_a_python_that_the_project_supports():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (conda_python,) = (d for d in conda["dependencies"] if isinstance(d, str) and d.startswith("python="))
    binder_python = (ROOT / "binder/runtime.txt").read_text().strip()
    assert conda_python.removeprefix("python=") == binder_python.removeprefix("python-")
    assert Requirement("python" + PROJECT["requires-python"]).specifier.contains(conda_python.split("=")[1])


def test_conda_installs_the_lock_and_nothing_else_by_pip():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (by_pip,) = (d["pip"] for d in conda["dependencies"] if isinstance(d, dict))
    assert by_pip == ["--requirement requirements.lock"]
    by_conda = {d.split("=")[0] for d in conda["dependencies"] if isinstance(d, str)}
    assert by_conda == {"python", "pip"}, "a package from conda would escape the lock"


def test_postbuild_is_executable_and_stops_at_the_first_error():
    script = ROOT / "binder/postBuild"
    assert script.stat().st_mode & stat.S_IXUSR
    assert "set -e" in script.read_text().splitlines()


def test_pre_commit_runs_the_locked_versions():
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]:
        name = repo["repo"].rsplit("/", 1)[1].removesuffix("-pre-commit")
        assert {repo["rev"].removeprefix("v")} == locked_versions(name)


def make(*arguments: str, directory: Path = ROOT, path: str = os.environ["PATH"]):
    """Run make as from a shell: without the variables of the make that may be running these tests."""
    inherited = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in inherited}
    return subprocess.run(
        [shutil.which("make"), *arguments],
        cwd=directory,
        env=environment | {"PATH": path, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
def test_plain_make_lists_every_target_with_its_help():
    result = make()
    assert result.returncode == 0, result.stderr
    for target in ["run", "test", "lab", "bench", "lint", "audit", "lock", "clean"]:
        assert re.search(rf"^make {target} +\w", result.stdout, flags=re.MULTILINE), target


def python_that(says: str) -> str:
    """A stand-in for python3. All that the Makefile asks it is its version and whether it has ensurepip."""
    return f"#!/bin/sh\n{says}\n"


@needs_make
@pytest.mark.parametrize(
    ("python", "advice"),
    [
        (python_that("exit 1"), "needs Python 3.11 to 3.14"),
        (python_that('case "$*" in *ensurepip*) exit 1;; esac'), "sudo apt install python3-venv"),
    ],
    ids=["python is too old", "venv module is missing"],
)
@pytest.mark.parametrize("target", ["test", "run"])
def test_make_says_in_one_line_what_is_missing(tmp_path, python, advice, target):
    clone, programs = tmp_path / "clone", tmp_path / "bin"
    clone.mkdir()
    programs.mkdir()
    for name in ["Makefile", "pyproject.toml", "requirements.lock"]:
        shutil.copy(ROOT / name, clone)
    (programs / "sh").symlink_to("/bin/sh")
    (programs / "python3").write_text(python)
    (programs / "python3").chmod(0o755)

    result = make(target, directory=clone, path=str(programs))

    assert result.returncode != 0
    (line,) = (result.stdout + result.stderr).splitlines()
    assert advice in line
    assert not (clone / ".venv").exists()


def test_the_dockerfile_installs_what_binder_does():
    """Python of runtime.txt, the packages of requirements.txt with their hashes, then postBuild, as a user."""
    text = (ROOT / "Dockerfile").read_text()
    python = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert f"FROM python:{python}-slim\n" in text
    steps = ["--require-hashes --requirement binder/requirements.txt", "bash binder/postBuild", "USER jovyan"]
    places = [text.index(step) for step in steps]
    assert places == sorted(places)
    assert text.count("pip install") == 1
