"""Interactive figures: what a slider moves, how often a figure is drawn, and which static picture remains."""

import io

import ipywidgets
import matplotlib

matplotlib.use("agg")
import numpy as np
import pytest
from ase.build import bulk
from PIL import Image

from fusedff.measurements import experiments, state_points
from fusedff.plotting import structures, style, widgets


@pytest.fixture
def frames():
    return [bulk("Ti", "hcp", a=2.95, c=4.68) * (2, 2, 1) for _ in range(5)]


@pytest.fixture
def shown(monkeypatch):
    """The widgets and the alternative texts that `trajectory_slider` displays."""
    found = {"widgets": [], "alts": []}
    monkeypatch.setattr(structures, "show_widget", found["widgets"].append)
    monkeypatch.setattr(style, "show", lambda fig, alt: found["alts"].append(alt))
    return found


def parts(box):
    """All widgets in a box, by type."""
    found = {}
    for child in box.children:
        found |= parts(child) if isinstance(child, ipywidgets.Box) else {type(child).__name__: child}
    return found


def test_the_slider_moves_the_atoms_and_the_marks(shown, frames):
    widgets.trajectory_slider(frames, np.arange(5) / 10, np.random.default_rng(0).normal(size=(5, 6)))
    (box,) = shown["widgets"]
    widget = parts(box)
    before = np.asarray(Image.open(io.BytesIO(widget["Image"].value)))
    widget["IntSlider"].value = 3
    after = np.asarray(Image.open(io.BytesIO(widget["Image"].value)))
    assert widget["NGLWidget"].frame == 3
    assert (before != after).any()
    widget["NGLWidget"].frame = 1
    assert widget["IntSlider"].value == 1


def test_a_still_picture_tells_what_the_slider_would(shown, frames):
    stress = np.zeros((5, 6))
    stress[::2, 2] = 1.0
    widgets.trajectory_slider(frames, np.arange(5) / 10, stress)
    atoms, trace = shown["alts"]
    assert "last frame (5 in all)" in atoms
    assert "zz 0.49" in trace
    assert "xx 0.00" in trace


def test_a_trajectory_needs_a_time_and_a_stress_for_every_frame(frames):
    with pytest.raises(ValueError, match="5 frames, 5 times and 4 stresses"):
        widgets.trajectory_slider(frames, np.arange(5), np.zeros((4, 6)))


class Handle:
    """An output that counts how often it was drawn and keeps the last words."""

    def __init__(self):
        self.texts = []

    def update(self, data, raw):
        self.texts.append(data["text/plain"])


@pytest.fixture
def output(monkeypatch):
    handle = Handle()

    def display(data, raw, display_id):
        handle.update(data, raw)
        return handle

    monkeypatch.setattr(widgets, "display", display)
    return handle


def history(n):
    (point,) = state_points.select(experiments.load_state_points(), temperatures=[323])
    record = {f"{name}@323K": value for name, value in point.elastic_gpa.items()}
    return [{"epoch": k, "loss": 1 / (k + 1), **record, "C11@323K": 100.0 + k} for k in range(n)], [point]


def test_fast_training_is_drawn_seldom_and_its_end_always(output):
    records, points = history(200)
    with widgets.convergence(points, 200) as draw:
        for n in range(1, 201):
            draw(records[:n])
    assert 2 <= len(output.texts) < 20
    assert "during 200 of 200 updates" in output.texts[-1]
    assert "C11@323K from 100.0 to 299.0" in output.texts[-1]


def test_the_errors_of_a_training_are_drawn_and_told(output):
    records = [{"epoch": n, "energy_rmse_meV": 80.0 / (n + 1), "loss": 1.0} for n in range(4)]
    with widgets.training(["energy_rmse_meV"], 9) as draw:
        draw(records[:1])
        draw(records)
    assert output.texts[-1] == "Logarithmic, against the epoch, for 4 of 9 epochs: energy_rmse_meV from 80 to 20."


def test_an_interrupted_training_leaves_its_last_figure(output):
    records, points = history(3)

    def interrupted():
        with widgets.convergence(points, 10) as draw:
            for n in (1, 2, 3):
                draw(records[:n])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert "during 3 of 10 updates" in output.texts[-1]


def test_training_that_never_began_draws_nothing(output):
    with widgets.convergence([], 10):
        pass
    assert output.texts == []
