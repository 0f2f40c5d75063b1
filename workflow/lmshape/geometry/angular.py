"""Directions and lengths of rows: the mean cosine over all pairs without forming a pair, norms, massive entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import ROUNDING, as_matrix, centered, lengths
from lmshape.geometry.rows import leave_one_out_masks

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


CANCELED = 1e-3  # of what a square is the difference of: it has lost three digits of sixteen there
MASSIVE = 100.0  # an entry is massive when its magnitude is over this …
MASSIVE_RATIO = 1000.0  # … and over this many times the median magnitude of the layer
DIGIT_BITS = 16
DIGITS = 2**DIGIT_BITS

Blocks = Callable[[], Iterable[tuple[int, np.ndarray]]]


class DirectionSums:
    """Count and sum of the directions of rows from a point, for several sets of rows, each with its point.

    ‖x − p‖² of all points at once is ‖y‖² − 2 y·q + ‖q‖² with y = x − center and q = p − center, a matrix product;
    where that cancels the difference is taken directly.

    Parameters
    ----------
    center : (d,) float64, a point amid the rows; the result does not depend on it
    points : (E, d) float64, from where the rows of each set are seen

    Attributes
    ----------
    counts : (E,) rows that have a direction: that differ from the point by more than its rounding
    totals : (E, d) Σ (x − p) / ‖x − p‖
    """

    __slots__ = ("_center", "_lengths", "_offsets", "_points", "_rounding", "counts", "totals")

    def __init__(self, center: np.ndarray, points: np.ndarray) -> None:
        self._center, self._points = center, points
        self._offsets = points - center
        self._lengths = np.einsum("ij,ij->i", self._offsets, self._offsets)
        self._rounding = np.square(ROUNDING * np.linalg.norm(points, axis=1))
        self.counts = np.zeros(len(points), dtype=np.int64)
        self.totals = np.zeros(points.shape)

    def update(self, rows: np.ndarray, sets: Sequence[int]) -> None:
        """Add rows (m, d) of any real dtype, all of them in each of the sets that are named: O(m d E)."""
        own = np.asarray(sets)
        differences = rows - self._center
        largest = np.einsum("ij,ij->i", differences, differences)[:, None] + self._lengths[own]
        squares = largest - 2 * (differences @ self._offsets[own].T)
        canceled = squares < CANCELED * largest
        directed = ~canceled & (squares > self._rounding[own])
        weights = 1 / np.sqrt(squares, where=directed, out=np.full_like(squares, np.inf))
        self.totals[own] += weights.T @ differences - weights.sum(axis=0)[:, None] * self._offsets[own]
        self.counts[own] += directed.sum(axis=0)
        for column in np.flatnonzero(canceled.any(axis=0)).tolist():
            self._add_directly(rows[canceled[:, column]], sets[column])

    def mean_cosines(self, subsets: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the mean cosine over the pairs of each union of sets; NaN under two rows that have a direction."""
        counts = np.array([self.counts[list(subset)].sum() for subset in subsets])
        totals = np.stack([self.totals[list(subset)].sum(axis=0) for subset in subsets])
        with np.errstate(invalid="ignore", divide="ignore"):
            cosines = (np.einsum("ij,ij->i", totals, totals) - counts) / (counts * (counts - 1))
        return np.where(counts < 2, np.nan, cosines)

    def _add_directly(self, rows: np.ndarray, own: int) -> None:
        differences = rows - self._points[own]
        squares = np.einsum("ij,ij->i", differences, differences)
        directed = squares > self._rounding[own]
        self.totals[own] += (1 / np.sqrt(squares[directed])) @ differences[directed]
        self.counts[own] += np.count_nonzero(directed)


