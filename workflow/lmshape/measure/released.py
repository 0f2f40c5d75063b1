"""Released family: neighbor distances of the first rows of a layer, as LLM-Microscope takes them."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.neighbors import unique_rows
from lmshape.geometry.released import RELEASED_ROWS, released_distances
from lmshape.statistics.layer import Layer

FAMILY = "released"
FEWEST_ROWS = 3  # two other rows for each


def statistics(layer: Layer) -> dict[str, tuple[dict[str, np.ndarray], dict[str, str | int]]]:
    """Return for each choice of rows the released distances of its first 4096 rows, copies included.

    `distances` (m, 2), to the two nearest others, in units of the rows' mean length.

    The rows are taken in the order of the cell: by draw, then sequence, then position. One draw stands behind
    the numbers, whatever the cell has. Under 3 rows: a flag, and NaN.
    """
    return {name: _statistics(layer, mask) for name, mask in layer.kept.items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the array of `statistics`, NaN, for rows that have none."""
    return {"distances": np.full((max(min(rows, RELEASED_ROWS), 1), 2), np.nan)}


def _statistics(layer: Layer, mask: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    index = np.flatnonzero(mask)[:RELEASED_ROWS]
    counts = {"n_rows": len(index), "draws": 1}
    if len(index) < FEWEST_ROWS:
        arrays = missing(rows=len(index), width=layer.rows.shape[1], draws=1)
        return arrays, {**counts, "flag": f"too few rows: {len(index)}; two neighbors need {FEWEST_ROWS}"}
    rows = layer.rows.take(index)
    return {"distances": released_distances(rows)}, {**counts, "n_unique": len(unique_rows(rows)), "flag": ""}
