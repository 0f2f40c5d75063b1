"""Released linearity: how well a linear map takes a layer into the next, as LLM-Microscope computes it."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.released import released_linearity
from lmshape.metrics.metric import Layer

FAMILY = "released_linearity"
PAIRED = True  # a family of its own: the dimension of `released` exists where no layer is before


def statistics(layer: Layer) -> dict[str, tuple[dict[str, np.ndarray], dict[str, str | int]]]:
    """Return for each choice of rows the score of all n of them: `linearity` (1,), in the stored dtype.

    One draw stands behind the number, whatever the cell has. O(n d²) time. One singular value decomposition of
    (n, d), as the released code takes it: the rows of both layers and what is made of them are in memory
    together, some twelve times the size of a layer: 2 GB at 10 000 rows of width 4096 in float32.
    """
    found = {}
    for name, mask in layer.kept.items():
        index = np.flatnonzero(mask)
        score = released_linearity(layer.before.take(index), layer.rows.take(index))
        found[name] = {"linearity": np.array([score])}, {"draws": 1, "flag": ""}
    return found


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the array of `statistics`, NaN, for rows that have none."""
    return {"linearity": np.full(1, np.nan)}
