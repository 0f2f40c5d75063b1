"""How long the rows of a cloud are, and how far its largest entries stand out.

Medians and maxima, of all rows and without each draw. No interval is made of a maximum: a draw either holds it
or not, and the maximum of a sample does not tell how far the next one goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_matrix
from lmshape.geometry.draws import leave_one_out_masks
from lmshape.geometry.lengths import lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

MASSIVE = 100.0  # an entry is massive when its magnitude is over this …
MASSIVE_RATIO = 1000.0  # … and over this many times the median magnitude of the layer


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
    """Return over which magnitude an entry is massive where the median magnitude is that of `medians`."""
    return np.maximum(MASSIVE, MASSIVE_RATIO * medians)


def _of_rows(rows: np.ndarray, masks: Sequence[np.ndarray]) -> list[Norms]:
    largest = peaks(rows)
    # the median of n d entries is the slow part, and most layers have no entry that asks for it
    massive = [_massive_count(np.abs(rows[mask])) if largest[mask].max() > MASSIVE else 0 for mask in masks]
    return summaries(lengths(rows), largest, masks, massive)


def _massive_count(magnitudes: np.ndarray) -> int:
    return int(np.count_nonzero(magnitudes > massive_limits(np.median(magnitudes))))
