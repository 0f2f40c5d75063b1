"""Released family: neighbor distances of the first rows of a layer, as LLM-Microscope takes them."""

from __future__ import annotations

from functools import partial
from math import inf

import numpy as np

from lmshape.geometry.released import RELEASED_ROWS, released_dimension_of, released_distances
from lmshape.geometry.rows import unique_rows
from lmshape.metrics.metric import Arrays, Layer, Metric, kept_array

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


def _dimension(arrays: Arrays) -> np.ndarray:
    return np.array([released_dimension_of(arrays["distances"])])


_released = partial(
    Metric, family="released", interval="none", no_interval="the released protocol takes one sample"
)

RELEASED = (
    _released(
        name="id_released",
        definition="as released: slope of -ln(1 - F) on ln(r2/r1), lowest fifth, first 4096 rows, copies kept",
        low=0.0,
        high=inf,
        range="(0, ∞)",
        null="as id_twonn_fit20 where no row repeats; repeated rows raise it without bound",
        source="LLM-Microscope 0.0.6; Razzhigaev et al. 2024, arXiv 2311.05928",
        undefined="fewer than 5 rows with r2 > r1 > 0 once repeated rows have made the others 0",
        values=_dimension,
    ),
    _released(
        name="linearity_released",
        family="released_linearity",
        definition="as released: 1 - ‖XA - Y‖², A = X⁺Y in float32 with no singular value cut, all rows",
        low=-inf,
        high=1.0,
        range="[0, 1], below where rounding decides",
        null="d/n for noise; rounding noise where columns of X depend on each other",
        source="LLM-Microscope 0.0.6; Razzhigaev et al. 2024, arXiv 2405.12250",
        undefined="all rows of one of the layers are equal, or a singular value is 0",
        values=partial(kept_array, array="linearity"),
    ),
)
