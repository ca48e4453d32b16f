"""The titanium study in one go: every notebook executed with one preset, into its run folder."""

import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fusedff.runtime import devices, extras, storage
from fusedff.study import comparison, presets, run_folder

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TYPICAL = {"smoke": "ten minutes", "demo": "twenty minutes", "hours": "three hours"}  # of all notebooks, on two cores


def execute(preset, root: Path) -> int:
    """Run every notebook with this preset into the run folder; 1 if one of them fails, 130 after Ctrl-C."""
    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"{NOTEBOOKS} holds no notebooks: they do not come with the installed package; run this in a checkout of "
            "the project, or use `fusedff.training` and `fusedff.load` from Python"
        )
    extras.require("notebooks", "papermill", "ipykernel", "ipywidgets")
    extras.require("phonons", "phonopy", "symfc")
    devices.require_platform(release=True)  # the kernels will want the memory
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # of the kernels, see `jax_setup`
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # two kernels' threads would wait for one another
    folder = run_folder.folder(preset.name, root)
    output = folder.path / "notebooks"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot make {output} ({error.strerror}); name another folder with --runs"
        ) from None
    presets.announce(preset)
    began, expected = time.monotonic(), [_took(output / notebook.name) for notebook in notebooks]
    if all(expected):
        print(f"the last run here took {sum(expected) / 60:.0f} min; what is trained already is not trained again")
    else:
        takes = f"; on two cores this takes about {TYPICAL[preset.name]}" if preset.name in TYPICAL else ""
        print(f"runs the notebooks one after the other{takes}; results go to {folder.path}", flush=True)
    for n, notebook in enumerate(notebooks):
        left = f", about {sum(expected[n:]) / 60:.0f} min left" if all(expected) else ""
        print(f"--- notebook {n + 1} of {len(notebooks)}, {notebook.stem}{left}: {_question(notebook)}", flush=True)
        if failed := _execute(notebook, output / notebook.name, {"PRESET": preset.name, "RUNS": str(root)}):
            return failed
    found = folder.read("summary.json", "models")
    found["wall_seconds"] = time.monotonic() - began
    folder.write("summary.json", found)
    print(f"\n{comparison.results_text(preset, found)}\n")
    print(f"{found['wall_seconds']:.0f} s; results, figures and executed notebooks: {folder.path}")
    return 0


def _question(notebook: Path) -> str:
    """The title of a notebook: a question."""
    import nbformat

    cells = nbformat.read(notebook, 4).cells
    titles = [line[2:] for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines()[:1]]
    return titles[0] if titles else ""


def _took(executed: Path) -> float:
    """Seconds that an earlier execution of a notebook took, 0 if there is none or it did not end."""
    try:
        return json.loads(executed.read_text())["metadata"]["papermill"]["duration"] or 0.0
    except (OSError, ValueError, KeyError):
        return 0.0


def _execute(notebook: Path, output: Path, parameters: dict) -> int:
    """Execute a notebook into the file `output`, which is replaced only when it ends, however it ends."""
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError

    again = "the same command goes on from the last epoch"
    with tempfile.TemporaryDirectory() as beside:
        draft = Path(beside) / notebook.name
        # the notebook itself is handed over: in a path, papermill would take braces for a format
        executed = ThreadPoolExecutor(1).submit(
            papermill.execute_notebook, nbformat.read(notebook, 4), draft, parameters, cwd=str(NOTEBOOKS),
            progress_bar=False, log_output=True, stdout_file=sys.stdout, stderr_file=sys.stderr,
            extra_arguments=["--log-level=ERROR"],
        )  # fmt: skip
        try:
            executed.result()
        except papermill.PapermillExecutionError as error:
            print(f"{notebook.name} failed: {error.ename}: {error.evalue}\nsee {output}", file=sys.stderr)
            return 1
        except DeadKernelError:
            print(
                f"{notebook.name} failed: its kernel died, which most often means that the memory ran out; close other "
                f"programs or take a smaller preset: {again}",
                file=sys.stderr,
            )
            return 1
        except KeyboardInterrupt:
            # Here and not in the thread, where libraries swallow it or complain of closed sockets. The kernel ends as
            # soon as it finds that this process is gone, and a killed training loses nothing but its present epoch.
            print(f"\ninterrupted in {notebook.name}; {again}", file=sys.stderr, flush=True)
            shutil.rmtree(beside, ignore_errors=True)
            os._exit(130)
        except OSError as error:
            raise storage.unwritable(Path(error.filename or draft), error) from error
        finally:
            if draft.exists() and draft.stat().st_size:
                storage.write_bytes(output, draft.read_bytes())
    return 0
