"""The mean cosine against all pairs, and where directions are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from lmshape.geometry.angular import leave_one_out_mean_cosine, mean_cosine


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
def test_leaving_a_draw_out_is_measuring_the_other_rows(center):
    x, draw = cone(90, 6), np.random.default_rng(1).permutation(np.repeat([0, 1, 4], 30))
    found = leave_one_out_mean_cosine(x, draw, center=center)
    for value, kept in zip(found, (draw >= 0, draw != 0, draw != 1, draw != 4), strict=True):
        rows = x[kept] - x[kept].mean(axis=0) * center
        assert value == pytest.approx(all_pairs(rows), rel=1e-10, abs=1e-12)
