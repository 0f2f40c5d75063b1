"""Distances by direct differences in float64: nothing is lost beside large norms."""

from __future__ import annotations

import numpy as np

DIRECT_ENTRIES = 2**16  # coordinates gathered at a time: 512 KiB stays in the cache


def direct_distances(points: np.ndarray, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Euclidean distance (m,) of each query (m,) to the row beside it in `others` (m,).

    points : (n, d) of any real dtype; differences and their squares are float64.
    """
    squares = np.empty(len(queries))
    step = max(1, DIRECT_ENTRIES // points.shape[1])
    for start in range(0, len(squares), step):
        pairs = slice(start, start + step)
        difference = points[queries[pairs]].astype(np.float64, copy=False)
        difference -= points[others[pairs]]
        np.einsum("ij,ij->i", difference, difference, out=squares[pairs])
    return np.sqrt(squares)


def nearest_of(
    points: np.ndarray, block: np.ndarray, columns: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k smallest distances of each row of a block to some rows, and which these are.

    Parameters
    ----------
    points : (n, d)
    block : (m,) rows of it
    columns : (m, c) rows of it, ascending, c ≥ k; n and above stand for none
    k : number of neighbors

    Returns
    -------
    (m, k) distances, ascending, and (m, k) rows; equal distances in the order of the rows.
    """
    present = columns < len(points)
    distances = np.full(columns.shape, np.inf)
    queries = np.repeat(block, np.count_nonzero(present, axis=1))
    distances[present] = direct_distances(points, queries, columns[present])
    order = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(columns, order, axis=1)
