"""How much a metric has changed since the checkpoint before, draw by draw.

Checkpoints see the same tokens: what a draw of them adds to one value it adds to the next, too, so that the interval
of a difference is narrower than those of the two values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import nan

import numpy as np

from lmshape.hub.integrity import DISTRUSTED
from lmshape.metric import Metric
from lmshape.tables.columns import CHANGE_DESCRIPTIONS

Row = dict[str, str | int | float]


def add_changes(rows: Iterable[tuple[Row, np.ndarray]], metrics: Mapping[str, Metric]) -> None:
    """Set the columns of `CHANGE_DESCRIPTIONS` in rows of one model.

    Parameters
    ----------
    rows : ascending by step; beside each the numbers that its estimate was made of (`Metric.replicates`). A row
        whose checkpoint is distrusted (`verdict`) has no change, and none is counted from it
    metrics : name → the metric
    """
    before: dict[tuple[str | int | float, ...], np.ndarray] = {}
    for row, values in rows:
        line = tuple(row[name] for name in ("dataset", "site", "layer", "rows", "metric"))
        row.update(dict.fromkeys(CHANGE_DESCRIPTIONS, nan))
        if row.get("verdict") in DISTRUSTED:
            continue
        if line in before and before[line].shape == values.shape:
            change = metrics[str(row["metric"])].change(before[line], values)
            row.update(change=change.value, change_low=change.low, change_high=change.high)
        before[line] = values
