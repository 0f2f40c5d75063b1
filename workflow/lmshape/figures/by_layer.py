"""A metric over the layers of every model's last checkpoint: all models in one panel, or a panel for each of many.

Up to eight models share a panel for each choice of rows. More would cover one another: each gets a small panel of
its own then, with a line for each choice of rows over the others' in the pale colors of their kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import FAINT, INK, KIND_COLORS, Look, looks, looks_by_kind, paler
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order

FINAL_NORM_DEPTH = 1.17
ALONE = "every model"
HEADING = "{title}, last checkpoint, {datasets}"
MOST_MARKERS = 13  # of a line; more of them hide how it is dashed
MEASURES = {"linearity": "whole output", "linearity_residual": "update alone"}
IN_SAMPLE = "in sample: fitted to the same rows"
NULL_OF_LINEARITY = "in sample, of noise: d/n"


@dataclass(frozen=True, slots=True)
class View:
    """What one figure by layer has of its own.

    `beside` draws what stands beside the values of one model, such as a null, in the look of its line;
    `beside_entries` are its entries of the legend. `panels` names the column whose values have a panel each.
    """

    label: str
    y_axis: Callable[[Axes], None]
    beside: Callable[[Axes, pd.DataFrame, Look], None]
    beside_entries: Callable[[pd.DataFrame], list[Artist]]
    panels: str = "rows"
    first_depth: str = "embed-\nding"  # empty without an embedding
    size: tuple[float, float] = (4.4, 4.0)


def draw_panels(data: pd.DataFrame, view: View) -> Figure:
    """Draw one panel for each choice of rows with a line for each model; a panel for each of many models."""
    models = data.drop_duplicates("model").set_index("model")["kind"].to_dict()
    return (_apart if layout.crowded(list(models)) else _together)(data, view, models)


def _together(data: pd.DataFrame, view: View, models: dict[str, str]) -> Figure:
    look, variants = looks_by_kind(models), in_order(data[view.panels])
    figure, panels = layout.panel_grid(variants, [ALONE], size=view.size)
    names = ([view.first_depth, "¼", "½", "¾", "last\nblock"], "final\nnorm")
    for (variant, _), ax in panels.items():
        of_panel = data[data[view.panels] == variant]
        for model, of_model in of_panel.groupby("model", sort=False):
            _curve(ax, of_model, look[model], model)
            view.beside(ax, of_model[of_model["site"] != "final_norm"], look[model])
        _depth_axis(ax, [0, 0.25, 0.5, 0.75, 1], names, has_norm=(of_panel["site"] == "final_norm").any())
        _value_axis(ax, of_panel, view, "depth (layer / number of blocks)")
        ax.set_title(layout.VARIANT_NAMES.get(variant, variant))
    layout.label_outer_panels(panels.values())
    _legend_by_kind(figure, models, look, view.beside_entries(data))
    return figure


def _apart(data: pd.DataFrame, view: View, models: dict[str, str]) -> Figure:
    look, variants = looks(in_order(data[view.panels])), in_order(data[view.panels])
    figure, panels = layout.small_multiples(
        sorted(models, key=lambda model: models[model]), [ALONE], size=view.size
    )
    of_first = data[(data[view.panels] == variants[0]) & (data["site"] != "final_norm")]
    others = [
        of_model.sort_values("layer", kind="stable") for _, of_model in of_first.groupby("model", sort=False)
    ]
    names = (["0" if view.first_depth else "", "½", "1"], "norm")
    for (model, _), ax in panels.items():
        for other in others:
            color = _pale(other["kind"].iloc[0])
            ax.plot(other["depth"], other["value"], color=color, linewidth=0.5, label="_other", zorder=1)
        of_model = data[data["model"] == model]
        for variant, of_variant in of_model.groupby(view.panels, sort=False):
            its = replace(look[variant], size=3.0)
            _curve(ax, of_variant, its, variant)
            view.beside(ax, of_variant[of_variant["site"] != "final_norm"], replace(its, marker=""))
        _depth_axis(ax, [0, 0.5, 1], names, has_norm=(data["site"] == "final_norm").any())
        _value_axis(ax, of_model, view, "relative depth")
        ax.set_title(f"{model} ({models[model]})")
    layout.label_outer_panels(panels.values(), y=False)
    layout.label_values(figure, view.label)
    _legend_apart(figure, look, sorted(set(models.values())), view.beside_entries(data))
    return figure


def _curve(ax: Axes, frame: pd.DataFrame, look: Look, label: str) -> None:
    final = frame["site"] == "final_norm"
    marks.line(ax, frame[~final], x="depth", look=look, label=label, most_markers=MOST_MARKERS)
    marks.off_line(ax, frame[final], x=FINAL_NORM_DEPTH, look=look)


def _pale(kind: str) -> str:
    return paler(paler(KIND_COLORS.get(kind, INK)))


def _depth_axis(ax: Axes, ticks: list[float], names: tuple[list[str], str], *, has_norm: bool) -> None:
    """Name relative depths and the final norm; a first name that is empty stands for a depth without values."""
    of_depths, of_norm = names
    if not of_depths[0]:
        ticks, of_depths = ticks[1:], of_depths[1:]
    if has_norm:
        ticks, of_depths = [*ticks, FINAL_NORM_DEPTH], [*of_depths, of_norm]
    ax.set_xticks(ticks, of_depths)
    ax.set_xlim(-0.04, ticks[-1] + 0.06)


def _value_axis(ax: Axes, frame: pd.DataFrame, view: View, depth: str) -> None:
    ax.set(xlabel=depth, ylabel=view.label)
    view.y_axis(ax)
    layout.note_without_numbers(ax, frame)


def _legend_by_kind(
    figure: Figure, models: Mapping[str, str], look: Mapping[str, Look], beside: Sequence[Artist]
) -> None:
    groups = {f"{kind}s": [marks.entry(model, look[model]) for model in models if models[model] == kind]
              for kind in sorted(set(models.values()))}  # fmt: skip
    groups |= {"for comparison": list(beside)} if beside else {}
    headings = {name: Line2D([], [], linestyle="none", label=name) for name in groups}
    entries = [entry for name, lines in groups.items() for entry in (headings[name], *lines)]
    legend = figure.legend(handles=entries, loc="outside right upper")
    for text, entry in zip(legend.get_texts(), entries, strict=True):
        if entry in headings.values():
            text.set(fontweight="bold", color=INK)


def _legend_apart(
    figure: Figure, look: Mapping[str, Look], kinds: Sequence[str], beside: Sequence[Artist]
) -> None:
    lines = [marks.entry(layout.SHORT_VARIANT_NAMES.get(name, name), its) for name, its in look.items()]
    others = [Line2D([], [], color=_pale(kind), linewidth=1.5, label=f"all {kind}s") for kind in kinds]
    figure.legend(handles=[*lines, *others, *beside], loc="outside upper right", ncols=3)


def _last(metrics: pd.DataFrame, metric: str, null: str, sites: Sequence[str] = ()) -> pd.DataFrame:
    """Select a metric on the first dataset at each model's last checkpoint, with its `null`; at some sites, or all."""
    rows = selection.metric_rows(metrics, metric)
    chosen = rows[rows["site"].isin(sites)] if sites else rows
    return selection.with_null(final_checkpoints(first_dataset(chosen)), metrics, null)


