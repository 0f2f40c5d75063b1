"""Eigenvalues of covariances and sums in one pass against singular values, closed forms and orders of entropies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from layers import layer_of

from lmshape.geometry import spectrum
from lmshape.geometry.arrays import eigenvalues_of
from lmshape.geometry.scalars import (
    anisotropy,
    anisotropy_of,
    effective_rank,
    effective_rank_of,
    participation_ratio,
    participation_ratio_of,
)
from lmshape.geometry.spectrum import (
    CovarianceSums,
    MomentSums,
    covariance_eigenvalues,
    leave_one_out_spectra,
)
from lmshape.geometry.threads import product_threads, product_threads_of
from lmshape.metrics import spectral

SCALARS = (anisotropy, effective_rank, participation_ratio)


def reference_eigenvalues(x: np.ndarray, *, center: bool = True) -> np.ndarray:
    """Squared singular values of the rows, after an offset that leaves float64 its digits."""
    x = np.asarray(x, dtype=np.float64)
    if center:
        x = x - x[0]
        x = x - x.mean(axis=0)
    count = min(len(x) - center, x.shape[1])
    return np.linalg.svd(x, compute_uv=False)[:count] ** 2 / (len(x) - 1)


def reference_scalars(x: np.ndarray, *, center: bool = True) -> tuple[float, float, float]:
    variances = reference_eigenvalues(x, center=center)
    p = variances / variances.sum()
    p = p[p > 0]
    return p[0], np.exp(-(p * np.log(p)).sum()), variances.sum() ** 2 / (variances**2).sum()


def skewed(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) * np.geomspace(1, 0.01, d)


def with_spectrum(variances: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """Rows whose covariance has exactly these eigenvalues."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_normal((n, len(variances)))
    basis = np.linalg.qr(raw - raw.mean(axis=0))[0]
    rotation = np.linalg.qr(rng.standard_normal((len(variances),) * 2))[0]
    return basis * np.sqrt((n - 1) * np.asarray(variances)) @ rotation


