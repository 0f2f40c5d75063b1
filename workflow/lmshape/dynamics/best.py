"""Which numbers of a curve may be its largest: an interval for the place of a peak."""

from __future__ import annotations

import numpy as np

from lmshape.dynamics.noise import Noise, spread


def may_be_largest(values: np.ndarray, noise: Noise) -> np.ndarray:
    """Return the places that cannot be told from the largest number of a curve.

    A place is struck off where it lies further below the largest number than the errors of any two of the places
    left may lie apart; this is repeated with the smaller bound of what is left, until nothing more goes. The place of
    the true largest number is among them with 95 % confidence. A flat curve keeps all of its places.

    Parameters
    ----------
    values : (T,) numbers
    noise : their error

    Returns
    -------
    Indices, rising.

    References
    ----------
    Hansen, Lunde & Nason 2011, "The model confidence set", with its range statistic.
    """
    left = np.arange(len(values))
    while len(left) > 1:
        near = values.max() - values[left] <= noise.at(left).bound(spread)
        if near.all():
            break
        left = left[near]
    return left


def around(places: np.ndarray, count: int) -> tuple[int, int]:
    """Return the places just below the first and just above the last, within a curve of `count` numbers.

    Between two places nothing was measured: a peak at one of them may lie anywhere up to the next ones.
    """
    return max(int(places[0]) - 1, 0), min(int(places[-1]) + 1, count - 1)