# Anisotropy


def _anisotropy(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    return _last(tables["metrics"], "anisotropy", "anisotropy_null")


def _notes_on_anisotropy(data: pd.DataFrame) -> list[str]:
    return [
        *notes.absent_kinds(data),
        notes.intervals(data, notes.JACKKNIFE),
        notes.isotropic(data["null"]),
        *notes.common(data),
    ]


ANISOTROPY = Drawing(
    title="Anisotropy by layer: encoders against decoders",
    reads=("anisotropy", "anisotropy_null"),
    data=_anisotropy,
    panels=partial(
        draw_panels,
        view=View(
            label=f"{marks.METRIC_LABELS['anisotropy']} (share of variance)",
            y_axis=marks.anisotropy_axis,
            beside=lambda ax, frame, look: marks.null_line(ax, frame, x="depth"),
            beside_entries=lambda data: marks.null_entries(data["null"], notes.ISOTROPIC),
        ),
    ),
    notes=_notes_on_anisotropy,
    nothing="This study has no anisotropy to draw.",
    heading=HEADING,
)


# Intrinsic dimension


def _dimension(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the TwoNN dimension of blocks and final norm; `null` is that of Gaussian rows with the same covariance."""
    return _last(tables["metrics"], "id_twonn", "id_twonn_surrogate", ("block", "final_norm"))


def _notes_on_dimension(data: pd.DataFrame) -> list[str]:
    return [
        *notes.absent_kinds(data),
        notes.intervals(data, notes.STUDENT),
        notes.surrogate(data["null"]),
        notes.dimensions(data),
        notes.EMBEDDING,
        *notes.common(data),
    ]


DIMENSION = Drawing(
    title="Intrinsic dimension by layer: encoders against decoders",
    reads=("id_twonn", "id_twonn_surrogate"),
    data=_dimension,
    panels=partial(
        draw_panels,
        view=View(
            label=f"{marks.METRIC_LABELS['id_twonn']}, log scale",
            y_axis=marks.dimension_axis,
            beside=lambda ax, frame, look: marks.surrogate_line(ax, frame, x="depth", look=look),
            beside_entries=lambda data: marks.null_entries(data["null"], marks.SURROGATE),
            first_depth="",
            size=(4.0, 4.0),
        ),
    ),
    notes=_notes_on_dimension,
    nothing="This study has no `id_twonn` of a block.",
    heading=HEADING,
)


# Linearity: how far each block is a linear map, of its whole output and of its update alone


def _linearity(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the held-out linearity of each block.

    `in_sample` is the same of the rows that the map was fitted to, `null` what it reads for noise; `panel` names
    the measure and the rows.
    """
    metrics = tables["metrics"]
    parts = [
        _last(metrics, f"{measure}_held_out", measure, ["block"])
        .rename(columns={"null": "in_sample"})
        .assign(panel=words)
        for measure, words in MEASURES.items()
    ]
    last = selection.with_null(pd.concat(parts, ignore_index=True), metrics, "linearity_null")
    variants = last["rows"].map(layout.SHORT_VARIANT_NAMES).fillna(last["rows"])
    panel = last.pop("panel") + ", " + variants
    return last.assign(panel=panel)


def _linearity_axis(ax: Axes) -> None:
    """Make y 0 to 1, or from the lowest value where a map predicts worse than the mean."""
    together = ax.get_shared_y_axes().get_siblings(ax)
    ax.set_ylim(min(-0.03, *(min(one.dataLim.y0 - 0.03, -0.03) for one in together)), 1.03)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])


