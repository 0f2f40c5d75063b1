"""Scalars of spectra in closed form, their invariances, and what the library refuses of clouds."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmshape.geometry import scalars
from lmshape.geometry.spectrum import covariance_eigenvalues

SCALARS = (
    scalars.rankme,
    scalars.corrected_participation_ratio,
    scalars.isoscore,
    scalars.alpha_req,
    scalars.effective_rank,
)


def cloud(n: int, d: int, *, seed: int = 0, decay: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return rng.standard_normal((n, d)) * np.arange(1, d + 1) ** (-decay / 2) @ rotation


def rankme_of_source(x: np.ndarray) -> float:
    sigma = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


@pytest.mark.parametrize(("n", "d"), [(300, 40), (41, 40), (40, 40), (30, 40), (2, 5)])
def test_rankme_is_that_of_the_singular_values(n, d):
    assert scalars.rankme(cloud(n, d) + 3) == pytest.approx(rankme_of_source(cloud(n, d) + 3), rel=1e-9)


def test_rankme_of_a_rank_that_is_not_full_holds_no_roots_of_rounding():
    x = cloud(500, 30) @ np.random.default_rng(1).standard_normal((30, 200))
    assert scalars.rankme(x) == pytest.approx(rankme_of_source(x), rel=1e-9)


def test_rankme_where_a_subset_has_fewer_singular_values_than_eigenvalues_are_kept():
    eigenvalues = covariance_eigenvalues(cloud(10, 40))
    padded = np.pad(eigenvalues, (0, 11))
    assert scalars.rankme_of(padded, rows=10, width=40) == pytest.approx(
        rankme_of_source(cloud(10, 40)), rel=1e-9
    )


def test_components_are_the_least_number_that_suffices():
    spectra = [[90.0, 9.0, 1.0, 0.0], [1, 1, 1, 1], [1, 0, 0, 0]]
    np.testing.assert_array_equal(scalars.components_of(spectra, 0.9), [1, 4, 1])
    np.testing.assert_array_equal(scalars.components_of(spectra, 0.99), [2, 4, 1])
    np.testing.assert_array_equal(scalars.components_of(spectra, 0.25), [1, 1, 1])
    np.testing.assert_array_equal(scalars.components_of(np.ones((1, 10)), 0.9), [9])  # not 10 by rounding
    assert np.isnan(scalars.components_of([[0.0, 0.0], [np.nan, 1.0]], 0.9)).all()
    assert scalars.components(np.eye(3), 0.9) == 2


def test_partial_components_take_what_they_need_of_the_last_one():
    spectra = np.array([[5.0, 3.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    found = scalars.partial_components_of(spectra, 0.9)
    np.testing.assert_allclose(found, [2.5, 3.6, 0.9], rtol=1e-12)
    np.testing.assert_array_equal(np.ceil(found), scalars.components_of(spectra, 0.9))
    assert np.isnan(scalars.partial_components_of([[0.0, 0.0], [np.nan, 1.0]], 0.9)).all()
    edge = scalars.partial_components_of(np.ones((1, 10)), 0.9)
    assert edge == pytest.approx(9, rel=1e-12)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("ranks", [20, 60, 768])
def test_a_power_law_has_its_exponent(alpha, ranks):
    spectrum = np.arange(1, ranks + 1) ** -alpha
    assert scalars.alpha_req_of(spectrum) == pytest.approx(alpha, abs=1e-12)
    # outliers before rank 11, a tail after rank 100 and eigenvalues of rounding after the last rank do not count
    spectrum = np.concatenate([spectrum, np.full(ranks, spectrum[-1] * 1e-17)])
    spectrum[:10] *= 50
    spectrum[100:ranks] *= 0.1
    assert scalars.alpha_req_of(spectrum) == pytest.approx(alpha, abs=1e-12)


def test_a_decay_needs_twenty_ranks():
    assert np.isnan(scalars.alpha_req_of(np.pad(np.ones(19), (0, 30))))
    assert scalars.alpha_req_of([np.ones(20), np.zeros(20)]) == pytest.approx([0, np.nan], nan_ok=True)


def test_isoscore_at_its_ends_and_beyond_its_rows():
    spectra = [[1.0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]]
    found = scalars.isoscore_of(spectra, rows=[9, 9, 9, 9, 4], width=4)
    np.testing.assert_allclose(found, [1, 0, 1 / 3, np.nan, np.nan], atol=1e-15)
    assert np.isnan(scalars.isoscore_of([[1.0]], rows=[9], width=1)).all()
    x = np.random.default_rng(0).standard_normal((20000, 20))
    assert scalars.isoscore(x) == pytest.approx(1, abs=2e-3)


def corrected_by_definition(x: np.ndarray) -> float:
    """Over all ordered rows i, j, k, l that differ, (x_i − x_j)'(x_k − x_l) makes both unbiased."""
    numerator, denominator = [], []
    for i, j, k, m in permutations(range(len(x)), 4):
        numerator.append(((x[i] - x[j]) @ (x[i] - x[j])) * ((x[k] - x[m]) @ (x[k] - x[m])) / 4)
        denominator.append(((x[i] - x[j]) @ (x[k] - x[m])) ** 2 / 4)
    return np.mean(numerator) / np.mean(denominator)


@pytest.mark.parametrize(("n", "d"), [(4, 3), (6, 3), (7, 10), (8, 1)])
def test_the_corrected_participation_ratio_averages_over_four_rows(n, d):
    x = cloud(n, d, seed=3) + 2
    assert scalars.corrected_participation_ratio(x) == pytest.approx(corrected_by_definition(x), rel=1e-10)


