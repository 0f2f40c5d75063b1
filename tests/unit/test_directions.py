"""Directions about several points from one matrix product, and medians of magnitudes from counts of digits."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmshape.geometry.angular import DirectionSums, count_over, median_magnitudes


def mean_over_pairs(x: np.ndarray, point: np.ndarray) -> float:
    directions = (x - point) / np.linalg.norm(x - point, axis=1, keepdims=True)
    return (directions @ directions.T)[np.triu_indices(len(x), 1)].mean()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 6), st.floats(-3, 6))
def test_mean_cosines_about_any_points_are_those_over_pairs(seed: int, far: float, away: float) -> None:
    """Points and center at any distance from the rows: what the product cancels is taken directly."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 7)) + 10.0**far
    x[::9] *= 10.0**away
    points = np.stack([x.mean(axis=0), x[:20].mean(axis=0), x[3] + 1e-4, np.zeros(7)])
    sums = DirectionSums(rng.standard_normal(7), points)
    for start in range(0, 40, 13):
        sums.update(x[start : start + 13], range(4))
    found = sums.mean_cosines([[own] for own in range(4)])
    expected = [mean_over_pairs(x, point) for point in points]
    # the digits that x less a point loses are lost in the reference as well
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10 * (1 + 10.0 ** (far - 5)))


def test_rows_at_their_point_have_no_direction() -> None:
    x = np.random.default_rng(0).standard_normal((30, 5)) * 1e3
    x[10:] = x[9]
    sums = DirectionSums(np.zeros(5), np.stack([x[9], x[9] * (1 + 4e-16), np.zeros(5)]))
    sums.update(x, [0, 1, 2])
    assert sums.counts.tolist() == [9, 9, 30]
    assert sums.mean_cosines([[0]])[0] == pytest.approx(mean_over_pairs(x[:9], x[9]), rel=1e-12)


def test_sets_are_united_by_adding_them_up() -> None:
    x = np.random.default_rng(0).standard_normal((30, 5)) + 1
    sums = DirectionSums(np.zeros(5), np.zeros((3, 5)))
    sums.update(x[:20], [0])
    sums.update(x[20:29], [2])
    assert sums.mean_cosines([[0, 2]])[0] == pytest.approx(mean_over_pairs(x[:29], np.zeros(5)), rel=1e-12)
    assert np.isnan(sums.mean_cosines([[1]])[0])
    sums.update(x[29:], [1])
    assert np.isnan(sums.mean_cosines([[1]])[0])  # one row has no pair


PARTS = [0, 1, 0, 2, 1]
SUBSETS = [[0, 1, 2], [1, 2], [2], [0]]


def passes(x: np.ndarray):
    def blocks() -> Iterator[tuple[int, np.ndarray]]:
        return zip(PARTS, np.array_split(x, 5), strict=True)

    return blocks


def united(x: np.ndarray, subset: list[int]) -> np.ndarray:
    return np.concatenate([rows for part, rows in passes(x)() if part in subset]).astype(np.float64)


LARGEST = {np.float16: 6e4, np.float32: 2.0**127, np.float64: 2.0**1000}
clouds = st.sampled_from(list(LARGEST)).flatmap(
    lambda dtype: arrays(
        dtype,
        st.tuples(st.integers(5, 14), st.integers(1, 4)),
        elements={"min_value": -LARGEST[dtype], "max_value": LARGEST[dtype]},
    )
)


@settings(max_examples=80, deadline=None)
@given(clouds)
def test_medians_from_digits_are_those_of_numpy(x: np.ndarray) -> None:
    expected = [np.median(np.abs(united(x, subset))) for subset in SUBSETS]
    np.testing.assert_array_equal(median_magnitudes(passes(x), SUBSETS), expected)


def test_entries_over_a_limit_are_counted_in_float64() -> None:
    x = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)
    limits = np.array([0.5, float(np.float32(1.1)), 1e-3, 9.0])
    x[7, 1] = limits[1]  # no more than the limit
    expected = [np.sum(np.abs(united(x, own)) > limit) for own, limit in zip(SUBSETS, limits, strict=True)]
    assert count_over(passes(x), limits, SUBSETS).tolist() == expected
    assert expected[-1] == 0 < expected[2]
