"""Grids of panels, and the title and notes around them."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.legend import Legend

from lmshape.figures.style import FAINT, INK

MOST_TOGETHER = 8  # lines that are told apart in a panel; panels of more models are drawn smaller
CROWDED_SIZE = (2.2, 1.75)  # inches of a panel where there are many
CROWDED_COLUMNS = 6
CHARACTERS_PER_INCH = 16.5  # of the notes
TITLE_CHARACTERS_PER_INCH = 9.5
LEAST_WIDTH = 7.0  # inches; the title of a single panel needs them
VARIANT_NAMES = {
    "all": "all rows",
    "no_sink": "without sink rows (position 0, huge norms)",
    "one_per_type": "one row of each token id",
}
SHORT_VARIANT_NAMES = VARIANT_NAMES | {"no_sink": "without sinks"}

Panels = dict[tuple[str, str], Axes]  # by name, mostly of a model, and variant


def crowded(models: Sequence[str]) -> bool:
    """Whether there are too many models for one panel, or for panels of full size."""
    return len(models) > MOST_TOGETHER


def small_multiples(
    models: Sequence[str], variants: Sequence[str], *, size: tuple[float, float], same_scale: bool = True
) -> tuple[Figure, Panels]:
    """Lay out a panel for every model and variant, as `panel_grid`; small ones, six a row, where there are many."""
    if not crowded(models):
        return panel_grid(models, variants, size=size, same_scale=same_scale)
    return panel_grid(models, variants, size=CROWDED_SIZE, columns=CROWDED_COLUMNS, same_scale=same_scale)


def panel_grid(
    names: Sequence[str],
    variants: Sequence[str],
    *,
    size: tuple[float, float],
    columns: int = 4,
    same_scale: bool = True,
) -> tuple[Figure, Panels]:
    """Lay out a panel for every name and variant: variants under one another, names side by side, wrapped.

    All panels have the same scale of y, or each its own.

    Returns
    -------
    The figure and its axes by (name, variant).
    """
    columns = min(columns, len(names))
    width = max(size[0] * columns, LEAST_WIDTH)
    bands = -(-len(names) // columns)
    figure = Figure(figsize=(width, size[1] * bands * len(variants)))
    grid = figure.subplots(bands * len(variants), columns, squeeze=False, sharey=same_scale)
    panels = {}
    for i in range(bands * columns):
        for j, variant in enumerate(variants):
            ax = grid[(i // columns) * len(variants) + j, i % columns]
            if i < len(names):
                panels[names[i], variant] = ax
            else:
                ax.remove()
    return figure, panels


def share_values(panels: Panels) -> None:
    """Give all panels of a name the scale of y of its first."""
    first: dict[str, Axes] = {}
    for (name, _), ax in panels.items():
        if first.setdefault(name, ax) is not ax:
            ax.sharey(first[name])


def each_panel(panels: Panels, data: pd.DataFrame) -> Iterator[tuple[Axes, pd.DataFrame, pd.DataFrame]]:
    """Write the title of each panel of a model and choice of rows; yield it, its data and all data of the model."""
    for (model, rows), ax in panels.items():
        of_model = data[data["model"] == model]
        ax.set_title(panel_title(model, rows))
        yield ax, of_model[of_model["rows"] == rows], of_model


def panel_title(name: str, rows: str) -> str:
    """Name a panel: the model, and under it which rows."""
    return f"{name}\n{SHORT_VARIANT_NAMES.get(rows, rows)}"


def place_of(ax: Axes) -> SubplotSpec:
    """Return the place of a panel in its grid."""
    place = ax.get_subplotspec()
    assert place is not None, "every panel stands in a grid"
    return place


def label_outer_panels(panels: Iterable[Axes], *, y: bool = True) -> None:
    """Keep the name of x under the lowest panel of each column alone, and that of y, if any, left of the first."""
    places = {ax: place_of(ax) for ax in panels}
    lowest: dict[int, int] = {}
    for place in places.values():
        lowest[place.colspan.start] = max(lowest.get(place.colspan.start, 0), place.rowspan.stop)
    for ax, place in places.items():
        if place.rowspan.stop != lowest[place.colspan.start]:
            ax.set_xlabel("")
        if not y or not place.is_first_col():
            ax.set_ylabel("")


def label_values(figure: Figure, label: str) -> None:
    """Name the values of all panels at the left of the figure."""
    figure.supylabel(label, fontsize=8.5, color=INK)


def finish(figure: Figure, *, title: str, notes: Sequence[str]) -> None:
    """Put the title above, beside the legend, and the notes below, both wrapped to the figure's width."""
    width = figure.get_figwidth()
    beside = max((_inches_wide(figure, legend) for legend in figure.legends), default=0.0)
    text = textwrap.fill(plain(title), max(int((width - beside) * TITLE_CHARACTERS_PER_INCH), 20))
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    text = textwrap.fill(plain(" ".join(note for note in notes if note)), int(width * CHARACTERS_PER_INCH))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=FAINT, linespacing=1.4)


def plain(text: str) -> str:
    """Let no dollar sign begin a formula: tokens and names of checkpoints may hold any character.

    What no font draws takes no place either: control characters, and those that turn the direction of writing.
    """
    kept = (
        letter for letter in text if letter == "\n" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
    )
    return "".join(kept).replace("$", r"\$")


def _inches_wide(figure: Figure, legend: Legend) -> float:
    return legend.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width / figure.dpi


def empty_figure(*, title: str, note: str) -> Figure:
    """Say in a figure why there is nothing to draw."""
    figure = Figure(figsize=(7.5, 2.2))
    nothing_here(figure.subplots(), note)
    finish(figure, title=title, notes=[])
    return figure


def nothing_here(ax: Axes, note: str) -> None:
    """Say in a panel why it is empty."""
    ax.set_axis_off()
    _write_in_the_middle(ax, note)


def note_without_numbers(ax: Axes, frame: pd.DataFrame) -> None:
    """Say in a panel with axes that none of its values is a number."""
    if frame["value"].notna().any():
        return
    _write_in_the_middle(ax, "every value is flagged: nothing to draw")
    together = ax.get_shared_y_axes().get_siblings(ax)
    if ax.get_yscale() == "log" and all(one.dataLim.minposy == float("inf") for one in together):
        ax.set_ylim(1, 10)  # a logarithmic axis without a number cannot be drawn


def _write_in_the_middle(ax: Axes, note: str) -> None:
    ax.text(0.5, 0.5, textwrap.fill(note, 48), transform=ax.transAxes, ha="center", va="center", color=FAINT)
