"""How many directions a decoder needs: its loss with fewer behind each layer, and the least number by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from lmshape.figures import layout, marks, notes
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import color_of, colors_of_depths
from lmshape.figures.style import COLORS, FAINT, MARKERS, Look
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order
from lmshape.truncation.ranks import TOLERANCES

CURVES = {"keep": "leading axes kept (log scale)", "remove": "leading axes removed (log scale)"}
LEAST = "least"
FLOOR = 1e-3  # nats a token: on a logarithmic axis smaller increases, and decreases, stand here
CEILING = 30.0
MOST_BANDS = 8  # layers; bands of more cover one another
BESIDE = ("participation_ratio", "id_twonn")  # the least ranks
# Lines over layers: series → name and look.
LINES = {
    f"{tolerance:g}": (f"fewest axes that keep the loss within {tolerance:g} nat", Look(color, "-", marker))
    for tolerance, color, marker in zip(TOLERANCES, (COLORS[6], COLORS[0], COLORS[4]), MARKERS, strict=False)
} | {
    "participation_ratio": ("participation ratio", Look(COLORS[1], (0, (5, 1.5)), "D")),
    "id_twonn": ("intrinsic dimension (TwoNN)", Look(COLORS[2], (0, (1.2, 1.2)), "v")),
}
PLACE = ["model", "checkpoint", "step", "dataset", "layer", "depth", "d", "rows"]
NUMBERS = ["value", "ci_low", "ci_high", "draws"]
COLUMNS = [*PLACE, "view", "series", "x", *NUMBERS, "whole_loss", "tokens", "flag"]


# What is selected


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select losses and least ranks of each model's last truncated checkpoint on its first truncated dataset.

    `view` "keep" and "remove" hold the increase of the loss over the number of axes `x`, "least" the least rank over
    the layer `x` for each tolerance, and beside it participation ratio and TwoNN dimension; `series` names which.
    """
    losses, ranks = (_last(tables.get(name)) for name in ("truncation", "truncation_ranks"))
    if losses.empty:
        return pd.DataFrame(columns=COLUMNS)
    low, high = losses["loss_increase_low"], losses["loss_increase_high"]
    curves = losses.assign(value=losses["loss_increase"], ci_low=low, ci_high=high, x=losses["rank"])
    curves = curves.assign(view=curves["variant"], series="loss increase")
    least = ranks.assign(value=ranks["rank"], ci_low=ranks["rank_low"], x=ranks["layer"], view=LEAST)
    least = least.assign(
        ci_high=ranks["rank_high"].fillna(ranks["d"]), series=[f"{one:g}" for one in ranks["tolerance"]]
    )
    parts = [curves, least, _beside(tables["metrics"], ranks)]
    return pd.concat([part.reindex(columns=COLUMNS) for part in parts if len(part)], ignore_index=True)


def _last(table: pd.DataFrame | None) -> pd.DataFrame:
    if table is None or table.empty:
        return pd.DataFrame(columns=[*PLACE, "tolerance"])
    return final_checkpoints(first_dataset(table))


def _beside(metrics: pd.DataFrame, ranks: pd.DataFrame) -> pd.DataFrame:
    """Rows of the metrics that stand beside least ranks: blocks, and of the spectrum the embedding too."""
    chosen = metrics[metrics["metric"].isin(BESIDE) & metrics["site"].isin(["embedding", "block"])]
    chosen = chosen[(chosen["metric"] != "id_twonn") | (chosen["site"] == "block")]
    places = ranks[[*PLACE, "whole_loss"]].drop_duplicates()
    keys = ["model", "checkpoint", "dataset", "layer", "rows"]
    found = places.merge(chosen[[*keys, "metric", *NUMBERS, "flag"]], on=keys)
    return found.assign(view=LEAST, series=found["metric"], x=found["layer"])


