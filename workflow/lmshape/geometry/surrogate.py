"""A Gaussian cloud with the covariance of another: what the spectrum alone makes of a statistic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_array

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def gaussian_surrogate(eigenvalues: ArrayLike, n: int, *, seed: int | tuple[int, ...]) -> np.ndarray:
    """Draw normal rows whose covariance has the given eigenvalues, in its principal axes, up to a scale.

    For statistics that rotation, translation and scale leave alone, as neighbors do, that is a sample with
    the covariance itself. The same seed gives the same deviates whatever the eigenvalues: estimates on two
    layers or checkpoints differ by their spectra and not by chance.

    Parameters
    ----------
    eigenvalues : (d,) of a covariance, not negative, not all 0
    n : rows to draw
    seed : of NumPy's default generator

    Returns
    -------
    (n, d) float64, column i of variance λ_i/λ_max. O(n d) time.
    """
    variances = np.asarray(as_array(eigenvalues), dtype=np.float64)
    usable = np.isfinite(variances).all() and (variances >= 0).all() and variances.any()
    if variances.ndim != 1 or not usable:
        raise ValueError(
            f"`eigenvalues` {variances.shape} must be (d,), finite, not negative and not all 0; "
            "rows that are all equal have no surrogate."
        )
    if n < 1:
        raise ValueError(f"`n` is {n}; a sample needs at least 1 row.")
    deviates = np.random.default_rng(seed).standard_normal((n, len(variances)))
    return deviates * np.sqrt(variances / variances.max())
