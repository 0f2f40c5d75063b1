"""Intervals against Student's t, identities of the jackknife, and how often they cover the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.geometry.scalars import anisotropy_of
from lmshape.geometry.spectrum import leave_one_out_spectra


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("draws", [2, 3, 5, 10])
def test_over_draws_is_students_interval_of_the_mean(draws, level):
    values = np.random.default_rng(draws).normal(8, 2, draws)
    found = over_draws(values, level=level)
    low, high = stats.t.interval(level, draws - 1, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose([found.value, found.low, found.high], [values.mean(), low, high], rtol=1e-12)
    assert found.draws == draws


def test_over_draws_by_hand():
    """Mean 3, s = √2.5, t(4) = 2.776445."""
    half = 2.7764451051977934 * math.sqrt(2.5 / 5)
    found = over_draws([1, 2, 3, 4, 5])
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half), rel=1e-12)


def test_the_jackknife_of_a_mean_is_the_interval_over_draws():
    values = np.random.default_rng(0).normal(size=6)
    left_out = [np.delete(values, j).mean() for j in range(6)]
    direct, jackknifed = over_draws(values), jackknife(values.mean(), left_out)
    assert (jackknifed.low, jackknifed.high) == pytest.approx((direct.low, direct.high), rel=1e-12)


def test_the_jackknife_reports_the_pooled_value_not_the_mean_of_the_others():
    found = jackknife(0.5, [0.1, 0.2, 0.3])
    error = math.sqrt(2 / 3 * 0.02)
    half = stats.t.ppf(0.975, 2) * error
    assert found.value == 0.5 and found.draws == 3
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half), rel=1e-12)


def test_a_rounded_number_is_no_surer_than_its_rounding():
    """The spread of an even error within ± 1/2 is 1/√12; errors add in squares."""
    left_out = [3.2, 3.4, 3.3]
    plain = jackknife(3.3, left_out).high - 3.3
    half, alone = stats.t.ppf(0.975, 2) / math.sqrt(12), jackknife(4.0, [3.3, 3.3], step=1.0)
    assert jackknife(4.0, left_out, step=1.0).high == pytest.approx(4 + math.hypot(plain, half), rel=1e-12)
    assert alone.high == pytest.approx(4 + stats.t.ppf(0.975, 1) / math.sqrt(12), rel=1e-12)


def test_no_spread_is_no_width():
    assert over_draws([2.0, 2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 3)
    assert jackknife(2.0, [2.0, 2.0]) == Estimate(2.0, 2.0, 2.0, 2)


def test_shift_and_scale_carry_over():
    values = np.random.default_rng(0).normal(size=5)
    plain, moved = over_draws(values), over_draws(3 * values + 7)
    for name in ("value", "low", "high"):
        assert getattr(moved, name) == pytest.approx(3 * getattr(plain, name) + 7, rel=1e-12)


def test_an_interval_stays_within_the_bounds_of_its_number():
    assert over_draws([0.9, 1.0, 0.95], bounds=(0, 1)).high == 1
    assert jackknife(0.02, [0.01, 0.05, 0.0], bounds=(0, 1)).low == 0


@pytest.mark.parametrize("values", [[1.0, math.nan], [math.inf, 1.0], [math.inf, -math.inf]])
def test_what_is_not_finite_has_no_interval(values):
    found = over_draws(values)
    assert not math.isfinite(found.value) and math.isnan(found.low) and math.isnan(found.high)
    found = jackknife(1.0, values)
    assert found.value == 1 and math.isnan(found.low) and math.isnan(found.high)
    found = jackknife(math.nan, [1.0, 2.0])
    assert math.isnan(found.value) and math.isnan(found.low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: over_draws([1.0]), r"`values` has shape \(1,\); an interval needs one value for each of 2"),
        (lambda: over_draws([[1.0, 2.0]]), r"`values` has shape \(1, 2\)"),
        (lambda: jackknife(1.0, []), r"`left_out` has shape \(0,\)"),
        (lambda: over_draws([1, 2], level=1.0), "`level` is 1.0; a coverage lies between 0 and 1"),
        (lambda: over_draws([1, 2], level=95), "`level` is 95; a coverage lies between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def covers(estimates: list[Estimate], truth: float) -> float:
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


def test_intervals_over_draws_cover_a_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    estimates = [over_draws(rng.normal(3, 2, 5)) for _ in range(2000)]
    assert covers(estimates, 3) == pytest.approx(0.95, abs=0.02)  # 4 standard errors


@pytest.mark.slow
def test_intervals_over_draws_cover_what_a_dimension_reads_at_this_n():
    rng = np.random.default_rng(0)
    readings = np.array(
        [[intrinsic_dimension(rng.standard_normal((80, 3))) for _ in range(5)] for _ in range(250)]
    )
    # the truth is what the estimator reads on average at n = 80, not 3
    assert 0.90 <= covers([over_draws(row) for row in readings], readings.mean()) <= 0.99


def test_jackknife_intervals_cover_a_known_anisotropy():
    rng = np.random.default_rng(0)
    deviations, draw = np.array([2.0, 1.0, 1.0]), np.repeat(np.arange(5), 100)
    estimates = []
    for _ in range(500):
        spectra = leave_one_out_spectra(rng.standard_normal((500, 3)) * deviations, draw)
        pooled, *left_out = anisotropy_of(spectra.eigenvalues)
        estimates.append(jackknife(pooled, left_out, bounds=(1 / 3, 1)))
    assert 0.90 <= covers(estimates, 4 / 6) <= 0.99


def test_jackknife_intervals_cover_although_rows_within_a_draw_depend_on_each_other():
    """Every draw has its own scale, as a sequence has its own topic: rows resampled singly would miss it."""
    rng = np.random.default_rng(0)
    draw, estimates = np.repeat(np.arange(8), 50), []
    for _ in range(300):
        scales = rng.gamma(16, 1 / 16, 8)[draw]
        x = np.column_stack([2 * scales, np.ones(400)]) * rng.standard_normal((400, 2))
        pooled, *left_out = anisotropy_of(leave_one_out_spectra(x, draw).eigenvalues)
        estimates.append(jackknife(pooled, left_out))
    truth = 4 * 17 / 16 / (4 * 17 / 16 + 1)
    assert 0.90 <= covers(estimates, truth) <= 0.99
