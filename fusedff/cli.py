"""The commands: the titanium study (`run`, `release`), and a material of your own (`new`, `check`, `train`)."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def main(arguments=None) -> int:
    # here, so that Ctrl-C is heard while they are imported
    from fusedff.study import presets, run_folder

    parser = argparse.ArgumentParser(prog="fusedff", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train and compare the three titanium models: execute the notebooks")
    releasing = commands.add_parser("release", help="make the models of a finished run those that ship with fusedff")
    for command in (running, releasing):
        command.add_argument("--preset", default="demo", help="smoke, demo, hours, full or paper (default: demo)")
        command.add_argument("--runs", type=Path, default=Path("runs"), help="where results go (default: runs)")
    releasing.add_argument("--into", type=Path, default=run_folder.SHIPPED, help="the folder they go to")
    releasing.add_argument(
        "--project", type=Path, default=NOTEBOOKS.parent, help="the checkout whose README shows them"
    )
    making = commands.add_parser("new", help="write a template of a settings file and of a table of measurements")
    making.add_argument("folder", type=Path)
    for name, text in (
        ("check", "read a settings file, its frames and its table, and say what would be learned"),
        ("train", "train three models of your own material and evaluate them; goes on where it stopped"),
    ):
        commands.add_parser(name, help=text).add_argument("settings", type=Path, help="e.g. study.toml")
    options = parser.parse_args(arguments)
    try:
        if options.command in ("run", "release"):
            return _study(options, presets.get(options.preset))
        return _material(options)
    except (ImportError, OSError, ValueError) as error:  # no extra, no room, no right to write, nonsense to read
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from the last epoch", file=sys.stderr)
        return 130


def _study(options, preset) -> int:
    from fusedff import release
    from fusedff.study import run_folder

    if options.command == "run":
        return execute(preset, options.runs.resolve())
    release.release(run_folder.folder(preset.name, options.runs), options.into)
    release.show(options.into, options.project)
    return 0


def _material(options) -> int:
    import fusedff
    from fusedff import material

    if options.command == "new":
        print(f"wrote {material.new(options.folder)}; fill in what is yours, and a table beside it")
        return 0
    mine = material.load(options.settings)
    print(material.describe(mine), flush=True)
    if options.command == "check":
        return 0
    _require_platform()
    fusedff.setup()
    _announce(mine.preset)
    result = material.train(mine, say=lambda text: print(f"--- {text}", flush=True))
    print(f"\n{_verdict(mine.preset, result)}")
    print(f"\nmodels, tables and figures: {mine.output}")
    return 0


def _announce(preset) -> None:
    """Say at the start that results of a preset mean nothing, where it is so."""
    from fusedff.study import presets

    if note := presets.note(preset):
        print(f"*** {note} ***", flush=True)


def _verdict(preset, result: dict) -> str:
    """The table of results or, where they mean nothing, just that."""
    from fusedff.study import comparison, presets

    note = presets.note(preset)
    return f"*** {note} ***" if note else comparison.table(result)


def execute(preset, root: Path) -> int:
    """Run every notebook with this preset into the run folder; 1 if one of them fails, 130 after Ctrl-C."""
    from fusedff.runtime import extras
    from fusedff.study import run_folder

    notebooks = sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))
    if not notebooks:
        raise FileNotFoundError(
            f"{NOTEBOOKS} holds no notebooks: they do not come with the installed package; run this in a checkout of "
            "the project, or use `fusedff.training` and `fusedff.load` from Python"
        )
    extras.require("notebooks", "papermill", "ipykernel", "ipywidgets")
    extras.require("phonons", "phonopy", "symfc")
    _require_platform()
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
    _announce(preset)
    began, expected = time.monotonic(), [_took(output / notebook.name) for notebook in notebooks]
    if all(expected):
        print(f"the last run here took {sum(expected) / 60:.0f} min; what is trained already is not trained again")
    for n, notebook in enumerate(notebooks):
        left = f", about {sum(expected[n:]) / 60:.0f} min left" if all(expected) else ""
        print(f"--- notebook {n + 1} of {len(notebooks)}, {notebook.stem}{left}: {_question(notebook)}", flush=True)
        if failed := _execute(notebook, output / notebook.name, {"PRESET": preset.name, "RUNS": str(root)}):
            return failed
    found = folder.read("summary.json", "models")
    found["wall_seconds"] = time.monotonic() - began
    folder.write("summary.json", found)
    print(f"\n{_verdict(preset, found)}\n")
    print(f"{found['wall_seconds']:.0f} s; results, figures and executed notebooks: {folder.path}")
    return 0


def _question(notebook: Path) -> str:
    """The title of a notebook: one sentence that says what it is about."""
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

    from fusedff.runtime import storage

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


def _require_platform() -> None:
    """Raise ValueError if JAX_PLATFORMS names what is not there: inside a notebook it would be a traceback."""
    import jax
    from jax.extend.backend import clear_backends

    wanted = os.environ.get("JAX_PLATFORMS")
    if wanted in (None, "", "cpu"):
        return
    before = os.environ.get(_PREALLOCATE)
    os.environ[_PREALLOCATE] = "false"  # the kernels will want the memory
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise ValueError(
            f"JAX_PLATFORMS={wanted}, but jax finds no such device here{why}; unset it to use what there is"
        ) from None
    finally:
        clear_backends()
        del os.environ[_PREALLOCATE]
        if before is not None:
            os.environ[_PREALLOCATE] = before


_PREALLOCATE = "XLA_PYTHON_CLIENT_PREALLOCATE"
