"""What a figure says and draws, for tests."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text


def words(figure: Figure, *, ticks: bool = False) -> str:
    """All text of a figure, lines and wraps joined; the names of ticks, which take long, only if asked for."""
    texts = [*figure.texts, *_above_and_below(figure)]
    for ax in figure.axes:
        texts += [*ax.texts, ax.title, ax._left_title, ax._right_title, ax.xaxis.label, ax.yaxis.label]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
        texts += [*ax.get_xticklabels(), *ax.get_yticklabels()] if ticks else []
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    return " ".join(" ".join(text.get_text().split()) for text in texts if text is not None)


def _above_and_below(figure: Figure) -> list[Text | None]:
    return [figure._suptitle, figure._supxlabel, figure._supylabel]


def drawn(figure: Figure) -> list[tuple[str, list[tuple[float, float]]]]:
    """Label and finite points of every line of every panel."""
    return [
        (str(line.get_label()), [tuple(point) for point in line.get_xydata() if np.isfinite(point).all()])
        for ax in figure.axes
        for line in ax.get_lines()
    ]
