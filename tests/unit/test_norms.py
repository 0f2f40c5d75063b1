"""Norms and massive entries against numpy on the rows themselves."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.angular import Norms, leave_one_out_norms, row_norms


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


def test_leaving_a_draw_out_is_measuring_the_other_rows():
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
