"""`python -m fusedff run --preset demo`: execute the numbered notebooks in order and print what they found.

`python -m fusedff release --preset hours`: ship the models of a finished run, and show them in README.md.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from fusedff import presets, release, runs, study

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fusedff", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train and compare the three titanium models")
    releasing = commands.add_parser("release", help="make the models of a finished run those that ship with fusedff")
    for command in (running, releasing):
        command.add_argument("--preset", default="demo", help="smoke, demo, hours, full or paper (default: demo)")
        command.add_argument("--runs", type=Path, default=Path("runs"), help="where results go (default: runs)")
    releasing.add_argument("--into", type=Path, default=runs.SHIPPED, help="the folder they go to")
    releasing.add_argument(
        "--project", type=Path, default=NOTEBOOKS.parent, help="the checkout whose README shows them"
    )
    options = parser.parse_args(arguments)
    try:
        preset = presets.get(options.preset)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        if options.command == "run":
            return execute(preset, options.runs.resolve())
        release.release(runs.folder(preset.name, options.runs), options.into)
        release.show(options.into, options.project)
    except (OSError, ValueError) as error:  # no room, no right to write, nothing or nonsense to read
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def execute(preset: presets.Preset, root: Path) -> int:
    """Run every notebook with this preset into the run folder; 1 if one of them fails, 130 after Ctrl-C."""
    import papermill

    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # of the kernels, see `startup`
    folder = runs.folder(preset.name, root)
    output = folder.path / "notebooks"
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot make {output} ({error.strerror}); name another folder with --runs"
        ) from None
    began = time.monotonic()
    for notebook in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        print(f"--- {notebook.stem} ({time.monotonic() - began:.0f} s)", flush=True)
        parameters = {"PRESET": preset.name, "RUNS": str(root)}
        try:
            papermill.execute_notebook(
                notebook, output / notebook.name, parameters, cwd=str(NOTEBOOKS), progress_bar=False, log_output=True,
                stdout_file=sys.stdout, stderr_file=sys.stderr, extra_arguments=["--log-level=ERROR"],
            )  # fmt: skip
        except papermill.PapermillExecutionError as error:
            print(
                f"{notebook.name} failed: {error.ename}: {error.evalue}\nsee {output / notebook.name}",
                file=sys.stderr,
            )
            return 1
        except KeyboardInterrupt:
            print(f"\ninterrupted in {notebook.name}; the same command goes on from the last epoch", file=sys.stderr)
            return 130
    found = folder.read("summary.json")
    found["wall_seconds"] = time.monotonic() - began
    folder.write("summary.json", found)
    print(f"\n{study.table(found)}\n")
    print(f"{found['wall_seconds']:.0f} s; results, figures and executed notebooks: {folder.path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
