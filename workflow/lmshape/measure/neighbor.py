"""Neighbor family: distances to the nearest other rows of the same draw, and of a Gaussian surrogate."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.neighbors import nearest_neighbors, unique_rows
from lmshape.geometry.ratios import KEPT_ORDERS
from lmshape.geometry.spectrum import covariance_eigenvalues
from lmshape.geometry.surrogate import gaussian_surrogate

FAMILY = "neighbor"

SUMMED = 20  # neighbors of Levina-Bickel: the logarithms of the distances before the last of them are summed
FEWEST_ROWS = 2 * SUMMED + 1  # with fewer the 20 neighbors are half of the cloud: no local quantity
SURROGATE_SEED = 0  # the same deviates for every layer and checkpoint: no difference between them by chance


def statistics(
    x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Return the neighbor distances of x (n, d), each of the K draws by itself: O(n² d / K) time.

    The first m unique rows of each draw, in row order, the same m for every draw: `rows_per_draw`, or the
    unique rows of the draw that has the fewest.

    - `distances` (K, m, 9), Euclidean, to the nearest other rows of the orders `KEPT_ORDERS`; NaN from order m
    - `log_distance_sum` (K, m), the sum of ln r over the neighbors 1 to 19
    - `surrogate_distances` (K, m, 2), to the two nearest in Gaussian rows with the covariance of all rows taken
    - `duplicate_share` (K,), of the rows of a draw, those that repeat another of it

    The attribute `recomputed` counts the rows whose neighbors could not be certified and were searched again.
    Under 41 rows a draw: a flag, and NaN but for the duplicates. 0.5 MB for 5 draws of 1024 rows.
    """
    draws = [np.flatnonzero(draw == j) for j in np.unique(draw)]
    kept = [rows[unique_rows(x[rows])] for rows in draws]
    fewest = min(len(rows) for rows in kept)
    size = fewest if rows_per_draw is None else min(rows_per_draw, fewest)
    repeated = np.array([1 - len(own) / len(rows) for own, rows in zip(kept, draws, strict=True)])
    if size < FEWEST_ROWS:
        arrays = missing(rows=len(x), width=x.shape[1], draws=len(kept), rows_per_draw=size)
        flag = f"too few unique rows: {size} per draw; id needs {FEWEST_ROWS}"
        return {**arrays, "duplicate_share": repeated}, {"flag": flag}
    clouds = [x[rows[:size]] for rows in kept]
    found, recomputed = _distances(clouds, size)
    arrays = {**found, "surrogate_distances": _surrogate_distances(clouds), "duplicate_share": repeated}
    short = rows_per_draw is not None and size < rows_per_draw
    flag = f"fewer unique rows: {size} of {rows_per_draw} per draw" if short else ""
    return arrays, {"flag": flag, "recomputed": recomputed}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no neighbors."""
    size = rows_per_draw or max(rows // draws, 1)
    return {
        "distances": np.full((draws, size, len(KEPT_ORDERS)), np.nan),
        "log_distance_sum": np.full((draws, size), np.nan),
        "surrogate_distances": np.full((draws, size, 2), np.nan),
        "duplicate_share": np.full(draws, np.nan),
    }


def _distances(clouds: list[np.ndarray], size: int) -> tuple[dict[str, np.ndarray], int]:
    """Return `distances` and `log_distance_sum` of clouds of `size` rows, and how many rows were redone."""
    orders = [order for order in KEPT_ORDERS if order < size]
    distances = np.full((len(clouds), size, len(KEPT_ORDERS)), np.nan)
    log_sums = np.empty((len(clouds), size))
    recomputed = 0
    for j, cloud in enumerate(clouds):
        neighbors = nearest_neighbors(cloud, orders[-1])
        distances[j, :, : len(orders)] = neighbors.distances[:, [order - 1 for order in orders]]
        log_sums[j] = np.log(neighbors.distances[:, : SUMMED - 1]).sum(axis=1)
        recomputed += neighbors.recomputed
    return {"distances": distances, "log_distance_sum": log_sums}, recomputed


def _surrogate_distances(clouds: list[np.ndarray]) -> np.ndarray:
    """Return the two nearest distances in Gaussian clouds of the same sizes and one covariance, in its unit.

    NaN where the rows differ by no more than the rounding of their mean.
    """
    eigenvalues = covariance_eigenvalues(np.concatenate(clouds))
    size = len(clouds[0])
    if not eigenvalues.any():
        return np.full((len(clouds), size, 2), np.nan)
    seeds = ((SURROGATE_SEED, j) for j in range(len(clouds)))
    samples = (gaussian_surrogate(eigenvalues, size, seed=seed) for seed in seeds)
    return np.stack([nearest_neighbors(sample, 2).distances for sample in samples])
