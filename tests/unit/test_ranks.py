"""Which ranks are tried, that the least one is exact, and how often its interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.resample import over_draws
from lmshape.truncation.ranks import (
    TOLERANCES,
    kept_ranks,
    least_rank,
    next_rank,
    rank_interval,
    removed_ranks,
)


def test_two_ranks_an_octave_from_nothing_to_the_whole() -> None:
    assert kept_ranks(128) == [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert kept_ranks(100)[-3:] == [64, 96, 100]
    assert kept_ranks(1) == [0, 1]
    assert kept_ranks(128, [5, 500]) == [0, 5, 128]


def test_powers_of_two_are_removed() -> None:
    assert removed_ranks(128) == [1, 2, 4, 8, 16, 32, 64]
    assert removed_ranks(4096) == [1, 2, 4, 8, 16, 32, 64]
    assert removed_ranks(4) == [1, 2]
    assert removed_ranks(4, [3, 9]) == [3]


def test_the_least_rank_is_that_from_which_on_all_stay_within() -> None:
    increases = {0: 5.0, 1: 0.05, 2: 0.3, 4: 0.1, 8: -0.01, 16: 0.0}
    assert least_rank(increases, 0.1) == 4  # and not 1, behind which 2 exceeds it
    assert least_rank(increases, 10.0) == 0
    assert least_rank({**increases, 8: float("nan")}, 0.1) == 16
    assert least_rank({0: 1.0, 16: float("nan")}, 0.1) is None


@pytest.mark.parametrize("seed", range(20))
def test_halving_finds_the_least_rank_of_a_falling_curve_exactly(seed: int) -> None:
    generator = np.random.default_rng(seed)
    width = int(generator.integers(2, 700))
    curve = np.append(np.sort(generator.exponential(2, width) ** 3)[::-1], 0.0)
    measured = {rank: curve[rank] for rank in kept_ranks(width)}
    tried = len(measured) + len(removed_ranks(width))
    while (rank := next_rank(measured)) is not None:
        assert rank not in measured
        measured[rank] = curve[rank]
        tried += 1
    for tolerance in TOLERANCES:
        assert least_rank(measured, tolerance) == np.flatnonzero(curve <= tolerance)[0]
    assert tried <= len(kept_ranks(width)) + 7 + 3 * 9


def test_halving_ends_on_a_curve_that_rises_and_falls() -> None:
    measured = {rank: float(np.cos(rank)) for rank in kept_ranks(512)} | {512: 0.0}
    while (rank := next_rank(measured)) is not None:
        measured[rank] = float(np.cos(rank))
    least = least_rank(measured, 0.1)
    assert all(value <= 0.1 for rank, value in measured.items() if rank >= least)
    assert measured[least - 1] > 0.1


def test_the_interval_from_the_band() -> None:
    lows = {0: 1.0, 2: 0.2, 4: 0.05, 8: 0.0}
    highs = {0: 2.0, 2: 0.4, 4: 0.15, 8: 0.0}
    assert rank_interval(lows, highs, 0.1) == (3, 8)  # over 2 surely; 4 may be within, 8 is
    assert rank_interval(lows, highs, 5.0) == (0, 0)
    assert rank_interval(lows, {**highs, 8: np.inf}, 0.1) == (3, None)


DRAWS, WIDTH = 5, 128


def drawn(generator: np.random.Generator, *, spread: float, noise: float) -> np.ndarray:
    """Increases of K draws at every rank: each draw's curve is the true one times a factor, and noise of its own."""
    factors = np.exp(generator.normal(0, spread, DRAWS) - spread**2 / 2)  # of mean 1
    wobble = generator.normal(0, noise, (DRAWS, WIDTH + 1))
    return np.outer(factors, truth()) * (1 + wobble)


def truth() -> np.ndarray:
    """A true increase: half an exponential, half a slow tail, as trained decoders have it; 0 at the width."""
    rank = np.arange(WIDTH + 1)
    curve = 3 * np.exp(-rank / 4) + 0.3 * (1 - rank / WIDTH) ** 4
    return curve - curve[-1]


def intervals(curves: np.ndarray, tolerance: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """The interval from the band of the mean, and Student's t over the least ranks of the draws."""
    estimates = {rank: over_draws(curves[:, rank]) for rank in kept_ranks(WIDTH)}
    while (rank := next_rank({rank: one.value for rank, one in estimates.items()}, [tolerance])) is not None:
        estimates[rank] = over_draws(curves[:, rank])
    lows = {rank: one.low for rank, one in estimates.items()}
    highs = {rank: one.high for rank, one in estimates.items()}
    own = [WIDTH - int(np.argmax(curve[::-1] > tolerance)) + 1 for curve in curves]
    by_draw = over_draws(own)
    return rank_interval(lows, highs, tolerance), (by_draw.low, by_draw.high)


@pytest.mark.parametrize("spread", [0.15, 0.6])
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_the_band_holds_the_least_rank_as_often_as_it_says(spread: float, tolerance: float) -> None:
    """95 to 100 % of 300 samples (the grid makes it wider); Student's t over the ranks of the draws 90 to 98 %."""
    generator = np.random.default_rng(7)
    true = int(np.flatnonzero(truth() <= tolerance)[0])
    band, by_draw, widths, samples = 0, 0, [], 300
    for _ in range(samples):
        (low, high), (own_low, own_high) = intervals(drawn(generator, spread=spread, noise=0.05), tolerance)
        band += low <= true <= high
        by_draw += own_low <= true <= own_high
        widths.append(high - low)
    assert band / samples >= 0.94
    assert by_draw / samples >= 0.88
    assert np.mean(widths) < (WIDTH / 4 if spread < 0.5 else WIDTH / 2)