def mean_cosine(x: ArrayLike, *, center: bool = False) -> float:
    """Return the mean cosine between two different rows: how far the cloud points one way.

    2/(n(n − 1)) Σ_{i<j} cos(x_i, x_j) = (‖Σu_i‖² − n)/(n(n − 1)) with u_i = x_i/‖x_i‖, in O(n d).

    Parameters
    ----------
    x : (n, d) array or tensor, rows are points
    center : subtract the mean of all rows first

    Returns
    -------
    Between −1/(n − 1) and 1; 0 for directions without preference. Zero rows have no direction and are left
    out.

    Raises
    ------
    ValueError
        When fewer than two rows have a direction; with `center`, equal rows have none.

    References
    ----------
    Ethayarajh 2019, arXiv 1909.00512.

    Examples
    --------
    >>> mean_cosine([[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    0.0
    """
    cosine = _mean_cosine(as_matrix(x), center=center)
    if np.isnan(cosine):
        point = "are their mean" if center else "are zero"
        raise ValueError(
            f"`x` has fewer than 2 rows with a direction: all others {point}. A cosine needs 2; add other rows."
        )
    return cosine


def leave_one_out_mean_cosine(x: ArrayLike, draw: ArrayLike, *, center: bool) -> np.ndarray:
    """Return the mean cosine of all rows, and of all rows but those of one draw.

    Parameters
    ----------
    x : (n, d), rows are points
    draw : (n,) integers, the draw of each row; K ≥ 2 different ones
    center : subtract the mean of the rows that are used

    Returns
    -------
    (K + 1,) float64: entry 0 pooled, entry j without the j-th of the draws in ascending order; NaN where fewer than
    two of its rows have a direction. O(K n d).
    """
    rows = as_matrix(x)
    masks = leave_one_out_masks(draw, len(rows))
    return np.array([_mean_cosine(rows[mask], center=center) for mask in masks])


def _mean_cosine(rows: np.ndarray, *, center: bool) -> float:
    mean = centered(rows)[1] if center else np.zeros(rows.shape[1])
    sums = DirectionSums(mean, mean[None])
    sums.update(rows, [0])
    return float(sums.mean_cosines([[0]])[0])


@dataclass(frozen=True, slots=True)
class Norms:
    """Lengths of rows and magnitudes of entries.

    Parameters
    ----------
    rows : number of rows
    norm_median, norm_max : of the Euclidean norms of the rows
    activation_max : the largest magnitude of an entry
    massive_count : entries of magnitude over 100 and over 1000 × the median magnitude (Sun et al. 2024, arXiv
        2402.17762): 0 for data without outliers
    zero_rows : rows of zeros, which have no direction
    """

    rows: int
    norm_median: float
    norm_max: float
    activation_max: float
    massive_count: int
    zero_rows: int


def row_norms(x: ArrayLike) -> Norms:
    """Return the lengths of the rows of x (n, d), and the magnitudes of its entries, in O(n d).

    Examples
    --------
    >>> row_norms([[3.0, 4.0], [0.0, 0.0], [0.0, -1.0]])
    Norms(rows=3, norm_median=1.0, norm_max=5.0, activation_max=4.0, massive_count=0, zero_rows=1)
    """
    rows = as_matrix(x, minimum_rows=1)
    return _of_rows(rows, [np.ones(len(rows), dtype=bool)])[0]


def leave_one_out_norms(x: ArrayLike, draw: ArrayLike) -> list[Norms]:
    """Return the norms of all rows of x (n, d), and of all rows but those of one draw.

    draw : (n,) integers; K ≥ 2 different ones. K + 1 entries: all, then without each draw, in ascending order.
    """
    rows = as_matrix(x)
    return _of_rows(rows, leave_one_out_masks(draw, len(rows)))


def peaks(rows: np.ndarray) -> np.ndarray:
    """Return the largest magnitude (n,) in each row of (n, d), float64."""
    return np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64)


def summaries(
    norms: np.ndarray, largest: np.ndarray, masks: Sequence[np.ndarray], massive: Sequence[int]
) -> list[Norms]:
    """Summarize what is known of each of n rows, for every set of rows.

    Parameters
    ----------
    norms, largest : (n,) norm and largest magnitude of each row
    masks : (n,) bool each, rows of the set
    massive : massive entries of the set
    """
    return [
        Norms(
            rows=int(mask.sum()),
            norm_median=float(np.median(norms[mask])),
            norm_max=float(norms[mask].max()),
            activation_max=float(largest[mask].max()),
            massive_count=int(count),
            zero_rows=int(np.count_nonzero(norms[mask] == 0)),
        )
        for mask, count in zip(masks, massive, strict=True)
    ]


