"""Structures and trajectories in a notebook: a widget to turn, and always a static picture beside it.

The picture is what remains in a page without a running kernel, on paper, and where nglview is not installed.
"""

from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from IPython.display import display
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from fusedff.plotting import style

# z upwards, seen a little from the side and from above: for ASE, and as an axis times an angle for nglview
_ANGLES = "15z,-80x"
_TURN = Rotation.from_euler("zx", [15, -80], degrees=True).as_rotvec()
_MOST_PICTURES = 6


def view(structures: Atoms | Sequence[Atoms], titles: Sequence[str] | None = None, alt: str | None = None):
    """Show one structure, a trajectory (a list with the same atoms) or several structures (with `titles`).

    A trajectory becomes one widget with a player, and the pictures of its first and last frame.
    """
    frames = [structures] if isinstance(structures, Atoms) else list(structures)
    if not frames:
        raise ValueError("nothing to show: give an ase.Atoms or a list of them")
    is_trajectory = titles is None and len(frames) > 1
    if is_trajectory:
        widget = movie(frames)
        if widget is not None:
            show_widget(widget)
        still(frames, alt)
        return
    shown = [_wrapped(frame) for frame in frames[:_MOST_PICTURES]]
    titles = list(titles or [frames[0].get_chemical_formula()])[: len(shown)]
    nglview = _nglview()
    if nglview:
        widgets = [_dressed(nglview.show_ase(frame)) for frame in shown]
        titled = [ipywidgets.VBox([ipywidgets.Label(t), w]) for t, w in zip(titles, widgets, strict=True)]
        show_widget(ipywidgets.Box(titled, layout={"flex_flow": "row wrap"}))
    _show_pictures(shown, titles, alt)


def movie(frames: Sequence[Atoms]):
    """A widget with a player for a trajectory, or None where nglview is not installed."""
    frames = _together(frames)
    nglview = _nglview()
    return _dressed(nglview.show_asetraj(frames)) if nglview else None


def still(frames: Sequence[Atoms], alt: str | None = None) -> None:
    """The pictures of the first and the last frame of a trajectory."""
    _show_pictures(_together([frames[0], frames[-1]]), ["first frame", f"last frame ({len(frames)} in all)"], alt)


def show_widget(widget) -> None:
    """Display any widget; where no kernel runs, one line in its place, and not the name of its class."""
    data = widget._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    display(
        {**data, "text/plain": "(a widget, which needs a running notebook; what it shows is pictured below)"}, raw=True
    )


def pictures(frames: Sequence[Atoms], titles: Sequence[str]) -> Figure:
    """The structures drawn with their cells, z upwards."""
    with style.context():
        fig, axes = plt.subplots(1, len(frames), figsize=(2.9 * len(frames), 3.1), squeeze=False)
        for ax, frame, title in zip(axes[0], frames, titles, strict=True):
            plot_atoms(frame, ax, rotation=_ANGLES, radii=0.45)
            ax.set_title(title)
            ax.set_axis_off()
    return fig


def describe(frame: Atoms) -> str:
    """A structure in words, for alternative texts."""
    lengths = " x ".join(f"{length:.2f}" for length in frame.cell.lengths())
    return f"{frame.get_chemical_formula()}, {len(frame)} atoms in a periodic cell of {lengths} Å"


def _wrapped(frame):
    """The frame inside its cell; what sticks out by less than a twentieth of it stays where it is."""
    frame = frame.copy()
    frame.wrap(eps=0.05)
    return frame


def _show_pictures(frames, titles, alt):
    alt = alt or "; ".join(f"{title}: {describe(f)}" for title, f in zip(titles, frames, strict=True))
    style.show(pictures(frames, titles), alt)


def _nglview():
    """nglview, or None with one line that says so."""
    try:
        import nglview
    except Exception as error:  # a broken installation raises more than ImportError
        print(f"nglview cannot be imported ({error}); showing pictures only")
        return None
    return nglview


def _together(frames):
    """Frames moved by whole lattice vectors, the same for all of them, so that atoms do not jump across the cell."""
    if any(len(f) != len(frames[0]) or (f.numbers != frames[0].numbers).any() for f in frames):
        raise ValueError("the frames hold different atoms, so they are no trajectory; give titles to show each")
    shift = _wrapped(frames[0]).positions - frames[0].positions
    return [Atoms(f.numbers, f.positions + shift, cell=f.cell, pbc=f.pbc) for f in frames]


def _dressed(widget):
    widget.clear_representations()
    widget.add_representation("spacefill", radiusType="covalent", radiusScale=0.45)
    widget.add_unitcell()
    widget.camera = "orthographic"
    widget.layout.width, widget.layout.height = "250px", "260px"
    widget.center()  # once more when it is shown: within a box it began with no size, and would stay empty
    angle = float(np.linalg.norm(_TURN))
    widget.control.spin((_TURN / angle).tolist(), angle)
    return widget
