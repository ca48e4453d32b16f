"""Style of all figures: one matplotlib style, one colour and marker per model; showing and saving.

The style is applied inside each function only; importing this module does not change matplotlib's settings. Functions
that draw return a matplotlib Figure: pass it to `show` with a sentence for readers who cannot see it.
"""

import base64
import html
import io
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fusedff.results import title_of
from fusedff.runtime import progress, storage

STYLE = Path(__file__).with_name("fusedff.mplstyle")

# Colours of Okabe & Ito; a model has the same colour and marker in every figure.
COLORS = {"dft": "#0072B2", "experiment": "#E69F00", "fused": "#009E73", "measured": "#000000"}
MARKERS = {"dft": "s", "experiment": "^", "fused": "o", "measured": "D"}
REFERENCE = {
    kind: {"marker": "D", "color": COLORS["measured"], "mfc": fill}
    for kind, fill in (("experiment", COLORS["measured"]), ("DFT", "white"))
}
STRUCTURES = {
    "hcp": "#0072B2",
    "bcc": "#D55E00",
    "fcc": "#009E73",
    "omega": "#CC79A7",
    "disordered": "#777777",
}
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
EXTRA_COLORS = ("#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
FAINT = "#8a8a8a"


def context():
    """Context manager that applies the style of these figures: `with style.context(): ...`."""
    return plt.style.context(STYLE)


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook as an image with alternative text, and close it; in a script, print the text.

    JupyterLab drops the alternative text of a plain PNG, so the output is an HTML image; it also holds the PNG for
    front ends that show no HTML, and the text for those that show neither.
    """
    data = bundle(fig, alt)
    alt = data["text/plain"]
    if progress.shell() is None:  # a plain script, which cannot show a picture
        print(alt)
        return
    from IPython.display import display

    display(data, raw=True)


def bundle(fig: Figure, alt: str) -> dict[str, str]:
    """Output that `show` displays, by MIME type; closes the figure."""
    alt = f"{alt} ({_watermark})" if _watermark else alt
    width = int(100 * fig.get_figwidth())
    encoded = base64.b64encode(png(fig)).decode()
    plt.close(fig)
    image = (
        f'<img src="data:image/png;base64,{encoded}" alt="{html.escape(alt, quote=True)}" '
        f'style="width:{width}px; max-width:100%; background:white">'
    )
    return {"text/html": image, "image/png": encoded, "text/plain": alt}


_watermark: str | None = None


def watermark(text: str | None) -> None:
    """Write `text` across every figure shown or saved from now on, and into its alternative text; None ends that."""
    global _watermark
    _watermark = text


@contextmanager
def watermarked(text: str | None):
    """Context in which figures have a `watermark`."""
    before = _watermark
    watermark(text)
    try:
        yield
    finally:
        watermark(before)


def png(fig: Figure, dpi: int = 150) -> bytes:
    """A figure as the content of a PNG file."""
    buffer = io.BytesIO()
    if _watermark is None:
        fig.savefig(buffer, format="png", dpi=dpi)
        return buffer.getvalue()
    mark = fig.text(
        0.5, 0.5, _watermark.replace("; ", "\n"), rotation=15, ha="center", va="center", fontsize=14, color="#D55E00",
        alpha=0.35, zorder=100,
    )  # fmt: skip
    fig.savefig(buffer, format="png", dpi=dpi)
    mark.remove()  # the figure may be drawn again
    return buffer.getvalue()


def save(fig: Figure, path: str | Path, dpi: int = 150) -> None:
    """Write a figure to a PNG file, atomically. Raises OSError if it cannot be written."""
    storage.write_bytes(path, png(fig, dpi))


def color_of(name: str, position: int = 0) -> str:
    """The fixed colour of a model; for any other name, the colour of `EXTRA_COLORS` at `position`."""
    return COLORS.get(name, EXTRA_COLORS[position % len(EXTRA_COLORS)])


def look_of(name: str, position: int = 0) -> dict:
    """Colour and marker of a model, as keyword arguments of `plot` and `errorbar`; `position` as for `color_of`."""
    return {"color": color_of(name, position), "marker": MARKERS.get(name, "o")}


def axes(ax: Axes | None) -> tuple[Figure, Axes]:
    """Figure and axes: the given ones, or a new figure with one panel."""
    if ax is not None:
        return ax.get_figure(root=True), ax  # ty: ignore[invalid-explicit-return]  # axes that are drawn on have one
    return plt.subplots(figsize=(5.6, 3.6))


def panels(n: int, columns: int, size=(3.0, 2.6), **kwargs) -> tuple[Figure, np.ndarray]:
    """Figure and flat array of `n` panels, each of `size` in inches, in rows of `columns`."""
    rows = -(-n // columns)
    fig, grid = plt.subplots(rows, columns, figsize=(size[0] * columns, size[1] * rows), squeeze=False, **kwargs)
    for spare in grid.flat[n:]:
        spare.set_visible(False)
    return fig, grid.flat[:n]


def legend_of(models) -> list[Line2D]:
    """Legend entries of models: markers in their colours; for 'measured', which comes first, with a line."""
    return [
        Line2D([], [], **look_of(m, k - 1), ls="-" if m == "measured" else "", ms=5, lw=1, label=title_of(m))
        for k, m in enumerate(models)
    ]
