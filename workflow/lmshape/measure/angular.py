"""Angular family: the mean cosine between the rows of a layer, pooled and with each draw left out."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.angles import leave_one_out_mean_cosine

FAMILY = "angular"


def statistics(
    x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the mean cosines of x (n, d), rows in K draws, in O(n d).

    `mean_cosine` (K + 1,): row 0 of all rows, row j without draw j - 1; `mean_cosine_centered` the same after
    subtracting the mean of the rows. Zero rows have no direction and are left out.
    """
    arrays = {
        "mean_cosine": leave_one_out_mean_cosine(x, draw, center=False),
        "mean_cosine_centered": leave_one_out_mean_cosine(x, draw, center=True),
    }
    return arrays, {"flag": ""}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no mean cosine."""
    return {name: np.full(draws + 1, np.nan) for name in ("mean_cosine", "mean_cosine_centered")}
