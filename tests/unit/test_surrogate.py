"""The Gaussian surrogate has the spectrum it is given, and Gaussian rows are their own surrogate."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.nulls import gaussian_surrogate
from lmshape.geometry.spectrum import covariance_eigenvalues


def test_the_covariance_is_the_given_one_up_to_its_scale():
    eigenvalues = np.array([8.0, 4.0, 1.0, 0.0])
    sample = gaussian_surrogate(eigenvalues, 40_000, seed=0)
    covariance = np.cov(sample, rowvar=False)
    np.testing.assert_allclose(covariance, np.diag(eigenvalues) / 8, atol=0.02)
    np.testing.assert_allclose(sample.mean(axis=0), 0, atol=0.02)


def test_a_seed_gives_the_same_deviates_whatever_the_spectrum():
    one, other = (gaussian_surrogate(spectrum, 50, seed=(3, 1)) for spectrum in ([4.0, 1.0], [1.0, 1.0]))
    np.testing.assert_allclose(one[:, 0], other[:, 0], rtol=1e-15)
    np.testing.assert_allclose(2 * one[:, 1], other[:, 1], rtol=1e-15)
    assert not np.array_equal(one, gaussian_surrogate([4.0, 1.0], 50, seed=(3, 2)))


def test_a_tensor_is_a_spectrum():
    torch = pytest.importorskip("torch")
    spectrum = torch.tensor([4.0, 1.0], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(
        gaussian_surrogate(spectrum, 9, seed=0), gaussian_surrogate([4.0, 1.0], 9, seed=0)
    )


def test_tiny_and_huge_variances_are_as_good_as_others():
    for scale in (1e-300, 1e300):
        sample = gaussian_surrogate(scale * np.array([4.0, 1.0]), 10, seed=0)
        np.testing.assert_allclose(sample, gaussian_surrogate([4.0, 1.0], 10, seed=0), rtol=1e-12)


def test_gaussian_rows_read_what_their_surrogate_does_and_a_curved_line_does_not():
    rng = np.random.default_rng(1)
    rotation = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    x = rng.standard_normal((1500, 12)) * np.geomspace(1, 5, 12) @ rotation
    angle = rng.uniform(0, 2 * np.pi, 1500)
    curve = np.stack([f(j * angle) for j in (1, 2, 3) for f in (np.sin, np.cos)], axis=1)
    for cloud, same in ((x, True), (curve, False)):
        sample = gaussian_surrogate(covariance_eigenvalues(cloud), 1500, seed=0)
        ratio = intrinsic_dimension(sample) / intrinsic_dimension(cloud)
        assert ratio == pytest.approx(1, abs=0.15) if same else ratio > 4


@pytest.mark.parametrize(
    ("eigenvalues", "n", "message"),
    [
        ([0.0, 0.0], 5, r"`eigenvalues` \(2,\) must be \(d,\), finite, not negative and not all 0"),
        ([1.0, -1.0], 5, "`eigenvalues`"),
        ([1.0, np.nan], 5, "`eigenvalues`"),
        ([[1.0]], 5, r"`eigenvalues` \(1, 1\)"),
        ([1.0], 0, "`n` is 0; a sample needs at least 1 row"),
    ],
)
def test_what_is_no_spectrum_is_refused(eigenvalues, n, message):
    with pytest.raises(ValueError, match=message):
        gaussian_surrogate(eigenvalues, n, seed=0)
