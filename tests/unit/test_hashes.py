"""Hashes of rows: equal for equal rows, and for no others of many that differ in little."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmshape.geometry import neighbors
from lmshape.geometry.neighbors import row_hashes

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
    monkeypatch.setattr(neighbors, "HASHED_BYTES", 300)
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
    """Numbers of 7 bits, as bfloat16 leaves them: no two of 200 000 different rows meet."""
    x = np.random.default_rng(seed).standard_normal((200_000, 6)).astype(np.float32)
    x = (x.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    assert len(np.unique(row_hashes(x))) == len(np.unique(x, axis=0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32), min_size=1, max_size=5))
def test_any_float_has_a_hash_that_repeats(entries: list[float]) -> None:
    x = np.array([entries, entries], dtype=np.float32)
    assert len(set(row_hashes(x).tolist())) == 1
