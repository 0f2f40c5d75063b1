"""A figure of maps: a panel for each model and choice of rows, with a bar of colors for those on one scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection, step_map
from lmshape.figures.layout import CROWDED_COLUMNS, crowded
from lmshape.figures.steps import step_axis
from lmshape.figures.style import INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

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
    models, variants = selection.in_order(data["model"]), selection.in_order(data["rows"])
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
    return ScalarMappable(view.norm(values), step_map.COLORS)


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable, of_model: pd.DataFrame) -> None:
    if frame.empty:
        return marks.nothing_here(ax, "not measured on these rows")
    many = len(ax.figure.axes) > CROWDED_COLUMNS * 2
    steps = sorted(frame["step"].unique())
    if step_map.has_slivers(steps):
        placed, edges = step_map.evenly(frame)
        step_map.draw_map(ax, placed, colors, edges=edges, crowded=many)
        step_map.even_axis(ax, steps)
    else:
        edges = step_map.step_edges(steps)
        step_map.draw_map(ax, frame, colors, edges=edges, crowded=many)
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
        edges = step_map.norm_edges(top)
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
    if data["peak"].any() and steps.min() <= step_map.MOST_RINGS:
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
    even = any(step_map.has_slivers(sorted(steps)) for steps in panels)
    evenly = "Checkpoints too near one another for a logarithmic axis are evenly spaced." if even else ""
    return [
        ticks,
        evenly,
        level,
        step_map.missing_note(data),
        marks.sink_note(data),
        marks.distrusted_note(data),
    ]
