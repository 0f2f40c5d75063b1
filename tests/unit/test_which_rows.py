"""Which rows of a cloud count: hashes and unique rows, sinks, one row of each type, all but those of a draw."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lmshape.geometry import rows
from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.rows import leave_one_out_masks, one_per_type, row_hashes, sink_rows, unique_rows
from lmshape.geometry.scalars import anisotropy

DTYPES = [np.float16, np.float32, np.float64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 129])
def test_equal_rows_and_no_others_share_a_hash(
    dtype: type, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(width)
    x = rng.integers(-3, 4, (4000, width)).astype(dtype) / 4  # few bits of each number are in use
    x[x == 0] *= rng.choice([-1, 1], np.count_nonzero(x == 0))
    expected = len(np.unique(x + 0.0, axis=0))
    whole = row_hashes(x)
    assert len(np.unique(whole)) == expected
    monkeypatch.setattr(rows, "HASHED_BYTES", 300)
    np.testing.assert_array_equal(row_hashes(x), whole)
    np.testing.assert_array_equal(row_hashes(np.asfortranarray(x)[::-1])[::-1], whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_bit_or_two_exchanged_entries_are_another_row(dtype: type) -> None:
    x = np.tile(np.random.default_rng(0).standard_normal(40).astype(dtype), (81, 1))
    for j in range(40):
        x[j, j] = np.nextafter(x[j, j], dtype(9))
        x[40 + j, [j, (j + 1) % 40]] = x[40 + j, [(j + 1) % 40, j]]
    assert len(np.unique(row_hashes(x))) == 81


def test_rows_of_bits_are_as_good_as_random(seed: int = 3) -> None:
    """Numbers of 7 bits, as bfloat16 leaves them: no two of 200 000 different rows share a hash."""
    x = np.random.default_rng(seed).standard_normal((200_000, 6)).astype(np.float32)
    x = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert len(np.unique(row_hashes(x))) == len(np.unique(x, axis=0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=5))
def test_any_float_has_a_hash_that_repeats(entries: list[float]) -> None:
    x = np.array([entries, entries], dtype=np.float32)
    assert len(set(row_hashes(x).tolist())) == 1


def test_unique_rows_are_first_occurrences_in_row_order():
    x = np.array([[1.0, 2], [3, 4], [1, 2], [0, 0], [3, 4], [-0.0, 0], [5, 0]])
    np.testing.assert_array_equal(unique_rows(x), [0, 1, 3, 6])
    np.testing.assert_array_equal(unique_rows(x[:1]), [0])


@settings(max_examples=50, deadline=None)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 30), st.integers(1, 3)), elements=st.sampled_from([0, -0.0, 1])
    )
)
def test_unique_rows_agree_with_comparing_all_rows(x):
    expected = [i for i in range(len(x)) if not any((x[i] == x[j]).all() for j in range(i))]
    np.testing.assert_array_equal(unique_rows(x), expected)


def test_rows_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(rows, "row_hashes", lambda x: np.zeros(len(x), dtype=np.uint64))
    x = np.array([[1.0, 2], [3, 4], [1, 2], [0, 0], [3, 4], [-0.0, 0], [5, 0]])
    np.testing.assert_array_equal(unique_rows(x), [0, 1, 3, 6])


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


RNG = np.random.default_rng(0)
TYPES = RNG.integers(0, 30, 400).astype(np.int32)
DRAW = np.repeat(np.arange(4), 100)


def test_every_type_of_a_draw_has_one_row():
    chosen = one_per_type(TYPES, DRAW, seed=0)
    for j in range(4):
        mine = DRAW == j
        assert sorted(TYPES[chosen & mine]) == sorted(set(TYPES[mine]))


def test_the_seed_and_nothing_else_decides():
    assert np.array_equal(one_per_type(TYPES, DRAW, seed=3), one_per_type(list(TYPES), DRAW, seed=3))
    assert not np.array_equal(one_per_type(TYPES, DRAW, seed=3), one_per_type(TYPES, DRAW, seed=4))


def test_every_row_of_a_type_is_as_likely():
    types, draw = np.zeros(5, dtype=int), np.zeros(5, dtype=int)
    counts = sum(one_per_type(types, draw, seed=seed).astype(int) for seed in range(1000))
    assert counts.sum() == 1000 and abs(counts - 200).max() < 60  # 4.7 standard deviations


def test_different_types_all_stay():
    assert one_per_type(np.arange(50), np.zeros(50, dtype=int), seed=0).all()


def test_wrong_labels_are_refused():
    with pytest.raises(ValueError, match=r"`draw` has shape \(3,\)"):
        one_per_type(TYPES, DRAW[:3], seed=0)
    with pytest.raises(ValueError, match="`types` has dtype float64"):
        one_per_type(TYPES.astype(float), DRAW, seed=0)


def test_masks_leave_out_one_draw_each_in_ascending_order():
    masks = leave_one_out_masks([7, 2, 7, 4, 2], 5)
    expected = [[1, 1, 1, 1, 1], [1, 0, 1, 1, 0], [1, 1, 1, 0, 1], [0, 1, 0, 1, 1]]
    np.testing.assert_array_equal(masks, np.array(expected, dtype=bool))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: leave_one_out_masks([3, 3], 2), "`draw` names 1 draw; an interval needs at least 2"),
        (lambda: leave_one_out_masks([0, 1, 1], 3), "`draw` leaves 1 row without one of its draws"),
        (
            lambda: leave_one_out_masks([0, 1], 3),
            r"`draw` has shape \(2,\); one entry for each of the 3 rows",
        ),
    ],
)
def test_draws_that_leave_nothing_to_compare_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
