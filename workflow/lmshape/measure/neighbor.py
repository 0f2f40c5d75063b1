"""Neighbor family: distances to the nearest other rows of the same draw, for estimates of dimension."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.neighbors import nearest_neighbors, unique_rows

FAMILY = "neighbor"

ORDERS = (1, 2, 20)  # 1 and 2 for TwoNN, 20 with the sum of logarithms for Levina-Bickel
FEWEST_ROWS = 2 * ORDERS[-1] + 1  # with fewer the 20 neighbors are half of the cloud: no local quantity


def statistics(
    x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Return the neighbor distances of x (n, d), each of the K draws by itself: O(n² d / K) time.

    The first m unique rows of each draw, in row order, the same m for every draw: `rows_per_draw`, or the
    unique rows of the draw that has the fewest. `distances` (K, m, 3): Euclidean, to the 1st, 2nd and 20th
    nearest other row; `log_distance_sum` (K, m): sum of ln r over the neighbors 1 to 19. The attribute
    `recomputed` counts the rows whose neighbors could not be certified and were searched again. Under 41 rows
    a draw: NaN and a flag.
    """
    kept = [rows[unique_rows(x[rows])] for rows in (np.flatnonzero(draw == j) for j in np.unique(draw))]
    fewest = min(len(rows) for rows in kept)
    size = fewest if rows_per_draw is None else min(rows_per_draw, fewest)
    if size < FEWEST_ROWS:
        arrays = missing(rows=len(x), width=x.shape[1], draws=len(kept), rows_per_draw=size)
        return arrays, {"flag": f"too few unique rows: {size} per draw; id needs {FEWEST_ROWS}"}
    neighbors = [nearest_neighbors(x[rows[:size]], ORDERS[-1]) for rows in kept]
    distances = np.stack([found.distances for found in neighbors])
    arrays = {
        "distances": distances[:, :, [order - 1 for order in ORDERS]],
        "log_distance_sum": np.log(distances[:, :, :-1]).sum(axis=2),
    }
    short = rows_per_draw is not None and size < rows_per_draw
    flag = f"fewer unique rows: {size} of {rows_per_draw} per draw" if short else ""
    return arrays, {"flag": flag, "recomputed": sum(found.recomputed for found in neighbors)}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None) -> dict[str, np.ndarray]:
    """Return the arrays of `statistics`, NaN, for rows that have no neighbors."""
    size = rows_per_draw or max(rows // draws, 1)
    return {
        "distances": np.full((draws, size, len(ORDERS)), np.nan),
        "log_distance_sum": np.full((draws, size), np.nan),
    }
