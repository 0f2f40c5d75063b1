"""The plain search: lower bounds of all pairs from one float64 matrix product, a certificate for each row.

What small clouds get, and the rows of large ones that `lmshape.geometry.candidates` gives up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmshape.geometry.direct import nearest_of

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