def massive_limits(medians: np.ndarray) -> np.ndarray:
    """Return the magnitude over which an entry is massive, for the median magnitudes `medians`."""
    return np.maximum(MASSIVE, MASSIVE_RATIO * medians)


def _of_rows(rows: np.ndarray, masks: Sequence[np.ndarray]) -> list[Norms]:
    largest = peaks(rows)
    # the median of n d entries is the slow part, and most layers have no entry over `MASSIVE`
    massive = [_massive_count(np.abs(rows[mask])) if largest[mask].max() > MASSIVE else 0 for mask in masks]
    return summaries(lengths(rows), largest, masks, massive)


def _massive_count(magnitudes: np.ndarray) -> int:
    return int(np.count_nonzero(magnitudes > massive_limits(np.median(magnitudes))))


def median_magnitudes(blocks: Blocks, subsets: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the median of |entry| over the rows of each union of parts, float64 (len(subsets),).

    Parameters
    ----------
    blocks : starts a pass over (part, rows (m, d)): float16, float32 or float64, one dtype in all
    subsets : parts of each union, none of them empty
    """
    parts = 1 + max(part for subset in subsets for part in subset)
    dtype = next(iter(blocks()))[1].dtype
    word = np.dtype(f"u{dtype.itemsize}")
    starts = np.zeros((len(subsets), 2), dtype=word)  # what the two middle entries of each union start with
    ranks = np.zeros((len(subsets), 2), dtype=np.int64)  # and how many with this start are smaller
    for shift in range(8 * dtype.itemsize - DIGIT_BITS, -1, -DIGIT_BITS):
        known = np.unique(starts)
        counts = _count_digits(blocks(), known, shift=shift, parts=parts)
        for own, subset in enumerate(subsets):
            united = counts[list(subset)].sum(axis=0)
            if shift == 8 * dtype.itemsize - DIGIT_BITS:
                entries = int(united.sum())
                ranks[own] = (entries - 1) // 2, entries // 2
            for middle in (0, 1):
                digit, ranks[own, middle] = _digit(
                    united[known == starts[own, middle]][0], ranks[own, middle]
                )
                starts[own, middle] = int(starts[own, middle]) << DIGIT_BITS | digit
    return starts.view(dtype).astype(np.float64).mean(axis=1)


def count_over(blocks: Blocks, limits: np.ndarray, subsets: Sequence[Sequence[int]]) -> np.ndarray:
    """Count the entries of each union of parts with a magnitude over its limit, int64 (len(subsets),)."""
    counts = np.zeros(len(subsets), dtype=np.int64)
    lowest = limits.min()
    for part, rows in blocks():
        sizes = np.abs(rows)
        large = sizes[sizes > lowest].astype(np.float64)
        for own, subset in enumerate(subsets):
            if part in subset and len(large):
                counts[own] += np.count_nonzero(large > limits[own])
    return counts


def _count_digits(
    blocks: Iterable[tuple[int, np.ndarray]], known: np.ndarray, *, shift: int, parts: int
) -> np.ndarray:
    """Count the digits at `shift` of the entries that start with each of `known`: (parts, len(known), DIGITS)."""
    counts = np.zeros((parts, len(known), DIGITS), dtype=np.int64)
    for part, rows in blocks:
        bits = np.abs(rows).view(known.dtype).ravel()
        digits = (bits >> shift & (DIGITS - 1)).astype(np.intp)
        if shift == 8 * known.dtype.itemsize - DIGIT_BITS:
            counts[part, 0] += np.bincount(digits, minlength=DIGITS)
            continue
        starts = bits >> (shift + DIGIT_BITS)
        for place, start in enumerate(known):
            counts[part, place] += np.bincount(digits[starts == start], minlength=DIGITS)
    return counts


def _digit(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """Return the digit of the entry with `rank` smaller ones, and its rank among the entries of that digit."""
    ends = np.cumsum(counts)
    digit = int(np.searchsorted(ends, rank, side="right"))
    return digit, int(rank - (ends[digit - 1] if digit else 0))
