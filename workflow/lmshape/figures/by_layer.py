"""A metric over the layers of every model's last checkpoint: all models in one panel, or a panel for each of many.

Up to eight models share a panel for each choice of rows. More would cover one another: each gets a small panel of
its own then, with a line for each choice of rows over the others' in the pale colors of their kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.marks import CROWDED_COLUMNS, CROWDED_SIZE, crowded
from lmshape.figures.style import INK, KIND_COLORS, Look, looks, looks_by_kind, paler, styled
from lmshape.tables.rows import in_order

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FINAL_NORM_DEPTH = 1.17
ALONE = "every model"
MOST_MARKERS = 13  # of a line; more of them hide how it is dashed


@dataclass(frozen=True, slots=True)
class LayerView:
    """What one figure by layer has of its own.

    `beside` draws what stands beside the values of one model, such as a null, in the look of its line;
    `beside_handles` are its entries of the legend. `panels` names the column whose values have a panel each.
    """

    title: str
    nothing: str
    label: str
    y_axis: Callable[[Axes], None]
    beside: Callable[[Axes, pd.DataFrame, Look], None]
    beside_handles: Callable[[pd.DataFrame], Sequence[Artist]]
    notes: Callable[[pd.DataFrame], Sequence[str]]
    panels: str = "rows"
    first_depth: str = "embed-\nding"  # empty without an embedding
    size: tuple[float, float] = (4.4, 4.0)


def draw(data: pd.DataFrame, view: LayerView) -> Figure:
    """Draw one panel for each choice of rows with a line for each model; a panel for each of many models."""
    models = data.drop_duplicates("model").set_index("model")["kind"].to_dict()
    many = crowded(list(models))
    with styled(crowded=many):
        if data.empty:
            return marks.empty_figure(title=view.title, note=view.nothing)
        figure = _apart(data, view, models) if many else _together(data, view, models)
        title = f"{view.title}, last checkpoint, {selection.dataset_names(data)}"
        marks.finish(figure, title=title, notes=[*_kind_notes(data), *view.notes(data)])
        return figure


def _together(data: pd.DataFrame, view: LayerView, models: Mapping[str, str]) -> Figure:
    look, variants = looks_by_kind(dict(models)), in_order(data[view.panels])
    figure, panels = marks.panel_grid(variants, [ALONE], size=view.size)
    for (variant, _), ax in panels.items():
        of_panel = data[data[view.panels] == variant]
        for model, of_model in of_panel.groupby("model", sort=False):
            _curve(ax, of_model, look[model], model)
            view.beside(ax, of_model[of_model["site"] != "final_norm"], look[model])
        _axes(ax, of_panel, view)
        ax.set_title(marks.VARIANT_NAMES.get(variant, variant))
    marks.label_outer_panels(panels.values())
    _legend_by_kind(figure, models, look, view.beside_handles(data))
    return figure


def _apart(data: pd.DataFrame, view: LayerView, models: Mapping[str, str]) -> Figure:
    look, variants = looks(in_order(data[view.panels])), in_order(data[view.panels])
    names = sorted(models, key=lambda model: models[model])
    figure, panels = marks.panel_grid(names, [ALONE], size=CROWDED_SIZE, columns=CROWDED_COLUMNS)
    context = _context(data[data[view.panels] == variants[0]], models)
    for (model, _), ax in panels.items():
        _draw_context(ax, context)
        of_model = data[data["model"] == model]
        for variant, of_variant in of_model.groupby(view.panels, sort=False):
            its = replace(look[variant], size=3.0)
            _curve(ax, of_variant, its, variant)
            view.beside(ax, of_variant[of_variant["site"] != "final_norm"], replace(its, marker=""))
        _axes(ax, of_model, view, final_norm=bool((data["site"] == "final_norm").any()))
        ax.set_title(f"{model} ({models[model]})")
    marks.label_outer_panels(panels.values(), y=False)
    figure.supylabel(view.label, fontsize=8.5, color=INK)
    _legend_apart(figure, look, sorted(set(models.values())), view.beside_handles(data))
    return figure


def _curve(ax: Axes, frame: pd.DataFrame, look: Look, label: str) -> None:
    final = frame["site"] == "final_norm"
    marks.line(ax, frame[~final], x="depth", look=look, label=label, most_markers=MOST_MARKERS)
    marks.off_line(ax, frame[final], x=FINAL_NORM_DEPTH, look=look)


def _context(frame: pd.DataFrame, models: Mapping[str, str]) -> list[tuple[str, pd.DataFrame]]:
    """Color and curve of every model, for the background of each panel."""
    inside = frame[frame["site"] != "final_norm"].sort_values("layer", kind="stable")
    return [(_pale(models[model]), of_model) for model, of_model in inside.groupby("model", sort=False)]


def _draw_context(ax: Axes, context: Sequence[tuple[str, pd.DataFrame]]) -> None:
    for color, of_model in context:
        ax.plot(of_model["depth"], of_model["value"], color=color, linewidth=0.5, label="_other", zorder=1)


def _pale(kind: str) -> str:
    return paler(paler(KIND_COLORS.get(kind, INK)))


def _axes(ax: Axes, frame: pd.DataFrame, view: LayerView, final_norm: bool | None = None) -> None:
    few = final_norm is not None
    ticks, names = [0, 0.25, 0.5, 0.75, 1], [view.first_depth, "¼", "½", "¾", "last\nblock"]
    if few:
        ticks, names = [0, 0.5, 1], ["0", "½", "1"]
    if not view.first_depth:
        ticks, names = ticks[1:], names[1:]
    if final_norm or (frame["site"] == "final_norm").any():
        ticks, names = [*ticks, FINAL_NORM_DEPTH], [*names, "norm" if few else "final\nnorm"]
    ax.set_xticks(ticks, names)
    ax.set(xlabel="relative depth" if few else "depth (layer / number of blocks)", ylabel=view.label)
    ax.set_xlim(-0.04, ticks[-1] + 0.06)
    view.y_axis(ax)
    marks.note_without_numbers(ax, frame)


def _legend_by_kind(
    figure: Figure, models: Mapping[str, str], look: Mapping[str, Look], beside: Sequence[Artist]
) -> None:
    entries = []
    for kind in sorted(set(models.values())):
        alike = [model for model in models if models[model] == kind]
        entries += [_heading(f"{kind}s"), *(_handle(model, look) for model in alike)]
    entries += [_heading("for comparison"), *beside] if beside else []
    legend = figure.legend(handles=entries, loc="outside right upper")
    for text, entry in zip(legend.get_texts(), entries, strict=True):
        if entry.get_linestyle() == "None" and entry.get_marker() in ("", "None"):
            text.set(fontweight="bold", color=INK)


def _legend_apart(
    figure: Figure, look: Mapping[str, Look], kinds: Sequence[str], beside: Sequence[Artist]
) -> None:
    from matplotlib.lines import Line2D

    lines = [_handle(name, look, marks.SHORT_VARIANT_NAMES.get(name, name)) for name in look]
    others = [Line2D([], [], color=_pale(kind), linewidth=1.5, label=f"all {kind}s") for kind in kinds]
    figure.legend(handles=[*lines, *others, *beside], loc="outside upper right", ncols=3)


def _heading(text: str) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", label=text)


def _handle(name: str, look: Mapping[str, Look], label: str | None = None) -> Artist:
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label or name, **look[name].settings)


def _kind_notes(data: pd.DataFrame) -> list[str]:
    missing = [kind for kind in ("decoder", "encoder") if kind not in set(data["kind"])]
    return [f"No {kind} in this study." for kind in missing]
