"""Which rows are sinks."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.scalars import anisotropy
from lmshape.geometry.sinks import sink_rows


def test_position_zero_and_rows_far_over_the_median_norm_are_sinks():
    x = np.ones((6, 4))
    x[3] *= 10.001
    x[4] *= 9.999
    np.testing.assert_array_equal(sink_rows(x, [0, 1, 2, 3, 4, 0]), [True, False, False, True, False, True])


def test_the_factor_moves_the_limit():
    x = np.array([[1.0], [1.0], [1.0], [3.0], [-5.0]])
    np.testing.assert_array_equal(sink_rows(x, np.arange(1, 6), factor=2), [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(sink_rows(x, np.arange(1, 6), factor=4), [0, 0, 0, 0, 1])
    assert not sink_rows(x, np.arange(1, 6), factor=5).any()


def test_scale_and_rotation_change_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 8))
    x[::40] *= 100
    position = np.arange(200) % 50
    rotation = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    expected = sink_rows(x, position)
    assert expected.sum() == 4 + 5 - 1  # positions 0 and the far rows; row 0 is both
    np.testing.assert_array_equal(sink_rows(1e-3 * x @ rotation, position), expected)
    np.testing.assert_array_equal(sink_rows(x.astype(np.float32), position), expected)


def test_without_its_sinks_a_cloud_is_itself_again():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 8))
    moved = x.copy()
    moved[300] += 1e5
    kept = ~sink_rows(moved, np.ones(600, dtype=int))
    assert anisotropy(moved) > 0.999
    assert anisotropy(moved[kept]) == pytest.approx(anisotropy(np.delete(x, 300, axis=0)), rel=1e-12)
    assert intrinsic_dimension(moved) == pytest.approx(intrinsic_dimension(x), rel=0.02)


def test_zeros_have_no_sinks_but_position_zero():
    np.testing.assert_array_equal(sink_rows(np.zeros((3, 2)), [0, 1, 2]), [True, False, False])


def test_a_single_row_will_do():
    np.testing.assert_array_equal(sink_rows([[1.0, 2.0]], [0]), [True])


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_factor_that_is_not_positive_is_refused(factor):
    with pytest.raises(ValueError, match="`factor` is .*; it must be positive"):
        sink_rows(np.ones((2, 2)), [0, 1], factor=factor)


def test_positions_must_belong_to_the_rows():
    with pytest.raises(ValueError, match=r"`position` has shape \(3,\); one entry for each of the 2 rows"):
        sink_rows(np.ones((2, 2)), [0, 1, 2])
