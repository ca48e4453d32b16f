"""Run the notebooks as papermill does, with the `smoke` preset, and read the records that they leave."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.manager import KernelManager

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = {path.stem[:2]: path for path in sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))}
SOLUTIONS = {path.stem[:2]: path for path in sorted((FOLDER / "solutions").glob("[0-9][0-9]_*.ipynb"))}


class Optimizing(AsyncKernelManager):
    """Starts kernels in which XLA optimizes, like `OPTIMIZED = True` in a test file."""

    async def start_kernel(self, **options):
        await super().start_kernel(env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}, **options)


ALONE = {
    "01": AsyncKernelManager,  # it sets jax to double precision
    "04": Optimizing,  # long dynamics, which takes more time than compilation
}
FORGET = "jax.clear_caches()"  # where the long dynamics is over
PLAIN = 'jax.config.update("jax_disable_most_optimizations", True)'


@contextmanager
def kernels():
    """A function that gives `execute` a kernel which other notebooks have used and have left.

    Every notebook begins without variables, but what it imports, traces and compiles like another is there already.
    That notebooks need nothing that another has left is seen where each has a kernel of its own, in `fusedff run` and
    `docs/book.py`, and by `ruff check`, which finds names that are not defined.
    """
    running, idle = [], []

    def connected():
        try:
            kernel = idle.pop()
        except IndexError:
            kernel = KernelManager(kernel_name="python3")
            kernel.start_kernel(cwd=str(FOLDER))
            running.append(kernel)

        class Connected(AsyncKernelManager):
            has_kernel = True

            def __init__(self, **options):
                super().__init__(owns_kernel=False, **options)
                self.load_connection_info(kernel.get_connection_info())

            def is_alive(self):
                return kernel.is_alive()

            async def shutdown_kernel(self, **_):
                idle.append(kernel)

        return Connected

    try:
        yield connected
    finally:
        for kernel in running:
            kernel.shutdown_kernel(now=True)


def execute(notebook: Path, root: Path, output: Path, kernel: Callable | None = None) -> dict:
    """Run one notebook as a user would, with `root` for its run folder; its metadata afterwards.

    `kernel` is what `kernels` gives; without it the notebook has a kernel of its own.
    """
    output.mkdir(parents=True, exist_ok=True)
    cells = (read := nbformat.read(notebook, as_version=4)).cells
    manager = ALONE.get(notebook.stem[:2])
    if manager is Optimizing:
        for n in [n for n, cell in enumerate(cells) if cell.cell_type == "code" and FORGET in cell.source]:
            cells.insert(n, nbformat.v4.new_code_cell(PLAIN))
    elif manager is None and kernel:
        manager = kernel()
        cells.insert(0, nbformat.v4.new_code_cell("%reset_selective -f .*"))
    done = papermill.execute_notebook(
        read, output / notebook.name, {"PRESET": "smoke", "RUNS": str(root)}, cwd=str(FOLDER),
        kernel_name="python3", progress_bar=False, execution_timeout=600,
        kernel_manager_class=manager or AsyncKernelManager,
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
