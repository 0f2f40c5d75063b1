"""The spectrum over training: the share of variance along each principal axis, a line for each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from lmshape.checkpoints import nearest_log_spaced
from lmshape.figures import layout, marks, notes, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.steps import color_of, colors_of_steps, step_bar, step_name
from lmshape.figures.style import FAINT, INK
from lmshape.tables.rows import in_order

BANDS = ("middle", "last")
MOST_MODELS = 6
MOST_LINES = 12  # checkpoints of a panel; more are not told apart
LEAST_SHARE = 1e-7  # of the variance: what is below is the rounding of activations


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the spectra of the middle and the last block, of a few models, at a dozen steps."""
    table = tables.get("spectra", pd.DataFrame())
    if table.empty:
        return pd.DataFrame(columns=["model", "rows", "band", "step", selection.LEFT_OUT])
    chosen = table[table["band"].isin(BANDS) & (table["step"] >= 0)]
    chosen = selection.shown(selection.trusted(chosen, tables.get("checkpoints")), most=MOST_MODELS)
    models = [of_model for _, of_model in chosen.groupby("model", sort=False)]
    kept = [of_model[of_model["step"].isin(few_steps(of_model["step"]))] for of_model in models]
    return pd.concat(kept, ignore_index=True) if kept else chosen


def few_steps(steps: Iterable[int]) -> list[int]:
    """Choose at most a dozen of the steps: first, last, and those nearest to even places of ln(1 + step) between."""
    every = sorted(set(steps))
    return [every[place] for place in nearest_log_spaced(every, MOST_LINES)]


def draw_panels(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model: the middle block, then the last, all rows beside those without sinks."""
    models = in_order(data["model"])
    bands = [band for band in BANDS if band in set(data["band"])]
    places = [(band, rows) for band in bands for rows in in_order(data["rows"])]
    figure, grid = _grid(models, len(places))
    colors = colors_of_steps(data["step"])
    for model, axes in zip(models, grid, strict=True):
        for (band, rows), ax in zip(places, axes, strict=True):
            own = data[(data["model"] == model) & (data["band"] == band) & (data["rows"] == rows)]
            _panel(ax, own, colors)
            layer = f" {own['layer'].iloc[0]}" if len(own) else ""
            ax.set_title(layout.panel_title(f"{model}, {band} block{layer}", rows))
    layout.label_outer_panels(grid.ravel())
    step_bar(figure, colors, data["step"], ax=grid, aspect=45)
    if data["null"].notna().any():
        figure.legend(handles=[marks.null_entry(notes.ISOTROPIC)], loc="outside upper right")
    return figure


def _grid(models: list[str], columns: int) -> tuple[Figure, np.ndarray]:
    width = max(3.25 * columns, layout.LEAST_WIDTH)
    figure = Figure(figsize=(width, 2.9 * len(models) + 0.7))
    return figure, figure.subplots(len(models), columns, squeeze=False, sharey="row")


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable) -> None:
    frame = frame[frame["share"] > LEAST_SHARE]
    if frame.empty:
        return layout.nothing_here(ax, "not measured here")
    _axes(ax)
    first, last = frame["step"].min(), frame["step"].max()
    for step, of_step in frame.groupby("step"):
        of_step = of_step.sort_values("rank")
        color, end = color_of(step, colors), step in (first, last)
        ax.plot(of_step["rank"], of_step["share"], color=color, linewidth=1.8 if end else 1.0,
                marker="o" if step == last else "", markersize=3, markevery=5)  # fmt: skip
        if end:
            low = of_step["ci_low"].clip(lower=LEAST_SHARE)
            ax.fill_between(of_step["rank"], low, of_step["ci_high"], color=color, alpha=0.25, linewidth=0)
    null = frame[frame["step"] == last].sort_values("rank")
    ax.plot(null["rank"], null["null"], color=FAINT, linestyle=(0, marks.DASHES), linewidth=1.0)
    ax.text(0.03, 0.04, _leading(frame, first, last), transform=ax.transAxes, fontsize=7.5, color=INK)


def _axes(ax: Axes) -> None:
    ax.set(xscale="log", yscale="log", xlabel="rank of the principal axis (log)")
    ax.set_ylabel("share of variance $\\lambda_r/\\Sigma\\lambda$ (log)")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())  # their ticks would take most of the time of drawing


def _leading(frame: pd.DataFrame, first: int, last: int) -> str:
    """Say what the leading axis has at the first and at the last step that are drawn."""
    leading = frame[frame["rank"] == 1].set_index("step")["share"]
    ends = [step for step in dict.fromkeys((first, last)) if step in leading]
    lines = [f"step {step_name(step)}: {100 * leading[step]:.0f} %" for step in ends]
    return "$\\lambda_1/\\Sigma\\lambda$\n" + "\n".join(lines)


def _notes(data: pd.DataFrame) -> list[str]:
    bands = notes.intervals(data.rename(columns={"share": "value"}), notes.JACKKNIFE)
    return [
        "One line a checkpoint, at most twelve (white ticks in the color bar); thick: the first and the last,"
        " the last with markers.",
        f"{bands} First and last line.",
        f"Shares under {LEAST_SHARE:g} are not drawn." if (data["share"] <= LEAST_SHARE).any() else "",
        notes.sinks(data),
        notes.distrusted(data),
        selection.left_out_note(data, "spectra"),
    ]


# It draws nothing from the table of metrics, and reads the rows of one metric alone.
SPECTRUM = Drawing(
    title="The spectrum over training",
    reads=("anisotropy",),
    data=data,
    panels=draw_panels,
    notes=_notes,
    nothing="This study has no spectrum at a known step: the family `spectral` has it.",
    lacks=lambda data: data.empty or data["share"].isna().all(),
    crowds=False,
)
