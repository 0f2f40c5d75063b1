"""Layers against training steps as a map of colors: its cells, their colors, the peak of each step, what is hatched.

A cell reaches halfway, on the axis of steps, to the checkpoints before and after it; ticks above the map tell where
they are. Where that would make slivers of some, checkpoints are evenly spaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.transforms import blended_transform_factory

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import ZERO_TO_ONE, step_axis, step_name
from lmshape.figures.style import FAINT, INK
from lmshape.tables.rows import first_dataset, in_order, reason, trajectories

COLORS = "viridis"  # even steps of lightness: it reads in grey, and no color-blindness confuses it
# Places of steps on `steps.step_axis`, in decades.
PLACES = SymmetricalLogTransform(base=10, linthresh=1, linscale=ZERO_TO_ONE)
MOST_RINGS = 30  # steps of a panel whose peaks are marks of their own; more make a line
LEAST_SHARE = 0.025  # of the panel's width that a cell has, unless the steps are many
MOST_NAMES = 7  # of evenly spaced checkpoints
TOGETHER = ("all", "no_sink")  # choices of rows on one scale of colors
PEAK = "highest of the blocks at its step"


# Peaks


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


# Cells


def step_edges(steps: Sequence[int]) -> np.ndarray:
    """Give the n + 1 edges of the cells of n rising steps: halfway between on the axis, as far outside at its ends."""
    places = PLACES.transform(np.asarray(steps, dtype=float))
    if len(places) == 1:
        return PLACES.inverted().transform(np.array([places[0] - 0.2, places[0] + 0.2]))
    between = (places[1:] + places[:-1]) / 2
    first = places[0] - min(between[0] - places[0], 0.2)
    last = places[-1] + min(places[-1] - between[-1], 0.2)
    return PLACES.inverted().transform(np.array([first, *between, last]))


def has_slivers(steps: Sequence[int]) -> bool:
    """Whether a logarithmic axis makes a cell of these rising steps too narrow to be read; of many, all are narrow."""
    widths = np.diff(PLACES.transform(step_edges(steps)))
    return len(steps) <= MOST_RINGS and bool(widths.min() < LEAST_SHARE * widths.sum())


def _even_axis(ax: Axes, steps: Sequence[int]) -> None:
    """Name some of the evenly spaced checkpoints, the first and the last among them."""
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST_NAMES)).round().astype(int))
    ax.set_xticks(places, [step_name(steps[place]) for place in places])
    ax.set_xlabel("training step (evenly spaced)")


# A map


def _draw_map(ax: Axes, frame: pd.DataFrame, norm: Normalize, edges: np.ndarray, *, small: bool) -> None:
    """Draw the values of one panel: the embedding, if measured, and the blocks; the final norm over a gap.

    `edges` are those of the cells of the rising steps. Cells without a number are hatched; those that do not differ
    from their null (`as_null`) carry a dot, and the peak of each step a ring.
    """
    inside, final = frame[frame["site"] != "final_norm"], frame[frame["site"] == "final_norm"]
    top = int(frame["layer"].max())
    if len(inside):
        layers = list(range(int(inside["layer"].min()), top + 1))
        _mesh(ax, _matrix(inside, layers), (edges, np.arange(layers[0], top + 2) - 0.5), norm)
    if len(final):
        _mesh(ax, _matrix(final, [top]), (edges, _norm_edges(top)), norm)
    height = frame["layer"].astype(float).where(frame["site"] != "final_norm", _norm_edges(top).mean())
    _dots(ax, frame.assign(height=height))
    _peaks(ax, frame.assign(height=height), small=small)
    _checkpoints(ax, frame)


def _norm_edges(blocks: int) -> np.ndarray:
    """Lower and upper edge of the final norm's row, over a gap; both grow with the number of blocks, to be seen."""
    height = max(1.0, blocks / 12)
    return blocks + 0.5 + np.array([0.5, 1.5]) * height


