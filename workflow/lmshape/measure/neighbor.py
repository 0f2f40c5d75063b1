"""Neighbor family: distances to the nearest other rows of the same draw, of fewer rows, of a Gaussian surrogate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from lmshape.geometry.covariance import CovarianceSums
from lmshape.geometry.neighbors import Neighbors, largest_error, nearest_neighbors, unique_rows
from lmshape.geometry.ratios import KEPT_ORDERS
from lmshape.geometry.spectrum import eigenvalues_of_sums
from lmshape.geometry.surrogate import gaussian_surrogate
from lmshape.metric_families.scales import DECIMATIONS, NEIGHBORS
from lmshape.statistics.layer import Layer
from lmshape.store import Attributes

FAMILY = "neighbor"

FEWEST_ROWS = 2 * NEIGHBORS + 1  # with fewer the 20 neighbors are half of the cloud: no local quantity
SUMMED_ROWS = 8192  # of the surrogate's covariance, in float64 at a time
AUDITED_ROWS = 200  # of each entry, over all draws
SEED = 0  # the same deviates, and the same choice of rows, for every layer and checkpoint: no difference by chance

Arrays = dict[str, np.ndarray]


def statistics(layer: Layer) -> dict[str, tuple[Arrays, Attributes]]:
    """Return the neighbor distances of each choice of rows, each of the K draws by itself: O(n² d / K) time.

    The first m unique rows of each draw, in row order, the same m for every draw: `rows_per_draw`, or the
    unique rows of the draw that has the fewest. One draw of the layer is in memory at a time, as it is stored.

    - `distances` (K, m, 9), Euclidean, to the nearest other rows of the orders `KEPT_ORDERS`; NaN from order m
    - `log_distance_sum` (K, m), the sum of ln r over the neighbors 1 to 19
    - `decimated_2`, `_4`, `_8` (K, m // 2, 2), …, to the two nearest among a random half, quarter, eighth of the m rows
    - `surrogate_distances` (K, m, 2), to the two nearest in Gaussian rows with the covariance of all rows taken
    - `duplicate_share` (K,), of the rows of a draw, those that repeat another of it

    Attributes: `recomputed`, the rows whose neighbors could not be certified at first and were searched again;
    `audit_error`, the largest relative error of the distances of 200 random rows against direct differences.
    Under 41 rows a draw: a flag, and NaN but for the duplicates. 0.7 MB for 5 draws of 1024 rows.
    """
    return {name: _Choice(layer, name).statistics() for name in layer.kept}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have no neighbors."""
    size = rows_per_draw or max(rows // draws, 1)
    shapes = {
        "distances": (size, len(KEPT_ORDERS)),
        "log_distance_sum": (size,),
        "surrogate_distances": (size, 2),
        **{f"decimated_{share}": (size // share, 2) for share in DECIMATIONS},
        "duplicate_share": (),
    }
    return {name: np.full((draws, *shape), np.nan) for name, shape in shapes.items()}


class _Choice:
    """One choice of rows of a layer: which rows of each draw are taken."""

    def __init__(self, layer: Layer, name: str) -> None:
        self._rows, self._wanted = layer.rows, layer.rows_per_draw.get(name)
        labels = np.unique(layer.draw[layer.kept[name]])
        self._draws = [np.flatnonzero(layer.kept[name] & (layer.draw == label)) for label in labels]
        self._unique = [rows[unique_rows(layer.rows.take(rows))] for rows in self._draws]
        fewest = min(len(rows) for rows in self._unique)
        self._size = fewest if self._wanted is None else min(self._wanted, fewest)

    def statistics(self) -> tuple[Arrays, Attributes]:
        """Return arrays and attributes of this choice."""
        size, draws = self._size, len(self._draws)
        _, width = self._rows.shape
        arrays = missing(rows=size * draws, width=width, draws=draws, rows_per_draw=size)
        pairs = zip(self._unique, self._draws, strict=True)
        arrays["duplicate_share"] = np.array([1 - len(unique) / len(rows) for unique, rows in pairs])
        if size < FEWEST_ROWS:
            flag = f"too few unique rows: {size} per draw; id needs {FEWEST_ROWS}"
            return arrays, {"flag": flag, "recomputed": 0, "audit_error": np.nan}
        recomputed, error = 0, 0.0
        for j, cloud in enumerate(self._clouds()):
            neighbors = nearest_neighbors(cloud, min(KEPT_ORDERS[-1], size - 1))
            error = max(error, largest_error(cloud, neighbors, rows=-(-AUDITED_ROWS // draws), seed=SEED))
            recomputed += neighbors.recomputed
            for name, array in _of_one_draw(cloud, neighbors).items():
                arrays[name][j, ..., : array.shape[-1]] = array
        _fill_surrogate(arrays["surrogate_distances"], self._clouds(), width)
        short = self._wanted is not None and size < self._wanted
        flag = f"fewer unique rows: {size} of {self._wanted} per draw" if short else ""
        return arrays, {"flag": flag, "recomputed": recomputed, "audit_error": error}

    def _clouds(self) -> Iterator[np.ndarray]:
        """Yield the rows (m, d) that are taken of each draw."""
        return (self._rows.take(rows[: self._size]) for rows in self._unique)


def _of_one_draw(cloud: np.ndarray, neighbors: Neighbors) -> Arrays:
    """Return the arrays of one draw (m, d) and its neighbors."""
    distances = neighbors.distances
    orders = [order - 1 for order in KEPT_ORDERS if order <= distances.shape[1]]
    order = np.random.default_rng(SEED).permutation(len(cloud))
    parts = {share: cloud[np.sort(order[: len(cloud) // share])] for share in DECIMATIONS}
    return {
        "distances": distances[:, orders],
        "log_distance_sum": np.log(distances[:, : NEIGHBORS - 1]).sum(axis=1),
        **{f"decimated_{share}": nearest_neighbors(part, 2).distances for share, part in parts.items()},
    }


def _fill_surrogate(distances: np.ndarray, clouds: Iterable[np.ndarray], width: int) -> None:
    """Set the two nearest distances (K, m, 2) in Gaussian clouds of one covariance, in its unit.

    They stay NaN where the rows differ by no more than the rounding of their mean.
    """
    sums = CovarianceSums(width)
    for cloud in clouds:
        for start in range(0, len(cloud), SUMMED_ROWS):
            sums.update(cloud[start : start + SUMMED_ROWS])
    eigenvalues = eigenvalues_of_sums(sums)
    if eigenvalues.any():
        for j, own in enumerate(distances):
            sample = gaussian_surrogate(eigenvalues, len(own), seed=(SEED, j))
            own[:] = nearest_neighbors(sample, 2).distances
