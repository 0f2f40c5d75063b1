"""Layers against training steps as a map of colors: its cells, their colors, the peak of each step, what is hatched.

A cell reaches halfway, on the axis of steps, to the checkpoints before and after it; ticks above the map tell where
they are. Where that would make slivers of some, checkpoints are evenly spaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.marks import CROWDED_COLUMNS, crowded
from lmshape.figures.steps import ZERO_TO_ONE, step_axis, step_name
from lmshape.figures.style import FAINT, INK, styled
from lmshape.tables.rows import in_order, reason

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure


COLORS = "viridis"  # even steps of lightness: it reads in grey, and no color-blindness confuses it
_TO_ONE = ZERO_TO_ONE / (1 - 1 / 10)  # the linear stretch as matplotlib's symlog of base 10 makes it
MOST_RINGS = 30  # steps of a panel whose peaks are marks of their own; more make a line
LEAST_SHARE = 0.025  # of the panel's width that a cell has, unless the steps are many
MOST_NAMES = 7  # of evenly spaced checkpoints


def with_peaks(frame: pd.DataFrame) -> pd.DataFrame:
    """Add `peak`: the block of the largest value at its step, if its interval is wholly above that of the lowest.

    A profile that is level by that rule, or has fewer than three blocks, has no peak.
    """
    keys = ["model", "dataset", "rows", "metric", "step"]
    blocks = frame[(frame["site"] == "block") & frame["value"].notna()]
    if blocks.empty:
        return frame.assign(peak=False)
    groups = blocks.groupby(keys, sort=False)["value"]
    highest = blocks.loc[groups.idxmax()].set_index(keys)
    lowest = blocks.loc[groups.idxmin()].set_index(keys)
    above = highest["ci_low"].fillna(highest["value"]) > lowest["ci_high"].fillna(lowest["value"])
    found = above[above & (groups.size() > 2)].index
    places = highest.loc[found].reset_index()[[*keys, "layer"]]
    peaks = frame[[*keys, "layer", "site"]].merge(places.assign(site="block", peak=True), how="left")
    return frame.assign(peak=peaks["peak"].eq(True).to_numpy())


def place_of_step(step: np.ndarray | pd.Series) -> np.ndarray:
    """Give the place of steps on the axis of `steps.step_axis`, in decades from step 0; step 1 is at about half."""
    steps = np.asarray(step, dtype=float)
    return np.where(steps < 1, _TO_ONE * steps, _TO_ONE + np.log10(np.maximum(steps, 1)))


def step_of_place(place: np.ndarray) -> np.ndarray:
    """Invert `place_of_step`; places before step 0 are negative steps."""
    return np.where(place < _TO_ONE, place / _TO_ONE, 10 ** (np.maximum(place, 0) - _TO_ONE))


def step_edges(steps: Sequence[int]) -> np.ndarray:
    """Give the n + 1 edges of the cells of n rising steps: halfway between on the axis, as far outside at its ends."""
    places = place_of_step(np.asarray(steps))
    if len(places) == 1:
        return step_of_place(np.array([places[0] - 0.2, places[0] + 0.2]))
    between = (places[1:] + places[:-1]) / 2
    first = places[0] - min(between[0] - places[0], 0.2)
    last = places[-1] + min(places[-1] - between[-1], 0.2)
    return step_of_place(np.array([first, *between, last]))


def has_slivers(steps: Sequence[int]) -> bool:
    """Whether a logarithmic axis makes a cell of these rising steps too narrow to be read; of many, all are narrow."""
    widths = np.diff(place_of_step(step_edges(steps)))
    return len(steps) <= MOST_RINGS and bool(widths.min() < LEAST_SHARE * widths.sum())


def evenly(frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Put the number of the checkpoint in the place of its step; also the edges of the cells."""
    steps = sorted(frame["step"].unique())
    placed = frame.assign(step=frame["step"].map({step: place for place, step in enumerate(steps)}))
    return placed, np.arange(len(steps) + 1) - 0.5


