"""Worker process that times one side: it reads requests from stdin, a line of JSON each, and answers on stdout.

It is idle while another side runs. Start it with `python -m benchmarks.worker SIDE`, where SIDE is fusedff, or tight or
example for chemtrain; only what that side needs is imported.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from benchmarks import case, memory


class Worker:
    """The prepared quantity; the methods are the requests."""

    def __init__(self, side: str):
        self.side, self.work = side, None

    def answers(self, path: str) -> dict:
        """Energy and forces of the first snapshot, for comparison with the other side."""
        side, arguments = self._arguments(path)
        return {name: np.asarray(value).tolist() for name, value in side.answers(*arguments).items()}

    def prepare(self, path: str, quantity: str) -> float:
        """Prepare a quantity; returns the seconds of the first call: tracing, compiling and one execution."""
        import jax

        self.work = None
        jax.config.update("jax_enable_compilation_cache", False)
        jax.clear_caches()
        gc.collect()
        side, arguments = self._arguments(path)
        self.work = side.QUANTITIES[quantity](*arguments)
        return self._call() * self.work.units

    def measure(self, calls: int) -> list[float]:
        """Seconds per unit of work of each of `calls` calls."""
        return [self._call() for _ in range(calls)]

    def memory(self) -> float:
        """Peak memory (MiB) of one call beyond what the process holds before."""
        return memory.peak(self._call)

    def _call(self):
        import jax

        start = time.perf_counter()
        jax.block_until_ready(self.work.run())
        return (time.perf_counter() - start) / self.work.units

    def _arguments(self, path):
        problem = case.read(Path(path))
        if self.side == "fusedff":
            from benchmarks import fusedff_side

            return fusedff_side, (problem,)
        from benchmarks import chemtrain_side

        return chemtrain_side, (chemtrain_side.Chemtrain(problem, self.side), problem)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    # an allocation that is too large should fail instead of exhausting the machine
    most = int(0.85 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    if sys.argv[1] == "fusedff":
        import fusedff  # chemtrain's environment has none

        fusedff.setup()
    worker = Worker(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": getattr(worker, request.pop("do"))(**request)}
        except Exception as error:  # any error is reported to the parent process
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
