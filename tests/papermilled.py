"""Run the notebooks as papermill does, with the `smoke` preset, and read the records that they leave."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}
SOLUTIONS = {path.stem[:2]: path for path in sorted((FOLDER / "solutions").glob("[0-9][0-9]_*.ipynb"))}

LONG_DYNAMICS = ("04",)  # which takes more time than compilation


class Optimizing(AsyncKernelManager):
    """Starts kernels in which XLA optimizes, like `OPTIMIZED = True` in a test file."""

    async def start_kernel(self, **options):
        await super().start_kernel(env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}, **options)


def execute(notebook: Path, root: Path, output: Path) -> dict:
    """Run one notebook as a user would, with `root` for its run folder; its metadata afterwards."""
    output.mkdir(parents=True, exist_ok=True)
    optimizing = {"kernel_manager_class": Optimizing} if notebook.stem[:2] in LONG_DYNAMICS else {}
    done = papermill.execute_notebook(
        notebook, output / notebook.name, {"PRESET": "smoke", "RUNS": str(root)}, cwd=str(FOLDER),
        kernel_name="python3", progress_bar=False, execution_timeout=600,
        **optimizing,
    )  # fmt: skip
    return done.metadata["papermill"]


def execute_all(numbers, run, needs) -> None:
    """`run(number)` for all, each after those that it `needs`; two at a time, or one where this process has one core.

    One that waits holds a thread, so the longest chain comes first; what needs nothing fills the gaps.
    """
    running = {}

    def after_its_needs(number):
        for needed in needs.get(number, ()):
            running[needed].result()
        run(number)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(min(2, cores)) as pool:
        for number in numbers:
            running[number] = pool.submit(after_its_needs, number)
    for future in running.values():
        future.result()


def numbers(data) -> list:
    """Every number in nested plain data."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        return [x for item in data for x in numbers(item)]
    return [data] if isinstance(data, int | float) and not isinstance(data, bool) else []