def _in_sample(ax: Axes, frame: pd.DataFrame, look: Look) -> None:
    frame = frame.sort_values("layer", kind="stable")
    ax.plot(frame["depth"], frame["in_sample"], color=paler(look.color), linewidth=0.8, label="_in sample")
    marks.null_line(ax, frame, x="depth", label=NULL_OF_LINEARITY)


def _entries_in_sample(data: pd.DataFrame) -> list[Artist]:
    line = Line2D([], [], color=FAINT, linewidth=0.8, label=IN_SAMPLE)
    measured = bool(data["in_sample"].notna().any())
    return [line] * measured + marks.null_entries(data["null"], NULL_OF_LINEARITY)


def _notes_on_linearity(data: pd.DataFrame) -> list[str]:
    return [
        *notes.absent_kinds(data),
        "1 − ‖XA − Y‖² of the best linear map A from a block's input X to Y: its output, which carries X along,"
        " or its update alone, output less input. A is fitted to half of the sequences and scored on the other half.",
        notes.intervals(data, notes.JACKKNIFE),
        *notes.common(data),
    ]


LINEARITY = Drawing(
    title="Linearity by layer: encoders against decoders",
    reads=(*MEASURES, *(f"{measure}_held_out" for measure in MEASURES), "linearity_null"),
    data=_linearity,
    panels=partial(
        draw_panels,
        view=View(
            label="linearity: explained share of variance, held out",
            y_axis=_linearity_axis,
            beside=_in_sample,
            beside_entries=_entries_in_sample,
            panels="panel",
            first_depth="0",
            size=(3.3, 3.9),
        ),
    ),
    notes=_notes_on_linearity,
    nothing="This study has no held-out linearity of a block.",
    heading=HEADING,
)
