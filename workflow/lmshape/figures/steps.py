"""Training steps as an axis, as a color and as labels: logarithmic from step 1, with a place of its own for step 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.typing import ColorType
from scipy.optimize import isotonic_regression

STEP_LABEL = "training step (log scale)"
ZERO_TO_ONE = 0.5  # decades between step 0 and step 1
MOST_TICKS = 30  # checkpoints; more have thinner ticks in the color bar
NEAR = 1.5  # ratio of two steps whose colors look the same
MOST_LABELS = 16  # that fit into a panel
LABEL_POINTS = 6  # font size
LABEL_GAP = 0.062  # between two labels, as a share of the panel's height


def step_ticks(steps: Iterable[int]) -> list[int]:
    """Steps to name: 0 if it is drawn, the powers of ten within, and the last step if it stands apart."""
    drawn = sorted({int(step) for step in steps})
    if not drawn:
        return []
    zero = [0] if drawn[0] == 0 else []
    powers = [10**k for k in range(len(str(drawn[-1]))) if 10**k >= drawn[0]]
    # Less than that apart, the names of two ticks touch.
    last = [drawn[-1]] if not powers or drawn[-1] > 2.5 * powers[-1] else []
    return zero + powers + last


def step_name(step: float) -> str:
    """Write a step shortly: 512, 1k, 143k."""
    whole = int(step)
    return f"{whole // 1000}k" if whole >= 1000 and whole % 1000 == 0 else f"{whole}"


def step_axis(ax: Axes, steps: Iterable[int]) -> None:
    """Make x a logarithmic axis of training steps that shows step 0, set off by a gap, when it is drawn."""
    drawn = sorted({int(step) for step in steps})
    if not drawn:
        return
    if drawn[0] == 0:
        ax.set_xscale("symlog", linthresh=1, linscale=ZERO_TO_ONE)
        ax.set_xlim(-0.25, max(drawn[-1], 1) * 1.25)
    else:
        ax.set_xscale("log")
        ax.set_xlim(drawn[0] / 1.25, drawn[-1] * 1.25)
    ticks = step_ticks(drawn)
    ax.set_xticks(ticks, [step_name(tick) for tick in ticks])
    ax.set_xticks([], minor=True)
    ax.set_xlabel(STEP_LABEL)


# Colors


def step_norm(steps: Iterable[int]) -> Normalize:
    """Map steps to colors logarithmically, step 0 to the first color."""
    return SymLogNorm(linthresh=1, linscale=ZERO_TO_ONE, vmin=0, vmax=max([10, *steps]), base=10)


def step_colors() -> Colormap:
    """Viridis from light, early, to dark, late; its lightest end is left out, as it vanishes on white."""
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.92, 0.0, 256)))


def colors_of_steps(steps: Iterable[int]) -> ScalarMappable:
    """Map steps to `step_colors`."""
    return ScalarMappable(step_norm(steps), step_colors())


def colors_of_depths() -> ScalarMappable:
    """Map relative depths, 0 to 1, to the same colors."""
    return ScalarMappable(Normalize(0, 1), step_colors())


def color_of(value: float, colors: ScalarMappable) -> ColorType:
    """Return the color of a step or depth."""
    red, green, blue, alpha = colors.to_rgba(np.array([value]))[0]
    return red, green, blue, alpha


def step_bar(figure: Figure, colors: ScalarMappable, steps: Iterable[int], **place: Any) -> Colorbar:
    """Draw the color bar of steps beside the panels `ax`, with a white tick at each step that is drawn."""
    bar = figure.colorbar(colors, label="training step (log scale from 1)", pad=0.015, **place)
    drawn = sorted(set(steps))
    ticks = step_ticks([0, *drawn])
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.ax.hlines(drawn, 0, 0.35, color="white", linewidth=0.8 if len(drawn) <= MOST_TICKS else 0.4)
    return bar


# Labels


def near_steps(steps: Iterable[int]) -> list[int]:
    """Steps within a factor of 1.5 of another one; none where they are more than fit into a panel."""
    rising = sorted({int(step) for step in steps if step > 0})
    pairs = [pair for pair in zip(rising, rising[1:], strict=False) if pair[1] < NEAR * pair[0]]
    near = sorted({step for pair in pairs for step in pair})
    return near if len(near) <= MOST_LABELS else []


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart until they differ by `gap`: each group of neighbors that touch lies around its mean."""
    if not heights:
        return []
    given = np.asarray(heights, dtype=float)
    order = np.argsort(given, kind="stable")
    offsets = gap * np.arange(len(given))
    moved = np.empty(len(given))
    moved[order] = isotonic_regression(given[order] - offsets).x + offsets
    return moved.tolist()


def label_ends(
    ax: Axes, ends: Mapping[int, float], colors: ScalarMappable, *, x: float, width: float
) -> None:
    """Write steps beside the ends of their lines, a thin line from each to its label.

    Parameters
    ----------
    ends : step → height of the end of its line
    x, width : where the lines end, and how far off the labels stand
    """
    low, high = ax.get_ylim()
    heights = spread(list(ends.values()), LABEL_GAP * (high - low))
    for (step, end), height in zip(ends.items(), heights, strict=True):
        color = color_of(step, colors)
        ax.plot([x, x + width], [end, height], color=color, linewidth=0.5, label="_leader")
        ax.text(x + width, height, step_name(step), color=color, fontsize=LABEL_POINTS, va="center")
