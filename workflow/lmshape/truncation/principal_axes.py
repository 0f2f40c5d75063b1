"""Principal axes of the residual stream behind each layer, of all text but the draw that they are tried on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from lmshape.geometry.covariance import CovarianceSums

Rows = str  # "all" or "no_sink"


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalAxes:
    """Where a cloud lies, and its directions by variance.

    Attributes
    ----------
    mean : (d,) float64
    axes : (d, d) float64, orthonormal columns, largest variance first; with fewer than d + 1 rows the last ones are any
        that are orthogonal to the rest
    rows : number of rows that they were fitted on
    """

    mean: np.ndarray
    axes: np.ndarray
    rows: int


def principal_axes(sums: CovarianceSums, device: torch.device) -> PrincipalAxes:
    """Diagonalize a scatter matrix in float64, O(d³), on a CUDA GPU if that is the device."""
    scatter = torch.as_tensor(sums.scatter, device=device if device.type == "cuda" else "cpu")
    _, axes = torch.linalg.eigh(scatter)
    return PrincipalAxes(sums.mean, axes.flip(1).cpu().numpy(), sums.count)


class MomentsByDraw:
    """Sums over the rows of a layer, draw by draw, sinks apart: 2 K matrices (d, d) in float64.

    Parameters
    ----------
    width : d
    draw : (n,) integers, the draw of each row
    sinks : (n,) bool
    """

    def __init__(self, width: int, draw: np.ndarray, sinks: np.ndarray) -> None:
        self._width = width
        self._part = 2 * draw.astype(np.int64) + sinks
        self._sums: dict[int, CovarianceSums] = {}

    def update(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Add finite rows (m, d); `index` (m,) says which of the n they are."""
        part = self._part[index]
        for one in np.unique(part):
            self._sums.setdefault(int(one), CovarianceSums(self._width)).update(rows[part == one])

    def without(self, draw: int, rows: Rows) -> CovarianceSums:
        """Return the sums over the rows of all other draws, with or without sinks."""
        return CovarianceSums.merged(self._others(draw, rows), self._width)

    def _others(self, draw: int, rows: Rows) -> Iterable[CovarianceSums]:
        for part, sums in sorted(self._sums.items()):
            is_sink = bool(part % 2)
            if part // 2 != draw and not (is_sink and rows == "no_sink"):
                yield sums
