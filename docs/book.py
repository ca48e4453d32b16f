"""Builds the book into build/docs: executed notebooks, explanations, glossary, API. `make docs` calls it.

Notebooks (`python -m fusedff run`) and solutions of their exercises are executed where no execution of them as they are
now lies in runs/PRESET.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill

from fusedff.study import presets

HERE = Path(__file__).parent
ROOT = HERE.parent
TARGET = ROOT / "build" / "docs"
WIDGET = "application/vnd.jupyter.widget-view+json"
REPOSITORY = "GITHUB_REPOSITORY"  # owner/name, which GitHub's CI sets: elsewhere the book has no address of its source


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="demo", help="size of the run whose notebooks the book shows")
    preset = parser.parse_args().preset
    folder = ROOT / "runs" / preset
    sources = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
    if not all(is_current(source, folder / "notebooks" / source.name) for source in sources):
        subprocess.run([sys.executable, "-m", "fusedff", "run", "--preset", preset], check=True, cwd=ROOT)
    solutions = sorted((ROOT / "notebooks" / "solutions").glob("[0-9]*.ipynb"))
    for solution in solutions:
        execute(solution, folder / "notebooks" / "solutions" / solution.name, preset)
    gather(folder, sources, solutions)
    shutil.rmtree(TARGET, ignore_errors=True)
    command = ["-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--builder", "html", HERE, TARGET]
    return subprocess.run([sys.executable, *command]).returncode


def execute(solution: Path, output: Path, preset: str) -> None:
    """Execute the solutions of a notebook into `output`, in the run folder of the notebooks, unless they are there."""
    if is_current(solution, output):
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        solution, output, {"PRESET": preset, "RUNS": str(ROOT / "runs")}, cwd=str(ROOT / "notebooks"),
        kernel_name="python3",
    )  # fmt: skip


def is_current(source: Path, executed: Path) -> bool:
    """Whether `executed` holds all outputs of the notebook as it is."""
    if not executed.exists():
        return False
    try:
        found = nbformat.read(executed, 4)
    except (ValueError, nbformat.reader.NotJSONError):
        return False
    cells = [cell for cell in found.cells if cell.cell_type == "code"]
    complete = all(cell.metadata.get("papermill", {}).get("status") == "completed" for cell in cells)
    return complete and _code(nbformat.read(source, 4)) == _code(found)


def _code(notebook):
    return [cell.source for cell in notebook.cells if not _injected(cell)]


def _injected(cell):
    return "injected-parameters" in cell.metadata.get("tags", [])


def gather(folder: Path, sources, solutions=()) -> None:
    """Notebooks, solutions and tables of a run, where Sphinx finds them."""
    for part in ("_notebooks", "_tables"):
        shutil.rmtree(HERE / part, ignore_errors=True)
        (HERE / part).mkdir()
    (HERE / "_notebooks" / "solutions").mkdir()
    for source in (*sources, *solutions):
        name = source.relative_to(ROOT / "notebooks")
        notebook = nbformat.read(folder / "notebooks" / name, 4)
        nbformat.write(as_page(notebook, str(name), os.environ.get(REPOSITORY)), HERE / "_notebooks" / name)
    for table in folder.glob("tables/*.csv"):
        shutil.copy(table, HERE / "_tables")


def as_page(notebook, name: str, repository: str | None = None):
    """The notebook with the preset that it was executed with, without what needs a kernel.

    With a `repository` on GitHub there is a link that opens the notebook on Binder.
    RuntimeError where a cell failed or a picture has no words.
    """
    notebook.cells = [cell for cell in notebook.cells if not _injected(cell)]
    parameters = notebook.metadata.get("papermill", {}).get("parameters", {})
    preset = parameters.get("PRESET")
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # pages of the book lie beside its notebooks
            cell.source = re.sub(r"\]\(\.\./docs/", "](../", cell.source)
            cell.source = re.sub(r"\]\(\.\./(benchmarks|fusedff)/", r"](../../\1/", cell.source)
        if preset and "parameters" in cell.metadata.get("tags", []):  # what the outputs below were made with
            cell.source = re.sub(r"^PRESET = .*$", f'PRESET = "{preset}"', cell.source, flags=re.M)
    if preset and (note := presets.note(presets.get(preset))):
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"> **{note}**"))
    if repository:
        link = f"https://mybinder.org/v2/gh/{repository}/HEAD?urlpath=lab/tree/notebooks/{name}"
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"[Open this notebook on Binder]({link})"))
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = _as_read(output.text, parameters)
            if output.output_type == "error":
                raise RuntimeError(f"{name}, cell {cell.id}: {output.ename}: {output.evalue}")
            data = output.get("data", {})
            if "image/png" in data and ' alt="' not in data.get("text/html", ""):
                raise RuntimeError(f"{name}, cell {cell.id}: a figure without alternative text; use style.show")
    return notebook


def _as_read(text: str, parameters: dict) -> str:
    """What a program printed, without progress on the way, places of warnings and the folder of the run."""
    text = re.sub(r"^(?P<what>.+: )(\d+)/(?!\2\b)\d+(, .*)?\n", "", text, flags=re.M)
    text = re.sub(r"^/\S+\.py:\d+: (\w*Warning: .*)(\n  .*)?$", r"\1", text, flags=re.M)
    return text.replace(f"{Path(parameters['RUNS']).parent}/", "") if parameters.get("RUNS") else text


if __name__ == "__main__":
    sys.exit(main())