# What is drawn


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model and choice of rows; of many models the least ranks alone."""
    models, variants = in_order(data["model"]), in_order(data["rows"])
    many = layout.crowded(models)
    figure = (_many if many else _few)(data, models, variants)
    drawn = set(data.loc[data["value"].notna(), "series"])
    entries = [marks.entry(*named) for series, named in LINES.items() if series in drawn]
    figure.legend(handles=entries, loc="outside upper right", ncols=2)
    return figure


def _few(data: pd.DataFrame, models: Sequence[str], variants: Sequence[str]) -> Figure:
    places = [(model, rows) for model in models for rows in variants]
    figure = Figure(figsize=(13, 2.7 * len(places) + 1.2))
    grid = figure.subplots(len(places), 3, squeeze=False)
    colors = colors_of_depths()
    for (model, rows), axes in zip(places, grid, strict=True):
        of_place = data[(data["model"] == model) & (data["rows"] == rows)]
        for view, ax in zip(CURVES, axes, strict=False):
            _curves(ax, of_place[of_place["view"] == view], view, colors)
        _least(axes[2], of_place[of_place["view"] == LEAST], _directions(data))
        for ax in axes:
            ax.set_title(_title(of_place))
    label = "relative depth of the layer (0: embedding)"
    bar = figure.colorbar(colors, ax=grid[:, :2], label=label, location="bottom", aspect=60, pad=0.02)
    bar.ax.tick_params(length=2)
    layout.label_outer_panels(grid[:, :2].flat)
    for ax in grid[:-1, 2]:
        ax.set_xlabel("")
    return figure


def _many(data: pd.DataFrame, models: Sequence[str], variants: Sequence[str]) -> Figure:
    figure, panels = layout.small_multiples(models, variants, size=(3.25, 3.0))
    for ax, frame, _ in layout.each_panel(panels, data):
        _least(ax, frame[frame["view"] == LEAST], _directions(data))
    layout.label_outer_panels(panels.values())
    return figure


def _title(of_place: pd.DataFrame) -> str:
    model, rows, whole = of_place[["model", "rows", "whole_loss"]].iloc[0]
    tokens = of_place["tokens"].dropna()
    on = f" (on {tokens.iloc[0]:.0f} tokens)" if len(tokens) else ""
    return f"{model}, {layout.SHORT_VARIANT_NAMES.get(rows, rows)}\nuntouched loss {whole:.3g} nats{on}"


def _directions(data: pd.DataFrame) -> pd.Series:
    """All numbers of directions that are drawn over layers, for one scale of all panels."""
    least = data[data["view"] == LEAST]
    return pd.concat([least["value"], least["ci_high"]])


def _curves(ax: Axes, frame: pd.DataFrame, view: str, colors: ScalarMappable) -> None:
    """Draw the increase over the number of axes, a line a layer."""
    ax.set_xlabel(CURVES[view])
    ax.set_ylabel("loss increase, nats per token\n(log scale)")
    ax.set_yscale("log")
    ax.set_ylim(FLOOR / 1.3, CEILING)
    for tolerance in TOLERANCES if view == "keep" else ():
        ax.axhline(tolerance, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
    if frame.empty:
        return layout.nothing_here(ax, "not measured")
    opacity = 0.08 if frame["layer"].nunique() <= MOST_BANDS else 0.0
    drawn = frame.assign(**{name: frame[name].clip(lower=FLOOR) for name in ("value", "ci_low", "ci_high")})
    for place, (layer, of_layer) in enumerate(drawn.groupby("layer")):
        look = Look(color_of(of_layer["depth"].iloc[0], colors), "-", MARKERS[place % len(MARKERS)], size=3.5)
        marks.line(ax, of_layer, x="x", look=look, label=f"layer {layer:.0f}", opacity=opacity)
    _count_axis(ax, frame["x"], axis="x")
    layout.note_without_numbers(ax, frame)


def _least(ax: Axes, frame: pd.DataFrame, counts: pd.Series) -> None:
    """Draw the least ranks over the layers, and the dimensions beside them."""
    if frame.empty:
        return layout.nothing_here(ax, "not measured")
    for series, (_, look) in LINES.items():
        of_series = frame[frame["series"] == series]
        if of_series["value"].notna().any():
            marks.line(ax, of_series.assign(flag=""), x="x", look=look, label=series, opacity=0.13)
    marks.layer_axis(ax, int(frame["layer"].max()), final_norm=False)
    _count_axis(ax, counts, axis="y")
    ax.set_ylabel("directions (log scale)")
    layout.note_without_numbers(ax, frame)


def _count_axis(ax: Axes, counts: pd.Series, *, axis: Literal["x", "y"]) -> None:
    """Make an axis of numbers of directions logarithmic from 1 on, with a place for 0 if anything is under 1."""
    largest, smallest = max(float(counts.max()), 1.0), float(counts.min())
    every = 1 if largest < 100 else 2
    ticks = [2**k for k in range(0, int(largest).bit_length(), every)]
    set_scale, its = (ax.set_xscale, ax.xaxis) if axis == "x" else (ax.set_yscale, ax.yaxis)
    if smallest < 1:
        ticks = [0, *ticks]
        ax.set(**{f"{axis}lim": (-0.25, largest * 1.3)})
        set_scale("symlog", linthresh=1, linscale=0.5)
    else:
        set_scale("log")
        ax.set(**{f"{axis}lim": (0.9, largest * 1.2)})
    its.set_ticks(ticks, [str(tick) for tick in ticks])
    its.set_ticks([], minor=True)


def _notes(data: pd.DataFrame) -> list[str]:
    curves = not layout.crowded(in_order(data["model"]))
    return [
        "Axes are fitted on the other draws' rows at the layer, and tried on text that they have not seen.",
        f"Dashed: the three tolerances. Increases under {FLOOR:g} nat, and decreases, stand at the lower edge."
        if curves
        else "The curves of the loss are in the figure's CSV file.",
        "Fewest axes: all larger numbers that were tried stay within the tolerance as well.",
        notes.intervals(
            data, "differences draw by draw, Student's t; fewest axes: the numbers that these leave open"
        ),
        notes.UNDER_ONE if (data.loc[data["series"] == "id_twonn", "value"] < 1).any() else "",
        notes.sinks(data),
        notes.flags(data[data["view"] != LEAST]),
    ]


TRUNCATION = Drawing(
    title="How many directions a decoder needs",
    reads=BESIDE,
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="No decoder of this study was truncated.",
    heading="{title}: residual stream projected on its leading principal axes, {datasets}",
)
