"""Arrays as the layer that a metric family is given."""

from __future__ import annotations

from types import ModuleType

import numpy as np

from lmshape.metrics.layer import Layer
from lmshape.store.activations import Rows


def layer_of(
    x: np.ndarray,
    draw: np.ndarray,
    kept: dict[str, np.ndarray] | None = None,
    *,
    rows_per_draw: int | None = None,
    chunk_rows: int = 100,
) -> Layer:
    kept = {"all": np.ones(len(x), dtype=bool)} if kept is None else kept
    return Layer(
        rows=Rows(x, chunk_bytes=chunk_rows * x[0].nbytes),
        before=None,
        draw=draw,
        sequence=np.zeros(len(x), dtype=int),
        kept=kept,
        rows_per_draw=dict.fromkeys(kept, rows_per_draw),
    )


def measured(
    family: ModuleType, x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str | int]]:
    """Return what a family makes of all rows."""
    return family.statistics(layer_of(x, draw, rows_per_draw=rows_per_draw))["all"]