def rogue_dimensions(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[:, [1, 3]] += 1500.0, -1500.0
    return x


def massive_rows(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[::50] = 1e4 / np.sqrt(x.shape[1]) + 1e-2 * x[::50]
    return x


CLOUDS = {
    "plain": skewed(300, 20),
    "few rows": skewed(15, 40),
    "square": skewed(20, 20),
    "two rows": skewed(2, 5),
    "one column": skewed(30, 1),
    "rogue dimensions": rogue_dimensions(skewed(300, 20)),
    "massive rows": massive_rows(skewed(300, 20)),
    "shifted": skewed(300, 20) + 1000.0,
    "float32": skewed(300, 20).astype(np.float32),
    "float16": skewed(300, 20).astype(np.float16),
}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_eigenvalues_are_squared_singular_values(cloud, center):
    x = CLOUDS[cloud]
    expected = reference_eigenvalues(x, center=center)
    found = covariance_eigenvalues(x, center=center)
    assert found.shape == expected.shape and (np.diff(found) <= 0).all() and (found >= 0).all()
    # relative to the largest: what a symmetric eigenproblem can promise
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13 * expected[0])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_scalars_agree_with_singular_values(cloud):
    x = CLOUDS[cloud]
    np.testing.assert_allclose([scalar(x) for scalar in SCALARS], reference_scalars(x), rtol=1e-11)
    np.testing.assert_allclose(anisotropy(x, center=False), reference_scalars(x, center=False)[0], rtol=1e-11)


def test_a_known_spectrum_is_recovered_under_any_mean():
    variances = np.array([4.0, 2.0, 1.0, 1.0])
    x = with_spectrum(variances, 100) + [1e3, -1e3, 0, 5]
    np.testing.assert_allclose(covariance_eigenvalues(x), variances, rtol=1e-12)
    assert anisotropy(x) == pytest.approx(4 / 8, rel=1e-12)
    assert participation_ratio(x) == pytest.approx(64 / 22, rel=1e-12)
    assert effective_rank(x) == pytest.approx(2 ** (1 / 2 * 1 + 1 / 4 * 2 + 1 / 4 * 3), rel=1e-12)


def test_equal_variances_give_the_ends_of_the_ranges():
    x = with_spectrum(np.ones(8), 50)
    np.testing.assert_allclose([scalar(x) for scalar in SCALARS], [1 / 8, 8, 8], rtol=1e-12)
    line = np.outer(np.arange(50.0), np.arange(1.0, 9.0))
    np.testing.assert_allclose([scalar(line) for scalar in SCALARS], [1, 1, 1], rtol=1e-12)


def test_isotropic_rows_read_the_finite_sample_null():
    n, d = 4000, 100
    x = np.random.default_rng(0).standard_normal((n, d))
    assert anisotropy(x) == pytest.approx((1 + np.sqrt(d / n)) ** 2 / d, rel=0.03)
    assert participation_ratio(x) == pytest.approx(d / (1 + d / n), rel=0.01)


def test_few_far_rows_read_as_anisotropy_of_their_share_and_distance():
    """A fraction f of the rows, m total standard deviations away: s/(s + 1) with s = f(1 − f)m²."""
    n, d, far, m = 20000, 200, 80, 200.0
    x = np.random.default_rng(0).standard_normal((n, d))
    x[:far, 0] += m * np.sqrt(d)
    s = far / n * (1 - far / n) * m**2
    assert anisotropy(x) == pytest.approx(s / (s + 1), rel=1e-3)
    assert anisotropy(x[far:]) < 0.01


def test_one_row_moved_very_far_is_a_line():
    x = skewed(200, 10)
    x[0] += 1e6
    assert anisotropy(x) == pytest.approx(1, abs=1e-6)


finite_clouds = arrays(
    np.float64,
    st.tuples(st.integers(3, 12), st.integers(1, 8)),
    elements=st.integers(-1000, 1000).map(lambda value: value / 16),
).filter(lambda x: np.ptp(x, axis=0).max() > 0)


@settings(max_examples=60, deadline=None)
@given(finite_clouds, st.floats(0.01, 100), st.sampled_from([0.0, 1.0, 1e3]), st.randoms())
def test_scale_translation_rotation_and_row_order_change_nothing(x, scale, offset, random):
    rng = np.random.default_rng(random.randrange(2**32))
    rotation = np.linalg.qr(rng.standard_normal((x.shape[1],) * 2))[0]
    moved = scale * rng.permutation(x) @ rotation + offset
    spread = np.ptp(x, axis=0).max() * scale
    tolerance = 1e-12 * (1 + (abs(offset) + np.abs(moved).max()) / spread)
    for scalar in SCALARS:
        assert scalar(moved) == pytest.approx(scalar(x), rel=50 * tolerance)


@settings(max_examples=60, deadline=None)
@given(finite_clouds)
def test_the_scalars_stand_in_the_order_of_their_entropies(x):
    """Rényi entropies fall with their order: ∞ (stable rank), 2 (participation), 1 (Shannon), 0 (rank)."""
    rank = min(len(x) - 1, x.shape[1])
    ordered = [1, 1 / anisotropy(x), participation_ratio(x), effective_rank(x), rank]
    assert (np.diff(ordered) >= -1e-9).all()


@settings(max_examples=60, deadline=None)
@given(finite_clouds, st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_sums_do_not_depend_on_the_batches(x, sizes):
    x = x + 1000.0
    sums = CovarianceSums(x.shape[1])
    for batch in np.split(x, np.unique(np.cumsum(sizes).clip(max=len(x) - 1))):
        sums.update(batch)
    assert sums.count == len(x)
    np.testing.assert_allclose(sums.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(sums.covariance(), np.atleast_2d(np.cov(x.T)), rtol=1e-10, atol=1e-10)


def test_merged_sums_are_those_of_all_rows_and_leave_their_parts_alone():
    x = skewed(90, 4) + 1e3
    parts = []
    for batch in np.split(x, [10, 50]):
        parts.append(CovarianceSums(4))
        parts[-1].update(batch)
    before = parts[0].scatter.copy()
    total = CovarianceSums.merged([*parts, CovarianceSums(4)], 4)
    assert total.count == 90
    np.testing.assert_allclose(total.covariance(), np.cov(x.T), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(parts[0].scatter, before)


def assert_spectrum(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-9, atol=1e-13 * expected[0])
    np.testing.assert_allclose(found[len(expected) :], 0, atol=1e-13 * expected[0])


@pytest.mark.parametrize(("n", "d"), [(120, 8), (40, 60), (62, 60), (61, 60), (60, 60)])
def test_leaving_a_draw_out_is_decomposing_the_other_rows(n, d):
    x = skewed(n, d) + 10.0
    x[:, 2] = 0.1  # a constant coordinate has no standard deviation to divide by
    draw = np.random.default_rng(1).permutation(np.repeat([3, 5, 9, 10], -(-n // 4))[:n])
    found = leave_one_out_spectra(x, draw)
    assert found.eigenvalues.shape == (5, min(n - 1, d))
    for j, kept in enumerate((draw >= 0, draw != 3, draw != 5, draw != 9, draw != 10)):
        part = x[kept]
        varied = np.delete(part, 2, axis=1)
        assert found.rows[j] == len(part)
        assert_spectrum(found.eigenvalues[j], reference_eigenvalues(part))
        uncentered = reference_eigenvalues(part, center=False)
        standardized = reference_eigenvalues(varied / varied.std(axis=0, ddof=1))
        np.testing.assert_allclose(found.leading_uncentered[j], [uncentered[0], uncentered.sum()], rtol=1e-12)
        leading = [standardized[0], standardized.sum()]
        np.testing.assert_allclose(found.leading_standardized[j], leading, rtol=1e-12)
        variances = np.insert(varied.var(axis=0, ddof=1), 2, 0.0)
        np.testing.assert_allclose(found.variances[j], variances, rtol=1e-12, atol=0)
        fourth = (np.linalg.norm(part - part.mean(axis=0), axis=1) ** 4).sum() / (len(part) - 1)
        assert found.fourth_moment[j] == pytest.approx(fourth, rel=1e-12)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_standardizing_is_dividing_by_standard_deviations(cloud):
    x = CLOUDS[cloud].astype(np.float64)
    differences = x - x.mean(axis=0)
    expected = reference_eigenvalues(differences / differences.std(axis=0, ddof=1))
    found = covariance_eigenvalues(CLOUDS[cloud], standardize=True)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12 * expected[0])


def test_standardizing_takes_away_what_rogue_coordinates_weigh():
    x = np.random.default_rng(0).standard_normal((4000, 20))
    x[:, 4] *= 1000
    assert anisotropy(x) > 0.99
    assert anisotropy(x, standardize=True) == pytest.approx((1 + np.sqrt(20 / 4000)) ** 2 / 20, rel=0.03)


def test_the_scalars_of_many_spectra_are_those_of_each():
    spectra = np.array([[4.0, 2, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_allclose(anisotropy_of(spectra), [0.5, 1, 0.25], rtol=1e-15)
    np.testing.assert_allclose(participation_ratio_of(spectra), [64 / 22, 1, 4], rtol=1e-15)
    np.testing.assert_allclose(effective_rank_of(spectra), [2**1.75, 1, 4], rtol=1e-14)
    assert effective_rank_of(spectra[None]).shape == (1, 3)


@pytest.mark.parametrize("scalar", [anisotropy_of, effective_rank_of, participation_ratio_of])
def test_no_variance_and_unknown_variance_have_no_shape(scalar):
    np.testing.assert_array_equal(np.isnan(scalar([[0.0, 0.0], [np.nan, 1.0], [1.0, 0.0]])), [1, 1, 0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4 / 3, -1e-30])
@pytest.mark.parametrize("shape", [(1000, 7), (5, 9)])
def test_equal_rows_have_no_variance_although_their_mean_is_rounded(shape, value):
    x = np.full(shape, value)
    assert not covariance_eigenvalues(x).any()
    spectra = leave_one_out_spectra(x, np.arange(shape[0]) % 2)
    assert not spectra.eigenvalues.any() and not spectra.leading_standardized.any()
    assert not spectra.variances.any()
    for scalar in (*SCALARS, lambda x: anisotropy(x, standardize=True)):
        with pytest.raises(
            ValueError, match="`x` has zero variance: all rows are equal. Pass rows that differ"
        ):
            scalar(x)


def test_zero_rows_have_no_anisotropy_about_zero_and_equal_ones_are_a_line():
    assert anisotropy(np.full((9, 3), 0.1), center=False) == pytest.approx(1, rel=1e-12)
    with pytest.raises(ValueError, match="`x` has zero variance: all rows are zero"):
        anisotropy(np.zeros((9, 3)), center=False)


def test_the_smallest_real_difference_is_variance():
    x = np.full((1000, 7), 0.1, dtype=np.float32)
    x[3, 2] = np.nextafter(x[3, 2], np.float32(1))
    assert anisotropy(x) == pytest.approx(1, rel=1e-9)


def test_errors_name_the_rule():
    sums = CovarianceSums(3)
    with pytest.raises(ValueError, match="covariance of 0 rows does not exist; at least 2"):
        sums.covariance()
    with pytest.raises(ValueError, match="rows of 2 columns cannot join sums over 3 columns"):
        sums.update(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="`standardize` needs `center`"):
        anisotropy([[1.0, 2.0], [0.0, 1.0]], center=False, standardize=True)
    with pytest.raises(ValueError, match="`x` is not finite in 1 of 2 rows"):
        anisotropy([[1.0, np.nan], [0.0, 1.0]])


def sums_of(x: np.ndarray, sizes: list[int], center: np.ndarray) -> MomentSums:
    sums = MomentSums(center)
    for batch in np.split(x, np.unique(np.cumsum(sizes).clip(max=len(x) - 1))):
        sums.update(batch)
    sums.finish()
    return sums


@settings(max_examples=40, deadline=None)
@given(
    st.integers(2, 60), st.integers(1, 9), st.lists(st.integers(1, 25), min_size=1), st.integers(0, 2**32 - 1)
)
def test_sums_are_those_of_numpy_whatever_the_batches(n: int, d: int, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-3, 3, d) + 10.0 ** rng.uniform(-3, 5, d)
    sums = sums_of(x, sizes, x[0])
    differences = (x - x[0]) - (x - x[0]).mean(axis=0)
    size = np.sqrt(np.square(differences).sum())
    assert sums.covariance.count == n
    # of the largest entry: of a mean in which rows cancel any share may be rounding
    assert (np.abs(sums.mean - x.mean(axis=0)) <= 1e-14 * np.abs(x).max(axis=0)).all()
    np.testing.assert_allclose(sums.covariance.scatter, differences.T @ differences, atol=1e-13 * size**2)
    fourth = np.square(np.square(differences).sum(axis=1)).sum() / (n - 1)
    assert sums.fourth_moment() == pytest.approx(fourth, rel=1e-10)


def test_merged_moments_are_those_of_all_rows_and_leave_their_parts_alone() -> None:
    x = np.random.default_rng(0).standard_normal((500, 6)) * np.geomspace(1, 100, 6) + 1000
    x[250:] += 30
    parts = [sums_of(part, [7, 40], x[3]) for part in np.split(x, [10, 250])]
    before = parts[1].covariance.scatter.copy()
    merged, direct = MomentSums.merged(parts), sums_of(x, [500], x[3])
    np.testing.assert_allclose(merged.covariance.scatter, direct.covariance.scatter, rtol=1e-11, atol=1e-7)
    assert merged.fourth_moment() == pytest.approx(direct.fourth_moment(), rel=1e-12)
    assert merged.covariance.count == 500
    np.testing.assert_array_equal(parts[1].covariance.scatter, before)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_effective_rank_under_a_direction_of_nearly_all_variance(dtype: type, offset: float) -> None:
    """Relative error ≤ 1e-9 against a float64 SVD with one direction holding 99.98 % of the variance."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 96)) * np.arange(1, 97) ** -0.7
    direction = rng.standard_normal(96)
    x += np.outer(rng.standard_normal(3000), direction / np.linalg.norm(direction)) * 130
    x = (x + offset).astype(dtype)
    singular = np.linalg.svd(x - x.astype(np.float64).mean(axis=0), compute_uv=False)
    shares = singular**2 / np.square(singular).sum()
    assert 0.9997 < shares[0] < 0.9999
    expected = np.exp(-(shares * np.log(shares)).sum())
    arrays, _ = spectral.statistics(layer_of(x, np.arange(3000) * 5 // 3000))["all"]
    assert effective_rank_of(arrays["eigenvalues"])[0] == pytest.approx(expected, rel=1e-11)


def wide(n: int, d: int, *, isotropic: bool = False) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.standard_normal((n, d)) * (
        1.0 if isotropic else np.arange(1, d + 1) ** -0.5
    ) + rng.standard_normal(d)


@pytest.mark.parametrize("isotropic", [False, True])
def test_the_leading_eigenvalue_alone_is_that_of_all(
    monkeypatch: pytest.MonkeyPatch, isotropic: bool
) -> None:
    x, draw = wide(400, 60, isotropic=isotropic), np.arange(400) % 4
    whole = spectrum.leave_one_out_spectra(x, draw)
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 8)
    alone = spectrum.leave_one_out_spectra(x, draw)
    for name in ("leading_uncentered", "leading_standardized"):
        np.testing.assert_allclose(getattr(alone, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize(
    "x", [np.outer(np.arange(90.0), np.ones(20)), np.full((90, 20), 0.1), np.zeros((90, 20))]
)
def test_the_leading_eigenvalue_of_few_directions(monkeypatch: pytest.MonkeyPatch, x: np.ndarray) -> None:
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 1)
    spectra = spectrum.leave_one_out_spectra(x, np.arange(90) % 3)
    uncentered = np.square(np.linalg.svd(x, compute_uv=False)[0]) / 89
    assert spectra.leading_uncentered[0] == pytest.approx([uncentered, uncentered], rel=1e-12)
    correlated = 20 * (np.ptp(x) > 0)
    assert spectra.leading_standardized[0] == pytest.approx([correlated, correlated], rel=1e-12)


def test_an_iteration_that_does_not_end_is_replaced_by_the_decomposition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scipy.sparse import linalg

    def endless(*_: object, **__: object) -> None:
        raise linalg.ArpackNoConvergence("no convergence", np.empty(0), np.empty((0, 0)))

    x, draw = wide(200, 30), np.arange(200) % 2
    whole = spectrum.leave_one_out_spectra(x, draw).leading_uncentered
    monkeypatch.setattr(spectrum, "ITERATED_WIDTH", 8)
    monkeypatch.setattr(linalg, "eigsh", endless)
    np.testing.assert_array_equal(spectrum.leave_one_out_spectra(x, draw).leading_uncentered, whole)


def test_eigenvalues_of_small_matrices_do_not_depend_on_threads() -> None:
    """One thread decomposes them, whatever a job was given."""
    matrix = np.cov(skewed(600, 400), rowvar=False)
    found = []
    for count in (1, 2):
        with product_threads_of(count):
            found.append(eigenvalues_of(matrix))
            assert product_threads() == count, "the limit must end with the decomposition"
    np.testing.assert_array_equal(*found)
