"""Exact nearest neighbors: candidates from matrix products, distances from direct differences, a certificate.

‖x‖² + ‖y‖² − 2xy is fast and loses small distances beside large norms; Σ(x − y)² loses nothing and is slow.
So the fast form is turned into a lower bound of the exact one: the most that rounding can do to it is
subtracted inside the matrix product itself. The points with the smallest bounds are measured directly, and a
point whose k-th distance does not lie under the bounds of all others is measured against each that could be
nearer. The result is that of measuring all pairs directly, whatever the norms, offsets or ties in the data.
Large clouds get their candidates from `lmshape.geometry.candidates`, which looks at half of the pairs and multiplies
leading axes only; what is measured, and how, is the same to the last bit. Tensors on a device stay there.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.distance import cdist

from lmshape.geometry.checks import as_stored_matrix, as_whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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


SPARE_CANDIDATES = 4  # measured beside the k, so that a near tie at the k-th distance needs no second search
TILE_ENTRIES = 2**24  # bounds held at a time: 128 MiB, and as much again for the order of them
FACTOR_BYTES = 2**29  # of the centered float64 points; a larger cloud is centered anew, a piece at a time


def search_rows(
    points: np.ndarray, rows: np.ndarray, k: int, tile: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices (len(rows), k) of the nearest of some rows, and how many were searched twice."""
    cloud = BoundedCloud.of(points)
    step = min(tile, max(1, TILE_ENTRIES // len(points)))
    found = [_search(cloud, rows[start : start + step], k) for start in range(0, len(rows), step)]
    distances, indices, recomputed = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices), sum(recomputed)


@dataclass(frozen=True, slots=True)
class BoundedCloud:
    """The points, and what their lower bounds are made of.

    With u = 2⁻⁵³, a and b two centered points of d coordinates: rounding moves the matrix product by at
    most (d + 2)u (2‖a‖‖b‖ + ‖b‖²), ‖b‖² itself by du‖b‖², and centering moves the squared distance by
    2u (‖a‖ + ‖b‖)². `rounding` = (2d + 8)u exceeds what these add up to for each of the terms ‖a‖², 2‖a‖‖b‖
    and ‖b‖², and the (d + 3)u by which a directly measured distance is off in its square (Higham 2002,
    chapter 3).

    Attributes
    ----------
    points : (m, d) as they came; direct differences are taken of these, so that centering costs no digit
    center : (d,) float64
    squares : (m,) float64, ‖b‖² less its share of the rounding
    factors : pieces of (m, d + 2), the columns b, (1 − rounding)‖b‖², ‖b‖; empty where they are made when needed
    rounding : the relative error that none of these terms exceeds
    """

    points: np.ndarray
    center: np.ndarray
    squares: np.ndarray
    factors: tuple[np.ndarray, ...]
    rounding: float

    @classmethod
    def of(cls, points: np.ndarray) -> BoundedCloud:
        """Center the points and take their norms."""
        m, d = points.shape
        rounding = (d + 4) * float(np.finfo(np.float64).eps)
        center = points.mean(axis=0, dtype=np.float64)
        empty = cls(points, center, np.empty(m), (), rounding)
        factors = []
        for piece in empty.pieces():
            factor = empty.factor(piece)
            empty.squares[piece] = factor[:, -2]
            if 8 * m * d <= FACTOR_BYTES:
                factors.append(factor)
        return cls(points, center, empty.squares, tuple(factors), rounding)

    def pieces(self) -> list[slice]:
        """Return the rows that are centered together."""
        m, d = self.points.shape
        step = m if 8 * m * d <= FACTOR_BYTES else max(1, FACTOR_BYTES // (64 * d))
        return [slice(start, min(start + step, m)) for start in range(0, m, step)]

    def factor(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return the factor of some rows."""
        d = self.points.shape[1]
        factor = np.empty((len(self.squares[rows]), d + 2))
        centered = np.subtract(self.points[rows], self.center, out=factor[:, :d])
        squares = np.einsum("ij,ij->i", centered, centered)
        factor[:, d] = (1 - self.rounding) * squares
        factor[:, d + 1] = np.sqrt(squares)
        return factor

    def lower_bounds(self, block: np.ndarray) -> np.ndarray:
        """Return (len(block), m) numbers that no ‖a − b‖² − ‖a‖² is below; infinite for a = b."""
        query = -2 * self.factor(block)
        query[:, -2] = 1
        query[:, -1] *= self.rounding
        bounds = np.empty((len(block), len(self.points)))
        for number, piece in enumerate(self.pieces()):
            factor = self.factors[number] if self.factors else self.factor(piece)
            np.matmul(query, factor.T, out=bounds[:, piece])
        bounds[np.arange(len(block)), block] = np.inf
        return bounds

    def limits(self, block: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """Return what a lower bound must exceed for its pair to be measured at more than the radius."""
        return (1 + self.rounding) * np.square(radii) - self.squares[block]


def _search(cloud: BoundedCloud, block: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point of a block, and how many it redid."""
    bounds = cloud.lower_bounds(block)
    count = min(k + SPARE_CANDIDATES, bounds.shape[1] - 1)
    order = np.argpartition(bounds, count, axis=1)
    distances, indices = nearest_of(cloud.points, block, np.sort(order[:, :count], axis=1), k)
    limits = cloud.limits(block, distances[:, -1])
    others = np.take_along_axis(bounds, order[:, count : count + 1], axis=1)[:, 0]
    uncertain = np.flatnonzero(others <= limits)
    for row in uncertain:
        columns = np.flatnonzero(bounds[row] <= limits[row])
        query = block[row : row + 1]
        distances[row], indices[row] = (
            found[0] for found in nearest_of(cloud.points, query, columns[None], k)
        )
    return distances, indices, len(uncertain)


HASHED_BYTES = 2**21  # of rows at a time: what is made of them stays in the cache


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return 64 bits for each row, the same for equal rows and hardly ever for others.

    Parameters
    ----------
    rows : (n, d) of any real dtype; 0.0 and −0.0 are the same

    Returns
    -------
    (n,) uint64, the same on every run; of rows of different dtypes they do not compare. Two different rows of
    10⁶ meet by chance once in 10⁷ such matrices: compare the rows where one error matters.
    """
    n, d = rows.shape
    words = -(-d * rows.dtype.itemsize // 8)
    # odd factors: a product loses no bit of a word. Two rounds, for the highest bit, the sign of a number, is
    # multiplied to nothing but itself in the first
    factors = np.random.default_rng(0).integers(2**63, size=(2, words), dtype=np.uint64) * np.uint64(2)
    factors += np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    step = max(1, HASHED_BYTES // (8 * words))
    padded = np.zeros((min(step, n), words * 8 // rows.dtype.itemsize), dtype=rows.dtype)
    for start in range(0, n, step):
        block = padded[: min(step, n - start)]
        block[:, d:] = 0
        with np.errstate(invalid="ignore"):  # a signaling NaN is a row like others
            np.add(
                rows[start : start + step], np.zeros((), rows.dtype), out=block[:, :d]
            )  # −0.0 + 0.0 is 0.0
        bits = block.view(np.uint64)
        bits ^= bits >> np.uint64(32)  # a number of few digits has zeros in its lower half
        bits *= factors[0]
        bits ^= bits >> np.uint64(29)
        bits *= factors[1]
        bits ^= bits >> np.uint64(32)
        hashes[start : start + step] = bits.sum(axis=1)
    return hashes


COMPARED_ENTRIES = 2**22  # of rows that may repeat another, at a time
COMPILED_PRODUCTS = 4e9  # multiplications from which compiled code is worth its start: 2 600 rows of 576
LOADED_PRODUCTS = 1e9  # and itself, once it is loaded: 1 300 rows of 576
MEASURED_PAIRS = 2**16  # candidates measured by a thread at a time
AUDITED_BYTES = 2**26  # of float64 rows measured against all others at a time


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Nearest neighbors of the unique rows of a cloud.

    Attributes
    ----------
    distances : (m, k) float64, Euclidean distance to the neighbors 1 … k, ascending
    indices : (m, k) int64, the rows of the original matrix that they are
    unique : (m,) int64, the row of the original matrix that each entry belongs to
    recomputed : rows that the first candidates could not be proved complete for, and that were searched again
    """

    distances: np.ndarray
    indices: np.ndarray
    unique: np.ndarray
    recomputed: int


def unique_rows(x: ArrayLike) -> np.ndarray:
    """Return the first occurrence of every distinct row, in row order.

    Parameters
    ----------
    x : (n, d) array or tensor; 0.0 and −0.0 are the same

    Returns
    -------
    (m,) int64, ascending. O(n d) time; rows of the same hash are compared.
    """
    rows = as_stored_matrix(x, minimum_rows=1)
    _, first, group = np.unique(row_hashes(rows), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(rows)))
    step = max(1, COMPARED_ENTRIES // rows.shape[1])
    for start in range(0, len(again), step):
        part = again[start : start + step]
        if not (rows[part] == rows[first[group[part]]]).all():  # two rows of one hash: compare all of them
            _, first = np.unique(rows + rows.dtype.type(0), axis=0, return_index=True)
            break
    return np.sort(first)


def nearest_neighbors(x: ArrayLike, k: int, *, tile: int = 1024) -> Neighbors:
    """Find the k nearest other rows of every unique row, exactly.

    Parameters
    ----------
    x : (n, d) array or tensor of any real dtype, rows are points; of repeated rows the first is kept. A tensor
        on a GPU is searched there, by `lmshape.geometry.device_neighbors`
    k : number of neighbors
    tile : most query rows at a time; the result does not depend on it

    Returns
    -------
    The neighbors by Euclidean distance; equal distances in the order of the rows.

    Raises
    ------
    ValueError
        When `k` or `tile` is no whole number or not positive, or fewer than k + 1 unique rows exist.

    Notes
    -----
    m²d multiplications, plus m (k + 4) direct distances. From m²d = 4e9 on (1e9, once compiled code is loaded) the
    candidates come from half the pairs and as few leading axes as prove enough. Memory beside `x`: a copy in
    float32 then, 48 k + 512 bytes a row, and 0.5 GiB; where rows repeat, the unique ones as they are stored.
    Where many rows tie at the k-th distance the result is as exact, after up to m² direct distances.
    Differences under 1e-154 have a square of 0, here as in SciPy; float32 ends at 1e-45.
    """
    k, tile = as_whole(k, name="k"), as_whole(tile, name="tile")
    if k < 1 or tile < 1:
        raise ValueError(f"`k` is {k} and `tile` {tile}; both must be at least 1.")
    if _is_on_device(x):
        return _on_device(x, k)
    rows = as_stored_matrix(x)
    unique = unique_rows(rows)
    _refuse_too_few(len(unique), len(rows), k)
    points = rows if len(unique) == len(rows) else rows[unique]
    m, d = points.shape
    search = _search_pruned if m * m * d >= _products_worth_compiling() else _search_all
    distances, indices, recomputed = search(points, k, tile)
    return Neighbors(distances, unique[indices], unique, recomputed)


def largest_error(x: ArrayLike, neighbors: Neighbors, *, rows: int = 200, seed: int = 0) -> float:
    """Return the largest relative error of the distances of some random rows, found independently.

    Parameters
    ----------
    x : (n, d) array or tensor that `neighbors` were found in
    neighbors : of it
    rows : how many are checked, all distances of each; all rows where there are fewer
    seed : of the choice

    Returns
    -------
    max |r − s| / s over the distances r and those, s, that SciPy's `cdist` measures in float64 between these rows
    and all others: about 1e-15. Infinite where a neighbor is missing at a distance of 0. O(rows · m · d).

    Raises
    ------
    ValueError
        When `x` has fewer rows than the cloud of `neighbors`, or `rows` is not positive. Another cloud of as many
        rows is not noticed: its error is large.
    """
    rows = as_whole(rows, name="rows")
    if rows < 1:
        raise ValueError(f"`rows` is {rows}; at least 1 row must be checked. The default is 200.")
    cloud = as_stored_matrix(x)
    if len(cloud) <= neighbors.unique.max():
        raise ValueError(
            f"`x` has {len(cloud)} rows, and `neighbors` are of row {neighbors.unique.max()}, counted from 0. "
            "Pass the cloud that they were found in."
        )
    points = cloud[neighbors.unique]
    m, k = neighbors.distances.shape
    chosen = np.sort(np.random.default_rng(seed).choice(m, min(rows, m), replace=False))
    found = neighbors.distances[chosen]
    truth = np.empty((len(chosen), 0))
    step = max(1, AUDITED_BYTES // (8 * points.shape[1]))
    for start in range(0, m, step):
        distances = cdist(points[chosen].astype(np.float64), points[start : start + step].astype(np.float64))
        own = np.flatnonzero((chosen >= start) & (chosen < start + step))
        distances[own, chosen[own] - start] = np.inf
        truth = np.sort(np.hstack([truth, distances]), axis=1)[:, :k]
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(found - truth) / truth
    return float(np.where(found == truth, 0.0, errors).max())


def _search_all(points: np.ndarray, k: int, tile: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point, and how many were searched again."""
    return search_rows(points, np.arange(len(points)), k, tile)


def _search_pruned(points: np.ndarray, k: int, tile: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Do the same by the candidates of half the pairs, and search the points again that have too many."""
    from lmshape.geometry.candidates import candidates, product_threads  # numba takes half a second to import

    found = candidates(points, k, tile=tile)
    if found is None:
        return _search_all(points, k, tile)
    columns, given_up = found
    distances, indices = np.empty((len(points), k)), np.empty((len(points), k), dtype=np.int64)
    settled, again = np.flatnonzero(~given_up), np.flatnonzero(given_up)
    step = max(1, MEASURED_PAIRS // max(columns.shape[1], 1))
    blocks = [settled[start : start + step] for start in range(0, len(settled), step)]

    def measure(block: np.ndarray) -> None:
        distances[block], indices[block] = nearest_of(points, block, columns[block], k)

    with ThreadPoolExecutor(product_threads()) as pool:
        list(pool.map(measure, blocks))
    if len(again):
        distances[again], indices[again], _ = search_rows(points, again, k, tile)
    return distances, indices, len(again)


def _products_worth_compiling() -> float:
    return LOADED_PRODUCTS if "lmshape.geometry.tiles" in sys.modules else COMPILED_PRODUCTS


def _refuse_too_few(unique: int, rows: int, k: int) -> None:
    if unique <= k:
        raise ValueError(
            f"{unique} unique rows of {rows}; {k} neighbors need at least {k + 1}. Add rows or lower `k`."
        )


def _is_on_device(x: ArrayLike) -> bool:
    torch = sys.modules.get("torch")
    return (
        torch is not None and isinstance(x, torch.Tensor) and x.is_floating_point() and x.device.type != "cpu"
    )


def _on_device(x: ArrayLike, k: int) -> Neighbors:
    from lmshape.geometry.device_neighbors import search_on_device, unique_rows_on_device

    unique = unique_rows_on_device(x)
    _refuse_too_few(len(unique), len(x), k)
    distances, indices, recomputed = search_on_device(x if len(unique) == len(x) else x[unique], k)
    rows = unique.cpu().numpy()
    return Neighbors(distances, rows[indices], rows, recomputed)
