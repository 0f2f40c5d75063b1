"""What the leading axis is made of: which share of λ1 is position 0, by layer and over training, and what is left."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy

from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import step_axis
from lmshape.figures.style import COLORS, FAINT, INK, Look
from lmshape.tables.rows import final_checkpoints, first_dataset, in_order, trajectories

SHARE, NULL = "leading_share_position_0", "leading_share_position_0_null"
# Bars from below: metric → name, color, hatch.
PARTS = {
    SHARE: ("position 0", COLORS[1], "///"),
    "leading_share_other_sinks": ("other sinks (norm over 10 × median)", COLORS[5], "..."),
    "leading_share_rest": ("all other rows", "#DDDDDD", ""),
}
OVER_TRAINING = {
    SHARE: ("position 0", Look(COLORS[1], "-", "o")),
    "leading_share_other_sinks": ("other sinks", Look(COLORS[5], (0, (5, 1.5)), "s")),
    "leading_share_first_newline": ("first newline of a sequence", Look(COLORS[2], (0, (1.2, 1.2)), "^")),
}
# Curves of anisotropy: (metric, rows) → name and look, in the order in which they are drawn over one another.
CURVES = {
    ("anisotropy", "all"): ("all rows", Look(COLORS[4], "-", "o", 6.5, 11.0)),
    ("anisotropy_without_position_0", "all"): ("without position 0", Look(COLORS[1], "-", "s", 3.2, 6.5)),
    ("anisotropy", "no_sink"): ("without all sinks", Look(COLORS[6], (0, (2.5, 2.5)), "^", 1.1, 3.5)),
}
METRICS = (
    *PARTS,
    NULL,
    "leading_share_other_sinks_null",
    "leading_share_first_newline",
    "anisotropy",
    "anisotropy_without_position_0",
    "anisotropy_null",
)
MOST_MODELS = 6
LAYERS, TRAINING = "layers", "training"  # of the column `view`
MOST_MARKERS = 24  # of a line; more are a chain
LEAST_SHARE = 5e-4  # of λ1 that the logarithmic axis shows; what is less stands at its edge
OF_ROWS = "position 0, were it like all rows"
TITLE_POINTS = 48  # height of a panel's title, above which its legend stands
MOST_TOKENS = 4  # that are named


# What is selected


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select shares and anisotropies by layer at the last checkpoint, and at the layer of the peak at every step."""
    metrics = tables["metrics"]
    rows = pd.concat([selection.metric_rows(metrics, name) for name in METRICS], ignore_index=True)
    rows = rows[(rows["rows"] == "all") | ((rows["rows"] == "no_sink") & (rows["metric"] == "anisotropy"))]
    rows = first_dataset(rows)
    rows = rows[rows["model"].isin(rows.loc[rows["metric"] == SHARE, "model"])]
    rows = selection.shown(rows, most=MOST_MODELS)
    last = final_checkpoints(rows).assign(view=LAYERS)
    peaks = _peaks(last)
    last = last.assign(peak=(last["site"] == "block") & (last["layer"] == last["model"].map(peaks)))
    followed = rows[rows["metric"].isin([*OVER_TRAINING, NULL]) & (rows["site"] == "block")]
    followed = followed[followed["layer"] == followed["model"].map(peaks)]
    training = trajectories(followed).assign(view=TRAINING, peak=True)
    return _with_tokens(pd.concat([last, training], ignore_index=True), tables.get("audit"))


def _peaks(last: pd.DataFrame) -> dict[str, int]:
    """Return for each model the block of the highest anisotropy of all rows."""
    curve = last[(last["metric"] == "anisotropy") & (last["rows"] == "all") & (last["site"] == "block")]
    curve = curve.dropna(subset="value")
    highest = curve.loc[curve.groupby("model", sort=False)["value"].idxmax()]
    return dict(zip(highest["model"], highest["layer"], strict=True))


def _with_tokens(frame: pd.DataFrame, audit: pd.DataFrame | None) -> pd.DataFrame:
    """Add `sink_tokens`, which tokens the sinks of the place are, from the table `audit`; missing where that is."""
    if audit is None:
        return frame.assign(sink_tokens=pd.Series(dtype=str))
    return frame.merge(audit[[*selection.PLACE, "sink_tokens"]], how="left", on=list(selection.PLACE))


