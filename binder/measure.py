"""What a visitor on Binder waits for, and whether the notebooks fit: `python binder/measure.py smoke 00 03 ...`.

Runs notebooks one after the other in kernels of the Python that runs this, with an empty compilation cache and an empty
run folder to begin with, as in a fresh image. Prints a row of a Markdown table for each: seconds from the ready kernel
to the first figure, also one that a cell draws while it runs, seconds in all, and the kernel's peak memory (VmHWM).
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
MINUTES = float(os.environ.get("MINUTES", 10))


class Watching(NotebookClient):
    """Notes when the first figure comes."""

    first = None

    def output(self, outs, msg, display_id, cell_index):
        if self.first is None and "image/png" in msg["content"].get("data", {}):
            self.first = time.monotonic()
        return super().output(outs, msg, display_id, cell_index)


def measure(path: Path, preset: str, root: Path) -> str:
    """One row of the table."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = f"PRESET, RUNS = {preset!r}, {str(root)!r}"
    client = Watching(notebook, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}})
    stopped = ""
    with client.setup_kernel(env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}):
        began = time.monotonic()
        try:
            for n, cell in enumerate(notebook.cells):
                client.timeout = max(1, int(60 * MINUTES - (time.monotonic() - began)))
                client.execute_cell(cell, n)
        except CellTimeoutError:
            stopped = " (stopped)"
        seconds = time.monotonic() - began
        status = Path(f"/proc/{client.km.provisioner.pid}/status").read_text()
    (peak,) = [int(line.split()[1]) / 2**20 for line in status.splitlines() if line.startswith("VmHWM")]
    first = "-" if client.first is None else f"{client.first - began:.0f}"
    return f"| {path.stem[:2]} | {first} | {seconds:.0f}{stopped} | {peak:.2f} |"


def main(preset: str, numbers: list[str]) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{temporary}/compiled"
        print(f"| {preset} | first figure / s | all cells / s | peak memory / GiB |\n|---|---:|---:|---:|", flush=True)
        for path in sorted(FOLDER.glob("[0-9]*.ipynb")):
            if not numbers or path.name[:2] in numbers:
                print(measure(path, preset, Path(temporary) / "runs"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
