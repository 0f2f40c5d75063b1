"""One look for every figure: colors that the color-blind tell apart, lines and markers that last in grey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import matplotlib
import seaborn
from matplotlib.colors import to_rgb
from matplotlib.typing import ColorType, LineStyleType

# Okabe & Ito's palette without its yellow, which vanishes on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES: tuple[LineStyleType, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
KIND_COLORS = {"decoder": COLORS[0], "encoder": COLORS[1]}
INK = "#3A3A3A"
FAINT = "#6B6B6B"

# Settings of matplotlib over those of seaborn's style "ticks".
SETTINGS = {
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same bytes
    "svg.hashsalt": "lmshape",  # the same data gives the same bytes
    "svg.fonttype": "path",  # a viewer without our font shows the same picture
    "text.color": INK,
    "lines.solid_capstyle": "round",
    "hatch.linewidth": 0.6,
    "hatch.color": FAINT,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "legend.handlelength": 3.2,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "font.size": 9,
    "savefig.facecolor": "white",
}
# Smaller sizes for figures of many panels.
CROWDED_SETTINGS = {
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "axes.titlepad": 3,
    "axes.labelpad": 2,
    "font.size": 7,
}


@dataclass(frozen=True, slots=True)
class Look:
    """How the line of one name is drawn; `width` of the line and `size` of its markers are in points."""

    color: ColorType
    line: LineStyleType
    marker: str
    width: float = 1.5
    size: float = 4.5

    @property
    def settings(self) -> dict[str, Any]:
        """The same as arguments of matplotlib's lines."""
        line = {"color": self.color, "linestyle": self.line, "linewidth": self.width}
        marker = {"marker": self.marker, "markersize": self.size}
        return line | marker | {"markeredgecolor": "white", "markeredgewidth": 0.5}


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Give each name a look; 7 colors, 4 lines and 9 markers cycle together: 252 looks before one repeats."""
    return {
        name: Look(COLORS[i % len(COLORS)], LINES[i % len(LINES)], MARKERS[i % len(MARKERS)])
        for i, name in enumerate(names)
    }


def nested_looks(names: Sequence[str]) -> dict[str, Look]:
    """Give each name a look narrower than the one before: drawn in order, a curve lies on another as a stripe."""
    plain, last = looks(names), len(names) - 1
    if not last:
        return plain
    return {
        name: replace(plain[name], line="-", width=6.5 - 5.2 * i / last, size=10.0 - 5.5 * i / last)
        for i, name in enumerate(names)
    }


def looks_by_kind(kinds: dict[str, str]) -> dict[str, Look]:
    """Give each model (key) the color of its kind (value), ever lighter, and a line and marker.

    Line and marker alone tell up to 36 models apart.
    """
    others = sorted(set(kinds.values()) - set(KIND_COLORS))
    colors = KIND_COLORS | {kind: COLORS[(2 + i) % len(COLORS)] for i, kind in enumerate(others)}
    shapes = looks(list(kinds))
    alike = {kind: [model for model, its in kinds.items() if its == kind] for kind in colors}
    shades = {kind: _shades(colors[kind], len(models)) for kind, models in alike.items()}
    return {
        model: Look(shades[kind][alike[kind].index(model)], shapes[model].line, shapes[model].marker)
        for model, kind in kinds.items()
    }


def paler(color: ColorType) -> str:
    """Mix a color with the same amount of white."""
    return _shades(color, 2)[-1]


def _shades(color: ColorType, count: int) -> list[str]:
    """Mix `color` with white, from none of it to half."""
    parts = [255 * part for part in to_rgb(color)]
    whites = [0.5 * i / max(count - 1, 1) for i in range(count)]
    return ["#" + "".join(f"{round(part + (255 - part) * white):02x}" for part in parts) for white in whites]


@contextmanager
def styled(*, crowded: bool = False) -> Iterator[None]:
    """Draw and save in the study's style, in smaller letters if `crowded`; the caller's settings stay as they were."""
    # starts from matplotlib's own defaults, so that neither themes nor locale of the caller reach the figures
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        theme = seaborn.axes_style("ticks")
        matplotlib.rcParams.update(theme | SETTINGS | (CROWDED_SETTINGS if crowded else {}))
        yield
