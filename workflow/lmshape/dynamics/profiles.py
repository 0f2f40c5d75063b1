"""Profiles: each curve of anisotropy over the blocks as a dome, and how far it is from the last checkpoint's."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
import pandas as pd

from lmshape.dynamics.distances import distance
from lmshape.dynamics.domes import FEWEST_BLOCKS, Dome, dome
from lmshape.dynamics.noise import Noise
from lmshape.dynamics.profile_columns import CELL, PROFILE_COLUMNS
from lmshape.dynamics.replicates import Replicated
from lmshape.hub.integrity import DISTRUSTED
from lmshape.metrics import METRICS

PROFILED = "anisotropy"
Row = dict[str, str | int | float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A metric over the blocks of one checkpoint.

    Attributes
    ----------
    rows : of the metrics table, by layer
    numbers : one for each block, with what it is without a draw
    last : whether it is that of the last trusted checkpoint
    """

    rows: pd.DataFrame
    numbers: Replicated
    last: bool

    @property
    def noise(self) -> Noise | None:
        """Error of the numbers; None where draws cannot tell."""
        return self.numbers.noise()

    @property
    def why_not(self) -> str:
        """Say why the curve has no shape; empty where it has one."""
        missing = np.flatnonzero(np.isnan(self.numbers.values))
        if len(missing):
            reason = self.rows.iloc[missing[0]]
            return f"layer {reason['layer']}: {reason['flag']}"
        few = len(self.rows) < FEWEST_BLOCKS
        return f"too few blocks: {len(self.rows)}; a dome needs {FEWEST_BLOCKS}" if few else ""


def profiles(metrics: pd.DataFrame, metric: str = PROFILED) -> pd.DataFrame:
    """Describe the curve of a metric over the blocks of each cell, for each choice of rows.

    Embedding and final norm are no part of the curve: they are other spaces than the residual stream between.

    Parameters
    ----------
    metrics : rows of the models' own tables (`lmshape.tables.columns.MODEL_COLUMNS`); without the columns interval and
        replicates, as in the study's table, there are no intervals of what is made of several layers

    Returns
    -------
    The columns of PROFILE_COLUMNS; NaN with a flag where a layer has no value or there are under 3 blocks.
    """
    curves = metrics[(metrics["metric"] == metric) & (metrics["site"] == "block")]
    rows = []
    for _, lines in curves.groupby(["model", "dataset", "rows"], sort=False):
        cells = _cells(lines)
        final = next((cell for cell in cells if cell.last), None)
        rows += [_row(cell, final) for cell in cells]
    frame = pd.DataFrame(rows, columns=PROFILE_COLUMNS.names)
    order = curves.drop_duplicates(["model", "checkpoint", "dataset", "rows"])
    return order[["model", "checkpoint", "dataset", "rows"]].merge(frame, how="left")[PROFILE_COLUMNS.names]


def _cells(lines: pd.DataFrame) -> list[Profile]:
    numbers = Replicated.of(lines)
    last = last_checkpoint(lines)
    lines = lines.drop(columns=["interval", "replicates"], errors="ignore")  # lists are slow to select from
    cells = []
    for checkpoint, places in lines.groupby("checkpoint", sort=False).indices.items():
        places = places[np.argsort(lines["layer"].to_numpy()[places], kind="stable")]
        cells.append(Profile(rows=lines.iloc[places], numbers=numbers.rows(places), last=checkpoint == last))
    return cells


def last_checkpoint(lines: pd.DataFrame) -> str | None:
    """Return the trusted checkpoint of the greatest step in rows of one model; None where no step tells."""
    trusted = lines[~lines["verdict"].isin(DISTRUSTED)] if "verdict" in lines else lines
    if trusted.empty or (trusted["step"].max() < 0 and trusted["checkpoint"].nunique() > 1):
        return None
    return str(trusted.sort_values("step", kind="stable")["checkpoint"].iloc[-1])


def _row(cell: Profile, final: Profile | None) -> Row:
    first = cell.rows.iloc[0]
    row: Row = {name: first[name] for name in (*CELL, "rows", "metric")}
    if why := cell.why_not:
        return row | {"peak_layer": None, "flag": why}
    noise = cell.noise
    shape = dome(cell.numbers.values, cell.rows["depth"].to_numpy(), noise)
    to_final, doubt = _to_final(cell, final)
    reasons = ["monotone"] if shape.peak == shape.edge else []
    reasons += [] if noise else [_without_noise(cell)]
    return row | _dome(cell, shape) | to_final | {"flag": "; ".join([*reasons, *([doubt] if doubt else [])])}


def _without_noise(cell: Profile) -> str:
    """Say of the first layer without an interval why it has none, or what else is missing."""
    unsure = cell.rows[cell.rows["ci_low"].isna()]
    if len(unsure):
        return f"layer {unsure.iloc[0]['layer']}: {unsure.iloc[0]['flag']}"
    return "no interval: the table has no replicates"


def _dome(cell: Profile, shape: Dome) -> Row:
    peak, layers = cell.rows.iloc[shape.peak], cell.rows["layer"].to_numpy()
    known = METRICS.get(str(peak["metric"]))
    widest = known.high - known.low if known else np.inf
    return {
        "peak_layer": int(peak["layer"]),
        "peak_layer_low": int(layers[shape.peak_low]),
        "peak_layer_high": int(layers[shape.peak_high]),
        "peak_depth": peak["depth"],
        "height": peak["value"],
        "height_low": peak["ci_low"],
        "height_high": peak["ci_high"],
        "edges": cell.numbers.values[shape.edge],
        "dome_index": shape.index,
        "dome_index_low": shape.index_low,
        "dome_index_high": min(shape.index_high, widest),
        "dome_index_null": shape.null,
        "dome": shape.kind,
        "width": shape.width,
        "top_share": shape.top_share,
    }


def _to_final(cell: Profile, final: Profile | None) -> tuple[Row, str]:
    """Return the columns of the distance to the last checkpoint's profile, and why there is none."""
    if cell.last:
        return dict.fromkeys(("distance_to_final", "distance_low", "distance_high"), 0.0), ""
    why = "no last checkpoint: its step is unknown, or its weights are distrusted" if final is None else ""
    if final is not None and (final.why_not or len(final.rows) != len(cell.rows)):
        why = f"no distance: the last checkpoint's {final.why_not or 'layers differ'}"
    if why:
        return {"distance_to_final": nan}, why
    paired = cell.numbers.draws == final.numbers.draws
    difference = Replicated(
        cell.numbers.values - final.numbers.values,
        cell.numbers.left_out - final.numbers.left_out if paired else np.empty((len(cell.rows), 0)),
    )
    found = distance(difference.values, difference.noise())
    names = ("distance_to_final", "distance_low", "distance_high")
    return dict(zip(names, (found.value, found.low, found.high), strict=True)), ""
