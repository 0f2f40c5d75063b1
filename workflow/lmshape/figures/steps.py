"""Training steps as an axis and as colors: logarithmic from step 1 with a place for step 0; colors by rank."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.scale import SymmetricalLogTransform

from lmshape.figures.layout import width_in_points
from lmshape.figures.style import INK, sequence

ZERO_TO_ONE = 0.5  # decades between step 0 and step 1
MOST_NAMED = 8  # steps that are all named
PLACES = SymmetricalLogTransform(base=10, linthresh=1, linscale=ZERO_TO_ONE)
LETTER = 0.62  # width of a digit as a share of its height


def step_name(step: float) -> str:
    """Write a step shortly: 512, 1k, 143k."""
    whole = int(step)
    return f"{whole // 1000}k" if whole >= 1000 and whole % 1000 == 0 else f"{whole}"


def some(steps: Iterable[int]) -> list[int]:
    """Choose at most `MOST_NAMED` of the steps, evenly by their rank, the first and the last among them."""
    every = sorted({int(step) for step in steps})
    places = np.linspace(0, len(every) - 1, min(len(every), MOST_NAMED)).round().astype(int)
    return [every[place] for place in places]


def step_axis(ax: Axes, steps: Iterable[int]) -> None:
    """Make x a logarithmic axis of training steps that names those that were measured, as far as their names fit."""
    drawn = sorted({int(step) for step in steps})
    if not drawn:
        return
    if drawn[0] == 0:
        ax.set_xscale("symlog", linthresh=1, linscale=ZERO_TO_ONE)
        ax.set_xlim(-0.25, max(drawn[-1], 1) * 1.3)
    else:
        ax.set_xscale("log")
        ax.set_xlim(drawn[0] / 1.3, drawn[-1] * 1.3)
    named = _apart(drawn, ax)
    turned = len(named) < len(drawn) <= MOST_NAMED
    named = drawn if turned else named
    ax.set_xticks(named, [step_name(step) for step in named])
    ax.tick_params(axis="x", labelrotation=60 if turned else 0)
    ax.set_xticks([], minor=True)
    ax.set_xlabel("training step (log)")


def _apart(steps: Sequence[int], ax: Axes) -> list[int]:
    """Choose steps whose names do not touch, the last and the first before all others."""
    places = PLACES.transform(np.array([*steps, *ax.get_xlim()], dtype=float))
    scale = width_in_points(ax) / (places[-1] - places[-2])
    letter = LETTER * float(ax.xaxis.get_ticklabels()[0].get_fontsize())
    width = [letter * (len(step_name(step)) + 1) for step in steps]
    chosen: list[int] = []
    for i in [len(steps) - 1, *range(len(steps) - 1)]:
        if all(scale * abs(places[i] - places[j]) > (width[i] + width[j]) / 2 for j in chosen):
            chosen.append(i)
    return [steps[i] for i in sorted(chosen)]


def mark_gone(ax: Axes, frame: pd.DataFrame) -> None:
    """Mark on the axis the steps of which only the tables are left."""
    gone = sorted(frame.loc[frame["gone"].astype(bool), "step"].unique()) if "gone" in frame else []
    if gone:  # of no point, matplotlib would reserve room at the figure's corner
        ax.plot(gone, [0.0] * len(gone), "x", color=INK, markersize=4, transform=ax.get_xaxis_transform(),
                clip_on=False, zorder=5, label="_gone")  # fmt: skip


def by_rank(frame: pd.DataFrame) -> pd.Series:
    """Give the place of each row's step among those of its model: 0 for the first, 1 for the last."""
    ranks = frame.groupby("model")["step"].rank(method="dense")
    return (ranks - 1) / (ranks.groupby(frame["model"]).transform("max") - 1).clip(lower=1)


def step_bar(figure: Figure, steps: Iterable[int], **place: Any) -> None:
    """Draw the bar of colors beside the panels `ax`: one color for each of a run's steps, some with their name."""
    every = sorted({int(step) for step in steps})
    colors = ListedColormap(sequence()(np.linspace(0, 1, len(every))))
    norm = BoundaryNorm(np.arange(len(every) + 1) - 0.5, len(every))
    bar = figure.colorbar(ScalarMappable(norm, colors), pad=0.015, **place)
    named = some(every)
    bar.set_ticks([every.index(step) for step in named], labels=[step_name(step) for step in named])
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=2)
    bar.set_label("training step")
