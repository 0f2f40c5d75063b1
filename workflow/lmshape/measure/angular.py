"""Angular family: mean cosine and norms of the rows of a layer, pooled and with each draw left out."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.angles import leave_one_out_mean_cosine
from lmshape.geometry.norms import leave_one_out_norms

FAMILY = "angular"
NORMS = ("rows", "norm_median", "norm_max", "activation_max", "massive_count")


def statistics(
    x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Return mean cosines and norms of x (n, d), rows in K draws, in O(K n d).

    `mean_cosine` (K + 1,): entry 0 of all rows, entry j without draw j - 1; `mean_cosine_centered` the same
    after subtracting the mean of the rows. Zero rows have no direction and are left out; the attribute
    `zero_rows` counts them. The others, (K + 1,) too, are those of `lmshape.geometry.norms.Norms`.
    """
    norms = leave_one_out_norms(x, draw)
    arrays = {
        "mean_cosine": leave_one_out_mean_cosine(x, draw, center=False),
        "mean_cosine_centered": leave_one_out_mean_cosine(x, draw, center=True),
        **{name: np.array([getattr(part, name) for part in norms], dtype=np.float64) for name in NORMS},
    }
    return arrays, {"flag": "", "zero_rows": norms[0].zero_rows}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no mean cosine."""
    return {name: np.full(draws + 1, np.nan) for name in ("mean_cosine", "mean_cosine_centered", *NORMS)}
