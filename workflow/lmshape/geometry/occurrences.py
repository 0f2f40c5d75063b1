"""One row of each kind: the control for neighbors that are the same token in another context."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_array, as_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


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
