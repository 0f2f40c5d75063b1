"""Warnings of loss spikes: scores that know no future, areas and rates against direct counts, planted truth."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY))  # `benchmarks` is a folder beside the library, not part of it

from benchmarks.early_warning import BASELINE, GEOMETRY, OTHERS, coverage, studies  # noqa: E402
from benchmarks.planted_spikes import Precursor, planted_loss, planted_runs  # noqa: E402

from lmshape.dynamics.alarms import (  # noqa: E402
    Alarms,
    Windows,
    run_interval,
    run_weights,
    share_interval,
    two_sided,
    weighted_median,
)
from lmshape.dynamics.early_warning import NO_LAYER, Group, Watched, early_warnings  # noqa: E402
from lmshape.dynamics.spikes import Spike  # noqa: E402
from lmshape.tables.loss_spikes import WARNING_COLUMNS  # noqa: E402

pytestmark = pytest.mark.slow

NONE = Precursor()


def spike(onset: float, last: float) -> Spike:
    return Spike(
        onset=onset, peak_step=onset, peak_loss=5.0, baseline=3.0, threshold=0.5, last=last, recovery_step=last + 1,
        flag="",
    )  # fmt: skip


def scores_of(before: list[float], quiet: list[float], runs: tuple[list[int], list[int]]) -> Alarms:
    """Windows of one value each: onsets 7 steps after theirs, quiet ones of 20 steps."""
    places = np.split(np.arange(len(before) + len(quiet))[:, None], [len(before)])
    windows = [
        Windows(np.array(run), own, own[:, -1] + 1, np.full(len(own), steps))
        for run, own, steps in zip(runs, places, (7.0, 20.0), strict=True)
    ]
    return Alarms(*windows, np.array([*before, *quiet, np.nan]), np.zeros(len(before) + len(quiet)))


def group_of(steps: np.ndarray, *spikes: Spike, last_step: float = 399) -> Group:
    return Group.of([Watched(steps=steps, series={}, spikes=spikes, last_step=last_step)])


# Windows and scores


def test_windows_lie_where_they_are_said_to() -> None:
    steps = np.arange(0, 400, 2.0)
    group = group_of(steps, spike(200, 230))
    (before,) = group.before.places
    assert group.before.steps.tolist() == [200] and not group.unscored
    assert steps[before].tolist() == list(range(180, 200, 2)) and group.before.ends.tolist() == [100]
    quiet = steps[group.quiet.places]
    assert quiet.shape[1] == 10 and (np.ptp(quiet, axis=1) == 18).all() and set(group.quiet.steps) == {20}
    assert min(quiet[0]) == 16  # 8 values before it
    every = np.concatenate(quiet)
    assert len(np.unique(every)) == len(every)
    assert not ((every >= 180) & (every <= 230)).any()  # the horizon and the spike
    assert not ((every > 230) & (every < 248)).any()  # 8 values since it ended
    assert every.max() < 399 - 20  # what follows the end is not known


def test_a_spike_soon_after_another_or_after_the_start_cannot_be_told() -> None:
    group = group_of(np.arange(0, 400, 2.0), spike(20, 24), spike(200, 230), spike(244, 260))
    assert group.before.steps.tolist() == [200] and group.unscored == [20, 244]


def test_a_window_that_is_shorter_is_filled_up_and_runs_stand_behind_each_other() -> None:
    steps = np.arange(0, 60, 2.0)
    runs = [
        Watched(steps=steps, series={}, spikes=[spike(onset, onset + 4)], last_step=59) for onset in (40, 30)
    ]
    group = Group.of(runs)
    assert group.before.runs.tolist() == [0, 1] and group.before.ends.tolist() == [20, 45]
    assert group.before.places.tolist() == [[*range(10, 20)], [-1, -1, -1, *range(38, 45)]]
    alone = group.before.of_runs(np.array([False, True]))
    assert alone.runs.tolist() == [1] and alone.steps.tolist() == [30]


def test_scores_are_robust_deviations_from_the_values_before() -> None:
    values = np.random.default_rng(0).normal(size=60)
    found = group_of(np.arange(60.0)).scores(values)
    assert np.isnan(found[:8]).all() and np.isfinite(found[8:]).all()
    for place in (8, 20, 59):
        before = values[max(0, place - 16) : place]
        middle = np.median(before)
        spread = 1.4826 * np.median(np.abs(before - middle))
        assert found[place] == pytest.approx((values[place] - middle) / spread, abs=1e-9)


def test_no_score_knows_a_later_value_or_one_before_the_last_spike_or_of_another_run() -> None:
    values = np.random.default_rng(1).normal(size=150)
    runs = [
        Watched(steps=np.arange(size), series={}, spikes=spikes, last_step=size)
        for size, spikes in ((50.0, []), (100.0, [spike(40, 49)]))
    ]
    group = Group.of(runs)
    whole = group.scores(values)
    for kept, changed in (
        (slice(130), slice(130, 150)),
        (slice(100, 150), slice(100)),
        (slice(50, 150), slice(50)),
    ):
        other = values.copy()
        other[changed] = 99
        np.testing.assert_array_equal(group.scores(other)[kept], whole[kept])
    assert np.isnan(whole[50:58]).all() and np.isnan(whole[90:108]).all() and np.isfinite(whole[58:90]).all()


def test_equal_values_do_not_alarm_and_missing_ones_are_passed_over() -> None:
    group, values = group_of(np.arange(40.0)), np.full(40, 3.0)
    assert (group.scores(values)[8:] == 0).all()
    values[30] = 3.1
    assert group.scores(values)[30] > 1e6
    values[20] = np.nan
    found = group.scores(values)
    assert np.isnan(found[20]) and found[21] == 0


def test_changes_are_from_the_values_before_the_horizon_of_the_same_stretch() -> None:
    group, values = group_of(np.arange(100.0), spike(50, 52)), np.arange(100.0)
    (found,) = group.changes(values, group.before)
    assert found.tolist() == list(np.arange(30, 53) - np.median(values[24:40]))
    calm = group.changes(values, group.quiet)
    first = np.flatnonzero(group.quiet.ends == 71)[0]  # of the stretch that begins at 53
    assert np.isnan(calm[first, :2]).all() and calm[first, 2] == 53 - np.median(values[53:61])


# Areas, rates, intervals


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(2)
    before, quiet = np.abs(rng.normal(1, 1, 12)).round(1), np.abs(rng.normal(0, 1, 30)).round(1)  # with ties
    runs = np.arange(12) % 4, np.arange(30) % 5
    found = scores_of(before, quiet, runs)
    weights = run_weights([1, 1, 1, 1, 0], resamples=20)
    areas = found.areas(weights)
    pairs = (before[:, None] > quiet) + 0.5 * (before[:, None] == quiet)
    assert areas[0] == pytest.approx(pairs.mean(), abs=1e-12)
    drawn = weights[5]
    repeated = np.repeat(before, drawn[runs[0]].astype(int)), np.repeat(quiet, drawn[runs[1]].astype(int))
    again = (repeated[0][:, None] > repeated[1]) + 0.5 * (repeated[0][:, None] == repeated[1])
    assert areas[5] == pytest.approx(again.mean(), abs=1e-12)


def test_average_precision_is_that_of_the_definition() -> None:
    found = scores_of([3.0, 1.0], [2.0, 0.5, 0.0], ([0, 1], [0, 1, 2]))
    assert found.average_precisions(np.ones((1, 3)))[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=1e-12)
    assert found.average_precisions(np.array([[0.0, 2.0, 1.0]]))[0] == pytest.approx(1.0)  # without run 0
    level = scores_of([1.0] * 3, [1.0] * 7, ([0] * 3, [0] * 7))
    assert level.average_precisions(np.ones((1, 1)))[0] == pytest.approx(0.3)  # chance


def test_thresholds_come_from_other_runs_and_keep_the_rate() -> None:
    quiet, runs = np.arange(200.0), np.arange(200) % 2
    found = scores_of([150.0, 199.5], list(quiet), ([0, 1], list(runs)))
    thresholds = found.thresholds(np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 1.0]]))
    # each run's 100 other windows are 2000 steps: two false alarms are allowed, the third largest is the threshold
    assert thresholds[0].tolist() == [195.0, 194.0]
    # of run 0 twice: four windows of 4 000 steps may alarm, each counts twice; and none of run 1 is there for run 0
    assert thresholds[1].tolist() == [np.inf, 194.0]
    assert thresholds[2].tolist() == [195.0, np.inf]
    leads = found.leads_at(thresholds)
    assert np.isnan(leads[0, 0]) and leads[0, 1] == 7.0
    assert np.isnan(leads[1]).tolist() == [True, False]
    assert found.false_at(thresholds[0]).sum() == 2 + 3


def test_the_interval_of_the_hit_rate_holds_what_thresholds_differ_by() -> None:
    """Six runs without any warning: one threshold for all resamples makes it hold in a third of cases."""
    rng, true, held = np.random.default_rng(0), [], []
    for number in range(150):
        before, quiet = np.abs(rng.standard_t(3, 18)), np.abs(rng.standard_t(3, 100))
        found = scores_of(list(before), list(quiet), (np.arange(18) % 6, np.arange(100) % 6))
        weights = run_weights([1] * 6, resamples=400, seed=number)
        leads = found.leads_at(found.thresholds(weights))
        rates = np.isfinite(leads) * weights[:, found.before.runs]
        rates = rates.sum(axis=1) / weights[:, found.before.runs].sum(axis=1)
        true.append(rates[0])
        held.append(run_interval(rates[1:], runs=6))
    low, high = np.array(held).T
    assert np.mean((low <= np.mean(true)) & (np.mean(true) <= high)) > 0.84


def test_what_no_run_has_may_still_happen() -> None:
    assert share_interval(np.zeros(100), runs=6) == (0.0, pytest.approx(1 - 0.025 ** (1 / 6)))
    assert share_interval(np.ones(100), runs=6) == (pytest.approx(0.025 ** (1 / 6)), 1.0)
    some = np.random.default_rng(0).uniform(size=1000)
    assert share_interval(some, runs=6) == run_interval(some[1:], runs=6)
    assert np.isnan(share_interval(np.zeros(100), runs=0)).all()


def test_expanded_percentiles_hold_a_mean_of_few_runs() -> None:
    """Where percentiles alone hold 86 % in place of 95: means of 6 normal numbers."""
    rng, held, plain = np.random.default_rng(3), 0, 0
    for number in range(400):
        values = rng.normal(size=6)
        weights = run_weights([0] * 6, seed=number, resamples=1000)
        means = weights @ values / weights.sum(axis=1)
        low, high = run_interval(means[1:], runs=6)
        held += low <= 0 <= high
        plain += np.subtract(*np.sign(np.quantile(means[1:], [0.025, 0.975]))) != 0
    assert 0.925 <= held / 400 <= 0.98
    assert plain / 400 < 0.91


def test_a_p_value_is_where_the_interval_ends_at_zero() -> None:
    statistics = np.random.default_rng(4).normal(1.0, 0.5, 4000)
    p = two_sided(statistics, runs=8)
    shift = run_interval(statistics, runs=8)[0]
    assert 0.05 < p < 1 if shift < 0 else p < 0.05
    assert two_sided(statistics - statistics.mean(), runs=8) > 0.9
    assert two_sided(statistics - shift, runs=8) == pytest.approx(0.05, abs=0.01)
    assert np.isnan(two_sided(statistics, runs=0)) and np.isnan(run_interval(statistics, runs=1)[0])


def test_weighted_medians() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([[1, 1, 1], [3, 0, 0], [0, 1, 1], [0, 0, 0]])
    found = weighted_median(values, weights)
    assert found[:3].tolist() == [2.0, 3.0, 1.0] and np.isnan(found[3])
    own = np.array(
        [[3.0, np.nan, 2.0], [np.nan, 1.0, 2.0]]
    )  # of each resample its own; what is NaN has no weight
    found = weighted_median(own, weights[:2])
    assert found[0] == 2.0 and np.isnan(found[1])


def test_whole_runs_are_drawn_within_their_strata() -> None:
    weights = run_weights([1, 1, 1, 0, 0], resamples=300)
    assert (
        (weights[0] == 1).all()
        and (weights[:, :3].sum(axis=1) == 3).all()
        and (weights[:, 3:].sum(axis=1) == 2).all()
    )
    assert set(weights[1:, 3]) == {0, 1, 2}


# Series


def test_the_baselines_take_no_later_loss() -> None:
    loss = planted_loss(np.random.default_rng(5), [300]).assign(gradient_norm=1.5, learning_rate=0.01)
    geometry = pd.DataFrame(
        [
            (step, 1, metric, 1.0)
            for step in range(0, 600, 4)
            for metric in ("id_twonn", "norm_median", "loss", "other")
        ],
        columns=["step", "layer", "metric", "value"],
    )
    whole = Watched.of(geometry, loss, [])
    assert whole.last_step == 599 and set(whole.series) == {
        ("id_twonn", 1), ("norm_median", 1), ("loss_held_out", NO_LAYER), ("loss_level", NO_LAYER),
        ("loss_slope", NO_LAYER), ("loss_variance", NO_LAYER), ("gradient_norm", NO_LAYER),
        ("learning_rate", NO_LAYER),
    }  # fmt: skip
    cut = Watched.of(geometry, loss.assign(loss=loss["loss"].where(loss.index <= 200, 9)), [])
    until = whole.steps <= 200
    for name in ("loss_level", "loss_slope", "loss_variance"):
        values, others = (watched.series[name, NO_LAYER] for watched in (whole, cut))
        np.testing.assert_array_equal(values[until], others[until])
    at = np.flatnonzero(whole.steps == 200)[0]
    rows = loss["loss"].to_numpy()[191:201]
    slope, level = np.polyfit(np.arange(10) - 4.5, rows, 1)
    assert whole.series["loss_slope", NO_LAYER][at] == pytest.approx(slope, rel=1e-9)
    assert whole.series["loss_level", NO_LAYER][at] == pytest.approx(level, rel=1e-12)


# Planted truth, at the rates that benchmarks/early_warning.py measures on ten times as many studies


@pytest.fixture(scope="module")
def warned() -> pd.DataFrame:
    return studies((Precursor(size=4, lead=10), NONE), 9, seed=1)


def test_a_planted_warning_is_told(warned) -> None:
    assert (warned["spikes"] == 18).mean() > 0.8 and (warned["runs"] == 6).all()
    assert warned["auc"].mean() > 0.85 and (warned["auc_gain_low"] > 0).mean() > 0.7
    assert coverage(warned, "auc", warned["auc"].mean()) >= 0.75
    assert (warned["move_before_low"] > 0).mean() > 0.85 and (warned["move_before_high"] < 0).sum() == 0
    assert (warned["lead_steps"] - 10).abs().median() <= 2
    assert warned["hit_rate"].mean() > 0.3 and 4 < warned["false_alarms_per_10k"].mean() < 20


def test_noise_is_no_warning() -> None:
    rows = studies((NONE, NONE), 6, seed=2)
    assert 0.4 < rows["auc"].mean() < 0.6 and (rows["auc_gain_low"] > 0).sum() <= 1
    assert ((rows["move_before_low"] > 0) | (rows["move_before_high"] < 0)).sum() <= 2
    assert rows["hit_rate"].mean() < 0.15


def test_a_move_downwards_is_told_as_one() -> None:
    rows = studies((Precursor(size=-4), NONE), 3, seed=3)
    assert (rows["move_before_high"] < 0).sum() >= 2 and rows["auc"].mean() > 0.8


def test_geometry_that_does_worse_than_a_baseline_is_told_so() -> None:
    rows = studies((NONE, Precursor(size=4)), 3, seed=4)
    assert (rows["auc_gain_high"] < 0).sum() >= 2 and set(rows["best_baseline"]) == {"norm_median layer 1"}


def test_what_cannot_be_told_is_said() -> None:
    rng = np.random.default_rng(6)
    series = {GEOMETRY: NONE, BASELINE: NONE, **OTHERS}
    calm = early_warnings(planted_runs(rng, series, spiking=0, calm=3))["warnings"]
    assert set(calm["flag"]) == {"not measurable: no spike"} and calm["spikes"].eq(0).all()
    few = early_warnings(planted_runs(rng, series, spiking=1, calm=1))["warnings"]
    assert few["flag"].str.startswith("too few: 3 spikes in 1 runs").all()
    assert few["auc"].notna().all() and few["auc_low"].isna().all() and few["p"].isna().all()
    coarse = [
        replace(one, steps=one.steps[::25], series={("id_twonn", 1): one.series[GEOMETRY][::25]})
        for one in planted_runs(rng, series)
    ]
    (row,) = early_warnings(coarse)["warnings"].to_dict("records")
    assert row["flag"] == "not measurable: no spike has 13 values before it, one every 50 steps"
    lost = planted_runs(rng, {GEOMETRY: NONE})
    for one in lost:
        one.series[GEOMETRY][:] = np.nan
    assert early_warnings(lost)["warnings"]["flag"].tolist() == [
        "not measurable: the series has no values there"
    ]


def test_equal_data_give_equal_rows_with_the_declared_columns() -> None:
    found = [
        early_warnings(planted_runs(np.random.default_rng(7), {GEOMETRY: NONE, BASELINE: NONE}))
        for _ in range(2)
    ]
    pd.testing.assert_frame_equal(found[0]["warnings"], found[1]["warnings"])
    assert set(found[0]["warnings"].columns) <= set(WARNING_COLUMNS.names)
    geometric = found[0]["warnings"][found[0]["warnings"]["kind"] == "geometric"].iloc[0]
    assert geometric["p_adjusted"] == pytest.approx(geometric["p"])  # one test
    curve = found[0]["alarms"][found[0]["alarms"]["metric"] == "id_twonn"]
    assert curve["hit_rate"].is_monotonic_increasing and curve["hit_rate"].iloc[-1] == 1
    steps = np.diff(np.concatenate([[0], curve["false_alarm_rate"]]))
    area = (steps * curve["hit_rate"]).sum() - (
        steps * np.diff(np.concatenate([[0], curve["hit_rate"]]))
    ).sum() / 2
    assert area == pytest.approx(geometric["auc"], abs=0.01)
