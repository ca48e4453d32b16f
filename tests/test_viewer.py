"""The viewer of structures: a widget if it is available, and always a picture with alternative text."""

import builtins
from unittest.mock import MagicMock

import matplotlib

matplotlib.use("agg")
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from matplotlib.colors import to_hex

from fusedff.crystallography import crystals
from fusedff.plotting import structures, style


@pytest.fixture
def shown(monkeypatch):
    """What `view` displays: widgets, and alternative texts of pictures."""
    found = {"widgets": [], "alts": []}
    monkeypatch.setattr(structures, "show_widget", found["widgets"].append)
    monkeypatch.setattr(style, "show", lambda fig, alt: found["alts"].append((len(fig.axes), alt)))
    return found


@pytest.fixture
def crystal():
    return bulk("Ti", "hcp", a=2.95, c=4.68) * (2, 2, 2)


def test_a_structure_comes_as_widget_and_picture(shown, crystal):
    structures.view(crystal)
    ((_, widget),) = [part.children for part in shown["widgets"][0].children]
    assert type(widget).__name__ == "NGLWidget"
    assert shown["alts"] == [(1, "Ti16: Ti16, 16 atoms in a periodic cell of 5.90 x 5.90 x 9.36 Å")]


def test_a_trajectory_is_one_widget_and_two_pictures(shown, crystal):
    structures.view([crystal] * 5)
    (widget,) = shown["widgets"]
    assert widget.max_frame == 4
    ((panels, alt),) = shown["alts"]
    assert panels == 2
    assert "last frame (5 in all)" in alt


def test_several_structures_have_a_widget_and_a_title_each(shown, crystal):
    structures.view([crystal, bulk("Ti", "bcc", a=3.3)], titles=["hcp", "bcc"])
    (box,) = shown["widgets"]
    assert [label.value for label, _ in (part.children for part in box.children)] == ["hcp", "bcc"]
    assert shown["alts"][0][1].startswith("hcp: ")


def test_atoms_of_a_trajectory_do_not_jump_across_the_cell(crystal):
    frames = []
    for shift in np.linspace(-2, 2, 9):
        frame = crystal.copy()
        frame.positions += [0, 0, shift]
        frames.append(frame)
    steps = np.diff([frame.positions for frame in structures._together(frames)], axis=0)
    np.testing.assert_allclose(steps[..., 2], 0.5)


def test_frames_with_different_atoms_are_no_trajectory(crystal):
    with pytest.raises(ValueError, match="no trajectory; give titles"):
        structures.view([crystal, crystal[:-1]])


def test_a_page_without_a_kernel_shows_a_sentence_where_the_widget_was(crystal, monkeypatch):
    displayed = []
    monkeypatch.setattr(structures, "display", lambda data, raw: displayed.append(data))
    structures.show_widget(structures.movie([crystal] * 2))
    (data,) = displayed
    assert "application/vnd.jupyter.widget-view+json" in data
    assert "needs a running notebook" in data["text/plain"]


def test_an_open_notebook_shows_the_widget_or_the_picture_and_not_both(crystal, monkeypatch):
    displayed = []
    monkeypatch.setattr(structures, "display", lambda data, raw: displayed.append(data))
    monkeypatch.setattr(structures.progress, "in_jupyter", lambda: True)
    structures.view(crystal)
    (data,) = displayed
    assert {"application/vnd.jupyter.widget-view+json", "image/png", "text/html"} <= set(data)
    assert data["text/plain"].startswith("Ti16: ")


def hexagonal(heights):
    """A close-packed crystal with one atom per layer at the positions A, B, C given as 0, 1, 2."""
    sites = [((0, 0), (1 / 3, 2 / 3), (2 / 3, 1 / 3))[at] + (k / len(heights),) for k, at in enumerate(heights)]
    return Atoms(f"Ti{len(sites)}", scaled_positions=sites, cell=[2.9, 2.9, 2.3 * len(sites), 90, 90, 120], pbc=True)


@pytest.mark.parametrize("heights", [(0, 1), (0, 1, 2), (0, 2, 1), (0, 1, 0, 2)])
def test_atoms_are_coloured_by_the_position_of_their_layer(heights):
    unit = structures.tag_layers(hexagonal(heights))
    assert unit.get_tags().tolist() == list(heights)
    many = unit * (2, 2, 2)
    assert structures._layer_colors(many) == [structures.LAYERS[at] for at in heights] * 8
    figure = structures.pictures([many], ["x"])
    drawn = {to_hex(patch.get_facecolor()).upper() for patch in figure.axes[0].patches if hasattr(patch, "radius")}
    assert drawn == {structures.LAYERS[at] for at in heights}


def test_the_widget_draws_each_layer_of_hcp_in_its_colour():
    class Widget(MagicMock):
        def add_representation(self, kind, **parameters):
            spheres.append(parameters)

    spheres, unit = [], structures.tag_layers(crystals.unit_cell(crystals.Crystal("Ti", "hcp", 2.95, 4.68)))
    structures._dressed(Widget(), structures._layer_colors(unit * (2, 2, 2)))
    assert {one["color"] for one in spheres} < set(structures.LAYERS)
    assert sorted(len(one["selection"]) for one in spheres) == [8, 8]
    assert sorted(n for one in spheres for n in one["selection"]) == list(range(16))


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="nothing to show"):
        structures.view([])


def test_without_nglview_the_picture_remains(shown, crystal, monkeypatch, capsys):
    def refuse(name, *arguments, original=builtins.__import__):
        if name == "nglview":
            raise ImportError("No module named 'nglview'")
        return original(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    structures.view(crystal)
    assert shown["widgets"] == []
    assert len(shown["alts"]) == 1
    assert capsys.readouterr().out == "nglview cannot be imported (No module named 'nglview'); showing pictures only\n"
