"""Encoders against decoders as groups, at the end of training: anisotropy, dome index and intrinsic dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, nulls, selection
from lmshape.figures.kind_means import LEAST_MODELS, kind_means, model_counts
from lmshape.figures.style import FAINT, KIND_COLORS, LINES, MARKERS, Look, paler, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Encoders and decoders at the end of training"
METRICS = {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"}
READS = (*METRICS, *METRICS.values())
DOME_COLUMNS = {
    "dome_index": "value",
    "dome_index_low": "ci_low",
    "dome_index_high": "ci_high",
    "dome_index_null": "null",
}


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select both metrics over the blocks, and the dome index, at each model's last checkpoint on its first dataset.

    `view` "model" holds the models' values, "kind" the means of the kinds with an interval over models, "dome" the
    dome index of each model, which is 0 for a profile that is flat or monotone, with what noise makes of a flat one.
    """
    parts = []
    for metric, null in METRICS.items():
        rows = selection.metric_rows(tables["metrics"], metric)
        last = selection.final_checkpoints(selection.first_dataset(rows[rows["site"] == "block"]))
        last = selection.with_null(last, tables["metrics"], null)
        parts.append(last.assign(view="model"))
        parts.append(kind_means(last, logarithmic=metric == "id_twonn").assign(view="kind"))
    parts.append(_domes(tables, parts[0]))
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _domes(tables: Mapping[str, pd.DataFrame], of_models: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table `profiles` of the cells that are drawn."""
    profiles = tables.get("profiles", pd.DataFrame())
    if not {*DOME_COLUMNS} <= {*profiles} or of_models.empty:
        return pd.DataFrame()
    cells = of_models[["model", "checkpoint", "dataset"]].drop_duplicates()
    domes = (
        profiles[profiles["metric"] == "anisotropy"]
        .merge(cells)
        .rename(columns=DOME_COLUMNS)
        .assign(view="dome", metric="dome_index")
    )
    cell = ["model", "kind", "checkpoint", "step", "dataset", "rows", "metric", "view"]
    return domes[[*cell, *DOME_COLUMNS.values(), "flag"]]


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each metric, one for each choice of rows, and the dome indices beside anisotropy."""
    from matplotlib.figure import Figure

    with styled():
        if data.empty:
            return marks.empty_figure(title=TITLE, note="This study has neither `anisotropy` nor `id_twonn`.")
        figure = Figure(figsize=(12.6, 7.4))
        grid = figure.subplots(2, 3)
        for axes, metric in zip(grid, METRICS, strict=True):
            _row(axes, data[data["metric"] == metric], metric)
        if (data["metric"] == "anisotropy").any():
            _dome_panel(grid[0, 2], data[data["view"] == "dome"])
        _legend(figure, data)
        models = data[data["view"] == "model"]
        marks.finish(figure, title=f"{TITLE}, {selection.dataset_names(models)}", notes=_notes(data))
        return figure


def _row(axes: Sequence[Axes], frame: pd.DataFrame, metric: str) -> None:
    if frame.empty:
        marks.nothing_here(axes[0], f"`{metric}` not measured on a block")
    variants = selection.in_order(frame["rows"])
    for ax in axes[1 : len(variants)]:
        ax.sharey(axes[0])
    for ax, rows in zip(axes, variants, strict=False):
        _panel(ax, frame[frame["rows"] == rows], metric)
        ax.set_title(marks.VARIANT_NAMES.get(rows, rows))
    for ax in axes[max(len(variants), 1) :]:
        ax.set_axis_off()


def _panel(ax: Axes, frame: pd.DataFrame, metric: str) -> None:
    models = frame[frame["view"] == "model"]
    few = _kinds_of_few(models)
    for (kind, _), of_model in models.groupby(["kind", "model"], sort=False):
        look = Look(paler(_look(kind).color), _look(kind).line, "", width=0.7)
        opacity = 0.25 if kind in few else 0
        marks.line(ax, of_model, x="depth", look=look, label="_model", opacity=opacity)
    for kind, mean in frame[frame["view"] == "kind"].groupby("kind", sort=False):
        marks.line(ax, mean, x="depth", look=_look(kind), label=kind)
        look = {"color": paler(_look(kind).color), "marker": _look(kind).marker}
        nulls.line(ax, mean, x="depth", label="_null", **(look if metric == "id_twonn" else {}))
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "last\nblock"])
    ax.set(xlabel="depth (layer / number of blocks)", ylabel=marks.AXIS_LABELS[metric], xlim=(-0.02, 1.04))
    if metric == "anisotropy":
        marks.anisotropy_axis(ax)
    else:
        marks.dimension_axis(ax)
    marks.note_without_numbers(ax, frame)


