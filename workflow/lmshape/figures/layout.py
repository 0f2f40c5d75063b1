"""Panels of lines with bands, nulls and gaps, wrapped to the width of the page; their axes, and legends around them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import seaborn
from matplotlib import pyplot
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from seaborn import FacetGrid

from lmshape.figures.selection import in_segments
from lmshape.figures.style import FAINT, INK, NULL_DASHES, Looks, Page, looks, sequence
from lmshape.tables.rows import has_flag, in_order

MOST_TOGETHER = 7  # lines of a panel that can be distinguished; more models have a panel each
MOST_MARKERS = 22  # points of a line; markers of more hide it
MOST_BANDS = 8  # lines of a panel; bands of more cover one another
FEW_ENTRIES = 2  # of a legend; more stand in a column
LEAST_HEIGHT = 1.1  # inches of a panel
LETTER = 0.55  # width of a letter, as a share of its height
CROWDED = 9  # panels; more are smaller


class Panels(FacetGrid):
    """seaborn's grid of panels, which leaves the layout to matplotlib."""

    def tight_layout(self, *args: Any, **kwargs: Any) -> Panels:
        """Do nothing: the layout is constrained, which makes room for legends outside."""
        return self

    def parts(self) -> Iterator[tuple[Axes, pd.DataFrame]]:
        """Yield each panel with its rows of the data."""
        for (_, place, _), rows in self.facet_data():
            yield self.axes.flat[place], rows


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels, and what belongs around them: entries of the legend, and the name of y."""

    grid: Panels
    legend: Sequence[Artist] = ()
    y: str = ""


def panels(
    data: pd.DataFrame,
    panel: str,
    page: Page,
    *,
    height: float = 0.75,
    order: Sequence[str] = (),
    **grid: Any,
) -> Panels:
    """Lay out a panel for each value of the column `panel`; `height` is that of one, as a share of its width."""
    names = order or in_order(data[panel])
    columns = _columns(len(names), page)
    width = page.width / columns
    letters = int(0.66 * width * 72 / (LETTER * page.font))
    titles = [wrapped(name, letters) for name in names]
    around = 1.35 * page.font / 72 * (4.5 + max(title.count("\n") for title in titles))  # ticks, names, title
    high = max(0.8 * height * min(width, page.width / 2), LEAST_HEIGHT) + around
    facets = Panels(
        data, col=panel, col_order=names, col_wrap=columns, height=high, aspect=width / high, **grid
    )
    pyplot.close(facets.figure)  # ours to keep, and no window of the caller's
    for title, ax in zip(titles, facets.axes.flat, strict=True):
        ax.set_title(title)
    return facets


def _columns(count: int, page: Page) -> int:
    """Count the panels of a row: as many as fit, shared evenly among the rows."""
    most = page.columns + (count > CROWDED and page.columns > 2)
    return ceil(count / ceil(count / most))


def lines(
    data: pd.DataFrame,
    *,
    x: str,
    hue: str,
    panel: str,
    page: Page,
    look: Looks,
    units: Sequence[str] = (),
    bands: bool = True,
    **grid: Any,
) -> Panels:
    """Draw `value` over `x`: a panel for each value of `panel`, a line with its band for each of `hue`.

    A value that is not a number leaves a gap, and one with a flag has an open marker. `units` are columns whose values
    have lines of their own in the same look. The axes of `depth` and `step` are named by their layers and steps.
    """
    groups = [panel, hue, *units]
    if x == "depth":  # the final norm has that of the last block
        data = data.assign(depth=data["depth"].where(data["site"] != "final_norm", FINAL_NORM_DEPTH))
    drawn = in_segments(data, x, groups)
    drawn = drawn.assign(unit=drawn.groupby([*groups, "segment"], sort=False, dropna=False).ngroup())
    points = drawn.groupby(groups, sort=False)[x].nunique().max()
    facets = panels(drawn, panel, page, order=in_order(data[panel]), **{"sharex": x != "step"} | grid)
    facets.map_dataframe(
        seaborn.lineplot, x=x, y="value", hue=hue, hue_order=list(look.palette), palette=look.palette,
        style=hue, style_order=list(look.palette), dashes=look.dashes,
        markers=look.markers if points <= MOST_MARKERS else False, units="unit", estimator=None, legend=False,
    )  # fmt: skip
    few = bands and drawn.groupby(panel, sort=False)[hue].nunique().max() <= MOST_BANDS
    unmarked = points > MOST_MARKERS or not any(look.markers.values())
    for ax, own in facets.parts():
        if few:
            for (label, _), line in own.groupby([hue, "unit"], sort=False):
                band(ax, line, x, look.palette[label])
        # points that no line leads to, such as the final norm's
        lone = own[unmarked & (own.groupby("unit")["value"].transform("count") == 1)]
        for label, rows in lone.groupby(hue, sort=False):
            ax.plot(rows[x], rows["value"], linestyle="none", marker=look.markers[label] or "o", markersize=3,
                    color=look.palette[label], label="_lone")  # fmt: skip
        flagged = own[has_flag(own) & own["value"].notna()]
        for label, rows in flagged.groupby(hue, sort=False):
            ax.plot(rows[x], rows["value"], "o", markerfacecolor="white", markeredgecolor=look.palette[label],
                    markersize=3.5, zorder=4, label="_flagged")  # fmt: skip
        if x == "depth":
            depth_axis(ax, drawn)
        elif x == "step":
            step_axis(ax, own["step"])
            mark_gone(ax, own)
    return facets


def band(ax: Axes, line: pd.DataFrame, x: str, color: str) -> None:
    """Draw the intervals of one line; a whisker where it has a single point."""
    known = line.dropna(subset=["ci_low", "ci_high"])
    if len(known) == 1:
        ax.vlines(known[x], known["ci_low"], known["ci_high"], color=color, linewidth=1.0)
    elif len(known):
        ax.fill_between(known[x], known["ci_low"], known["ci_high"], color=color, alpha=0.2, linewidth=0)


# Nulls


def null_lines(facets: Panels, *, x: str, hue: str, palette: Mapping[str, str] | None = None) -> None:
    """Draw the column `null` as thin dashed lines, grey or in the color of their line, on the scale of the values.

    Where all of a panel's nulls lie beyond its values, the panel says where.
    """
    limits = [ax.get_ylim() for ax in facets.axes.flat]
    for (ax, own), (bottom, top) in zip(facets.parts(), limits, strict=True):
        known = own[own["null"].notna() & (own["site"] != "final_norm")]
        for label, line in known.groupby(hue, sort=False):
            color = FAINT if palette is None else palette[label]
            ax.plot(line[x], line["null"], color=color, linewidth=0.9, linestyle=NULL_DASHES, zorder=1.5,
                    label="_null")  # fmt: skip
        ax.set_ylim(bottom, top)
        low, high = known["null"].min(), known["null"].max()
        if low > top:
            ends = " to ".join(dict.fromkeys([f"{low:.2g}", f"{high:.2g}"]))
            ax.set_title(f"{ax.get_title('left')}\nnull: {ends} ↑")


def room_for_nulls(facets: Panels) -> None:
    """Widen the scale of each panel to hold its nulls."""
    for ax, own in facets.parts():
        nulls = own["null"].dropna()
        if len(nulls):
            ax.update_datalim([(ax.dataLim.x0, nulls.min()), (ax.dataLim.x0, nulls.max())], updatex=False)
            ax.autoscale_view(scalex=False)


# Axes


def log_axis(ax: Axes) -> None:
    """Make y logarithmic, with plain numbers: 2, 5, 10."""
    together = [one.dataLim for one in ax.get_shared_y_axes().get_siblings(ax)]
    low, high = min(one.minposy for one in together), max(one.y1 for one in together)
    if not 0 < low <= high < np.inf:
        return
    ax.set_yscale("log")
    if high / low < 10:  # too few decades for matplotlib's own choice
        margin = max(high / low, 1.15) ** 0.06
        ax.set_ylim(low / margin, high * margin)
    plain_ticks(ax)


def plain_ticks(ax: Axes) -> None:
    """Write plain numbers on a logarithmic axis of y."""
    low, high = ax.get_ylim()
    few = MaxNLocator(4, steps=[1, 2, 5, 10])  # under a decade, matplotlib's own are too many or none
    subs = (1, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5)
    ax.yaxis.set_major_locator(few if high / low < 3 else LogLocator(subs=subs))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.tick_params(axis="y", which="minor", length=0)


def share_axis(ax: Axes) -> None:
    """Make y a share: from 0, or the lowest value, to the highest with some room, and at most 1."""
    together = [one.dataLim.intervaly for one in ax.get_shared_y_axes().get_siblings(ax)]
    known = [ends for ends in together if np.isfinite(ends).all()]
    if known:
        low, high = min(end for end, _ in known), max(end for _, end in known)
        ax.set_ylim(
            min(-0.02 * high, low * 1.05), min(1.03, high * 1.12 + 0.01) if high <= 1.001 else high * 1.05
        )


FINAL_NORM_DEPTH = 1.18


def depth_axis(ax: Axes, data: pd.DataFrame) -> None:
    """Name relative depths, in layers where all models have as many, and the final norm beside them."""
    inside = data[data["site"] != "final_norm"]
    blocks = inside.groupby("model")["layer"].max().unique()
    embedding = bool((inside["site"] == "embedding").any())
    if len(blocks) == 1 and blocks[0] > 0:
        every = max(1, ceil(blocks[0] / 8))
        layers = [*range(0 if embedding else every, blocks[0], every), blocks[0]]
        layers = [layer for layer in layers[:-1] if blocks[0] - layer >= every / 2] + [blocks[0]]
        ticks, names = [layer / blocks[0] for layer in layers], [str(layer) for layer in layers]
        label = "layer (0: embedding)" if embedding else "block"
    else:
        ticks, names, label = [0.0, 0.5, 1.0], ["0", "½", "1"], "depth (1: last block)"
    end = 1.04
    if (data["site"] == "final_norm").any():
        end = FINAL_NORM_DEPTH + 0.06
        if (FINAL_NORM_DEPTH - 1) / end * width_in_points(ax) < 2.5 * float(ax.xaxis.label.get_fontsize()):
            ticks, names = ticks[:-1], names[:-1]
        ticks, names = [*ticks, FINAL_NORM_DEPTH], [*names, "norm"]
    ax.set_xticks(ticks, names)
    ax.set_xlim(-0.05 if embedding else min(ticks) - 0.05, end)
    ax.set_xlabel(label)


def width_in_points(ax: Axes) -> float:
    """Give the width of a panel before matplotlib makes room for what is around it."""
    figure = ax.get_figure(root=True)
    return 0.85 * 72 * float(ax.get_position().width) * (figure.get_figwidth() if figure else 6.4)


# Around the panels


def model_looks(data: pd.DataFrame) -> tuple[pd.DataFrame, Looks]:
    """Add the column `name`, the model and its kind; return it with the looks of the names: encoders are dashed."""
    data = data.assign(name=data["model"] + " (" + data["kind"] + ")")
    names = in_order(data.sort_values("kind", kind="stable")["name"])
    look = looks(names)
    dashes = {name: (4, 1.5) if name.endswith("(encoder)") else "" for name in names}
    return data, Looks(look.palette, dashes, look.markers)


def entries(look: Looks, only: pd.Series | None = None, *, dots: bool = False) -> list[Artist]:
    """Give the entries of a legend for lines, or dots, of these looks; `only` of those that a column has."""
    return [
        Line2D([], [], label=shown(name), color=color, marker=look.markers[name],
               linestyle="none" if dots else (0, look.dashes[name]) if look.dashes[name] else "-",
               markeredgecolor=color if dots else "white")
        for name, color in look.palette.items() if only is None or only.eq(name).any()
    ]  # fmt: skip


def null_entries(null: pd.Series, label: str) -> list[Artist]:
    """Give the entry of a null, if it was measured."""
    line = Line2D([], [], color=FAINT, linestyle=NULL_DASHES, linewidth=0.9, label=label)
    return [line] if null.notna().any() else []


def shown(name: str) -> str:
    """Give a name as a legend takes it, which leaves out those that begin with an underscore."""
    return f"\N{THIN SPACE}{name}" if name.startswith("_") else name


def finish(picture: Picture, page: Page, *, title: str, footer: str) -> Figure:
    """Put the legend outside: right of the panels on the screen, above them on paper; then title and footer."""
    figure, legend, above = picture.grid.figure, picture.legend, 0.0
    if legend and page.titled:
        few = len(legend) <= FEW_ENTRIES  # beside the footer
        figure.legend(
            handles=legend, loc="outside lower right" if few else "outside right upper", ncols=1 + few
        )
    elif legend:
        labels = [str(entry.get_label()).split("\n") for entry in legend]
        longest = (max(len(line) for lines in labels for line in lines) * LETTER + 5) * page.font
        columns = min(max(int(72 * page.width / longest), 1), len(legend))
        above = (sum(map(len, labels)) / columns + 1.5) * 1.4 * page.font / 72
        figure.set_figheight(figure.get_figheight() + above)
        figure.legend(handles=legend, loc="outside upper left", ncols=columns, columnspacing=1.0)
    picture.grid.set_ylabels("")
    tall = int((0.8 * figure.get_figheight() - 2 * above) * 72 / (LETTER * page.font))
    letters = max([tall, *map(len, picture.y.split())])  # words stay whole
    figure.supylabel(wrapped(picture.y, letters), fontsize=page.font, color=INK)
    if page.titled:
        figure.suptitle(title, x=0.01, ha="left", fontsize=page.font + 2, fontweight="bold", color=INK)
        text = wrapped(footer, int(figure.get_figwidth() * 15))
        figure.supxlabel(text, x=0.01, ha="left", fontsize=page.font - 1, color=FAINT)
    return figure


def wrapped(text: str, letters: int) -> str:
    """Wrap each line of a text."""
    return "\n".join(textwrap.fill(line, max(letters, 8)) for line in text.split("\n"))


def sentence(text: str, page: Page, *, title: str) -> Figure:
    """Say in one line why there is nothing to draw."""
    figure = Figure(figsize=(page.width, 0.75 if page.titled else 0.5), layout="constrained")
    if page.titled:
        figure.suptitle(title, x=0.01, ha="left", fontsize=page.font + 2, fontweight="bold", color=INK)
    width = int(page.width * (14 if page.titled else 16))
    figure.text(0.01, 0.1, wrapped(text, width), color=INK)
    return figure


def each(facets: Panels, change: Callable[[Axes], None]) -> None:
    """Change every panel."""
    for ax in facets.axes.flat:
        change(ax)


# Training steps as an axis and as colors: logarithmic from step 1 with a place for step 0; colors by rank

ZERO_TO_ONE = 0.5  # decades between step 0 and step 1
MOST_NAMED = 8  # steps that are all named
DIGIT = 0.62  # width of a digit, as a share of its height


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
    places = ax.xaxis.get_transform().transform(np.array([*steps, *ax.get_xlim()], dtype=float))
    scale = width_in_points(ax) / (places[-1] - places[-2])
    letter = DIGIT * float(ax.xaxis.get_ticklabels()[0].get_fontsize())
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


def places_by_rank(frame: pd.DataFrame) -> pd.Series:
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
