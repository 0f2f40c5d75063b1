"""One row of each type: each type once a draw, each of its rows as likely, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.sinks import one_per_type

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
