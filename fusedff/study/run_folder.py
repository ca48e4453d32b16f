"""Run folders: models, records and tables that notebooks write and later ones read.

Below `runs/demo`::

    dft/potential.safetensors   the model
    dft/history.json            its training, epoch by epoch
    dft/settings.json           its settings
    dft/seconds.json            what its training took
    dft/checkpoint.safetensors  from which an interrupted training continues
    tables/*.csv                the tables of the notebooks, to compute with
"""

import csv
import io
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from fusedff.data import FILES
from fusedff.potential import Potential
from fusedff.runtime import storage
from fusedff.study import presets

MODELS = ("dft", "experiment", "fused")
RECORD = "titanium.json"
_PACKAGES = ("fusedff", "jax", "jaxlib", "jax-md", "dm-haiku", "optax", "ase", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds the results of one preset."""

    path: Path
    shipped: tuple[str, ...] = ()  # models that are taken from those that ship, whatever was trained here

    def checkpoint(self, model: str) -> Path:
        """The file of the checkpoint of the training of `model`."""
        return self.path / model / "checkpoint.safetensors"

    @contextmanager
    def timed(self, model: str) -> Generator[None]:
        """Context of a training of `model`: adds the time it takes, interrupted or not, to `seconds(model)`."""
        before, began = self.seconds(model), time.monotonic()
        try:
            yield
        finally:
            self.write(f"{model}/seconds.json", {"seconds": before + time.monotonic() - began})

    def seconds(self, model: str) -> float:
        """Seconds that the training of `model` in this folder has taken so far, in all of its sessions."""
        kept = f"{model}/seconds.json"
        return self.read(kept, "seconds")["seconds"] if (self.path / kept).exists() else 0.0

    def save(self, model: str, trained: Potential, history: list[dict], settings) -> None:
        """Keep a trained model with its history and settings."""
        about = {
            "model": model,
            "settings": presets.as_dict(settings),
            "versions": versions(),
            "seconds": self.seconds(model),
        }
        trained.save(self.path / model / "potential.safetensors", **about)
        storage.write_json(self.path / model / "history.json", history)
        storage.write_json(self.path / model / "settings.json", about)

    def load(self, model: str) -> Potential:
        """The model trained in this run, else (or for `shipped`) the one that ships with fusedff; prints which."""
        mine = self.path / model / "potential.safetensors"
        if model in self.shipped:
            print(f"using titanium-{model}, which ships with fusedff, in place of a model trained by this preset")
            return Potential.load(f"titanium-{model}")
        if mine.exists():
            held = storage.read_metadata(mine).get("about", {}).get("model", model)
            if held != model:
                raise storage.DamagedFileError(
                    f"{mine} holds the model {held!r}, not {model!r}; put the right file there, or run the notebook "
                    "that makes it again"
                )
            return Potential.load(mine)
        print(f"{mine} does not exist yet; using titanium-{model}, which ships with fusedff")
        return Potential.load(f"titanium-{model}")

    def history(self, model: str) -> list[dict]:
        """The training history of a model of this run; FileNotFoundError says which notebook makes it."""
        return self.read(f"{model}/history.json")

    def write(self, name: str, data) -> None:
        """Keep plain data as JSON under `name` in this folder."""
        storage.write_json(self.path / name, data)

    def write_table(self, name: str, rows: Sequence[Mapping]) -> None:
        """Keep rows, one mapping with the same keys each, as `tables/NAME.csv` in this folder."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        storage.write_bytes(self.path / "tables" / f"{name}.csv", text.getvalue().encode())

    def read(self, name: str, *keys: str):
        """What `write` kept; an object must have `keys`."""
        path = self.path / name
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; `fusedff run --preset {self.path.name}` makes it")
        return storage.read_json(path, *keys, remedy=f"`fusedff run --preset {self.path.name}` makes it again")


def folder(preset: str, root: str | Path | None = None) -> RunFolder:
    """The folder of a preset's run, below `root` (default: `runs` beside the notebooks folder or here)."""
    if root is None:
        here = Path.cwd()
        root = (here.parent if here.name == "notebooks" else here) / "runs"
    settings = presets.get(preset)
    return RunFolder(Path(root) / settings.name, settings.shipped)


def shipped_record(folder: Path = FILES) -> dict:
    """The results of the models that ship: summary, temperatures and off-target rows (`commands.release`)."""
    return storage.read_json(folder / RECORD)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect the results."""
    return {"python": python_version(), **{package: version(package) for package in _PACKAGES}}