def even_axis(ax: Axes, steps: Sequence[int]) -> None:
    """Name some of the evenly spaced checkpoints, the first and the last among them."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_NAMES)).round().astype(int))
    ax.set_xticks(places, [step_name(steps[place]) for place in places])
    ax.set_xlabel("training step (evenly spaced)")


def cells(frame: pd.DataFrame, layers: Sequence[int]) -> pd.DataFrame:
    """Values of one panel as a matrix, layers by steps; NaN where there is no number."""
    return frame.pivot(index="layer", columns="step", values="value").reindex(layers)


def draw_map(
    ax: Axes, frame: pd.DataFrame, colors: ScalarMappable, *, edges: np.ndarray, crowded: bool = False
) -> None:
    """Draw the values of one panel: the embedding, if measured, and the blocks; the final norm over a gap.

    `edges` are those of the cells of the rising steps.

    Cells without a number are hatched; those that do not differ from their null (`as_null`) carry a dot, and the
    peak of each step a ring.
    """
    inside, final = frame[frame["site"] != "final_norm"], frame[frame["site"] == "final_norm"]
    top = int(frame["layer"].max())
    if len(inside):
        layers = list(range(int(inside["layer"].min()), top + 1))
        _mesh(ax, cells(inside, layers), (edges, np.arange(layers[0], top + 2) - 0.5), colors)
    if len(final):
        _mesh(ax, cells(final, [top]), (edges, norm_edges(top)), colors)
    height = frame["layer"].astype(float).where(frame["site"] != "final_norm", norm_edges(top).mean())
    _dots(ax, frame.assign(height=height))
    _peaks(ax, frame.assign(height=height), crowded=crowded)
    _checkpoints(ax, frame)


def norm_edges(blocks: int) -> np.ndarray:
    """Lower and upper edge of the final norm's row, over a gap; both grow with the number of blocks, to be seen."""
    height = max(1.0, blocks / 12)
    return blocks + 0.5 + np.array([0.5, 1.5]) * height


def _mesh(
    ax: Axes, values: pd.DataFrame, sides: tuple[np.ndarray, np.ndarray], colors: ScalarMappable
) -> None:
    from matplotlib.patches import Rectangle

    edges, layer_edges = sides
    if values.isna().any(axis=None):
        size = (edges[-1] - edges[0], layer_edges[-1] - layer_edges[0])
        ax.add_patch(Rectangle((edges[0], layer_edges[0]), *size, facecolor="#F4F4F4", edgecolor=FAINT,
                               hatch="////", linewidth=0, zorder=0.5))  # fmt: skip
    # of pixels in the vector file as well: 154 × 48 cells as paths are a megabyte a panel
    ax.pcolormesh(edges, layer_edges, np.ma.masked_invalid(values.to_numpy(float)), cmap=colors.cmap,
                  norm=colors.norm, rasterized=True, zorder=1)  # fmt: skip


def _dots(ax: Axes, frame: pd.DataFrame) -> None:
    same = frame[frame["as_null"].astype(bool)]
    size = 2.2 if len(same) <= 8 * MOST_RINGS else 1.0
    ax.plot(same["step"], same["height"], linestyle="none", marker="o", markersize=size, color=INK,
            markeredgecolor="white", markeredgewidth=0.3, rasterized=True, zorder=3, label="_as null")  # fmt: skip


def _peaks(ax: Axes, frame: pd.DataFrame, *, crowded: bool) -> None:
    """Draw rings; a line where the steps are many, with a gap where a step has no peak."""
    steps = sorted(frame["step"].unique())
    peaks = frame[frame["peak"].astype(bool)].set_index("step")["height"].reindex(steps)
    if len(steps) > MOST_RINGS:
        ax.plot(peaks.index, peaks, color=INK, linewidth=1.8, zorder=4, label="_peak")
        ax.plot(peaks.index, peaks, color="white", linewidth=0.9, zorder=4, label="_peak")
        return
    size = 2.5 if crowded else 5.0 if len(steps) <= MOST_RINGS // 3 else 4.0
    ax.plot(peaks.index, peaks, linestyle="none", marker="o", markersize=size, markerfacecolor="white",
            markeredgecolor=INK, markeredgewidth=0.8, zorder=4, label="_peak")  # fmt: skip


