"""Execution of notebooks with papermill and the `smoke` preset, for tests."""

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
    """Kernel manager whose kernels have XLA's optimizations, like test files with `OPTIMIZED = True`."""

    async def start_kernel(self, **options):
        await super().start_kernel(env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}, **options)


ALONE = {
    "01": AsyncKernelManager,  # it sets jax to double precision
    "04": Optimizing,  # long dynamics, which takes more time than compilation
}
FORGET = "jax.clear_caches()"  # code of the cell after the long dynamics
PLAIN = 'jax.config.update("jax_disable_most_optimizations", True)'


@contextmanager
def kernels():
    """Context that yields a function, which returns a manager of a kernel that is shared with other notebooks.

    Every notebook begins without variables, but reuses what others have imported and compiled. Tests with a kernel per
    notebook (`fusedff run`, `docs/book.py`), and `ruff check`, which finds undefined names, show that notebooks do not
    depend on this.
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
    """Execute one notebook with the run folder `root`, write it to `output`, and return papermill's metadata.

    `kernel` is the function of `kernels`; without it the notebook has a kernel of its own.
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
    """Call `run(number)` for all `numbers`, each after those that it `needs`, two at a time if there are two cores.

    A waiting call occupies a thread, so `numbers` should begin with the longest chain.
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
    """All numbers in nested dicts and lists."""
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        return [x for item in data for x in numbers(item)]
    return [data] if isinstance(data, int | float) and not isinstance(data, bool) else []
