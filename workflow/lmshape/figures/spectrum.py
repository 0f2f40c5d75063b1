"""The spectrum over training: the share of variance along each principal axis, a line for each checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lmshape.checkpoints import nearest_log_spaced
from lmshape.figures import marks, selection
from lmshape.figures.selection import trusted
from lmshape.figures.steps import step_colors, step_name, step_norm, step_ticks
from lmshape.figures.style import FAINT, INK, styled
from lmshape.tables.rows import in_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

TITLE = "The spectrum over training"
READS = ("anisotropy",)  # of the table of metrics, which it does not draw from
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
    chosen = selection.shown(trusted(chosen, tables.get("checkpoints")), most=MOST_MODELS)
    seen = [few_steps(of_model["step"]) for _, of_model in chosen.groupby("model", sort=False)]
    parts = zip(chosen.groupby("model", sort=False), seen, strict=True)
    kept = [of_model[of_model["step"].isin(steps)] for (_, of_model), steps in parts]
    return pd.concat(kept, ignore_index=True) if kept else chosen


def few_steps(steps: Iterable[int]) -> list[int]:
    """Choose at most a dozen of the steps: first, last, and those nearest to even places of ln(1 + step) between."""
    every = np.unique(list(steps))
    return every[nearest_log_spaced(every, MOST_LINES)].tolist()


def draw(data: pd.DataFrame) -> Figure:
    """Draw a row of panels for each model: the middle block, then the last, all rows beside those without sinks."""
    with styled():
        if data.empty or data["share"].isna().all():
            return marks.empty_figure(
                title=TITLE, note="This study has no spectrum at a known step: the family `spectral` has it."
            )
        models, variants = in_order(data["model"]), in_order(data["rows"])
        bands = [band for band in BANDS if band in set(data["band"])]
        places = [(band, rows) for band in bands for rows in variants]
        figure, grid = marks.model_grid(models, columns=len(places), height=2.9)
        colors = _colors(data["step"])
        for model, axes in zip(models, grid, strict=True):
            for (band, rows), ax in zip(places, axes, strict=True):
                own = data[(data["model"] == model) & (data["band"] == band) & (data["rows"] == rows)]
                _panel(ax, own, colors)
                ax.set_title(_panel_title(model, own, band, rows))
        marks.label_outer_panels(grid.ravel())
        _colorbar(figure, grid, colors, data["step"])
        marks.legend(figure, data["null"], marks.ISOTROPIC)
        marks.finish(figure, title=f"{TITLE}, {selection.dataset_names(data)}", notes=_notes(data))
        return figure


def _panel(ax: Axes, frame: pd.DataFrame, colors: ScalarMappable) -> None:
    frame = frame[frame["share"] > LEAST_SHARE]
    if frame.empty:
        return marks.nothing_here(ax, "not measured here")
    _axes(ax)
    first, last = frame["step"].min(), frame["step"].max()
    for step, of_step in frame.groupby("step"):
        of_step = of_step.sort_values("rank")
        color, end = colors.to_rgba(step), step in (first, last)
        ax.plot(of_step["rank"], of_step["share"], color=color, linewidth=1.8 if end else 1.0,
                marker="o" if step == last else "", markersize=3, markevery=5)  # fmt: skip
        if end:
            low = of_step["ci_low"].clip(lower=LEAST_SHARE)
            ax.fill_between(of_step["rank"], low, of_step["ci_high"], color=color, alpha=0.25, linewidth=0)
    null = frame[frame["step"] == last].sort_values("rank")
    ax.plot(null["rank"], null["null"], color=FAINT, linestyle=marks.DASHES, linewidth=1.0)
    ax.text(0.03, 0.04, _leading(frame, first, last), transform=ax.transAxes, fontsize=7.5, color=INK)


def _axes(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    ax.set(xscale="log", yscale="log", xlabel="rank of the principal axis (log)")
    ax.set_ylabel("share of variance $\\lambda_r/\\Sigma\\lambda$ (log)")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())  # their ticks would take most of the time of drawing


def _leading(frame: pd.DataFrame, first: int, last: int) -> str:
    """Say what the leading axis has at the first and at the last step that are drawn."""
    leading = frame[frame["rank"] == 1].set_index("step")["share"]
    lines = [
        f"step {step_name(step)}: {100 * leading[step]:.0f} %"
        for step in dict.fromkeys((first, last))
        if step in leading
    ]
    return "$\\lambda_1/\\Sigma\\lambda$\n" + "\n".join(lines)


def _panel_title(model: str, frame: pd.DataFrame, band: str, rows: str) -> str:
    layer = f" {frame['layer'].iloc[0]}" if len(frame) else ""
    return f"{model}, {band} block{layer}\n{marks.SHORT_VARIANT_NAMES.get(rows, rows)}"


def _colors(steps: Iterable[int]) -> ScalarMappable:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(step_norm(steps), step_colors())


def _colorbar(figure: Figure, grid: np.ndarray, colors: ScalarMappable, steps: pd.Series) -> None:
    bar = figure.colorbar(colors, ax=grid, label="training step (log scale from 1)", pad=0.015, aspect=45)
    ticks = step_ticks([0, *steps])
    bar.set_ticks(ticks, labels=[step_name(tick) for tick in ticks], minor=False)
    bar.minorticks_off()
    bar.ax.hlines(sorted(set(steps)), 0, 0.35, color="white", linewidth=0.8)


def _notes(data: pd.DataFrame) -> list[str]:
    return [
        "One line a checkpoint, at most twelve (white ticks in the color bar); thick: the first and the last,"
        " the last with markers.",
        marks.interval_note(data.rename(columns={"share": "value"}), marks.JACKKNIFE)
        + " First and last line.",
        f"Shares under {LEAST_SHARE:g} are not drawn." if (data["share"] <= LEAST_SHARE).any() else "",
        marks.sink_note(data),
        marks.distrusted_note(data),
        selection.left_out_note(data, "spectra"),
    ]
