"""As released: dimension and linearity as LLM-Microscope computes them, faults included.

They are two families, since the dimension exists where no layer is before, and linearity does not. One draw stands
behind the numbers, whatever the cell has, and all rows are taken, whatever the study takes.
"""

from __future__ import annotations

from functools import partial
from math import inf

import numpy as np

from lmshape.geometry.released import (
    RELEASED_ROWS,
    released_dimension_of,
    released_distances,
    released_linearity,
)
from lmshape.geometry.rows import unique_rows
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, kept_array

FEWEST_ROWS = 3  # two other rows for each


def statistics(layer: Layer) -> dict[str, Found]:
    """Return for each choice of rows the released distances of its first 4096 rows, copies included.

    `distances` (m, 2), to the two nearest others, in units of the rows' mean length.

    The rows are taken in the order of the cell: by draw, then sequence, then position. Under 3 rows: a flag, and NaN.
    """
    return {name: _distances(layer, mask) for name, mask in layer.kept.items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the array of `statistics`, NaN, for rows that have none."""
    return {"distances": np.full((max(min(rows, RELEASED_ROWS), 1), 2), np.nan)}


def _distances(layer: Layer, mask: np.ndarray) -> Found:
    index = np.flatnonzero(mask)[:RELEASED_ROWS]
    counts = {"n_rows": len(index), "draws": 1}
    if len(index) < FEWEST_ROWS:
        arrays = missing(rows=len(index), width=layer.rows.shape[1], draws=1)
        return arrays, {**counts, "flag": f"too few rows: {len(index)}; two neighbors need {FEWEST_ROWS}"}
    rows = layer.rows.take(index)
    return {"distances": released_distances(rows)}, {**counts, "n_unique": len(unique_rows(rows)), "flag": ""}


def linearity(layer: Layer) -> dict[str, Found]:
    """Return for each choice of rows the score of all n of them: `linearity` (1,), in the stored dtype.

    O(n d²) time. One singular value decomposition of (n, d), as the released code takes it: the rows of both layers and
    what is made of them are in memory together, some twelve times the size of a layer: 2 GB at 10 000 rows of width
    4096 in float32.
    """
    before, found = layer.compared(), dict[str, Found]()
    for name, mask in layer.kept.items():
        index = np.flatnonzero(mask)
        score = released_linearity(before.take(index), layer.rows.take(index))
        found[name] = {"linearity": np.array([score])}, {"draws": 1, "flag": ""}
    return found


def missing_linearity(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the array of `linearity`, NaN, for rows that have none."""
    return {"linearity": np.full(1, np.nan)}


def _dimension(arrays: Arrays) -> np.ndarray:
    return np.array([released_dimension_of(arrays["distances"])])


_released = partial(Metric, interval="none", no_interval="the released protocol takes one sample")

RELEASED = Family(
    "released",
    measured=Measured(
        name="released",
        statistics=statistics,
        missing=missing,
        only=("all",),
        axes={"distances": ("row", "order")},
    ),
    metrics=(
        _released(
            name="id_released",
            family="released",
            definition="as released: slope of -ln(1 - F) on ln(r2/r1), lowest fifth, first 4096 rows, copies kept",
            low=0.0,
            high=inf,
            range="(0, ∞)",
            null="as id_twonn_fit20 where no row repeats; repeated rows raise it without bound",
            source="LLM-Microscope 0.0.6; Razzhigaev et al. 2024, arXiv 2311.05928",
            undefined="fewer than 5 rows with r2 > r1 > 0 once repeated rows have made the others 0",
            values=_dimension,
        ),
    ),
)
RELEASED_LINEARITY = Family(
    "released_linearity",
    measured=Measured(
        name="released_linearity",
        statistics=linearity,
        missing=missing_linearity,
        paired="before",
        only=("all",),
    ),
    metrics=(
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
    ),
)
