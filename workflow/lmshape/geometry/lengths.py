"""Euclidean norms of rows, from float64 squares whatever the rows are: those of a float32 overflow from 2e19 on."""

from __future__ import annotations

import numpy as np

BLOCK_ENTRIES = 2**18  # 2 MiB in float64 at a time: squares are summed in the cache


def lengths(rows: np.ndarray) -> np.ndarray:
    """Return the norms (n,) of rows (n, d), float64; NaN or infinite for a row that is not finite."""
    norms = np.empty(len(rows))
    step = max(1, BLOCK_ENTRIES // rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        norms[start : start + step] = np.sqrt(np.einsum("ij,ij->i", block, block))
    return norms
