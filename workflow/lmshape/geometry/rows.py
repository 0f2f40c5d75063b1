"""Choices of rows of a cloud: without copies, without attention sinks, one per token id, without a draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_array, as_labels, as_matrix, as_stored_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

HASHED_BYTES = 2**19  # of rows at a time: what is made of them stays in the cache
COMPARED_ENTRIES = 2**22  # of rows that may repeat another, at a time


def unique_rows(x: ArrayLike) -> np.ndarray:
    """Return the first occurrence of every distinct row, in row order.

    Parameters
    ----------
    x : (n, d) array or tensor; 0.0 and −0.0 are the same

    Returns
    -------
    (m,) int64, ascending. O(n d) time; rows of the same hash are compared.
    """
    return np.unique(first_occurrences(x))


def first_occurrences(x: ArrayLike) -> np.ndarray:
    """Return for each row of `unique_rows`'s argument the first row that is equal to it: (n,) int64."""
    rows = as_stored_matrix(x, minimum_rows=1)
    _, first, group = np.unique(row_hashes(rows), return_index=True, return_inverse=True)
    again = np.flatnonzero(first[group] != np.arange(len(rows)))
    step = max(1, COMPARED_ENTRIES // rows.shape[1])
    for start in range(0, len(again), step):
        part = again[start : start + step]
        if not (rows[part] == rows[first[group[part]]]).all():  # two rows of one hash: compare all of them
            copy = rows + rows.dtype.type(0)
            _, first, group = np.unique(copy, axis=0, return_index=True, return_inverse=True)
            break
    return first[group]


def row_hashes(rows: np.ndarray) -> np.ndarray:
    """Return 64 bits for each row, the same for equal rows and hardly ever for others.

    Parameters
    ----------
    rows : (n, d) of any real dtype; 0.0 and −0.0 are the same

    Returns
    -------
    (n,) uint64, the same on every run; hashes of different dtypes do not compare. Two different rows
    of 10⁶ share a hash once in 10⁷ such matrices: compare the rows where one error matters.
    """
    n, d = rows.shape
    words = -(-d * rows.dtype.itemsize // 8)
    # Odd factors: a product loses no bit of a word. Two rounds: in the first the highest bit, the sign of a number,
    # reaches no other bit.
    factors = np.random.default_rng(0).integers(2**63, size=(2, words), dtype=np.uint64)
    factors = factors * np.uint64(2) + np.uint64(1)
    hashes = np.empty(n, dtype=np.uint64)
    step = max(1, HASHED_BYTES // (8 * words))
    padded = np.zeros((min(step, n), words * 8 // rows.dtype.itemsize), dtype=rows.dtype)
    for start in range(0, n, step):
        block = padded[: min(step, n - start)]
        block[:, d:] = 0
        with np.errstate(invalid="ignore"):  # a signaling NaN is a row like others
            np.add(rows[start : start + step], rows.dtype.type(0), out=block[:, :d])  # −0.0 + 0.0 is 0.0
        bits = block.view(np.uint64)
        bits ^= bits >> np.uint64(32)  # a number of few digits has zeros in its lower half
        bits *= factors[0]
        bits ^= bits >> np.uint64(29)
        bits *= factors[1]
        bits ^= bits >> np.uint64(32)
        hashes[start : start + step] = bits.sum(axis=1)
    return hashes


def sink_rows(x: ArrayLike, position: ArrayLike, *, factor: float = 10.0) -> np.ndarray:
    """Find the rows of a layer that a `no_sink` statistic leaves out.

    In a trained decoder 0.4 % of the rows (position 0 and the first newline of a window) carry 99 % of the
    variance of the leading direction; without them an anisotropy near 1 falls to about 0.1.

    Parameters
    ----------
    x : (n, d) array or tensor, the rows of one layer
    position : (n,) integers, position of each token in its sequence, from 0
    factor : how many times the median norm of the layer (all rows) a row must exceed; positive

    Returns
    -------
    (n,) bool, True for position 0 and for norms over `factor` × the median norm. A cloud of zeros has none
    but those at position 0.

    References
    ----------
    Xiao et al. 2023, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762.
    """
    rows = as_matrix(x, minimum_rows=1)
    position = as_labels(position, len(rows), name="position")
    if not factor > 0:
        raise ValueError(f"`factor` is {factor}; it must be positive. The default is 10.")
    return sinks_by_norm(np.linalg.norm(rows, axis=1), position, factor=factor)


def sinks_by_norm(norms: np.ndarray, position: np.ndarray, *, factor: float = 10.0) -> np.ndarray:
    """Do what `sink_rows` does with the norms (n,) of the rows; those that are not finite are not sinks.

    The median is that of the finite norms.
    """
    finite = np.isfinite(norms)
    median = np.median(norms[finite]) if finite.any() else np.inf
    return (position == 0) | (finite & (norms > factor * median))


def one_per_type(types: ArrayLike, draw: ArrayLike, *, seed: int) -> np.ndarray:
    """Choose one row at random of each type in each draw.

    The nearest neighbor of a token is mostly the same token in another context: the dimension of all rows
    then measures how one token varies.

    Parameters
    ----------
    types : (n,) integers, the token id of each row
    draw : (n,) integers, the draw of each row; a type has one row in every draw that it occurs in
    seed : of NumPy's default generator; the choice depends on it, `types` and `draw` alone

    Returns
    -------
    (n,) bool, True for the rows chosen.
    """
    types = as_array(types)
    draw = as_labels(draw, len(types), name="draw")
    types = as_labels(types, len(types), name="types")
    order = np.random.default_rng(seed).permutation(len(types))
    _, first = np.unique(np.stack([draw, types])[:, order], axis=1, return_index=True)
    chosen = np.zeros(len(types), dtype=bool)
    chosen[order[first]] = True
    return chosen


def leave_one_out_masks(draw: ArrayLike, count: int) -> list[np.ndarray]:
    """Return which rows take part: all of them, then all but those of each draw in ascending order.

    Parameters
    ----------
    draw : (count,) integers, the draw of each row
    count : number of rows

    Returns
    -------
    K + 1 Boolean arrays (count,).

    Raises
    ------
    ValueError
        When there are fewer than 2 draws, or fewer than 2 rows without one of them.
    """
    draw = as_labels(draw, count, name="draw")
    labels = np.unique(draw)
    if len(labels) < 2:
        raise ValueError(f"`draw` names {len(labels)} draw; an interval needs at least 2. Sample more draws.")
    masks = [np.ones(count, dtype=bool), *(draw != label for label in labels)]
    fewest = min(int(mask.sum()) for mask in masks)
    if fewest < 2:
        raise ValueError(
            f"`draw` leaves {fewest} row without one of its draws; at least 2 are needed. Add rows."
        )
    return masks
