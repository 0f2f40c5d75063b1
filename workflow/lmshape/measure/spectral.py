"""Spectral family: the eigenvalues of the covariance of a layer, pooled and with each draw left out."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.spectrum import leave_one_out_eigenvalues

FAMILY = "spectral"


def statistics(
    x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the spectra of x (n, d), rows in K draws: O(n d² + K d³) time, O(K d²) memory.

    `eigenvalues` (K + 1, m) of the covariance, in descending order: row 0 of all rows, row j without the j-th
    draw, all 0 where the rows are equal; `eigenvalues_uncentered` the same without subtracting the mean.
    """
    arrays = {
        "eigenvalues": leave_one_out_eigenvalues(x, draw, center=True),
        "eigenvalues_uncentered": leave_one_out_eigenvalues(x, draw, center=False),
    }
    return arrays, {"flag": ""}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no spectrum."""
    shapes = {"eigenvalues": max(min(rows - 1, width), 1), "eigenvalues_uncentered": max(min(rows, width), 1)}
    return {name: np.full((draws + 1, count), np.nan) for name, count in shapes.items()}
