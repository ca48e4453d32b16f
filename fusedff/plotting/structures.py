"""Structures and trajectories in a notebook: an interactive widget, or a picture.

The picture is shown on a page without a running kernel, in print, and if nglview is not installed.
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
from fusedff.runtime import progress

# view with z upwards, a little from the side and from above: for ASE, and as axis times angle for nglview
_ANGLES = "15z,-80x"
_TURN = Rotation.from_euler("zx", [15, -80], degrees=True).as_rotvec()
_MAX_PICTURES = 6
LAYERS = ("#0072B2", "#E69F00", "#CC79A7")  # positions A, B and C of a close-packed layer


def view(structures: Atoms | Sequence[Atoms], titles: Sequence[str] | None = None, alt: str | None = None):
    """Show one structure, a trajectory (a list with the same atoms) or several structures (with `titles`).

    A trajectory becomes one widget with a player; its picture shows the first and the last frame. Of structures, the
    first six are shown. A structure whose atoms have different tags, as `tag_layers` sets them, is coloured by
    `LAYERS`, others by element. Raises ValueError for an empty list, and for frames without titles that hold different
    atoms.
    """
    frames = [structures] if isinstance(structures, Atoms) else list(structures)
    if not frames:
        raise ValueError("nothing to show: give an ase.Atoms or a list of them")
    is_trajectory = titles is None and len(frames) > 1
    if is_trajectory:
        display_with_fallback(movie(frames), *first_and_last(frames, alt))
        return
    shown = [_wrapped(frame) for frame in frames[:_MAX_PICTURES]]
    titles = list(titles or [frames[0].get_chemical_formula()])[: len(shown)]
    nglview, widget = _nglview(), None
    if nglview:
        widgets = [_dressed(nglview.show_ase(frame), _layer_colors(frame)) for frame in shown]
        titled = [ipywidgets.VBox([ipywidgets.Label(t), w]) for t, w in zip(titles, widgets, strict=True)]
        widget = ipywidgets.Box(titled, layout={"flex_flow": "row wrap"})
    display_with_fallback(widget, *_with_alt_text(shown, titles, alt))


def tag_layers(unit: Atoms) -> Atoms:
    """Copy of a unit cell in which the tag of each atom is 0, 1 or 2 for position A, B or C of its close-packed layer.

    The first two edges of the cell lie in the layers (120° apart), the third crosses them.
    """
    unit = unit.copy()
    along = unit.get_scaled_positions()[:, 0]
    unit.set_tags(np.round(3 * (along - along[0])).astype(int) % 3)
    return unit


def movie(frames: Sequence[Atoms]):
    """Widget with a player for a trajectory, or None if nglview is not installed.

    Raises ValueError for frames that hold different atoms.
    """
    frames = _together(frames)
    nglview = _nglview()
    return _dressed(nglview.show_asetraj(frames)) if nglview else None


def first_and_last(frames: Sequence[Atoms], alt: str | None = None) -> tuple[Figure, str]:
    """Figure of the first and the last frame of a trajectory, and its alternative text (`alt`, if given)."""
    return _with_alt_text(
        _together([frames[0], frames[-1]]), ["first frame", f"last frame ({len(frames)} in all)"], alt
    )


def display_with_fallback(widget, fig: Figure, alt: str) -> None:
    """Display a widget, and `fig`, with alternative text `alt`, where it does not run. If widget is None, only `fig`.

    In a notebook that is open in Jupyter, both are one output, of which the front end shows what it can; in a recorded
    notebook they are two outputs.
    """
    if widget is not None and progress.in_jupyter():
        display({**_bundle(widget), **style.bundle(fig, alt)}, raw=True)
        return
    if widget is not None:
        show_widget(widget)
    style.show(fig, alt)


def show_widget(widget) -> None:
    """Display any widget; where no kernel runs, a line of text is shown instead."""
    line = "(a widget, which needs a running notebook; what it shows is pictured below)"
    display({**_bundle(widget), "text/plain": line}, raw=True)


def _bundle(widget):
    data = widget._repr_mimebundle_()
    return data[0] if isinstance(data, tuple) else data


def pictures(frames: Sequence[Atoms], titles: Sequence[str]) -> Figure:
    """Figure of structures with their cells, z upwards, one panel each."""
    with style.context():
        fig, axes = plt.subplots(1, len(frames), figsize=(2.9 * len(frames), 3.1), squeeze=False)
        for ax, frame, title in zip(axes[0], frames, titles, strict=True):
            plot_atoms(frame, ax, rotation=_ANGLES, radii=0.45, colors=_layer_colors(frame))
            ax.set_title(title)
            ax.set_axis_off()
    return fig


def describe(frame: Atoms) -> str:
    """Description of a structure for alternative texts: formula, number of atoms, lengths of the cell in Å."""
    lengths = " x ".join(f"{length:.2f}" for length in frame.cell.lengths())
    return f"{frame.get_chemical_formula()}, {len(frame)} atoms in a periodic cell of {lengths} Å"


def _wrapped(frame):
    """Copy of the frame with its atoms in the cell; those outside by less than a twentieth of the cell stay there."""
    frame = frame.copy()
    frame.wrap(eps=0.05)
    return frame


def _layer_colors(frame):
    """Colour of every atom by its tag, or None where all have the same."""
    return [LAYERS[tag] for tag in frame.get_tags()] if np.ptp(frame.get_tags()) else None


def _with_alt_text(frames, titles, alt):
    alt = alt or "; ".join(f"{title}: {describe(f)}" for title, f in zip(titles, frames, strict=True))
    return pictures(frames, titles), alt


def _nglview():
    """The module nglview; if it cannot be imported, print a line and return None."""
    try:
        import nglview
    except Exception as error:  # a broken installation raises more than ImportError
        print(f"nglview cannot be imported ({error}); showing pictures only")
        return None
    return nglview


def _together(frames):
    """Frames shifted so that the first lies in its cell: by the same lattice vectors in all, so that no atom jumps."""
    if any(len(f) != len(frames[0]) or (f.numbers != frames[0].numbers).any() for f in frames):
        raise ValueError("the frames hold different atoms, so they are no trajectory; give titles to show each")
    shift = _wrapped(frames[0]).positions - frames[0].positions
    return [Atoms(f.numbers, f.positions + shift, cell=f.cell, pbc=f.pbc) for f in frames]


def _dressed(widget, colors=None):
    widget.clear_representations()
    if colors is None:
        widget.add_representation("spacefill", radiusType="covalent", radiusScale=0.45)
    for color in sorted(set(colors or ())):
        chosen = [n for n, c in enumerate(colors) if c == color]
        widget.add_representation("spacefill", selection=chosen, color=color, radiusType="covalent", radiusScale=0.45)
    widget.add_unitcell()
    widget.camera = "orthographic"
    widget.layout.width, widget.layout.height = "250px", "260px"
    widget.center()  # takes effect again when the widget is shown: in a box it has no size at first, and stays empty
    angle = float(np.linalg.norm(_TURN))
    widget.control.spin((_TURN / angle).tolist(), angle)
    return widget
