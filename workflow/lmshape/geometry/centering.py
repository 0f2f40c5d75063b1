"""Subtracting the mean of a cloud without leaving the rounding of that mean behind as if it were shape."""

from __future__ import annotations

import numpy as np

# Rows that are all equal leave the rounding of their mean. What is shorter than 8 units in the last place of
# the mean is that rounding: no variance and no direction.
ROUNDING = 8 * np.finfo(np.float64).eps


def centered(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n, d) less their mean, and the mean (d,), in float64.

    The mean of the differences, which is the error of the first mean (a sum of n terms is off by up to n
    units in the last place), is subtracted once more.
    """
    mean = rows.mean(axis=0)
    differences = rows - mean
    correction = differences.mean(axis=0)
    differences -= correction
    return differences, mean + correction
