"""Similarity of two clouds of the same points: two layers, two checkpoints, two models on equal tokens.

Each function takes two matrices whose rows i are the same point, of any two widths, and returns one number that neither
rotating nor shifting a cloud changes, nor scaling it as a whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import ROUNDING, as_matrix, as_whole, centered
from lmshape.geometry.differences import distances_of_pairs
from lmshape.geometry.neighbors import nearest_neighbors
from lmshape.geometry.rows import unique_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BLOCK_ENTRIES = 2**22  # distances held at a time, 32 MiB


def neighborhood_overlap(x: ArrayLike, y: ArrayLike, *, k: int = 30) -> float:
    """Return the share of the k nearest neighbors of a point in one cloud that are so in the other, mean over points.

    Parameters
    ----------
    x, y : (n, d) and (n, e), rows are the same points; one that repeats another in either cloud is left out of both
    k : number of neighbors

    Returns
    -------
    In [0, 1]: 1 where all neighbors are shared. `neighborhood_overlap_null`, k/(n − 1), for clouds that know nothing of
    each other.

    Raises
    ------
    ValueError
        When the clouds have different numbers of rows, or at most k are left.

    Notes
    -----
    O(n² (d + e)) time. DADApy's `return_data_overlap`.

    References
    ----------
    Doimo, Glielmo, Ansuini & Laio 2020, "Hierarchical nucleation in deep neural networks".
    """
    k = as_whole(k, name="k")
    clouds = _unique_in_both(x, y)
    return overlap_from_neighbors(
        *(nearest_neighbors(rows, k, assume_unique=True).indices for rows in clouds)
    )


def overlap_from_neighbors(first: np.ndarray, second: np.ndarray) -> float:
    """Return `neighborhood_overlap` from the indices (n, k) of the k nearest neighbors in each of both clouds."""
    # each list names a point once: a name that stands twice in both together is shared
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return float(np.count_nonzero(both[:, 1:] == both[:, :-1]) / first.size)


def neighborhood_overlap_null(rows: int, *, k: int = 30) -> float:
    """Return the overlap of `rows` points in independent clouds: k/(rows − 1)."""
    if not 1 <= k < rows:
        raise ValueError(f"`k` is {k} and `rows` {rows}; a point of n has between 1 and n − 1 neighbors.")
    return k / (rows - 1)


def information_imbalance(x: ArrayLike, y: ArrayLike) -> float:
    """Return how little the nearest neighbors in x predict those in y: 2/n times their mean rank in y.

    Parameters
    ----------
    x, y : (n, d) and (n, e), rows are the same points; one that repeats another in either cloud is left out of both

    Returns
    -------
    In [2/n, 2): 2/n where the nearest neighbor in x is that in y for every point, 1 where it is any point. Not
    symmetric: where y is a part of what x holds, x tells of y more than y of x.

    Raises
    ------
    ValueError
        When the clouds have different numbers of rows, or fewer than 2 are left.

    Notes
    -----
    O(n² (d + e)) time in blocks. Points as far in y as the neighbor share its rank, the least. DADApy's
    `return_information_imbalace`.

    References
    ----------
    Glielmo, Zeni, Cheng, Csányi & Laio 2022, PNAS Nexus, doi:10.1093/pnasnexus/pgac039.
    """
    left, right = _unique_in_both(x, y)
    return imbalance_from_neighbors(nearest_neighbors(left, 1, assume_unique=True).indices[:, 0], right)


def imbalance_from_neighbors(nearest: np.ndarray, y: np.ndarray) -> float:
    """Return `information_imbalance` from the index (n,) of the nearest neighbor in x, and y (n, e), of unique rows."""
    n = len(y)
    radii = distances_of_pairs(y, np.arange(n), nearest)
    step = max(1, BLOCK_ENTRIES // n)
    nearer = 0
    for start in range(0, n, step):
        block = np.arange(start, min(start + step, n))
        pairs = distances_of_pairs(y, np.repeat(block, n), np.tile(np.arange(n), len(block)))
        nearer += int(np.count_nonzero(pairs.reshape(len(block), n) < radii[block, None]))
    return 2 * nearer / n**2  # a point is nearer to itself, and counts as the 1 from which ranks go


def cka(x: ArrayLike, y: ArrayLike, *, debiased: bool = True) -> float:
    """Return the linear centered kernel alignment: ‖Y'X‖² / (‖X'X‖ ‖Y'Y‖) of centered clouds, Frobenius norms.

    Parameters
    ----------
    x, y : (n, d) and (n, e), rows are the same points; n ≥ 4
    debiased : with estimates of the three terms without bias, which leave out what each point shares with itself. Else
        clouds that know nothing of each other read far above 0 unless n is far above d and e

    Returns
    -------
    At most about 1, for clouds that a rotation and a scale make equal; 0 for clouds that know nothing of each other,
    with noise about it; [0, 1] where not debiased. NaN where a cloud has no variance, or no more than by chance. One
    far row of both clouds makes it 1: leave out sinks.

    Raises
    ------
    ValueError
        When the clouds have different numbers of rows, or under 4.

    Notes
    -----
    O(n d e + n d² + n e²) time.

    References
    ----------
    Kornblith, Norouzi, Lee & Hinton 2019, arXiv 1905.00414; without bias: Song, Smola, Gretton, Bedo & Borgwardt 2012,
    JMLR 13, and Nguyen et al. 2021, arXiv 2010.15327.
    """
    left, right = (_directions(rows) for rows in _paired(x, y, minimum_rows=4))
    if left is None or right is None:
        return float("nan")
    alignment = _unbiased_alignment if debiased else _alignment
    norms = alignment(left, left), alignment(right, right)
    if min(norms) <= 0:
        return float("nan")
    return float(alignment(left, right) / np.sqrt(norms[0] * norms[1]))


def _alignment(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.square(x.T @ y).sum())


def _unbiased_alignment(x: np.ndarray, y: np.ndarray) -> float:
    """Return n(n − 3) times HSIC₁ of Song et al. 2012 for linear kernels of centered rows."""
    n = len(x)
    a, b = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    return _alignment(x, y) - n / (n - 2) * float(a @ b) + float(a.sum() * b.sum()) / ((n - 1) * (n - 2))


def _directions(rows: np.ndarray) -> np.ndarray | None:
    """Center rows and scale them to a largest entry of 1; None where what is left is the rounding of their mean."""
    differences, mean = centered(rows)
    size = np.abs(differences).max()
    return differences / size if size > ROUNDING * np.abs(mean).max() else None


def _paired(x: ArrayLike, y: ArrayLike, *, minimum_rows: int = 2) -> tuple[np.ndarray, np.ndarray]:
    left, right = (
        as_matrix(rows, name=name, minimum_rows=minimum_rows) for name, rows in (("x", x), ("y", y))
    )
    if len(left) != len(right):
        raise ValueError(
            f"`x` has {len(left)} rows and `y` {len(right)}; row i of both must be the same point."
        )
    return left, right


def _unique_in_both(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    left, right = _paired(x, y)
    kept = np.intersect1d(unique_rows(left), unique_rows(right))
    return left[kept], right[kept]
