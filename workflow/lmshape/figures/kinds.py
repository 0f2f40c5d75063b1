"""Encoders against decoders as groups, at the end of training: anisotropy, dome index and intrinsic dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.special import stdtrit

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.style import FAINT, INK, KIND_COLORS, LINES, MARKERS, Look, looks_by_kind, paler
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order

METRICS = {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"}
LEAST_MODELS = 3  # with fewer an interval over models says nothing
LEVEL = 0.95


# What is selected

DOME_COLUMNS = {
    "dome_index": "value",
    "dome_index_low": "ci_low",
    "dome_index_high": "ci_high",
    "dome_index_null": "null",
}


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select both metrics over the blocks, and the dome index, at each model's last checkpoint on its first dataset.

    `view` "model" holds the models' values, "kind" the means of kinds with three models or more, with an interval over
    models, "dome" the dome index of each model, which is 0 for a profile that is flat or monotone, with what noise
    makes of a flat one.
    """
    parts = []
    for metric, null in METRICS.items():
        rows = selection.metric_rows(tables["metrics"], metric)
        last = final_checkpoints(first_dataset(rows[rows["site"] == "block"]))
        last = selection.with_null(last, tables["metrics"], null)
        parts.append(last.assign(view="model"))
        means = kind_means(last, logarithmic=metric == "id_twonn").assign(view="kind")
        # of one or two models a mean tells of neither, least of all where one was trained to fail
        parts.append(means[means["models"] >= LEAST_MODELS] if len(means) else means)
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


def kind_means(blocks: pd.DataFrame, *, logarithmic: bool) -> pd.DataFrame:
    """Average the models of each kind at the depths of the model with the fewest blocks, the others interpolated.

    Parameters
    ----------
    blocks : values of one metric, and its `null`, over the blocks of several models, of one or more choices of rows
    logarithmic : average logarithms, as for what is drawn on a logarithmic axis: the geometric mean

    Returns
    -------
    A row for each kind, choice of rows and depth: kind, rows, metric, depth, value, ci_low, ci_high (Student's t
    over models; NaN under three of them), null (the mean of theirs) and models, their number.
    """
    blocks = blocks[blocks["value"].notna() & ((blocks["value"] > 0) | (not logarithmic))]
    parts = []
    for (kind, rows), group in blocks.groupby(["kind", "rows"], sort=False):
        models = [of_model.sort_values("depth") for _, of_model in group.groupby("model", sort=False)]
        head = {"kind": kind, "rows": rows, "metric": group["metric"].iloc[0], "models": len(models)}
        parts.append(_mean(models, logarithmic=logarithmic).assign(**head))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _mean(models: list[pd.DataFrame], *, logarithmic: bool) -> pd.DataFrame:
    coarsest = min(models, key=len)["depth"].to_numpy()
    depth = coarsest[coarsest >= max(model["depth"].iloc[0] for model in models) - 1e-9]
    scale, back = (np.log, np.exp) if logarithmic else (np.asarray, np.asarray)
    values, nulls = (
        scale([np.interp(depth, model["depth"], model[name].astype(float)) for model in models])
        for name in ("value", "null")
    )
    mean, count = values.mean(axis=0), len(models)
    half = np.full(len(depth), np.nan)
    if count >= LEAST_MODELS:
        half = stdtrit(count - 1, (1 + LEVEL) / 2) * values.std(axis=0, ddof=1) / np.sqrt(count)
    ends = {"value": mean, "ci_low": mean - half, "ci_high": mean + half, "null": nulls.mean(axis=0)}
    return pd.DataFrame({"depth": depth, **{name: back(end) for name, end in ends.items()}})


def _model_counts(data: pd.DataFrame) -> dict[str, int]:
    """Count the models of each kind, decoders first."""
    kinds = data.drop_duplicates("model").groupby("kind")["model"].count()
    return {kind: int(kinds[kind]) for kind in sorted(in_order(data["kind"]))}