# What is drawn


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model: shares by layer, anisotropy with and without them, shares by step."""
    models = in_order(data["model"])
    figure = Figure(figsize=(13, 3.2 * len(models) + 1.2))
    grid = figure.subplots(len(models), 3, squeeze=False)
    for model, axes in zip(models, grid, strict=True):
        of_model = data[data["model"] == model]
        by_layer, by_step = (of_model[of_model["view"] == view] for view in (LAYERS, TRAINING))
        _bars(axes[0], by_layer)
        _curves(axes[1], by_layer)
        _over_training(axes[2], by_step)
        axes[0].set_title(f"{model}\n{sentence(_at_peaks(by_layer))}", color=INK)
        axes[1].set_title("anisotropy, last checkpoint\nwith position 0 and without it")
        axes[2].set_title(f"over training\n{_followed(by_step)}")
    for ax, entries in zip(grid[0], _entries(data), strict=True):
        if entries:
            above = offset_copy(ax.transAxes, fig=figure, y=TITLE_POINTS, units="points")
            ax.legend(handles=entries, loc="lower left", bbox_to_anchor=(0, 1), bbox_transform=above,
                      borderaxespad=0)  # fmt: skip
    return figure


def _bars(ax: Axes, frame: pd.DataFrame) -> None:
    blocks = int(frame["layer"].max())
    norm = frame["site"] == "final_norm"
    frame = frame.assign(place=frame["layer"].where(~norm, marks.final_norm_place(blocks)))
    bottom = pd.Series(dtype=float)
    for metric, (_, color, hatch) in PARTS.items():
        part = frame[frame["metric"] == metric].set_index("place")["value"].dropna()
        below = bottom.reindex(part.index, fill_value=0.0)
        ax.bar(part.index, part, bottom=below, width=0.8, color=color, hatch=hatch, edgecolor=FAINT,
               linewidth=0.4)  # fmt: skip
        bottom = below + part
    known = frame[frame["metric"] == SHARE].dropna(subset=["value", "ci_low", "ci_high"])
    ax.vlines(known["place"], known["ci_low"], known["ci_high"], color=INK, linewidth=1.2)
    _null_line(ax, frame[frame["metric"] == NULL], x="place", color=INK)
    marks.layer_axis(ax, blocks, final_norm=bool(norm.any()))
    ax.set(ylim=(0, 1.02), ylabel="share of $\\lambda_1$")


def _null_line(ax: Axes, frame: pd.DataFrame, *, x: str, color: str) -> None:
    marks.null_line(ax, frame.assign(null=frame["value"]), x=x, color=color)


def _curves(ax: Axes, frame: pd.DataFrame) -> None:
    blocks, norm = int(frame["layer"].max()), frame["site"] == "final_norm"
    few = frame["layer"].nunique() <= MOST_MARKERS
    for (metric, rows), (label, look) in CURVES.items():
        own = (frame["metric"] == metric) & (frame["rows"] == rows)
        if own.any():
            drawn = look if few else replace(look, marker="")
            marks.line(ax, frame[own & ~norm], x="layer", look=drawn, label=label, opacity=0.15)
            marks.off_line(ax, frame[own & norm], x=marks.final_norm_place(blocks), look=look)
    null = frame[(frame["metric"] == "anisotropy_null") & (frame["rows"] == "all") & ~norm]
    _null_line(ax, null, x="layer", color=FAINT)
    marks.layer_axis(ax, blocks, final_norm=bool(norm.any()))
    marks.anisotropy_axis(ax)
    ax.set_ylabel(marks.METRIC_LABELS["anisotropy"])


def _over_training(ax: Axes, frame: pd.DataFrame) -> None:
    if frame["step"].nunique() < 2:
        return layout.nothing_here(ax, "fewer than two checkpoints with a known step")
    for metric, (label, look) in OVER_TRAINING.items():
        own = frame[frame["metric"] == metric]
        if (own["value"] > 0).any():
            _share_line(ax, own, look, label)
    _null_line(ax, frame[frame["metric"] == NULL], x="step", color=INK)
    step_axis(ax, frame["step"])
    ax.set(yscale="log", ylim=(LEAST_SHARE, 1.4), ylabel="share of $\\lambda_1$ (log)")


def _share_line(ax: Axes, own: pd.DataFrame, look: Look, label: str) -> None:
    """Draw a share over the steps; where it is less than the axis shows, a hollow triangle at the edge."""
    ends = ("value", "ci_low", "ci_high")
    shown = own.assign(**{end: own[end].clip(lower=LEAST_SHARE) for end in ends})
    drawn = look if len(own) <= MOST_MARKERS else replace(look, marker="")
    marks.line(ax, shown, x="step", look=drawn, label=label, opacity=0.15)
    below = shown[own["value"] < LEAST_SHARE]
    if len(below):
        ax.plot(below["step"], below["value"], linestyle="none", marker="v", markersize=6, markerfacecolor="white",
                markeredgecolor=look.color, clip_on=False, zorder=5, label="_below")  # fmt: skip


def _entries(data: pd.DataFrame) -> list[list[Artist]]:
    """Give the legend of each column of panels."""
    bars = [Patch(facecolor=color, hatch=hatch, edgecolor=FAINT, linewidth=0.4, label=name)
            for name, color, hatch in PARTS.values()]  # fmt: skip
    present = {*zip(data["metric"], data["rows"], strict=True)}
    curves = [marks.entry(*named) for key, named in CURVES.items() if key in present]
    followed = set(data.loc[(data["view"] == TRAINING) & (data["value"] > 0), "metric"])
    lines = [marks.entry(*named) for metric, named in OVER_TRAINING.items() if metric in followed]
    of_rows = marks.null_entry(OF_ROWS, color=INK)
    return [
        [*bars, of_rows],
        [*curves, marks.null_entry(notes.ISOTROPIC)],
        [*lines, of_rows] if lines else [],
    ]


# What is said


def _at_peaks(data: pd.DataFrame) -> pd.DataFrame:
    """Rows of the layer of the highest anisotropy at the last checkpoint, all rows of the cloud."""
    return data[data["peak"] & (data["view"] == LAYERS) & (data["rows"] == "all")]


def sentence(peak: pd.DataFrame) -> str:
    """Say how much of λ1 is position 0 where anisotropy is highest: share, interval, and its share of the rows.

    Parameters
    ----------
    peak : the rows of one model at that layer, one for each metric
    """
    peak = peak.set_index("metric")
    if SHARE not in peak.index or pd.isna(peak.loc[SHARE, "value"]):
        return "what position 0 carries is not known"
    value, low, high, layer = peak.loc[SHARE, ["value", "ci_low", "ci_high", "layer"]]
    interval = "" if pd.isna(low) else f" [{percent(low)}, {percent(high)}]"
    found = f"{percent(value)} %{interval} of $\\lambda_1$ at layer {layer:.0f} is position 0"
    if NULL not in peak.index:
        return found
    return f"{found},\nwhich is {percent(peak.loc[NULL, 'value'])} % of the rows"


def percent(share: float) -> str:
    """Write a share in percent with two digits, and those near 1 as such: 0.79, 12, 99.3."""
    value = 100 * share
    if value >= 99.95 or value == 0:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.0f}" if value < 99 else f"{value:.1f}"


def _followed(by_step: pd.DataFrame) -> str:
    return f"layer {by_step['layer'].iloc[0]:.0f}, of the highest anisotropy" if len(by_step) else ""


def _notes(data: pd.DataFrame) -> list[str]:
    training = data[data["view"] == TRAINING]
    followed = training[training["metric"].isin(OVER_TRAINING)]
    drawn = followed.groupby("metric")["value"].transform("max") > 0
    below = drawn & (followed["value"] < LEAST_SHARE)
    return [
        "λ1 is a sum over rows, each adding the square of its coordinate on the leading axis; rows that are as all"
        " others add their share of the rows: dashed, for position 0.",
        f"Hollow triangles at the lower edge: under {LEAST_SHARE:g}." if below.any() else "",
        "The first newline may be a sink or one of the other rows: it is no third part.",
        notes.intervals(data, notes.JACKKNIFE).replace("Bands", "Bands and whiskers"),
        _tokens(_at_peaks(data)),
        notes.isotropic(data.loc[data["metric"] == "anisotropy_null", "value"]),
        notes.flags(data),
        notes.distrusted(training),
        selection.left_out_note(data, "metrics"),
    ]


def _tokens(peaks: pd.DataFrame) -> str:
    """Name the tokens of the sinks at the layer of the peak, for models with others than position 0."""
    places = peaks[peaks["sink_tokens"].notna()]
    others = places[(places["metric"] == "leading_share_other_sinks_null") & (places["value"] > 0)]
    named = [f"{row.model}: {_named(row.sink_tokens)}" for row in others.itertuples()]
    return f"Tokens of the sinks there: {'; '.join(named)}." if named else ""


def _named(tokens: str) -> str:
    counts = list(json.loads(tokens).items())[:MOST_TOKENS]
    return ", ".join(f"{token} ({count})" for token, count in counts)


SINKS = Drawing(
    title="Sinks: how much of the leading axis is position 0",
    reads=METRICS,
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has not measured what its leading axes are made of: the family `leading` does.",
    heading="{title}, last checkpoint, {datasets}",
    crowds=False,
)
