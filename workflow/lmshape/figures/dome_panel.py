"""The dome index of each model by name: with all rows and without sinks, beside what noise alone reaches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.style import FAINT, INK, KIND_COLORS

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

TITLE = "dome index of each model\n|: what noise alone reaches"
LEAST_END = 0.2  # of the axis: on a shorter one, what is level would look like a dome
MOST_POINTS, LEAST_POINTS = 8.5, 4.0  # size of the names
NAMED = 12  # models that have names of full size
BETWEEN = 0.5  # of a row, from the first choice of rows to the last
_MARK = {"marker": "o", "linestyle": "none"}


def draw(ax: Axes, domes: pd.DataFrame) -> None:
    """Draw a row for each model, decoders first: its index over its interval, filled with all rows, else hollow."""
    domes = domes[domes["value"].notna()].sort_values("kind", kind="stable")
    if domes.empty:
        return marks.nothing_here(ax, "no dome index: fewer than three blocks, or `profiles` is empty")
    ax.set_axis_on()
    models, variants = selection.in_order(domes["model"]), selection.in_order(domes["rows"])
    points = min(MOST_POINTS, max(LEAST_POINTS, MOST_POINTS * NAMED / len(models)))
    for place, rows in enumerate(variants):
        shift = BETWEEN * (place / max(len(variants) - 1, 1) - 0.5)
        places = {model: i + shift for i, model in enumerate(models)}
        _variant(ax, domes[domes["rows"] == rows], places, size=0.6 * points)
    ax.set_yticks(range(len(models)), models, fontsize=points)
    for row in range(1, len(models), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    ax.set_ylim(len(models) - 0.5, -0.5)
    end = max(ax.get_xlim()[1], LEAST_END)
    ax.set_xlim(-0.02 * end, end)  # a dot at 0 is whole
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("dome index: peak less the higher edge")
    ax.set_title(TITLE)
    ax.grid(visible=False)


def _variant(ax: Axes, domes: pd.DataFrame, places: Mapping[str, float], *, size: float) -> None:
    for dome in domes.itertuples():
        color, place = KIND_COLORS.get(dome.kind, FAINT), places[dome.model]
        ax.hlines(place, dome.ci_low, dome.ci_high, color=color, linewidth=1.2)
        ax.plot([dome.null], [place], "|", color=FAINT, markersize=1.6 * size, label="_null")
        ax.plot(
            [dome.value], [place], color=color, markersize=size, label="_dome", **_MARK, **_face(dome.rows)
        )


def _face(rows: str) -> dict[str, str]:
    return {} if rows == "all" else {"markerfacecolor": "white"}


def handles(domes: pd.DataFrame) -> list[Artist]:
    """Give the entries of a legend: which choice of rows is filled, and which hollow."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=INK,
            label=f"dome, {marks.SHORT_VARIANT_NAMES.get(rows, rows)}",
            **_MARK,
            **_face(rows),
        )
        for rows in selection.in_order(domes["rows"])
    ]
