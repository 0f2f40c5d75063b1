"""One look for every figure: colors that color-blind readers can distinguish, and the sizes of screen and paper."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib.colors import ListedColormap, to_hex

# Okabe & Ito's palette without its yellow, which vanishes on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: tuple[tuple[float, ...] | str, ...] = ("", (5, 1.5), (1.2, 1.2), (6, 1.5, 1.2, 1.5))
NULL_DASHES = (0, (3, 2))
INK = "#3A3A3A"
FAINT = "#6B6B6B"


@dataclass(frozen=True, slots=True)
class Page:
    """Where a figure is looked at: its width in inches, its letters in points, and how many panels stand in a row."""

    width: float
    font: float
    columns: int
    titled: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Sizes of matplotlib."""
        small = self.font - 0.5 if self.titled else self.font
        sizes = dict.fromkeys(
            ("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize", "legend.title_fontsize"),
            self.font,
        )
        ticks = dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), small)
        return sizes | ticks | {"lines.linewidth": self.font / 6.5, "lines.markersize": self.font / 2}


SCREEN = Page(9.5, 9.0, 3, titled=True)
PAPER = {"1col": Page(3.3, 7.0, 2), "2col": Page(7.0, 8.0, 3)}

# Settings of matplotlib over those of seaborn's style "ticks".
SETTINGS = {
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # names of models and metrics may hold a dollar sign
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib, so that every machine draws the same bytes
    "svg.hashsalt": "lmshape",  # the same data gives the same bytes
    "pdf.fonttype": 42,  # live text
    "text.color": INK,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "savefig.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Looks:
    """Color, dashes and marker of each name, as seaborn takes them."""

    palette: dict[Any, str]
    dashes: dict[Any, Any]
    markers: dict[Any, str]

    @classmethod
    def of(cls, names: Iterable[Any], each: Iterable[tuple[str, Any, str]]) -> Looks:
        """Give names, in their order, a color, dashes and a marker each; further looks are left over."""
        every = list(zip(names, each, strict=False))
        return cls(*({name: look[i] for name, look in every} for i in range(3)))


def looks(names: Sequence[str]) -> Looks:
    """Give each name a look of its own; 7 colors, 4 dashes and 7 markers cycle together."""
    return Looks.of(names, zip(cycle(COLORS), cycle(DASHES), cycle(MARKERS), strict=False))


def shades(places: Iterable[float], marker: str = "") -> Looks:
    """Color lines by their place from 0, light, to 1, dark."""
    return Looks.of(places, ((to_hex(sequence()(place)), "", marker) for place in places))


def sequence() -> ListedColormap:
    """Viridis from light to dark, for steps and depths; its lightest end, which vanishes on white, is left out."""
    return ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.92, 0.0, 256)))


@contextmanager
def styled(page: Page = SCREEN) -> Iterator[None]:
    """Draw and save in the study's style; the caller's settings stay as they were."""
    # starts from matplotlib's own defaults, so that neither themes nor locale of the caller reach the figures
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        live = {"svg.fonttype": "path" if page.titled else "none"}
        matplotlib.rcParams.update(seaborn.axes_style("ticks") | SETTINGS | page.settings | live)
        yield
