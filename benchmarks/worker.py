"""A long-lived process that times one side: JSON lines come in on stdin, one answer each goes out on stdout.

It is idle while another side runs. Start it with `python -m benchmarks.worker SIDE`, SIDE being fusedff, or tight or
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
    """The quantity in preparation and what can be asked of it."""

    def __init__(self, side: str):
        self.side, self.work = side, None

    def answers(self, path: str) -> dict:
        """What the side computes for the first snapshot."""
        side, arguments = self._arguments(path)
        return {name: np.asarray(value).tolist() for name, value in side.answers(*arguments).items()}

    def prepare(self, path: str, quantity: str) -> float:
        """Seconds of the first call: tracing, compiling and one execution."""
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
        """MiB that one call needs beyond what the process holds before it."""
        return memory.peak(self._call)

    def _call(self):
        import jax

        start = time.perf_counter()
        jax.block_until_ready(self.work.run())
        return (time.perf_counter() - start) / self.work.units

    def _arguments(self, path):
        problem = case.read(Path(path))
        if self.side == "fusedff":
            from benchmarks import ours

            return ours, (problem,)
        from benchmarks import peer

        return peer, (peer.Chemtrain(problem, self.side), problem)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print; what they print must not mix with the answers
    # an allocation that cannot be met should fail here and not take the machine down
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
        except Exception as error:  # the other side must hear of it, whatever it was
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