def _matrix(frame: pd.DataFrame, layers: Sequence[int]) -> np.ndarray:
    """Values as (layers, steps); NaN where there is no number."""
    return frame.pivot(index="layer", columns="step", values="value").reindex(layers).to_numpy(float)


def _mesh(ax: Axes, values: np.ndarray, sides: tuple[np.ndarray, np.ndarray], norm: Normalize) -> None:
    edges, layer_edges = sides
    if np.isnan(values).any():
        size = (edges[-1] - edges[0], layer_edges[-1] - layer_edges[0])
        ax.add_patch(Rectangle((edges[0], layer_edges[0]), *size, facecolor="#F4F4F4", edgecolor=FAINT,
                               hatch="////", linewidth=0, zorder=0.5))  # fmt: skip
    # rasterized in the vector file: 154 × 48 cells as paths are a megabyte a panel
    ax.pcolormesh(edges, layer_edges, np.ma.masked_invalid(values), cmap=COLORS, norm=norm,
                  rasterized=True, zorder=1)  # fmt: skip


def _dots(ax: Axes, frame: pd.DataFrame) -> None:
    same = frame[frame["as_null"].astype(bool)]
    size = 2.2 if len(same) <= 8 * MOST_RINGS else 1.0
    ax.plot(same["step"], same["height"], linestyle="none", marker="o", markersize=size, color=INK,
            markeredgecolor="white", markeredgewidth=0.3, rasterized=True, zorder=3, label="_as null")  # fmt: skip


def _peaks(ax: Axes, frame: pd.DataFrame, *, small: bool) -> None:
    """Draw rings; a line where the steps are many, with a gap where a step has no peak."""
    steps = sorted(frame["step"].unique())
    peaks = frame[frame["peak"].astype(bool)].set_index("step")["height"].reindex(steps)
    if len(steps) > MOST_RINGS:
        ax.plot(peaks.index, peaks, color=INK, linewidth=1.8, zorder=4, label="_peak")
        ax.plot(peaks.index, peaks, color="white", linewidth=0.9, zorder=4, label="_peak")
        return
    size = 2.5 if small else 5.0 if len(steps) <= MOST_RINGS // 3 else 4.0
    ax.plot(peaks.index, peaks, **_ring(size), markeredgewidth=0.8, zorder=4, label="_peak")


def _ring(size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markerfacecolor": "white",
        "markeredgecolor": INK,
    }


def _checkpoints(ax: Axes, frame: pd.DataFrame) -> None:
    steps = sorted(frame["step"].unique())
    above = blended_transform_factory(ax.transData, ax.transAxes)
    width = 1.0 if len(steps) <= MOST_RINGS else 0.3
    ax.plot(steps, [1.0] * len(steps), "|", markersize=4, markeredgewidth=width, color=FAINT, transform=above,
            clip_on=False, label="_checkpoints")  # fmt: skip


# A figure of maps


@dataclass(frozen=True, slots=True)
class View:
    """What one figure of maps has of its own.

    `norm` makes the scale of colors from the values of the rows on it; `null` names in the legend what cells with a dot
    equal.
    """

    label: str
    norm: Callable[[pd.Series], Normalize]
    null: str