def _kinds_of_few(models: pd.DataFrame) -> list[str]:
    """Kinds whose mean has no interval, so that each model shows its own."""
    return [kind for kind, count in model_counts(models).items() if count < LEAST_MODELS]


def _look(kind: str) -> Look:
    place = list(KIND_COLORS).index(kind) if kind in KIND_COLORS else len(KIND_COLORS)
    return Look(KIND_COLORS.get(kind, FAINT), LINES[place], MARKERS[place], width=2.0)


def _dome_panel(ax: Axes, domes: pd.DataFrame) -> None:
    domes = domes[domes["value"].notna()].sort_values(["kind", "rows"], kind="stable")
    if domes.empty:
        return marks.nothing_here(ax, "no dome index: fewer than three blocks, or `profiles` is empty")
    ax.set_axis_on()
    groups = list(domes.groupby(["kind", "rows"], sort=False))
    for lane, ((kind, _), group) in enumerate(groups):
        look, places = _look(kind), [lane + 0.7 * ((i + 0.5) / len(group) - 0.5) for i in range(len(group))]
        ax.hlines(places, group["ci_low"], group["ci_high"], color=paler(look.color), linewidth=1.2)
        ax.plot(group["value"], places, label="_dome", **(look.settings | {"linestyle": "none"}))
        ax.plot(group["null"], places, "|", color=FAINT, markersize=7, label="_null")
    names = [f"{kind}s,\n{marks.SHORT_VARIANT_NAMES.get(rows, rows)}" for (kind, rows), _ in groups]
    ax.set_yticks(range(len(groups)), names)
    # no wider than that, what is level would look like a dome
    ax.set_xlim(right=max(ax.get_xlim()[1], 0.2))
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel("dome index: peak less the higher edge")
    ax.set_title("dome of each model; |: of a flat profile and noise")
    ax.grid(visible=False)


def _legend(figure: Figure, data: pd.DataFrame) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for kind, count in model_counts(data[data["view"] == "model"]).items():
        what = f"mean of {count} {kind}s" if count > 1 else f"the only {kind}"
        handles.append(Line2D([], [], label=what, **_look(kind).settings))
    handles.append(Line2D([], [], color=FAINT, linewidth=0.7, label="each model"))
    if data["null"].notna().any():
        handles.append(nulls.handle(nulls.BOTH))
    figure.legend(handles=handles, loc="outside upper right", ncols=2)


def _notes(data: pd.DataFrame) -> Sequence[str]:
    models = data[data["view"] == "model"]
    missing = [kind for kind in ("decoder", "encoder") if kind not in set(models["kind"])]
    few = _kinds_of_few(models)
    how = "of thin lines; a mean of fewer than three models has none"
    every = len(few) == models["kind"].nunique()
    dome = (
        "Dome index: bars are 95 % intervals over draws; a flat profile with the same noise stays under | in 95 of 100"
        " samples."
    )
    return [
        *(f"No {kind} in this study." for kind in missing),
        "" if every else "Bands of means: 95 % interval over models (Student's t).",
        marks.interval_note(models[models["kind"].isin(few)], how),
        "Means of dimensions are geometric.",
        nulls.isotropic_note(models.loc[models["metric"] == "anisotropy", "null"]),
        nulls.surrogate_note(models.loc[models["metric"] == "id_twonn", "null"]),
        dome if (data["view"] == "dome").any() else "",
        marks.dimension_note(models),
        marks.sink_note(models),
        marks.flag_note(models),
    ]
