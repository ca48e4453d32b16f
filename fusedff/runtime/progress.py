"""Progress of long computations: a bar in a terminal or an open notebook, plain lines in recorded output."""

import io
import os
import sys
import time
from contextlib import contextmanager

from tqdm import tqdm

from fusedff.runtime import devices

SECONDS_BETWEEN_LINES = 15.0


class Interrupted(KeyboardInterrupt):
    """Keyboard interrupt whose message says what was saved; notebooks show it in place of a traceback."""

    def _render_traceback_(self):  # IPython asks for it
        return [str(self)]


@contextmanager
def bar(name: str | None, total: int, start: int = 0):
    """Show the progress of `total` items, `start` of them done; yields `report(record, advance=1)` to call after items.

    `record` is a dict of numbers to show. Without a name nothing is shown. A terminal and a notebook that is open in
    Jupyter get a bar; output that is recorded, by papermill or in a file, gets lines. In a distributed run, only the
    first process shows anything. A keyboard interrupt is raised again as `Interrupted`.
    """
    if name is None or not devices.is_first_process():
        yield lambda record=None, advance=1: None
        return
    try:
        if sys.stderr.isatty():
            with tqdm(total=total, initial=start, desc=name, dynamic_ncols=True) as shown:

                def draw(record=None, advance=1):
                    shown.set_postfix_str(_text(record), refresh=False)
                    shown.update(advance)

                yield draw
        elif in_jupyter():
            with _InPlace(total=total, initial=start, desc=name, file=io.StringIO(), ascii=False, ncols=90) as shown:
                yield shown.report
        else:
            yield _lines(name, total, start)
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(
            f"{name}: interrupted, and nothing of it is kept. What was finished before is still there: run this again "
            "to do it from its beginning"
        ) from None


def shell():
    """The IPython shell that runs this code, or None. It does not import IPython, which a running shell has done."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def in_jupyter() -> bool:
    """Whether this is a kernel of a notebook that is open in Jupyter, and not one that papermill started."""
    return "JPY_SESSION_NAME" in os.environ and shell() is not None


class _InPlace(tqdm):
    """A bar in the output of a notebook cell, drawn in place of the last one, with the numbers on a second line."""

    monitor_interval = 0  # no monitor thread: its output would appear in whichever cell runs

    def __init__(self, **kwargs):
        from IPython.display import display

        self.numbers, self.output = "", display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(**kwargs)

    def report(self, record=None, advance=1):
        self.numbers = _text(record)
        self.update(advance)

    def display(self, msg=None, pos=None):
        self.output.update({"text/plain": f"{self}\n{self.numbers}".rstrip()}, raw=True)


def _lines(name, total, start):
    began = printed = time.monotonic()
    done = start
    print(f"{name}: {done}/{total}", flush=True)  # now, since the first item may take a while to compile

    def report(record=None, advance=1):
        nonlocal done, printed
        done, now = done + advance, time.monotonic()
        if done == total or now - printed > SECONDS_BETWEEN_LINES:
            left = (now - began) / (done - start) * (total - done)
            print(
                ", ".join([f"{name}: {done}/{total}", f"{left:.0f} s left"] + [_text(record)] * bool(record)),
                flush=True,
            )
            printed = now

    return report


def _text(record) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in (record or {}).items())
