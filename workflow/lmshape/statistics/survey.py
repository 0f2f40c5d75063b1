"""What is known of the rows of a site after one look at each: norms, which are finite, which are equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmshape.geometry.hashes import row_hashes
from lmshape.geometry.lengths import lengths
from lmshape.store import Rows


@dataclass(frozen=True, slots=True)
class Survey:
    """The rows of one site at a glance.

    Parameters
    ----------
    norms : (n,) float64, Euclidean; NaN or infinite where a row is not finite
    finite : (n,) bool
    hashes : (n,) uint64, equal for equal rows
    """

    norms: np.ndarray
    finite: np.ndarray
    hashes: np.ndarray

    def unique(self, draw: np.ndarray, kept: np.ndarray) -> int:
        """Count the rows of a choice (n,) bool that repeat none of their own draw (n,)."""
        return sum(len(np.unique(self.hashes[kept & (draw == j)])) for j in np.unique(draw[kept]))


def survey(rows: Rows) -> Survey:
    """Look at every row once, in O(n d) and the memory of two pieces."""
    n, _ = rows.shape
    norms, hashes = np.empty(n), np.empty(n, dtype=np.uint64)
    for piece, part in rows.chunks():
        norms[piece], hashes[piece] = lengths(part), row_hashes(part)
    return Survey(norms, np.isfinite(norms), hashes)
