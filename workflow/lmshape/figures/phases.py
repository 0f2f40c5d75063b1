"""Phases of training: dimension and effective rank over the steps, with the rises and falls that are significant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lmshape.dynamics.trajectories import segments
from lmshape.figures import layout, selection
from lmshape.figures.drawing import Drawing
from lmshape.figures.over_training import gone_entry, several_steps, single_step
from lmshape.figures.style import COLORS, FAINT, INK, Looks, Page
from lmshape.tables.rows import first_dataset, trajectories

# A panel each: metric, rows and name.
SERIES = {
    ("id_twonn", "all"): "dimension, all rows",
    ("id_twonn", "one_per_type"): "dimension, one row per token id",
    ("effective_rank", "all"): "effective rank, all rows",
}
FOLLOWED = ("id_twonn", "effective_rank")
KEYS = ["model", "dataset", "rows", "metric", "layer"]
CHANGE_POINTS = [f"{turn}_step{end}" for turn in ("peak", "trough") for end in ("", "_low", "_high")]
PHASES_READ = ["shape", "moves", "least", "noise", *CHANGE_POINTS, "flag"]
BLOCKS = Looks.of(
    ("early block", "middle block", "last block"),
    ((FAINT, (1.2, 1.2), "^"), (FAINT, "", "o"), (FAINT, (5, 1.5), "s")),
)
MOVES = {"rise": COLORS[0], "fall": COLORS[1]}
MOVE: dict[str, Any] = {"linewidth": 3.2, "alpha": 0.75}
TURN: dict[str, Any] = {"color": INK, "linewidth": 1.2, "marker": "|", "markersize": 6}


def data(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Select the trajectories at the named blocks on the first dataset, each with its row of the table `phases`.

    `series` names metric and rows; the flag of the phases is `phase_flag`.
    """
    metrics = selection.metric_rows(tables["metrics"], *FOLLOWED)
    chosen = several_steps(selection.with_named_layers(trajectories(first_dataset(metrics))))
    series = [SERIES.get(pair) for pair in zip(chosen["metric"], chosen["rows"], strict=True)]
    chosen = chosen.assign(series=series).dropna(subset="series")
    phases = tables["phases"][[*KEYS, *PHASES_READ]].rename(columns={"flag": "phase_flag"})
    return selection.with_gone(chosen.merge(phases, on=KEYS, how="left"), tables.get("checkpoints"))


def draw_panels(data: pd.DataFrame, page: Page) -> layout.Picture:
    """Draw a panel for each model and series: a line for each named block, its significant moves in color."""
    frame = data.assign(panel=data["model"] + "\n" + data["series"], block=data["band"] + " block")
    frame = selection.grouped(frame, "model", "panel")
    facets = layout.lines(
        frame, x="step", hue="block", panel="panel", page=page, look=BLOCKS, bands=False, sharey=False
    )
    layout.each(facets, layout.log_axis)
    for ax, own in facets.parts():
        for _, trajectory in own.groupby("block", sort=False):
            _moves(ax, trajectory)
    moves = [
        Line2D([], [], color=color, label=f"significant {kind}", **MOVE) for kind, color in MOVES.items()
    ]
    turn = Line2D([], [], label="change point, 95 %", **TURN)
    legend = [*layout.entries(BLOCKS, only=frame["block"]), *moves, turn, *gone_entry(frame)]
    return layout.Picture(facets, legend, "dimensions (log)")


def _moves(ax: Axes, trajectory: pd.DataFrame) -> None:
    """Draw the significant segments of a trajectory thick, and the interval of a change point as a bar at its step."""
    phase, known = trajectory.iloc[0].to_dict(), trajectory.dropna(subset="value").sort_values("step")
    for start, end, kind in significant_segments(phase, trajectory):
        part = known[known["step"].between(start, end)]
        ax.plot(part["step"], part["value"], color=MOVES[kind], zorder=1.8, label=kind, **MOVE)
    for turn, moves in {"peak": "rise, fall", "trough": "fall, rise"}.items():
        low, step, high = (phase[f"{turn}_step{end}"] for end in ("_low", "", "_high"))
        at = known.loc[known["step"] == step, "value"]
        if moves in str(phase["moves"]) and pd.notna(low) and len(at):
            ax.plot([low, high], [at.iloc[0]] * 2, zorder=4, label="_change point", **TURN)


def significant_segments(
    phase: Mapping[str, Any], trajectory: pd.DataFrame
) -> Iterator[tuple[float, float, str]]:
    """Yield the significant segments of a trajectory: where each begins and ends, and whether it rises or falls.

    They are found as those of the table `phases` were. None is yielded where they differ from the table's words,
    which may be about the trajectories of several models.
    """
    known = trajectory[trajectory["value"] > 0].sort_values("step")
    bound = phase["least"] + (phase["noise"] if pd.notna(phase["noise"]) else 0.0)
    if not bound > 0:
        return
    found, steps = segments(np.log(known["value"].to_numpy(float)), bound), known["step"].to_numpy()
    if ", ".join(found.words) == phase["moves"]:
        for start, end, word in zip(found.ends, found.ends[1:], found.words, strict=False):
            yield float(steps[start]), float(steps[end]), word


PHASES = Drawing(
    title="Phases of training",
    reads=FOLLOWED,
    data=data,
    panels=draw_panels,
    nothing=partial(single_step, what="an intrinsic dimension or effective rank of a block"),
)
