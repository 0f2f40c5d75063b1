"""Which rows of a site are kept point by point, so that a cloud can be looked at: all kinds of them, few of each."""

from __future__ import annotations

import numpy as np

from lmshape.metric_families.carriers import GROUPS

MOST_ROWS = {"position_0": 50, "other_sink": 50, "rest": 300}
SEED = 0  # one order of the rows for every layer and checkpoint: the same tokens are seen everywhere


def sampled_rows(group: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows at random within each group, at most `MOST_ROWS` of it.

    Parameters
    ----------
    group : (n,) places in `GROUPS`
    kept : (n,) bool, the rows to choose from

    Returns
    -------
    Ascending index (m,) of the rows, m ≤ 400; and how many rows of its group each stands for, 1 where all are there.
    """
    order = np.random.default_rng(SEED).permutation(len(group))
    weights = np.zeros(len(group))
    for place, name in enumerate(GROUPS):
        own = order[(kept & (group == place))[order]]
        chosen = own[: MOST_ROWS[name]]
        weights[chosen] = len(own) / max(len(chosen), 1)
    index = np.flatnonzero(weights)
    return index, weights[index]
