"""The loss of an unstable training run with its spike, over the intrinsic dimension at the run's checkpoints.

A spike, by the rule used here: the loss of a step exceeds the lowest running median so far (of the `WINDOW`
steps before) by more than the threshold, which is `DEVIATIONS` robust standard deviations of the loss about
its running median and `LEAST_EXCESS` nats at least; and it does so `LEAST_STEPS` times with less than
`WINDOW` steps between, since a single hard batch is no spike. The baseline cannot rise: a spike lasts until the
loss has come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.figures import marks, selection
from lmshape.figures.dimension_over_training import layer_lines
from lmshape.figures.style import COLORS, INK, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "A loss spike and the intrinsic dimension"
WINDOW = 25
DEVIATIONS = 6.0
LEAST_EXCESS = 0.25
LEAST_STEPS = 3
# Standard deviation of a normal variable over its median absolute deviation.
NORMAL_DEVIATION = 1.4826


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the run whose loss stands highest over its threshold, and the dimension of its named blocks.

    Rows with `series` "loss" carry `baseline`, `threshold`, `in_spike` and `learning_rate` (NaN if the run's
    table has none); those with "dimension" a layer.
    """
    runs = [with_spikes(run) for _, run in tables["losses"].groupby("run", sort=False)]
    if not runs:
        return pd.DataFrame(columns=["series", "model", "step", "value", "in_spike"])
    worst = max(runs, key=_severity)
    loss = worst.rename(columns={"run": "model", "loss": "value"}).assign(series="loss")
    columns = ["series", "model", "step", "value", "baseline", "threshold", "in_spike", "learning_rate"]
    rows = selection.first_dataset(selection.metric_rows(tables["metrics"], "id_twonn"))
    rows = rows[rows["model"] == loss["model"].iloc[0]]
    dimension = selection.with_named_layers(selection.trajectories(selection.variant(rows, "all")))
    parts = [loss.reindex(columns=columns), dimension.assign(series="dimension")]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def with_spikes(run: pd.DataFrame) -> pd.DataFrame:
    """Add `baseline`, `threshold` and `in_spike` to the steps of one run (columns step, loss).

    A loss that is not finite is in a spike and does not enter the baseline.
    """
    run = run.sort_values("step", kind="stable")
    loss = run["loss"].astype(float).where(np.isfinite(run["loss"].astype(float)))
    before = loss.rolling(WINDOW, min_periods=1).median().shift(1)
    around = loss - loss.rolling(WINDOW, min_periods=1, center=True).median()
    baseline = before.cummin().ffill()
    threshold = max(LEAST_EXCESS, DEVIATIONS * NORMAL_DEVIATION * around.abs().median())
    high = run.loc[loss.isna() | (loss > baseline + threshold), "step"]
    often = high.groupby((high.diff() > WINDOW).cumsum()).transform("size") >= LEAST_STEPS
    in_spike = run["step"].isin(high[often])
    return run.assign(loss=loss, baseline=baseline, threshold=threshold, in_spike=in_spike)


def spikes(loss: pd.DataFrame) -> list[tuple[float, float]]:
    """First and last step of each spike: of steps `in_spike` with no break longer than `WINDOW` steps."""
    steps = loss.loc[loss["in_spike"].astype(bool), "step"].astype(float)
    groups = steps.groupby((steps.diff() > WINDOW).cumsum())
    return list(zip(groups.min(), groups.max(), strict=True))


def beside(dimension: pd.DataFrame, spike: tuple[float, float]) -> pd.DataFrame:
    """Rows of the middle block that tell what led to a spike, in the order of steps, with `place`.

    They are the last two checkpoints "before" the spike and the first one "within", as far as there are.
    """
    first, last = spike
    middle = dimension[dimension["layer"] == selection.middle_layer(int(dimension["layer"].max()))]
    middle = middle[middle["value"].notna()].sort_values("step")
    before = middle[middle["step"] < first].tail(2).assign(place="before")
    return pd.concat([before, middle[middle["step"].between(first, last)].head(1).assign(place="within")])


