"""Files of results, with the circumstances of a measurement: date, machine, versions and command."""

import json
import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("fusedff", "jax", "jaxlib", "jax-md", "dm-haiku", "numpy")


def circumstances() -> dict:
    """Date, command, commit, machine, load and versions. Call it before measuring: the load is that of others."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "commit": _commit(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def describe(about: dict) -> str:
    """The circumstances in a few sentences of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    cores = "1 core" if about["cores"] == 1 else f"{about['cores']} cores"
    return (
        f"Measured on {about['date'][:10]} with `{about['command']}` at commit {about['commit']}: {cores} of "
        f"{about['processor']}, {about['memory_GiB']} GiB, {about['system']}, load {about['load_before']} before the "
        f"start; {versions}."
    )


def write(name: str, text: str, data: dict, into: Path = RESULTS) -> None:
    """Write a result to NAME.md and NAME.json."""
    into.mkdir(exist_ok=True)
    (into / f"{name}.md").write_text(text + "\n")
    (into / f"{name}.json").write_text(json.dumps(to_dicts(data), indent=1) + "\n")


def load_if_same(name: str, asked: dict, into: Path) -> dict:
    """The result in NAME.json if it has the same settings `asked`, else {}."""
    kept = into / f"{name}.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    return found if all(found.get(key) == value for key, value in to_dicts(asked).items()) else {}


def draw(name: str, figure: Figure, into: Path = RESULTS) -> None:
    """Write a figure to NAME.png and close it."""
    figure.savefig(into / f"{name}.png")
    plt.close(figure)


def to_dicts(value):
    """Convert named tuples to dictionaries, at any depth."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): to_dicts(item) for key, item in value.items()}
    return [to_dicts(item) for item in value] if isinstance(value, (list, tuple)) else value


def table(head: list, body: list[list]) -> str:
    """Markdown table; the first column is left-aligned text, the others are right-aligned."""
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def number(entry: dict | None, digits: int, unit: float = 1.0) -> str:
    """The value of an entry with its standard error, both times `unit`; `-` for none."""
    return "-" if entry is None else f"{unit * entry['value']:.{digits}f} ± {unit * entry['stderr']:.{digits}f}"


def picoseconds(settings: dict) -> float:
    """Length of the sampled trajectories, ps, from the settings of a simulation as plain data."""
    langevin = settings["langevin"]
    return settings["snapshots"] * langevin["steps_per_snapshot"] * langevin["timestep_fs"] / 1000


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # fusedff on a bare machine runs from its source tree


def _commit():
    def git(*words):
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=RESULTS.parents[1]).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (" with local changes" if git("status", "--porcelain") else "")


def _processor():
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()