def _checkpoints(ax: Axes, frame: pd.DataFrame) -> None:
    from matplotlib.transforms import blended_transform_factory

    where = blended_transform_factory(ax.transData, ax.transAxes)
    steps = sorted(frame["step"].unique())
    width = 1.0 if len(steps) <= MOST_RINGS else 0.3
    ax.plot(steps, [1.0] * len(steps), "|", markersize=4, markeredgewidth=width, color=FAINT, transform=where,
            clip_on=False, label="_checkpoints")  # fmt: skip


def missing_note(frame: pd.DataFrame) -> str:
    """Count the hatched cells and say why: the flags of the table, or that the table has no such row."""
    panels = frame.groupby(["model", "rows"], sort=False)
    whole = sum(of_panel["step"].nunique() * of_panel[["site", "layer"]].drop_duplicates().shape[0]
                for _, of_panel in panels)  # fmt: skip
    flagged = frame[frame["value"].isna()]
    absent = whole - len(frame)
    if not absent and flagged.empty:
        return ""
    reasons = in_order(flagged["flag"].map(reason))[:3] + ["not measured"] * (absent > 0)
    return f"Hatched: {absent + len(flagged)} of {whole} cells have no number ({'; '.join(reasons)})."


PEAK = "highest of the blocks at its step"
Panels = Mapping[tuple[str, str], "Axes"]


@dataclass(frozen=True, slots=True)
class MapView:
    """What one figure of maps has of its own.

    `norm` makes the scale of colors from the values of the rows on it, `ticks` its labels; `together` are the
    choices of rows that share a scale with the first. `null` names in the legend what cells with a dot equal.
    """

    title: str
    nothing: str
    label: str
    norm: Callable[[pd.Series], Normalize]
    null: str
    notes: Callable[[pd.DataFrame], Sequence[str]]
    together: tuple[str, ...] = ("all", "no_sink")


