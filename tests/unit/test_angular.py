"""Directions and lengths of rows: mean cosines against all pairs, norms, medians of magnitudes in one pass."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import pdist

from lmshape.geometry.angular import (
    DirectionSums,
    Norms,
    count_over,
    leave_one_out_mean_cosine,
    leave_one_out_norms,
    mean_cosine,
    median_magnitudes,
    row_norms,
)


def all_pairs(x: np.ndarray) -> float:
    return float(1 - pdist(np.asarray(x, dtype=np.float64), "cosine").mean())


def cone(n: int, d: int, *, seed: int = 0, offset: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)) + offset


@pytest.mark.parametrize(("n", "d"), [(2, 1), (2, 30), (200, 3), (150, 200)])
@pytest.mark.parametrize("offset", [0.0, 1.0, -1000.0])
def test_is_the_mean_over_all_pairs(n, d, offset):
    x = cone(n, d, offset=offset)
    assert mean_cosine(x) == pytest.approx(all_pairs(x), rel=1e-11, abs=1e-13)
    centered = x - x.mean(axis=0)
    assert mean_cosine(x, center=True) == pytest.approx(all_pairs(centered), rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_storage_types_are_only_storage(dtype):
    x = cone(200, 20).astype(dtype)
    x[::50] *= 1000
    assert mean_cosine(x) == pytest.approx(all_pairs(x), rel=1e-12)


def test_massive_rows_weigh_as_one_row_each():
    x = cone(200, 30)
    heavy = x.copy()
    heavy[::20] *= 1e6
    assert mean_cosine(heavy) == pytest.approx(mean_cosine(x), rel=1e-12)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_simplex_is_the_lower_end(n):
    assert mean_cosine(np.eye(n)) == pytest.approx(0, abs=1e-15)
    assert mean_cosine(np.eye(n), center=True) == pytest.approx(-1 / (n - 1), rel=1e-12)


def test_one_direction_is_the_upper_end():
    assert mean_cosine(np.outer(np.arange(1.0, 9.0), [1.0, 2.0, 3.0])) == pytest.approx(1, rel=1e-14)


def test_isotropic_rows_have_none():
    x = np.random.default_rng(0).standard_normal((5000, 50))
    assert abs(mean_cosine(x)) < 5 / np.sqrt(50) / 5000 + 1e-4


def test_zero_rows_have_no_direction():
    x = cone(30, 4)
    with_zeros = np.insert(x, [0, 7, 7, 30], 0.0, axis=0)
    assert mean_cosine(with_zeros) == pytest.approx(mean_cosine(x), rel=1e-14)


def test_fewer_than_two_directions_have_no_angle():
    x, equal = np.array([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]), np.full((1000, 5), 0.1)
    with pytest.raises(ValueError, match="fewer than 2 rows with a direction: all others are zero"):
        mean_cosine(x)
    with pytest.raises(ValueError, match="fewer than 2 rows with a direction: all others are their mean"):
        mean_cosine(equal, center=True)
    assert np.isnan(leave_one_out_mean_cosine(x, [0, 1, 2], center=False)).all()  # a table says why
    assert np.isnan(leave_one_out_mean_cosine(equal, np.arange(1000) % 2, center=True)).all()
    assert mean_cosine(np.full((1000, 5), 0.1)) == pytest.approx(1, rel=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 20), st.integers(1, 10))
def test_rotation_row_order_and_the_length_of_any_row_change_nothing(seed, n, d):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, d)) + 0.5
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    moved = rng.permutation(x * rng.uniform(0.01, 100, (n, 1))) @ rotation
    assert mean_cosine(moved) == pytest.approx(mean_cosine(x), abs=1e-12)
    assert -1 / (n - 1) - 1e-12 <= mean_cosine(x) <= 1 + 1e-12


@pytest.mark.parametrize("center", [True, False])
def test_cosines_without_a_draw_are_those_of_the_other_rows(center):
    x, draw = cone(90, 6), np.random.default_rng(1).permutation(np.repeat([0, 1, 4], 30))
    found = leave_one_out_mean_cosine(x, draw, center=center)
    for value, kept in zip(found, (draw >= 0, draw != 0, draw != 1, draw != 4), strict=True):
        rows = x[kept] - x[kept].mean(axis=0) * center
        assert value == pytest.approx(all_pairs(rows), rel=1e-10, abs=1e-12)


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


def reference(x: np.ndarray) -> Norms:
    x = np.asarray(x, dtype=np.float64)
    size, lengths = np.abs(x), np.sqrt((x**2).sum(axis=1))
    return Norms(
        rows=len(x),
        norm_median=pytest.approx(np.median(lengths), rel=1e-13),
        norm_max=pytest.approx(lengths.max(), rel=1e-13),
        activation_max=size.max(),
        massive_count=((size > 100) & (size > 1000 * np.median(size))).sum(),
        zero_rows=(size.max(axis=1) == 0).sum(),
    )


def decoder(n: int = 300, d: int = 12) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)
    x[::40, 3], x[5, 7], x[9] = 2e4, -3e4, 0.0
    return x


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_norms_are_those_of_numpy(dtype):
    x = decoder().astype(dtype)
    assert row_norms(x) == reference(x)
    assert row_norms(x).massive_count == 9 and row_norms(x).zero_rows == 1


def test_an_entry_is_massive_by_both_rules():
    x = np.random.default_rng(0).standard_normal((200, 20))
    assert row_norms(1000 * x).massive_count == 0  # over 100, but as all others are
    x[3, 3] = 99.9
    assert row_norms(0.01 * x).massive_count == row_norms(x).massive_count == 0  # far out, but not over 100
    x[3, 3] = -1e4
    assert row_norms(x).massive_count == 1


def test_norms_without_a_draw_are_those_of_the_other_rows():
    x = decoder()
    draw = np.repeat([0, 4, 9], [41, 159, 100])
    found = leave_one_out_norms(x, draw)
    assert found == [reference(x[kept]) for kept in (draw >= 0, draw != 0, draw != 4, draw != 9)]


def test_rotations_keep_lengths_and_scales_scale_them():
    x = decoder().astype(np.float64)
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0]
    before, after = row_norms(x), row_norms(-3 * x @ rotation)
    assert after.norm_median == pytest.approx(3 * before.norm_median, rel=1e-12)
    assert after.norm_max == pytest.approx(3 * before.norm_max, rel=1e-12)


def test_errors_name_the_rule():
    with pytest.raises(ValueError, match="`x` is not finite in 1 of 2 rows"):
        row_norms([[1.0, np.nan], [0.0, 1.0]])
    with pytest.raises(ValueError, match="`draw` names 1 draw; an interval needs at least 2"):
        leave_one_out_norms(decoder(), np.zeros(300, dtype=int))