def draw(data: pd.DataFrame) -> Figure:
    """Draw the loss above, the dimension below, with the spikes shaded through both."""
    from matplotlib.figure import Figure

    with styled():
        if data.empty:
            return marks.empty_figure(
                title=TITLE, note="This study has no pretraining run: no loss of every step."
            )
        loss, dimension = data[data["series"] == "loss"], data[data["series"] == "dimension"]
        figure = Figure(figsize=(9, 6.2))
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.15))
        regions = spikes(loss)
        _loss_panel(above, loss, set(dimension["step"]))
        if dimension.empty:
            marks.nothing_here(below, f"`id_twonn` was not measured on {loss['model'].iloc[0]}")
            above.set_xlabel("training step")
            above.tick_params(labelbottom=True)
        else:
            layer_lines(below, dimension)
            below.set(xlabel="training step", ylabel=marks.METRIC_LABELS["id_twonn"])
            _circle(below, dimension, regions)
        for ax in (above, below):
            _shade(ax, regions)
        marks.finish(
            figure, title=f"{TITLE}: {loss['model'].iloc[0]}", notes=_notes(loss, dimension, regions)
        )
        return figure


def _loss_panel(ax: Axes, loss: pd.DataFrame, checkpoints: set[int]) -> None:
    saved = loss[loss["step"].isin(checkpoints)]
    ax.plot(loss["step"], loss["value"], color=INK, linewidth=0.9, label="training loss")
    ax.plot(
        loss["step"],
        loss["baseline"] + loss["threshold"],
        color=COLORS[1],
        linestyle=(0, (4, 2)),
        linewidth=1,
        label="spike threshold",
    )
    ax.plot(saved["step"], saved["value"], "o", color=COLORS[0], markersize=4, label="checkpoint")
    ax.set(ylabel="training loss\n(nats per token)")
    ax.legend(loc="upper right")
    ax.margins(x=0.02)


def _shade(ax: Axes, regions: list[tuple[float, float]]) -> None:
    for first, last in regions:
        ax.axvspan(first, last, color=COLORS[1], alpha=0.13, linewidth=0)
        ax.axvline(first, color=COLORS[1], linewidth=0.9, linestyle=(0, (2, 2)))


def _circle(ax: Axes, dimension: pd.DataFrame, regions: list[tuple[float, float]]) -> None:
    for region in regions[:1]:
        rows = beside(dimension, region)
        ax.plot(rows["step"], rows["value"], "o", markersize=11, markerfacecolor="none", markeredgecolor=INK)


def _notes(loss: pd.DataFrame, dimension: pd.DataFrame, regions: list[tuple[float, float]]) -> list[str]:
    threshold = loss["threshold"].iloc[0]
    rule = (
        f"loss over its lowest running median (of {WINDOW} steps) by more than {threshold:.2f} nats,"
        f" {LEAST_STEPS} times or more"
    )
    spans = ", ".join(f"{first:.0f}–{last:.0f}" for first, last in regions)
    lost = int(loss["value"].isna().sum())
    return [
        f"Shaded: {rule}; steps {spans}." if regions else f"No spike: nowhere is the {rule}.",
        _learning_rate_note(loss),
        f"The loss of {lost} steps is not finite (gaps)." if lost else "",
        *(_dimension_notes(dimension, regions) if len(dimension) else []),
    ]


def _learning_rate_note(loss: pd.DataFrame) -> str:
    rate = loss["learning_rate"].astype(float)
    if rate.isna().all():
        return ""
    return f"The learning rate is greatest, {rate.max():.3g}, at step {loss.loc[rate.idxmax(), 'step']:.0f}."


def _dimension_notes(dimension: pd.DataFrame, regions: list[tuple[float, float]]) -> list[str]:
    return [
        *(_circle_note(beside(dimension, region)) for region in regions[:1]),
        marks.interval_note(dimension, marks.STUDENT),
        marks.EMBEDDING_NOTE,
        marks.flag_note(dimension),
    ]


def _circle_note(rows: pd.DataFrame) -> str:
    if rows.empty:
        return ""
    values = [f"{row.value:.2f} at step {row.step:.0f} ({row.place})" for row in rows.itertuples()]
    return f"Circled, layer {rows['layer'].iloc[0]:.0f} beside the first shading: {', '.join(values)}."


def _severity(run: pd.DataFrame) -> float:
    excess = (run["loss"] - run["baseline"]) / run["threshold"]
    return np.inf if run["loss"].isna().any() else float(excess.max())
