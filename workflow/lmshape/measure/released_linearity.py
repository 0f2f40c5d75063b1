"""Released linearity: how well a linear map takes a layer into the next, as LLM-Microscope computes it."""

from __future__ import annotations

import numpy as np

from lmshape.geometry.neighbors import unique_rows
from lmshape.geometry.released import RELEASED_ROWS, released_linearity
from lmshape.layer import Layer

FAMILY = "released_linearity"
PAIRED = (
    True  # a family of its own: the dimension and anisotropy of `released` exist where no layer is before
)


def statistics(layer: Layer) -> dict[str, tuple[dict[str, np.ndarray], dict[str, str | int]]]:
    """Return for each choice of rows the score of its first 4096 rows: `linearity` (1,), in the stored dtype.

    The rows are taken in the order of the cell: by draw, then sequence, then position. O(m d²) time; one
    singular value decomposition of (m, d).
    """
    found = {}
    for name, mask in layer.kept.items():
        index = np.flatnonzero(mask)[:RELEASED_ROWS]
        rows = layer.rows.take(index)
        counts = {"n_rows": len(index), "n_unique": len(unique_rows(rows)), "draws": 1}
        score = released_linearity(layer.before.take(index), rows)
        found[name] = {"linearity": np.array([score])}, {**counts, "flag": ""}
    return found


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> dict[str, np.ndarray]:
    """Return the array of `statistics`, NaN, for rows that have none."""
    return {"linearity": np.full(1, np.nan)}
