"""How far the profile of a checkpoint is from that of the last one, on the same draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmshape.dynamics.noise import Noise, largest, size


@dataclass(frozen=True, slots=True)
class Distance:
    """Root mean square difference of two profiles, with its 95 % interval; NaN where draws cannot tell."""

    value: float
    low: float
    high: float


def distance(difference: np.ndarray, noise: Noise | None) -> Distance:
    """Return the root mean square of a difference of profiles, without what the noise adds to it.

    The mean square of the differences exceeds the true one by the mean variance of their errors, which is subtracted:
    equal profiles read about 0. Where the difference exceeds what the noise makes of equal profiles, the interval is
    Student's t for the error along the difference; otherwise it begins at 0 and ends where the plain value and the
    noise together do.

    Parameters
    ----------
    difference : (L,) one profile less the other
    noise : its error, paired by draws
    """
    plain = float(size(difference))
    if noise is None:
        return Distance(plain, np.nan, np.nan)
    variance = float((noise.samples() ** 2).mean())
    value = float(np.sqrt(max(plain**2 - variance, 0.0)))
    bound = noise.bound(size)
    if plain <= bound:
        return Distance(value, 0.0, plain + bound)
    along = difference / (plain * len(difference))
    half = noise.times(along[:, None]).bound(largest)
    return Distance(value, max(value - half, 0.0), value + half)
