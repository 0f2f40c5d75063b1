"""Clouds made to break the fast form of a distance, for the searches of neighbors."""

from __future__ import annotations

import numpy as np

D = 24


def plain(*, n: int, d: int = D, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 8)) @ rng.standard_normal((8, d)) + 0.01 * rng.standard_normal((n, d))


def rogue_dimensions(*, n: int) -> np.ndarray:
    x = plain(n=n)
    x[:, [2, 5]] = 1500.0, -1500.0
    return x


def near_duplicates(norm: float = 1e4, *, n: int) -> np.ndarray:
    """A few of the rows (30, so that a neighborhood fits in) far away and close together."""
    x = plain(n=n)
    x[-30:] = norm / np.sqrt(D) + 1e-2 * x[-30:]
    return x


def ten_percent_copies(*, n: int) -> np.ndarray:
    x = plain(n=n)
    x[np.random.default_rng(1).permutation(n)[: n // 10]] = x[:2].repeat(n // 20, axis=0)
    return x
