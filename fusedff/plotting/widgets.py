"""Interactive figures: a slider through a trajectory, and figures that are updated during a training.

Each leaves a static picture behind, for pages without a running kernel.
"""

import time
from collections.abc import Sequence
from contextlib import contextmanager

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from IPython.display import display

from fusedff.crystallography.elastic_symmetry import VOIGT_NAMES
from fusedff.plotting import structures, style, trajectories
from fusedff.plotting import training as training_plots
from fusedff.runtime import progress

_IDLE = 10  # time between two drawings of a figure over the time that drawing it takes


def trajectory_slider(frames: Sequence[Atoms], clock: Sequence[float], stress_gpa: np.ndarray) -> None:
    """Show a trajectory with a slider, and the stress (n_frames, 6) in GPa of its frames against `clock` in ps.

    Stress is in Voigt order, positive in tension. Without a running kernel, pictures show the first and the last frame
    and the stress. Raises ValueError unless there are equally many frames, times and stresses, at least two.
    """
    stress_gpa = np.asarray(stress_gpa)
    if not len(frames) == len(clock) == len(stress_gpa) > 1:
        raise ValueError(
            f"{len(frames)} frames, {len(clock)} times and {len(stress_gpa)} stresses; give as many of each"
        )
    trace, mark = trajectories.stress_trace(clock, stress_gpa)
    plt.close(trace)  # `draw` below renders it itself
    atoms, shown = structures.movie(frames), None
    if atoms is not None:
        picture = ipywidgets.Image(format="png", layout={"width": "560px", "max_width": "60%", "object_fit": "contain"})
        slider = ipywidgets.IntSlider(0, 0, len(frames) - 1, description="frame", layout={"width": "98%"})

        def draw(_=None):
            mark(slider.value)
            picture.value = style.png(trace, dpi=100)

        draw()
        slider.observe(draw, "value")
        ipywidgets.link((slider, "value"), (atoms, "frame"))  # the player in the widget moves the slider, too
        atoms.layout.width = "340px"
        side_by_side = ipywidgets.HBox([atoms, picture], layout={"align_items": "center"})
        shown = ipywidgets.VBox([side_by_side, slider])
    spread = ", ".join(f"{name} {s:.2f}" for name, s in zip(VOIGT_NAMES, stress_gpa.std(0), strict=True))
    structures.display_with_fallback(shown, *structures.first_and_last(frames))
    if shown is not None and progress.in_jupyter():
        return  # the widget holds the stress as well
    trace, _ = trajectories.stress_trace(clock, stress_gpa)
    style.show(
        trace,
        f"The six components of the stress of one crystal of {len(frames[0])} atoms against time, over {len(frames)} "
        f"frames. They fluctuate around their means with standard deviations of {spread} GPa.",
    )


def convergence(points, updates: int, step: str = "update"):
    """Context that yields an `on_epoch` for trainings on experiments: it updates `plotting.training.convergence`.

    `points` are the measured state points, `updates` the number of updates in all, `step` what one of them is called.
    """
    return _redrawn(
        lambda history: (
            training_plots.convergence(history, points, updates, step),
            _convergence_alt_text(history, updates),
        )
    )


def training(keys: Sequence[str], epochs: int, title: str = ""):
    """Context that yields an `on_epoch` for any training: it updates `plotting.training.curves` of these keys."""
    return _redrawn(
        lambda history: (training_plots.curves(history, keys, title), _training_alt_text(history, keys, epochs))
    )


@contextmanager
def _redrawn(draw_and_tell):
    """Yield `draw(history)`, which replaces the shown figure by the one that `draw_and_tell(history)` returns.

    `draw_and_tell` returns a figure and its alternative text. Drawing takes at most a tenth of the time; at the end,
    also after an interruption, the last state is drawn.
    """
    shown, drawn, ready, latest = None, 0, 0.0, []

    def draw(history, always=False):
        nonlocal shown, drawn, ready, latest
        latest = history
        began = time.monotonic()
        if len(history) == drawn or (began < ready and not always):
            return
        figure = style.bundle(*draw_and_tell(history))
        if shown is None:
            shown = display(figure, raw=True, display_id=True)
        else:
            shown.update(figure, raw=True)
        drawn, ready = len(history), time.monotonic() + _IDLE * (time.monotonic() - began)

    try:
        yield draw
    finally:
        draw(latest, always=True)


def _convergence_alt_text(history, updates):
    first, last = history[0], history[-1]
    moved = ", ".join(f"{key} from {first[key]:.1f} to {last[key]:.1f}" for key in last if "@" in key)
    return (
        f"Elastic constants and pressure in GPa at each temperature during {len(history)} of {updates} updates, with "
        f"the measured values as dashed lines: {moved}. The experiment's loss goes from {first['loss']:.4g} to "
        f"{last['loss']:.4g}."
    )


def _training_alt_text(history, keys, epochs):
    first, last = history[0], history[-1]
    moved = ", ".join(f"{key} from {first[key]:.4g} to {last[key]:.4g}" for key in keys)
    return f"Logarithmic, against the epoch, for {len(history)} of {epochs} epochs: {moved}."