def draw(data: pd.DataFrame, view: MapView) -> Figure:
    """Draw a map for each model, over a second and third one for each further choice of rows."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    with styled(crowded=crowded(models)):
        if data.empty:
            return marks.empty_figure(title=view.title, note=view.nothing)
        figure, panels = marks.small_multiples(models, variants, size=(3.5, 2.6), same_scale=False)
        scales = {rows: _scale(data, rows, view) for rows in variants}
        for (model, rows), ax in panels.items():
            of_panel = data[(data["model"] == model) & (data["rows"] == rows)]
            _panel(ax, of_panel, scales[rows], data[data["model"] == model])
            ax.set_title(marks.panel_title(model, rows, crowded=True))
        _bars(figure, panels, scales, view)
        marks.label_outer_panels(panels.values())
        _legend(figure, data, view)
        notes = [*_notes(data), *view.notes(data)]
        marks.finish(figure, title=f"{view.title}, {selection.dataset_names(data)}", notes=notes)
        return figure


def _scale(data: pd.DataFrame, rows: str, view: MapView) -> ScalarMappable:
    from matplotlib.cm import ScalarMappable

    values = data.loc[data["rows"].isin(_alike(rows, view)), "value"].dropna()
    return ScalarMappable(view.norm(values), COLORS)


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable, of_model: pd.DataFrame) -> None:
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    many = len(ax.figure.axes) > CROWDED_COLUMNS * 2
    steps = sorted(frame["step"].unique())
    if has_slivers(steps):
        placed, edges = evenly(frame)
        draw_map(ax, placed, colors, edges=edges, crowded=many)
        even_axis(ax, steps)
    else:
        edges = step_edges(steps)
        draw_map(ax, frame, colors, edges=edges, crowded=many)
        step_axis(ax, steps)
    ax.set_xlim(edges[0], edges[-1])
    _layers(ax, of_model)
    ax.grid(visible=False)
    marks.note_without_numbers(ax, frame)


def _layers(ax: Axes, of_model: pd.DataFrame) -> None:
    bottom, top = int(of_model["layer"].min()), int(of_model["layer"].max())
    every = max(1, -(-top // 6))
    ticks, end = list(range(bottom if bottom == 0 else every, top + 1, every)), top + 0.5
    names = [str(tick) for tick in ticks]
    if (of_model["site"] == "final_norm").any():
        edges = norm_edges(top)
        end, place = edges[1], edges.mean()
        # less than a tenth of the axis apart, two names touch
        ticks = [tick for tick in ticks if place - tick > 0.1 * end] + [place]
        names = [*names[: len(ticks) - 1], "norm"]
    ax.set_yticks(ticks, names)
    ax.set_ylim(bottom - 0.5, end)
    ax.set_ylabel("layer (0 = embedding)" if bottom == 0 else "layer (blocks)")


def _bars(figure: Figure, panels: Panels, scales: Mapping[str, ScalarMappable], view: MapView) -> None:
    """Draw a bar for each scale of colors: beside its rows of panels, or beside all where models are wrapped."""
    wrapped = len(panels) > len(scales) * len({ax.get_subplotspec().colspan.start for ax in panels.values()})
    groups: dict[tuple[str, ...], list[Axes]] = {}
    for (_, variant), ax in panels.items():
        groups.setdefault(_alike(variant, view), []).append(ax)
    for alike, axes in groups.items():
        colors = next(scales[variant] for variant in alike if variant in scales)
        names = ", ".join(marks.SHORT_VARIANT_NAMES.get(name, name) for name in alike if name in scales)
        label = f"{view.label}\n{names}" if wrapped and len(groups) > 1 else view.label
        where = {"ax": list(panels.values()), "shrink": 0.3, "anchor": (0, 1)} if wrapped else {"ax": axes}
        bar = figure.colorbar(colors, label=label, pad=0.015, aspect=25, **where)
        bar.ax.tick_params(which="minor", length=0)
        if bar.ax.get_yscale() == "log":
            marks.plain_log_axis(bar.ax)


def _alike(variant: str, view: MapView) -> tuple[str, ...]:
    return view.together if variant in view.together else (variant,)


def _legend(figure: Figure, data: pd.DataFrame, view: MapView) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import Normal, Stroke

    handles, steps = [], data.groupby("model")["step"].nunique()
    ring = {"marker": "o", "markersize": 5, "markerfacecolor": "white", "markeredgecolor": INK}
    outline = [Stroke(linewidth=2.2, foreground=INK), Normal()]
    if data["peak"].any() and steps.min() <= MOST_RINGS:
        handles.append(Line2D([], [], linestyle="none", label=PEAK, **ring))
    elif data["peak"].any():
        handles.append(Line2D([], [], color="white", linewidth=1.2, path_effects=outline, label=PEAK))
    if data["as_null"].any():
        dot = {"marker": "o", "markersize": 2.5, "color": INK}
        handles.append(Line2D([], [], linestyle="none", label=view.null, **dot))
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=1)


def _notes(data: pd.DataFrame) -> list[str]:
    ticks = "Ticks above a map: its checkpoints; a cell reaches halfway to the next."
    level = "No block is marked where the profile is level: intervals of its highest and lowest block meet."
    panels = data.groupby(["model", "rows"])["step"].unique()
    even = any(has_slivers(sorted(steps)) for steps in panels)
    evenly = "Checkpoints too near one another for a logarithmic axis are evenly spaced." if even else ""
    return [
        ticks,
        evenly,
        level,
        missing_note(data),
        marks.sink_note(data),
        marks.distrusted_note(data),
    ]
