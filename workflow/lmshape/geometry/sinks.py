"""Attention sinks: the rows of a few tokens that are far longer than all others and outweigh them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_array, as_labels, as_matrix

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
    """Do what `sink_rows` does with the norms (n,) of the rows; those that are not finite are no sinks.

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