def _kinds_of_few(models: pd.DataFrame) -> list[str]:
    """Kinds without a mean, whose models are drawn and named."""
    return [kind for kind, count in _model_counts(models).items() if count < LEAST_MODELS]


# What is drawn


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each metric, one for each choice of rows, and the dome indices beside anisotropy."""
    figure = Figure(figsize=(12.6, 7.4))
    grid = figure.subplots(2, 3)
    models = data[data["view"] == "model"]
    looks = _looks(models)
    for axes, metric in zip(grid, METRICS, strict=True):
        _row(axes, data[data["metric"] == metric], metric, looks)
    if (data["metric"] == "anisotropy").any():
        _dome_panel(grid[0, 2], data[data["view"] == "dome"])
    figure.legend(handles=_entries(data, looks), loc="outside upper right", ncols=3)
    return figure


def _looks(models: pd.DataFrame) -> dict[str, Look]:
    """Looks of the models of kinds without a mean, as in the figures by layer."""
    few = _kinds_of_few(models)
    kinds = models.drop_duplicates("model").set_index("model")["kind"].to_dict()
    return {model: look for model, look in looks_by_kind(kinds).items() if kinds[model] in few}


def _look_of_mean(kind: str) -> Look:
    place = list(KIND_COLORS).index(kind) if kind in KIND_COLORS else len(KIND_COLORS)
    return Look(KIND_COLORS.get(kind, FAINT), LINES[place], MARKERS[place], width=2.0)


def _row(axes: Sequence[Axes], frame: pd.DataFrame, metric: str, looks: Mapping[str, Look]) -> None:
    if frame.empty:
        layout.nothing_here(axes[0], f"`{metric}` not measured on a block")
    variants = in_order(frame["rows"])
    for ax in axes[1 : len(variants)]:
        ax.sharey(axes[0])
    for ax, rows in zip(axes, variants, strict=False):
        _panel(ax, frame[frame["rows"] == rows], metric, looks)
        ax.set_title(layout.VARIANT_NAMES.get(rows, rows))
    for ax in axes[max(len(variants), 1) :]:
        ax.set_axis_off()


def _panel(ax: Axes, frame: pd.DataFrame, metric: str, looks: Mapping[str, Look]) -> None:
    models = frame[frame["view"] == "model"]
    for (kind, model), of_model in models.groupby(["kind", "model"], sort=False):
        if model in looks:
            _curve(ax, of_model, looks[model], model)
        else:
            mean = _look_of_mean(kind)
            thin = Look(paler(mean.color), mean.line, "", width=0.7)
            marks.line(ax, of_model, x="depth", look=thin, label="_model", opacity=0)
    for kind, of_kind in frame[frame["view"] == "kind"].groupby("kind", sort=False):
        _curve(ax, of_kind, _look_of_mean(kind), kind)
    ax.set_xticks([0.25, 0.5, 0.75, 1], ["¼", "½", "¾", "last\nblock"])
    ax.set(xlabel="depth (layer / number of blocks)", xlim=(-0.02, 1.04))
    marks.metric_axis(ax, metric)
    layout.note_without_numbers(ax, frame)


def _curve(ax: Axes, frame: pd.DataFrame, look: Look, label: str) -> None:
    marks.line(ax, frame, x="depth", look=look, label=label)
    if frame["metric"].iloc[0] == "id_twonn":
        marks.surrogate_line(ax, frame, x="depth", look=look, label="_null")
    else:
        marks.null_line(ax, frame, x="depth", label="_null")


def _entries(data: pd.DataFrame, looks: Mapping[str, Look]) -> list[Artist]:
    counts = _model_counts(data[data["view"] == "model"])
    means = {kind: count for kind, count in counts.items() if count >= LEAST_MODELS}
    entries = [marks.entry(model, look) for model, look in looks.items()]
    entries += [marks.entry(f"mean of {count} {kind}s", _look_of_mean(kind)) for kind, count in means.items()]
    if means:
        entries.append(Line2D([], [], color=FAINT, linewidth=0.7, label=f"each {' or '.join(means)}"))
    entries += [marks.null_entry(label, marker=marker) for label, marker in marks.nulls_of_both(data).items()]
    for rows in in_order(data.loc[data["view"] == "dome", "rows"]):
        label = f"dome, {layout.SHORT_VARIANT_NAMES.get(rows, rows)}"
        entries.append(Line2D([], [], color=INK, label=label, **_dot(rows)))
    return entries


# The panel of the dome index

DOME_TITLE = "dome index of each model\n|: what noise alone reaches"
LEAST_END = 0.2  # of the axis: on a shorter one, what is level would look like a dome
MOST_POINTS, LEAST_POINTS = 8.5, 4.0  # font size of the names
NAMED = 12  # models that have names of full size
BETWEEN = 0.5  # of a row, from the first choice of rows to the last


def _dome_panel(ax: Axes, domes: pd.DataFrame) -> None:
    """Draw a row for each model, decoders first: its index over its interval, filled with all rows, else hollow."""
    domes = domes[domes["value"].notna()].sort_values("kind", kind="stable")
    if domes.empty:
        return layout.nothing_here(ax, "no dome index: fewer than three blocks, or `profiles` is empty")
    ax.set_axis_on()
    models, variants = in_order(domes["model"]), in_order(domes["rows"])
    points = min(MOST_POINTS, max(LEAST_POINTS, MOST_POINTS * NAMED / len(models)))
    for place, rows in enumerate(variants):
        shift = BETWEEN * (place / max(len(variants) - 1, 1) - 0.5)
        places = {model: i + shift for i, model in enumerate(models)}
        _dots(ax, domes[domes["rows"] == rows], places, size=0.6 * points)
    ax.set_yticks(range(len(models)), models, fontsize=points)
    marks.shade_every_other_row(ax, len(models))
    end = max(ax.get_xlim()[1], LEAST_END)
    ax.set_xlim(-0.02 * end, end)  # a dot at 0 is whole
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("dome index: peak less the higher edge")
    ax.set_title(DOME_TITLE)
    ax.grid(visible=False)


def _dots(ax: Axes, domes: pd.DataFrame, places: Mapping[str, float], *, size: float) -> None:
    for dome in domes.itertuples():
        color, place = KIND_COLORS.get(dome.kind, FAINT), places[dome.model]
        ax.hlines(place, dome.ci_low, dome.ci_high, color=color, linewidth=1.2)
        ax.plot([dome.null], [place], "|", color=FAINT, markersize=1.6 * size, label="_null")
        ax.plot([dome.value], [place], color=color, markersize=size, label="_dome", **_dot(dome.rows))


def _dot(rows: str) -> dict[str, Any]:
    """Fill the dot of all rows; those of other choices are hollow."""
    return {"marker": "o", "linestyle": "none"} | ({} if rows == "all" else {"markerfacecolor": "white"})


# Notes


def _notes(data: pd.DataFrame) -> list[str]:
    models = data[data["view"] == "model"]
    few = _kinds_of_few(models)
    dome = (
        "Dome index: bars are 95 % intervals over draws; a flat profile with the same noise stays under | in 95 of 100"
        " samples."
    )
    means = "Bands of means: 95 % interval over models (Student's t). Means of dimensions are geometric."
    of_few = notes.intervals(models[models["kind"].isin(few)], notes.BOTH)
    return [
        *notes.absent_kinds(models),
        f"No mean of {' or '.join(f'{kind}s' for kind in few)}: fewer than three models." if few else "",
        means if models["kind"].nunique() > len(few) else "",
        of_few.replace("Bands", "Bands of models"),
        notes.isotropic(models.loc[models["metric"] == "anisotropy", "null"]),
        notes.surrogate(models.loc[models["metric"] == "id_twonn", "null"]),
        dome if (data["view"] == "dome").any() else "",
        notes.dimensions(models),
        *notes.common(models),
    ]


KINDS = Drawing(
    title="Encoders and decoders at the end of training",
    reads=(*METRICS, *METRICS.values()),
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has neither `anisotropy` nor `id_twonn`.",
    crowds=False,
)
