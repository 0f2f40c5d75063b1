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
DASHES = (0, (4, 2.5))


def line(ax: Axes, frame: pd.DataFrame, *, x: str, color: str = FAINT, label: str = ISOTROPIC) -> None:
    """Draw `null` over `x`, thin and dashed, as one curve; nothing where it was not measured."""
    frame = frame[frame["null"].notna()].sort_values(x, kind="stable")
    if len(frame):
        alone = "_" if len(frame) == 1 else ""
        ax.plot(
            frame[x], frame["null"], color=color, linestyle=DASHES, linewidth=1.0, marker=alone, label=label
        )


def legend(figure: Figure, null: pd.Series, label: str) -> None:
    """Name the dashed lines at the upper right of the figure, if there are any."""
    if null.notna().any():
        figure.legend(handles=[handle(label)], loc="outside upper right")


def handle(label: str) -> Line2D:
    """Give the dashed line of a null for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color=FAINT, linestyle=DASHES, linewidth=1.0, label=label)


def isotropic_note(null: pd.Series) -> str:
    """Say what the dashed line at the bottom is."""
    values = sorted({f"{value:.2g}" for value in null.dropna()}, key=float)
    if not values:
        return ""
    span = values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
    return f"Dashed: {ISOTROPIC}, (1\u00a0+\u00a0√(d/n))²/d\u00a0=\u00a0{span}."


def surrogate_note(null: pd.Series) -> str:
    """Say what the dashed lines beside a dimension are."""
    if null.isna().all():
        return ""
    return (
        "Dashed: Gaussian rows with the same covariance and n; a dimension equal to theirs says nothing beyond the"
        " spectrum."
    )
