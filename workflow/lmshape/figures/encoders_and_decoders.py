"""Encoders against decoders as groups, at the end of training: anisotropy, dome index and intrinsic dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.selection import LEAST_MODELS, kind_means, model_counts
from lmshape.figures.style import FAINT, INK, KIND_COLORS, LINES, MARKERS, Look, looks_by_kind, paler, styled
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


TITLE_DOME_PANEL = "dome index of each model\n|: what noise alone reaches"
LEAST_END = 0.2  # of the axis: on a shorter one, what is level would look like a dome
MOST_POINTS, LEAST_POINTS = 8.5, 4.0  # size of the names
NAMED = 12  # models that have names of full size
BETWEEN = 0.5  # of a row, from the first choice of rows to the last
_MARK = {"marker": "o", "linestyle": "none"}


def draw_of_dome_panel(ax: Axes, domes: pd.DataFrame) -> None:
    """Draw a row for each model, decoders first: its index over its interval, filled with all rows, else hollow."""
    domes = domes[domes["value"].notna()].sort_values("kind", kind="stable")
    if domes.empty:
        return marks.nothing_here(ax, "no dome index: fewer than three blocks, or `profiles` is empty")
    ax.set_axis_on()
    models, variants = in_order(domes["model"]), in_order(domes["rows"])
    points = min(MOST_POINTS, max(LEAST_POINTS, MOST_POINTS * NAMED / len(models)))
    for place, rows in enumerate(variants):
        shift = BETWEEN * (place / max(len(variants) - 1, 1) - 0.5)
        places = {model: i + shift for i, model in enumerate(models)}
        _variant(ax, domes[domes["rows"] == rows], places, size=0.6 * points)
    ax.set_yticks(range(len(models)), models, fontsize=points)
    for row in range(1, len(models), 2):
        ax.axhspan(row - 0.5, row + 0.5, color="#F5F5F5", zorder=0, linewidth=0)
    ax.set_ylim(len(models) - 0.5, -0.5)
    end = max(ax.get_xlim()[1], LEAST_END)
    ax.set_xlim(-0.02 * end, end)  # a dot at 0 is whole
    ax.locator_params(axis="x", nbins=5)
    ax.set_xlabel("dome index: peak less the higher edge")
    ax.set_title(TITLE_DOME_PANEL)
    ax.grid(visible=False)


def _variant(ax: Axes, domes: pd.DataFrame, places: Mapping[str, float], *, size: float) -> None:
    for dome in domes.itertuples():
        color, place = KIND_COLORS.get(dome.kind, FAINT), places[dome.model]
        ax.hlines(place, dome.ci_low, dome.ci_high, color=color, linewidth=1.2)
        ax.plot([dome.null], [place], "|", color=FAINT, markersize=1.6 * size, label="_null")
        ax.plot(
            [dome.value], [place], color=color, markersize=size, label="_dome", **_MARK, **_face(dome.rows)
        )


def _face(rows: str) -> dict[str, str]:
    return {} if rows == "all" else {"markerfacecolor": "white"}


def handles(domes: pd.DataFrame) -> list[Artist]:
    """Give the entries of a legend: which choice of rows is filled, and which hollow."""
    from matplotlib.lines import Line2D

    return [
        Line2D(
            [],
            [],
            color=INK,
            label=f"dome, {marks.SHORT_VARIANT_NAMES.get(rows, rows)}",
            **_MARK,
            **_face(rows),
        )
        for rows in in_order(domes["rows"])
    ]


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


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each metric, one for each choice of rows, and the dome indices beside anisotropy."""
    from matplotlib.figure import Figure

    with styled():
        if data.empty:
            return marks.empty_figure(title=TITLE, note="This study has neither `anisotropy` nor `id_twonn`.")
        figure = Figure(figsize=(12.6, 7.4))
        grid = figure.subplots(2, 3)
        models = data[data["view"] == "model"]
        looks = _looks(models)
        for axes, metric in zip(grid, METRICS, strict=True):
            _row(axes, data[data["metric"] == metric], metric, looks)
        if (data["metric"] == "anisotropy").any():
            draw_of_dome_panel(grid[0, 2], data[data["view"] == "dome"])
        _legend(figure, data, looks)
        marks.finish(figure, title=f"{TITLE}, {selection.dataset_names(models)}", notes=_notes(data))
        return figure


def _looks(models: pd.DataFrame) -> dict[str, Look]:
    """Looks of the models of kinds without a mean, as in the figures by layer."""
    few = _kinds_of_few(models)
    kinds = models.drop_duplicates("model").set_index("model")["kind"].to_dict()
    return {model: look for model, look in looks_by_kind(kinds).items() if kinds[model] in few}


