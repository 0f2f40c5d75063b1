"""Differences between checkpoints, draw by draw, against the same done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lmshape.hub.integrity import DISTRUSTED
from lmshape.metrics.registry import METRICS
from lmshape.tables.columns import CHANGES
from lmshape.tables.gather import add_changes


def row(step: int, metric: str, *, layer: int = 3) -> dict[str, str | int | float]:
    return {
        "step": step,
        "dataset": "wiki",
        "site": "block",
        "layer": layer,
        "rows": "all",
        "metric": metric,
    }


def test_a_change_has_the_interval_of_the_differences_and_not_of_the_values():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1.0, 5)  # what the tokens of a draw add to every checkpoint
    before, after = (10 + shared + rng.normal(0, 0.01, 5), 12 + shared + rng.normal(0, 0.01, 5))
    rows = [(row(0, "id_twonn"), before), (row(8, "id_twonn"), after)]
    add_changes(rows, METRICS)
    first, second = (found for found, _ in rows)
    assert all(np.isnan(first[name]) for name in CHANGES)
    difference = after - before
    assert second["change"] == pytest.approx(difference.mean(), rel=1e-12)
    low, high = stats.t.interval(0.95, 4, difference.mean(), stats.sem(difference))
    assert (second["change_low"], second["change_high"]) == pytest.approx((low, high), rel=1e-9)
    of_values = METRICS["id_twonn"].estimate(after)
    assert second["change_high"] - second["change_low"] < (of_values.high - of_values.low) / 20


def test_a_jackknifed_change_is_the_jackknife_of_the_differences_and_may_be_negative():
    before, after = np.array([0.6, 0.61, 0.58, 0.6, 0.63]), np.array([0.2, 0.22, 0.18, 0.19, 0.22])
    rows = [(row(0, "anisotropy"), before), (row(1, "anisotropy"), after)]
    add_changes(rows, METRICS)
    found = rows[1][0]
    left_out = (after - before)[1:]
    error = np.sqrt(3 / 4 * np.square(left_out - left_out.mean()).sum())
    half = stats.t.ppf(0.975, 3) * error
    assert found["change"] == pytest.approx(-0.4)
    assert (found["change_low"], found["change_high"]) == pytest.approx((-0.4 - half, -0.4 + half))


def test_lines_are_kept_apart_and_what_has_no_value_has_no_change():
    rows = [
        (row(0, "id_twonn"), np.full(5, 3.0)),
        (row(0, "id_twonn", layer=4), np.full(5, 7.0)),
        (row(1, "id_twonn"), np.full(5, np.nan)),
        (row(1, "id_twonn", layer=4), np.full(5, 9.0)),
        (row(2, "id_twonn"), np.full(5, 4.0)),
        (row(2, "norm_max"), np.ones(6)),
        (row(3, "norm_max"), np.ones(6) + 1),
    ]
    add_changes(rows, METRICS)
    changes = [found["change"] for found, _ in rows]
    np.testing.assert_array_equal(changes, [np.nan, np.nan, np.nan, 2.0, np.nan, np.nan, 1.0])
    assert np.isnan(rows[-1][0]["change_low"])  # the maximum of a sample has no interval


def test_a_distrusted_checkpoint_has_no_change_and_none_is_counted_from_it():
    verdicts = ["ok", "wrong_weights", "doubtful", "duplicate", "expected_duplicate", ""]
    values = [1.0, 100.0, 3.0, 200.0, 6.0, 10.0]
    rows = [
        (row(step, "id_twonn") | {"verdict": verdict}, np.full(5, value))
        for step, (verdict, value) in enumerate(zip(verdicts, values, strict=True))
    ]
    add_changes(rows, METRICS)
    changes = [found["change"] for found, _ in rows]
    np.testing.assert_array_equal(changes, [np.nan, np.nan, 2.0, np.nan, 3.0, 4.0])
    assert all(np.isnan(rows[3][0][name]) for name in CHANGES)


@pytest.mark.parametrize("verdict", DISTRUSTED)
def test_a_run_whose_first_checkpoint_is_distrusted_begins_with_the_second(verdict: str):
    rows = [
        (row(step, "norm_max") | {"verdict": verdict if step == 0 else "ok"}, np.ones(1))
        for step in (0, 1, 2)
    ]
    add_changes(rows, METRICS)
    np.testing.assert_array_equal([found["change"] for found, _ in rows], [np.nan, np.nan, 0.0])