def test_the_corrected_participation_ratio_equals_its_authors_code():
    """γ_row of the package `dimensionality` 0.1.3 on the rows below."""
    rng = np.random.default_rng(0)
    found = [
        scalars.corrected_participation_ratio(rng.standard_normal((n, d)) * np.geomspace(1, 0.1, d) + 0.5)
        for n, d in ((6, 3), (40, 9), (30, 50))
    ]
    assert found == pytest.approx([1.054359018240757, 3.640720007243831, 21.155025286803827], rel=1e-12)


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_the_corrected_participation_ratio_hardly_depends_on_n(n):
    """Unbiased are its numerator and its denominator; their ratio is 4 % high at n = 50, 1 % at 200."""
    variances = 1 / np.arange(1, 101)
    truth = variances.sum() ** 2 / (variances**2).sum()
    rng = np.random.default_rng(n)
    clouds_of_n = [rng.standard_normal((n, 100)) * np.sqrt(variances) for _ in range(60)]
    corrected = [scalars.corrected_participation_ratio(x) for x in clouds_of_n]
    noise = 3 * np.std(corrected) / np.sqrt(60)
    assert np.mean(corrected) == pytest.approx(truth * (1 + 2 / n), abs=noise)
    if n == 50:
        assert np.mean([scalars.participation_ratio(x) for x in clouds_of_n]) < 0.8 * truth


def test_an_estimate_that_is_rounding_is_none():
    assert np.isnan(scalars.corrected_participation_ratio_of([0.0, 0.0], rows=9, fourth_moment=0.0))
    assert np.isnan(scalars.corrected_participation_ratio_of([1.0, 0.5], rows=3, fourth_moment=1.0))


def test_rogue_coordinates_carry_their_share():
    variances = [[4.0, 1, 1, 2], [1, 1, 1, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(scalars.rogue_share_of(variances, 1), [0.5, 0.25, np.nan])
    np.testing.assert_allclose(scalars.rogue_share_of(variances, 3), [7 / 8, 0.75, np.nan])
    x = cloud(100, 6) * [1, 1, 50, 1, 1, 1] + 1e3
    variances = np.sort(x.var(axis=0))[::-1]
    assert scalars.rogue_share(x) == pytest.approx(variances[0] / variances.sum(), rel=1e-9)
    assert scalars.rogue_share(x, 3) == pytest.approx(variances[:3].sum() / variances.sum(), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.sampled_from([0.0, 1.0, 1e3]))
def test_scale_translation_rotation_and_row_order_change_nothing(seed, scale, offset):
    x = cloud(90, 30, seed=seed)
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((30, 30)))[0]
    moved = scale * rng.permutation(x) @ rotation + scale * offset
    for scalar in SCALARS:
        assert scalar(moved) == pytest.approx(scalar(x), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 10))
def test_coordinates_may_be_scaled_or_exchanged_before_they_are_standardized(seed, d):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, d)) @ rng.standard_normal((d, d))
    moved = (x * rng.uniform(0.01, 100, d) + rng.uniform(-100, 100, d))[:, rng.permutation(d)]
    assert scalars.anisotropy(moved, standardize=True) == pytest.approx(
        scalars.anisotropy(x, standardize=True), rel=1e-9
    )


def test_entropies_on_singular_values_are_larger_than_on_variances():
    x = cloud(200, 30)
    assert scalars.rankme(x) > scalars.effective_rank(x) > scalars.participation_ratio(x)
    assert scalars.components(x, 0.9) <= scalars.components(x, 0.95) <= scalars.components(x, 0.99) <= 30


def test_the_storage_type_is_only_storage():
    x = cloud(200, 30).astype(np.float16)
    for scalar in SCALARS:
        assert scalar(x) == scalar(x.astype(np.float64))


def test_equal_rows_have_no_shape():
    for x in (np.full((60, 5), 0.1), np.full((1003, 5), 1e4 / 3, dtype=np.float32)):
        for scalar in (*SCALARS, scalars.rogue_share):
            with pytest.raises(ValueError, match="`x` has zero variance: all rows are equal. Pass rows"):
                scalar(x)


def test_spectra_may_be_tensors():
    torch = pytest.importorskip("torch")
    spectra = torch.tensor([[4.0, 2, 1, 1], [1, 0, 0, 0]], dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_allclose(scalars.participation_ratio_of(spectra), [64 / 22, 1], rtol=1e-15)
    np.testing.assert_allclose(scalars.components_of(spectra, 0.7), [2, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: scalars.isoscore(np.eye(4)),
            r"`x` has shape \(4, 4\); IsoScore needs 2 columns, and more rows",
        ),
        (lambda: scalars.isoscore(np.ones((9, 1))), r"`x` has shape \(9, 1\); IsoScore needs 2 columns"),
        (lambda: scalars.alpha_req(cloud(50, 19)), "`x` has rank 19; .* needs 20. Take more rows"),
        (
            lambda: scalars.corrected_participation_ratio(np.eye(4)),
            "`x` leaves no positive estimate of Σλ² from its 4 rows. Add rows",
        ),
        (lambda: scalars.corrected_participation_ratio(cloud(3, 4)), r"`x` has shape \(3, 4\); 4 rows"),
        (lambda: scalars.components(np.ones((5, 2)), 0.9), "`x` has zero variance: all rows are equal"),
        (lambda: scalars.components(cloud(5, 2), 90), "`share` is 90; it must lie between 0 and 1"),
        (
            lambda: scalars.rogue_share(cloud(5, 2), 3),
            "`count` is 3; it must lie between 1 and the 2 columns",
        ),
        (lambda: scalars.rankme([[1.0, np.inf], [0.0, 1.0]]), "`x` is not finite in 1 of 2 rows"),
    ],
)
def test_what_has_no_number_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