def _row(axes: Sequence[Axes], frame: pd.DataFrame, metric: str, looks: Mapping[str, Look]) -> None:
    if frame.empty:
        marks.nothing_here(axes[0], f"`{metric}` not measured on a block")
    variants = in_order(frame["rows"])
    for ax in axes[1 : len(variants)]:
        ax.sharey(axes[0])
    for ax, rows in zip(axes, variants, strict=False):
        _panel(ax, frame[frame["rows"] == rows], metric, looks)
        ax.set_title(marks.VARIANT_NAMES.get(rows, rows))
    for ax in axes[max(len(variants), 1) :]:
        ax.set_axis_off()


def _panel(ax: Axes, frame: pd.DataFrame, metric: str, looks: Mapping[str, Look]) -> None:
    models = frame[frame["view"] == "model"]
    for (kind, model), of_model in models.groupby(["kind", "model"], sort=False):
        if model in looks:
            _curve(ax, of_model, looks[model], model)
        else:
            thin = Look(paler(_look(kind).color), _look(kind).line, "", width=0.7)
            marks.line(ax, of_model, x="depth", look=thin, label="_model", opacity=0)
    for kind, mean in frame[frame["view"] == "kind"].groupby("kind", sort=False):
        _curve(ax, mean, _look(kind), kind)
    ax.set_xticks([0.25, 0.5, 0.75, 1], ["¼", "½", "¾", "last\nblock"])
    ax.set(xlabel="depth (layer / number of blocks)", ylabel=marks.AXIS_LABELS[metric], xlim=(-0.02, 1.04))
    if metric == "anisotropy":
        marks.anisotropy_axis(ax)
    else:
        marks.dimension_axis(ax)
    marks.note_without_numbers(ax, frame)


def _curve(ax: Axes, frame: pd.DataFrame, look: Look, label: str) -> None:
    marks.line(ax, frame, x="depth", look=look, label=label)
    of_line = {"color": paler(look.color), "marker": look.marker}
    marks.null_line(
        ax, frame, x="depth", label="_null", **(of_line if frame["metric"].iloc[0] == "id_twonn" else {})
    )


def _kinds_of_few(models: pd.DataFrame) -> list[str]:
    """Kinds without a mean, whose models are drawn and named."""
    return [kind for kind, count in model_counts(models).items() if count < LEAST_MODELS]


def _look(kind: str) -> Look:
    place = list(KIND_COLORS).index(kind) if kind in KIND_COLORS else len(KIND_COLORS)
    return Look(KIND_COLORS.get(kind, FAINT), LINES[place], MARKERS[place], width=2.0)


def _legend(figure: Figure, data: pd.DataFrame, looks: Mapping[str, Look]) -> None:
    from matplotlib.lines import Line2D

    models = data[data["view"] == "model"]
    handles = [Line2D([], [], label=model, **look.settings) for model, look in looks.items()]
    means = {kind: count for kind, count in model_counts(models).items() if count >= LEAST_MODELS}
    for kind, count in means.items():
        handles.append(Line2D([], [], label=f"mean of {count} {kind}s", **_look(kind).settings))
    if means:
        handles.append(Line2D([], [], color=FAINT, linewidth=0.7, label=f"each {' or '.join(means)}"))
    handles += marks.handles(data)
    handles += handles(data[data["view"] == "dome"])
    figure.legend(handles=handles, loc="outside upper right", ncols=3)


def _notes(data: pd.DataFrame) -> Sequence[str]:
    models = data[data["view"] == "model"]
    missing = [kind for kind in ("decoder", "encoder") if kind not in set(models["kind"])]
    few = _kinds_of_few(models)
    means = models["kind"].nunique() > len(few)
    how = f"anisotropy: {marks.JACKKNIFE}; dimension: {marks.STUDENT}"
    dome = (
        "Dome index: bars are 95 % intervals over draws; a flat profile with the same noise stays under | in 95 of 100"
        " samples."
    )
    return [
        *(f"No {kind} in this study." for kind in missing),
        f"No mean of {' or '.join(f'{kind}s' for kind in few)}: fewer than three models." if few else "",
        "Bands of means: 95 % interval over models (Student's t). Means of dimensions are geometric."
        if means
        else "",
        marks.interval_note(models[models["kind"].isin(few)], how).replace("Bands", "Bands of models"),
        marks.isotropic_note(models.loc[models["metric"] == "anisotropy", "null"]),
        marks.surrogate_note(models.loc[models["metric"] == "id_twonn", "null"]),
        dome if (data["view"] == "dome").any() else "",
        marks.dimension_note(models),
        marks.sink_note(models),
        marks.flag_note(models),
    ]
