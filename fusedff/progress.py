"""Progress of long work: a bar where somebody watches, plain lines where output is recorded."""

import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from fusedff import devices

SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def bar(name: str | None, total: int, start: int = 0):
    """Yield `report(record, advance=1)`, to be called as items get done with the numbers worth showing.

    Without a name nothing is shown. A terminal gets a bar; a notebook records its output, so it gets lines.
    Of several processes, only the first shows anything.
    """
    if name is None or not devices.first():
        yield lambda record=None, advance=1: None
    elif sys.stderr.isatty():
        with tqdm(total=total, initial=start, desc=name, dynamic_ncols=True) as shown:

            def draw(record=None, advance=1):
                shown.set_postfix_str(_text(record), refresh=False)
                shown.update(advance)

            yield draw
    else:
        yield _lines(name, total, start)


def _lines(name, total, start):
    began = printed = time.monotonic()
    done = start

    def report(record=None, advance=1):
        nonlocal done, printed
        first, done, now = done == start, done + advance, time.monotonic()
        if first or done == total or now - printed > SECONDS_BETWEEN_LINES:
            left = (now - began) / (done - start) * (total - done)
            print(
                ", ".join([f"{name}: {done}/{total}", f"{left:.0f} s left"] + [_text(record)] * bool(record)),
                flush=True,
            )
            printed = now

    return report


def _text(record) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in (record or {}).items())
