"""Steps written beside the lines whose colors are too near one another to be read off a bar of colors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lmshape.figures.steps import step_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR = 1.5  # ratio of two steps whose colors look the same
MOST = 16  # labels that a panel has room for
POINTS = 6  # size of the letters
GAP = 0.062  # between two labels, as a share of the panel's height


def near_steps(steps: Iterable[int]) -> list[int]:
    """Steps within a factor of 1.5 of another one; none where they are more than a panel has room for."""
    rising = sorted({int(step) for step in steps if step > 0})
    pairs = [pair for pair in zip(rising, rising[1:], strict=False) if pair[1] < NEAR * pair[0]]
    near = sorted({step for pair in pairs for step in pair})
    return near if len(near) <= MOST else []


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart until they differ by `gap`: each group of neighbors that touch lies around its mean."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    groups: list[list[int]] = []
    centers: list[float] = []
    for place in order:
        groups.append([place])
        centers.append(heights[place])
        while len(groups) > 1 and centers[-1] - centers[-2] < gap * (len(groups[-1]) + len(groups[-2])) / 2:
            groups[-2:] = [groups[-2] + groups[-1]]
            centers[-2:] = [sum(heights[place] for place in groups[-1]) / len(groups[-1])]
    moved = list(heights)
    for group, center in zip(groups, centers, strict=True):
        for rank, place in enumerate(group):
            moved[place] = center + gap * (rank - (len(group) - 1) / 2)
    return moved


def draw(
    ax: Axes, ends: Mapping[int, float], colors: Mapping[int, object], *, x: float, width: float
) -> None:
    """Write steps beside the ends of their lines, a thin line from each to its label.

    Parameters
    ----------
    ends : step → height of the end of its line
    x, width : where the lines end, and how far off the labels stand
    """
    low, high = ax.get_ylim()
    heights = spread(list(ends.values()), GAP * (high - low))
    for (step, end), height in zip(ends.items(), heights, strict=True):
        ax.plot([x, x + width], [end, height], color=colors[step], linewidth=0.5, label="_leader")
        ax.text(x + width, height, step_name(step), color=colors[step], fontsize=POINTS, va="center")
