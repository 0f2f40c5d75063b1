"""Spectral family: the eigenvalues of the covariance of a layer, pooled and with each draw left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from threadpoolctl import threadpool_limits

from lmshape.geometry.draws import leave_one_out_masks
from lmshape.geometry.moments import MomentSums
from lmshape.geometry.spectrum import Spectra, spectra_of_rows, spectra_of_sums
from lmshape.statistics.layer import Layer
from lmshape.statistics.parts import parts_of, robust_center
from lmshape.store import Attributes

FAMILY = "spectral"

ONE_THREAD = 256  # up to this width BLAS threads wait for each other longer than they work
WHOLE_PIECES = 2**62  # entries of a block: a piece is read at a time, and products are the faster the larger

Arrays = dict[str, np.ndarray]


def statistics(layer: Layer) -> dict[str, tuple[Arrays, Attributes]]:
    """Return the spectra of the rows of each choice, of n rows and width d in K draws.

    The arrays of `Spectra`, each with K + 1 entries: all rows, then without each draw. Eigenvalues are 0 where
    all rows are equal. 16 (K + 1) d bytes: 0.4 MB at 5 draws of width 4096.

    One pass for all choices, O(n d²) time and O(K d²) memory, then O(d³) for each entry. A choice of fewer rows than
    columns is read as a whole, and costs O(K n² d).
    """
    _, width = layer.rows.shape
    few = {name: kept for name, kept in layer.kept.items() if np.count_nonzero(kept) < width}
    many = {name: kept for name, kept in layer.kept.items() if name not in few}
    with threadpool_limits(1 if width <= ONE_THREAD else None, user_api="blas"):
        spectra = {name: _of_few_rows(layer, kept) for name, kept in few.items()} | _of_many_rows(layer, many)
    return {name: (_arrays(spectra[name]), {"flag": ""}) for name in layer.kept}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have no spectrum."""
    shapes = {
        "rows": (),
        "eigenvalues": (max(min(rows - 1, width), 1),),
        "leading_uncentered": (2,),
        "leading_standardized": (2,),
        "variances": (width,),
        "fourth_moment": (),
    }
    return {name: np.full((draws + 1, *shape), np.nan) for name, shape in shapes.items()}


def _of_few_rows(layer: Layer, kept: np.ndarray) -> Spectra:
    rows = layer.rows.take(np.flatnonzero(kept)).astype(np.float64)
    return spectra_of_rows(rows, leave_one_out_masks(layer.draw[kept], len(rows)))


def _of_many_rows(layer: Layer, kept: Mapping[str, np.ndarray]) -> dict[str, Spectra]:
    if not kept:
        return {}
    parts = parts_of(layer.draw, kept)
    center = robust_center(layer.rows, kept)
    sums = [MomentSums(center) for _ in range(parts.count)]
    for part, _, rows in parts.blocks(layer.rows, WHOLE_PIECES):
        sums[part].update(rows)
    return {
        name: spectra_of_sums([[sums[part] for part in subset] for subset in parts.subsets(name)])
        for name in kept
    }


def _arrays(spectra: Spectra) -> Arrays:
    return {field.name: getattr(spectra, field.name) for field in fields(Spectra)}
