"""Arrays as the layer that a metric family is given, and the cell of a model of two blocks that a store is of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from lmshape.metrics.layer import Layer
from lmshape.site import Site
from lmshape.store.activations import Rows
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import LayerStatistics, new_statistics

SITES = (Site("embedding", 0), Site("block", 1), Site("block", 2), Site("final_norm", 2))
ROOT = {
    "model": "tiny",
    "architecture": "gpt_neox",
    "kind": "decoder",
    "parameters": 1234,
    "blocks": 2,
    "dtype": "float32",
    "commit": "",
    "tokenizer_sha256": "t",
    "text_sha256": "e",
    "sampling": "{}",
    "seed": 7,
    "tokens_seen": 2048.0,
    "checkpoint": "step4",
    "step": 4,
    "weights_sha256": "w4",
    "dataset": "wiki",
}


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
        other=None,
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


def write_statistics(
    path: Path,
    *,
    attributes: Attributes,
    layers: Iterable[LayerStatistics],
    axes: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write an archive of entries that are known."""
    with new_statistics(path, attributes=attributes, axes=axes) as write:
        for layer in layers:
            write(layer)
