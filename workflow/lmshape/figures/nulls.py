"""What rows without structure read, beside what was measured: dashed lines, their names and notes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures.style import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

ISOTROPIC = "isotropic rows at this n and d"
SURROGATE = "Gaussian, same covariance"
_OF_METRICS = (("anisotropy", ISOTROPIC, ""), ("id_twonn", SURROGATE, "o"))
DASHES = (0, (4, 2.5))
_DASH = {"linestyle": "none", "marker": "_", "markersize": 9, "markeredgewidth": 1.2}


def line(
    ax: Axes,
    frame: pd.DataFrame,
    *,
    x: str,
    color: str = FAINT,
    label: str = ISOTROPIC,
    marker: str = "",
    width: float = 1.0,
    stretch: float = 1.0,
) -> None:
    """Draw `null` over `x`, dashed, as one curve; nothing where it was not measured.

    `marker`, hollow at both ends, says in grey as well whose null it is. Dashes are as long whatever the `width`, so
    that a curve lies on another, wider one as a stripe; `stretch` makes them longer.
    """
    frame = frame[frame["null"].notna()].sort_values(x, kind="stable")
    if len(frame):
        alone = "_" if len(frame) == 1 else ""
        if marker:
            ends = frame.iloc[[0, -1]]
            ax.plot(ends[x], ends["null"], color=color, linestyle="none", marker=marker, markersize=2 + 2 * width,
                    markerfacecolor="white", label=f"_{label}")  # fmt: skip
        dashes = (0, tuple(part * stretch / width for part in DASHES[1]))  # in widths of the line
        ax.plot(
            frame[x], frame["null"], color=color, linestyle=dashes, linewidth=width, marker=alone, label=label
        )


def points(ax: Axes, frame: pd.DataFrame, *, x: str, color: str) -> None:
    """Draw each `null` as a dash of its own, joined to nothing: where it stands at a single place of a line."""
    frame = frame[frame["null"].notna()]
    if len(frame):
        ax.plot(frame[x], frame["null"], color=color, **_DASH, label="_null")


def point_handle(label: str) -> Line2D:
    """Give the dash of a null at a single place for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=FAINT, **_DASH, label=label)


def legend(figure: Figure, null: pd.Series, label: str) -> None:
    """Name the dashed lines at the upper right of the figure, if there are any."""
    if null.notna().any():
        figure.legend(handles=[handle(label)], loc="outside upper right")


def handle(label: str, marker: str = "") -> Line2D:
    """Give the dashed line of a null for a legend, with `marker` where lines of several names have theirs."""
    from matplotlib.lines import Line2D

    hollow = {"marker": marker, "markersize": 4, "markerfacecolor": "white"}
    return Line2D([], [], color=FAINT, linestyle=DASHES, linewidth=1.0, label=label, **hollow)


def handles(data: pd.DataFrame, *, dots: bool = False) -> list[Line2D]:
    """Give an entry of a legend for each null of a figure of both metrics; of `dots`, both are a tick."""
    from matplotlib.lines import Line2D

    there = data.loc[data["null"].notna(), "metric"].unique()
    drawn = {name: (label, marker) for name, label, marker in _OF_METRICS if name in there}
    if dots and drawn:
        label = "; ".join(label for label, _ in drawn.values())
        return [Line2D([], [], linestyle="none", marker="|", markersize=7, color=FAINT, label=label)]
    return [handle(label, marker) for label, marker in drawn.values()]


def isotropic_note(null: pd.Series, mark: str = f"Dashed: {ISOTROPIC},") -> str:
    """Say what the dashed line at the bottom is; `mark` opens the sentence."""
    values = sorted({f"{value:.2g}" for value in null.dropna()}, key=float)
    if not values:
        return ""
    span = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"{mark} (1\u00a0+\u00a0√(d/n))²/d\u00a0=\u00a0{span}."


def surrogate_note(null: pd.Series, mark: str = "Dashed:") -> str:
    """Say what the dashed lines beside a dimension are; `mark` opens the sentence."""
    if null.isna().all():
        return ""
    return (
        f"{mark} Gaussian rows with the same covariance and n; a dimension equal to theirs says nothing beyond the"
        " spectrum."
    )