def draw_panels(data: pd.DataFrame, view: View) -> Figure:
    """Draw a map for each model, over a second and third one for each further choice of rows."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    figure, panels = layout.small_multiples(models, variants, size=(3.5, 2.6), same_scale=False)
    scales = {rows: _scale(data, rows, view) for rows in variants}
    small = len(panels) > 2 * layout.CROWDED_COLUMNS
    for (_, rows), (ax, frame, of_model) in zip(panels, layout.each_panel(panels, data), strict=True):
        _panel(ax, frame, scales[rows], of_model, small=small)
    _bars(figure, panels, scales, view)
    layout.label_outer_panels(panels.values())
    _legend(figure, data, view)
    return figure


def _scale(data: pd.DataFrame, rows: str, view: View) -> Normalize:
    return view.norm(data.loc[data["rows"].isin(_alike(rows)), "value"].dropna())


def _alike(variant: str) -> tuple[str, ...]:
    return TOGETHER if variant in TOGETHER else (variant,)


def _panel(ax: Axes, frame: pd.DataFrame, norm: Normalize, of_model: pd.DataFrame, *, small: bool) -> None:
    if frame.empty:
        return layout.nothing_here(ax, "not measured on these rows")
    steps = sorted(frame["step"].unique())
    if has_slivers(steps):
        place = {step: i for i, step in enumerate(steps)}
        edges = np.arange(len(steps) + 1) - 0.5
        _draw_map(ax, frame.assign(step=frame["step"].map(place)), norm, edges, small=small)
        _even_axis(ax, steps)
    else:
        edges = step_edges(steps)
        _draw_map(ax, frame, norm, edges, small=small)
        step_axis(ax, steps)
    ax.set_xlim(edges[0], edges[-1])
    _layer_axis(ax, of_model)
    ax.grid(visible=False)
    layout.note_without_numbers(ax, frame)


def _layer_axis(ax: Axes, of_model: pd.DataFrame) -> None:
    bottom, top = int(of_model["layer"].min()), int(of_model["layer"].max())
    every = max(1, -(-top // 6))
    ticks: list[float] = list(range(bottom if bottom == 0 else every, top + 1, every))
    end = top + 0.5
    names = [str(tick) for tick in ticks]
    if (of_model["site"] == "final_norm").any():
        edges = _norm_edges(top)
        end, place = edges[1], edges.mean()
        # less than a tenth of the axis apart, two names touch
        ticks = [tick for tick in ticks if place - tick > 0.1 * end] + [place]
        names = [*names[: len(ticks) - 1], "norm"]
    ax.set_yticks(ticks, names)
    ax.set_ylim(bottom - 0.5, end)
    ax.set_ylabel("layer (0 = embedding)" if bottom == 0 else "layer (blocks)")


def _bars(figure: Figure, panels: layout.Panels, scales: Mapping[str, Normalize], view: View) -> None:
    """Draw a bar for each scale of colors: beside its rows of panels, or beside all where models are wrapped."""
    columns = {layout.place_of(ax).colspan.start for ax in panels.values()}
    wrapped = len(panels) > len(scales) * len(columns)
    groups: dict[tuple[str, ...], list[Axes]] = {}
    for (_, variant), ax in panels.items():
        groups.setdefault(_alike(variant), []).append(ax)
    for alike, axes in groups.items():
        drawn = [variant for variant in alike if variant in scales]
        names = ", ".join(layout.SHORT_VARIANT_NAMES.get(name, name) for name in drawn)
        label = f"{view.label}\n{names}" if wrapped and len(groups) > 1 else view.label
        beside_all: dict[str, Any] = {"ax": list(panels.values()), "shrink": 0.3, "anchor": (0, 1)}
        bar = figure.colorbar(
            ScalarMappable(scales[drawn[0]], COLORS),
            label=label,
            pad=0.015,
            aspect=25,
            **(beside_all if wrapped else {"ax": axes}),
        )
        bar.ax.tick_params(which="minor", length=0)
        if bar.ax.get_yscale() == "log":
            marks.plain_log_axis(bar.ax)


def _legend(figure: Figure, data: pd.DataFrame, view: View) -> None:
    entries, fewest = [], data.groupby("model")["step"].nunique().min()
    if data["peak"].any() and fewest <= MOST_RINGS:
        entries.append(Line2D([], [], label=PEAK, **_ring(5)))
    elif data["peak"].any():
        outline = [Stroke(linewidth=2.2, foreground=INK), Normal()]
        entries.append(Line2D([], [], color="white", linewidth=1.2, path_effects=outline, label=PEAK))
    if data["as_null"].any():
        entries.append(
            Line2D([], [], linestyle="none", marker="o", markersize=2.5, color=INK, label=view.null)
        )
    if entries:
        figure.legend(handles=entries, loc="outside upper right", ncols=1)


def _notes_on_maps(data: pd.DataFrame) -> list[str]:
    panels = data.groupby(["model", "rows"])["step"].unique()
    even = any(has_slivers(sorted(steps)) for steps in panels)
    return [
        "Ticks above a map: its checkpoints; a cell reaches halfway to the next.",
        "Checkpoints too near one another for a logarithmic axis are evenly spaced." if even else "",
        "No block is marked where the profile is level: intervals of its highest and lowest block meet.",
        _missing(data),
        notes.sinks(data),
        notes.distrusted(data),
    ]


def _missing(data: pd.DataFrame) -> str:
    """Count the hatched cells and say why: the flags of the table, or that the table has no such row."""
    panels = data.groupby(["model", "rows"], sort=False)
    whole = sum(of_panel["step"].nunique() * len(of_panel[["site", "layer"]].drop_duplicates())
                for _, of_panel in panels)  # fmt: skip
    flagged = data[data["value"].isna()]
    absent = whole - len(data)
    if not absent and flagged.empty:
        return ""
    why = in_order(flagged["flag"].map(reason))[:3] + ["not measured"] * (absent > 0)
    return f"Hatched: {absent + len(flagged)} of {whole} cells have no number ({'; '.join(why)})."


# Anisotropy


def _anisotropy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select anisotropy on the first dataset at every layer and step of every model.

    `peak` is the block of the largest value at its step, `as_null` says that the interval reaches down to `null`,
    what isotropic rows read.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "anisotropy"))
    steps = selection.with_null(trajectories(rows), tables["metrics"], "anisotropy_null")
    return with_peaks(steps.assign(as_null=steps["ci_low"].fillna(steps["value"]) <= steps["null"]))


def _to_the_next_tenth(values: pd.Series) -> Normalize:
    return Normalize(0, ceil(10 * values.max()) / 10 if len(values) else 1)


def _notes_on_anisotropy(data: pd.DataFrame) -> list[str]:
    return [
        *_notes_on_maps(data),
        notes.isotropic(data["null"], mark="Isotropic rows at this n and d read"),
        notes.intervals_in_csv(data),
    ]


ANISOTROPY = Drawing(
    title="Anisotropy, layer by step of training",
    reads=("anisotropy", "anisotropy_null"),
    data=_anisotropy,
    panels=partial(
        draw_panels,
        view=View(
            label=marks.AXIS_LABELS["anisotropy"],
            norm=_to_the_next_tenth,
            null="no more than isotropic rows read",
        ),
    ),
    notes=_notes_on_anisotropy,
    nothing="This study has no anisotropy at a known training step.",
)


# Intrinsic dimension


def _dimension(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension on the first dataset at every block, the final norm and every step of every model.

    `peak` is the block of the largest value at its step, `as_null` says that the interval reaches up to `null`, the
    dimension of Gaussian rows with the same covariance.
    """
    rows = first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    steps = trajectories(rows[rows["site"] != "embedding"])
    steps = selection.with_null(steps, tables["metrics"], "id_twonn_surrogate")
    return with_peaks(steps.assign(as_null=steps["ci_high"].fillna(steps["value"]) >= steps["null"]))


def _logarithmic(values: pd.Series) -> Normalize:
    positive = values[values > 0]
    low, high = (positive.min(), positive.max()) if len(positive) else (1.0, 10.0)
    return LogNorm(low, max(high, 1.05 * low))


def _notes_on_dimension(data: pd.DataFrame) -> list[str]:
    by_type = (data["rows"] == "one_per_type").any() and data["rows"].nunique() > 1
    return [
        *_notes_on_maps(data),
        "One row of each token id has its own scale of colors." if by_type else "",
        notes.intervals_in_csv(data),
        notes.dimensions(data),
        notes.EMBEDDING,
    ]


DIMENSION = Drawing(
    title="Intrinsic dimension, layer by step of training",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=_dimension,
    panels=partial(
        draw_panels,
        view=View(
            label=marks.AXIS_LABELS["id_twonn"],
            norm=_logarithmic,
            null="as high as Gaussian rows of the same covariance",
        ),
    ),
    notes=_notes_on_dimension,
    nothing="This study has no `id_twonn` of a block at a known training step.",
)
