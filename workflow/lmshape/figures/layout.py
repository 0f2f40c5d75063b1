"""How a figure is laid out: a grid of panels for few models and for many, its title above and its notes below."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lmshape.figures.style import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More lines than this in a panel are not told apart; more panels than this are drawn smaller.
MOST_TOGETHER = 8
CROWDED_SIZE = (2.2, 1.75)  # inches of a panel where there are many
CROWDED_COLUMNS = 6
CHARACTERS_PER_INCH = 16.5  # of the notes
TITLE_CHARACTERS_PER_INCH = 9.5
LEAST_WIDTH = 7.0  # inches; the title of a single panel needs them


def crowded(models: Sequence[str]) -> bool:
    """Whether there are too many models for one panel, or for panels of full size."""
    return len(models) > MOST_TOGETHER


def small_multiples(
    models: Sequence[str], variants: Sequence[str], *, size: tuple[float, float], same_scale: bool = True
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
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
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """Lay out a panel for every name and variant: variants under one another, names side by side, wrapped.

    All panels have the same scale of y, or each its own.

    Returns
    -------
    The figure and its axes by (name, variant).
    """
    from matplotlib.figure import Figure

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


def model_grid(models: Sequence[str], *, columns: int, height: float = 3.0) -> tuple[Figure, np.ndarray]:
    """Lay out a row of panels for each model, 13 inches wide at 4 panels; the panels of a row share y."""
    from matplotlib.figure import Figure

    width = max(3.25 * columns, LEAST_WIDTH)
    figure = Figure(figsize=(width, height * len(models) + 0.7))
    return figure, figure.subplots(len(models), columns, squeeze=False, sharey="row")


def label_outer_panels(panels: Iterable[Axes], *, y: bool = True) -> None:
    """Keep the name of x under the lowest panel of each column alone, and that of y, if any, left of the first."""
    panels = list(panels)
    lowest: dict[int, int] = {}
    for ax in panels:
        place = ax.get_subplotspec()
        lowest[place.colspan.start] = max(lowest.get(place.colspan.start, 0), place.rowspan.stop)
    for ax in panels:
        place = ax.get_subplotspec()
        if place.rowspan.stop != lowest[place.colspan.start]:
            ax.set_xlabel("")
        if not y or not place.is_first_col():
            ax.set_ylabel("")


def finish(figure: Figure, *, title: str, notes: Sequence[str]) -> None:
    """Put the title above, beside the legend, and the notes below, both wrapped to the figure's width."""
    width = figure.get_figwidth()
    beside = max((_inches_wide(figure, legend) for legend in figure.legends), default=0.0)
    text = textwrap.fill(title, max(int((width - beside) * TITLE_CHARACTERS_PER_INCH), 20))
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, fontweight="bold", color=INK)
    text = textwrap.fill(" ".join(note for note in notes if note), int(width * CHARACTERS_PER_INCH))
    figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=FAINT, linespacing=1.4)


def _inches_wide(figure: Figure, legend: object) -> float:
    # the renderer of a figure that nobody shows is Agg's
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    return legend.get_window_extent(renderer).width / figure.dpi
