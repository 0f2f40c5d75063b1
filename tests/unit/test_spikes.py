"""Loss spikes: none where there is none, those that were planted, in any curve that a log may hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter

from lmshape.dynamics.loss_logs import as_curve, read_loss_log
from lmshape.dynamics.spikes import CalmLosses, Recent, SpikeRule, find_spikes, not_told
from lmshape.errors import InputError

pytestmark = pytest.mark.slow

LOGS = Path(__file__).parents[1] / "data" / "loss_logs"


def calm(steps: int = 1200, *, noise: float = 0.06, seed: int = 0, every: int = 1) -> pd.DataFrame:
    """A loss that falls from 7.6 to 4.2 without a spike."""
    step = np.arange(0, steps * every, every)
    loss = 4.2 + 3.4 * np.exp(-np.arange(steps) / 60) + np.random.default_rng(seed).normal(0, noise, steps)
    return pd.DataFrame({"step": step, "loss": loss})


def planted(
    run: pd.DataFrame, at: int, *, height: float = 2.0, fall: float = 15.0, length: int = 80
) -> pd.DataFrame:
    """Add a spike that rises at row `at` within 5 rows and falls exponentially."""
    after = np.arange(length)
    shape = height * np.minimum(1, (after + 1) / 5) * np.exp(-np.maximum(0, after - 5) / fall)
    run = run.copy()
    run.loc[at : at + length - 1, "loss"] += shape
    return run


def test_a_calm_curve_has_no_spike() -> None:
    for seed in range(20):
        assert find_spikes(calm(seed=seed)) == []


@pytest.mark.parametrize(
    "draw", [lambda rng, n: 0.1 * rng.standard_t(3, n), lambda rng, n: rng.gumbel(0, 0.1, n)]
)
def test_heavy_tails_are_no_spikes(draw: Callable) -> None:
    """Under one false spike in 20 000 steps, at noise whose extremes are 20 standard deviations out."""
    found = 0
    for seed in range(4):
        run = calm(5000)
        run["loss"] = 4.0 + draw(np.random.default_rng(seed), len(run))
        found += len(find_spikes(run))
    assert found <= 1


def autoregressive(rng: np.random.Generator, n: int, *, memory: float) -> np.ndarray:
    shocks = rng.standard_normal(n + 1000) * np.sqrt(1 - memory**2)
    return lfilter([1], [1, -memory], shocks)[1000:]


def moving_average(rng: np.random.Generator, n: int, *, over: int) -> np.ndarray:
    return np.convolve(rng.standard_normal(n + over), np.ones(over), "valid")[:n] / np.sqrt(over)


NOISES = {
    **{f"memory {memory}": partial(autoregressive, memory=memory) for memory in (0.5, 0.9, 0.97, 0.99)},
    **{f"mean of {over}": partial(moving_average, over=over) for over in (20, 50, 100)},
}


@pytest.mark.parametrize("deviation", [0.1, 0.3])
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_noise_with_a_memory_is_no_spike(noise: Callable, deviation: float) -> None:
    """One in 27 000 steps, where differences alone make hundreds; a few while the loss first falls."""
    onsets = []
    for seed in range(3):
        run = calm(10_000, noise=0, seed=seed)
        run["loss"] += deviation * noise(np.random.default_rng(seed), len(run))
        onsets += [spike.onset for spike in find_spikes(run)]
    assert len(onsets) <= 10 and sum(onset > 1000 for onset in onsets) <= 1


@pytest.mark.parametrize("noise", [NOISES["memory 0.9"], NOISES["mean of 20"]])
def test_spikes_are_found_in_noise_with_a_memory(noise: Callable) -> None:
    for seed in range(5):
        run = calm(1500, noise=0)
        run["loss"] += 0.06 * noise(np.random.default_rng(seed), len(run))
        assert [spike.onset for spike in find_spikes(planted(run, 900, height=1.0))] == pytest.approx(
            [900], abs=3
        )


def test_planted_spikes_are_found_where_they_are() -> None:
    for seed in range(10):
        run = planted(planted(calm(seed=seed), 400), 800, height=1.0)
        first, second = find_spikes(run)
        assert 399 <= first.onset <= 402 and 799 <= second.onset <= 803
        assert first.peak_step in range(402, 412) and 1.7 < first.height < 2.4
        assert first.last < first.recovery_step < 480
        assert (first.flag, second.flag) == ("", "")


def test_the_rule_knows_nothing_of_later_steps() -> None:
    run = planted(calm(), 400)
    whole = find_spikes(run)[0]
    for end in (430, 500, 800):
        (spike,) = find_spikes(run.head(end))
        assert (spike.onset, spike.baseline, spike.threshold) == (
            whole.onset,
            whole.baseline,
            whole.threshold,
        )
    assert find_spikes(run.head(400)) == []


def test_hard_batches_of_one_or_two_steps_are_no_spikes() -> None:
    run = calm()
    for place in range(300, 340, 4):  # one after the other
        run.loc[place : place + 1, "loss"] += 3
    assert find_spikes(run) == []
    run.loc[700:702, "loss"] += 3
    assert [spike.onset for spike in find_spikes(run)] == [700]


def test_a_loss_that_does_not_come_back_is_said_and_further_spikes_are_found() -> None:
    run = calm()
    run.loc[300:, "loss"] += 2
    (spike,) = find_spikes(run)
    assert (spike.onset, spike.recovery_step, spike.flag) == (300, None, "did not come back")
    again = find_spikes(planted(run, 900))
    assert [spike.onset for spike in again] == pytest.approx([300, 900], abs=2)
    assert again[1].baseline == pytest.approx(6.2, abs=0.1)


@pytest.mark.parametrize("rise", [0.01, 0.02, 0.05])
def test_a_run_that_diverges_slowly_did_so_once(rise: float) -> None:
    run = calm(3000)
    run["loss"] = np.minimum(run["loss"] + rise * np.maximum(0, run["step"] - 1200), 11)
    (spike,) = find_spikes(run)
    assert 1200 < spike.onset < 1235 and (spike.recovery_step, spike.flag) == (None, "did not come back")
    assert spike.peak_loss == pytest.approx(11, abs=0.3)


def test_losses_that_are_lost_for_good_are_one_event() -> None:
    run = calm(3000)
    run.loc[1200:, "loss"] = np.nan
    (spike,) = find_spikes(run)
    assert (spike.onset, spike.last, spike.recovery_step) == (1200, 2999, None)
    run.loc[2000:, "loss"] = 4.2  # a run that was taken up again
    (spike,) = find_spikes(run)
    assert (spike.onset, spike.recovery_step) == (1200, 2000)


def short_spike(at: int, *, every: int, means: bool) -> pd.DataFrame:
    """A spike of 30 steps in a run that is logged now and then: one loss, or the mean of those since the last."""
    run = planted(calm(20_000), at, length=30)
    if not means:
        return run.iloc[::every]
    rows = run.groupby(run["step"] // every).agg(step=("step", "last"), loss=("loss", "mean"))
    return rows.assign(averaged=every).reset_index(drop=True)


@pytest.mark.parametrize("at", range(10_000, 10_050, 7))
def test_what_is_logged_now_and_then_shows_what_it_can(at: int) -> None:
    (spike,) = find_spikes(short_spike(at, every=10, means=False))
    assert at <= spike.onset <= at + 20 and not_told(short_spike(at, every=1, means=False)) == ""
    for every in (10, 50):
        (spike,) = find_spikes(short_spike(at, every=every, means=True))
        assert at <= spike.onset <= at + 2 * every
    rare = short_spike(at, every=50, means=False)
    alone = bool((rare["loss"] > 4.5).loc[5000:].any())
    assert find_spikes(rare) == [] and not_told(rare).startswith(
        "logged every 50 steps, which shows no spike that is"
    )
    assert ("1 logged by itself, or one hard batch, the highest by" in not_told(rare)) == alone


def test_hard_batches_are_none_in_a_log_of_means() -> None:
    """An excess of 3 nats in one batch is 0.3 in the mean of ten: over the threshold, and no spike."""
    run = calm(20_000, noise=0.06)
    run.loc[np.arange(5000, 15_000, 500), "loss"] += 3
    rows = run.groupby(run["step"] // 10).agg(step=("step", "last"), loss=("loss", "mean"))
    assert len(find_spikes(rows.assign(averaged=10).reset_index(drop=True))) == 0


def test_recent_numbers_have_the_quantiles_of_numpy() -> None:
    numbers, recent = np.random.default_rng(0).integers(0, 20, 300) / 4, Recent(50)
    for place, number in enumerate(numbers, start=1):
        recent.add(float(number))
        last = numbers[max(0, place - 50) : place]
        assert [recent.quantile(share) for share in (0, 0.5, 0.75)] == pytest.approx(
            np.quantile(last, (0, 0.5, 0.75)), rel=1e-14
        )


def test_losses_that_are_not_finite_spike() -> None:
    run = calm()
    run.loc[500:519, "loss"] = [np.nan] * 10 + [np.inf] * 10
    (spike,) = find_spikes(run)
    assert (spike.onset, spike.last, spike.recovery_step) == (500, 519, 520)
    assert spike.peak_loss == np.inf and spike.flag == "not finite: the loss of 20 steps"
    assert find_spikes(run.assign(loss=np.nan))[0].recovery_step is None
    run.loc[500:519, "loss"] = [np.nan, 4.0] * 10  # lost now and then: no three in a row
    assert find_spikes(run) == []


def test_steps_may_be_in_any_order_and_at_any_distance() -> None:
    run = planted(calm(every=10), 400)
    (spike,) = find_spikes(run.sample(frac=1, random_state=0))
    assert spike.onset == pytest.approx(4000, abs=20)
    restarted = pd.concat([run.head(300).assign(loss=99.0), run])  # logged again after a restart
    assert find_spikes(restarted) == find_spikes(run)


@pytest.mark.parametrize("rows", range(5))
def test_the_shortest_curves(rows: int) -> None:
    assert find_spikes(calm(12).head(rows)) == []


def test_a_large_curve_is_gone_through_once() -> None:
    """Work grows with the steps, not with their square: 200 000 steps would take hours."""
    assert len(find_spikes(planted(calm(200_000), 100_000))) == 1


def test_noise_is_a_standard_deviation_whatever_the_trend() -> None:
    rng = np.random.default_rng(1)
    for slope in (0.0, -0.02):
        losses = CalmLosses(50, 2000, longest_gap=10)
        for step in range(4000):
            losses.add(step, slope * step + rng.normal(0, 0.5))
        assert losses.noise == pytest.approx(0.5, rel=0.06)


def test_a_rule_is_spelt_for_the_table() -> None:
    assert str(SpikeRule(window=20)) == (
        "window=20 noise_window=1000 deviations=6 least_height=0.25 least_steps=3 least_span=10 "
        "hard_batch=10 calm=3 settled=200"
    )


# Public logs: excerpts, the whole ones are gone through in benchmarks/early_warning.py


def test_bloom_spikes_once_as_its_chronicle_says() -> None:
    curves = dict(read_loss_log(LOGS / "bigscience_excerpts.csv", name="bigscience"))
    (bloom,) = find_spikes(curves["bigscience/tr11-176B-ml"])
    assert 31214 < bloom.onset <= 31219 and bloom.peak_step == 31219 and bloom.recovery_step <= 31250
    assert bloom.height == pytest.approx(2.8, abs=0.1)
    (small,) = find_spikes(curves["bigscience/tr1-13B-base"])  # logged every 10 steps
    assert (small.onset, small.peak_step) == (29050, 29060)


def test_outliers_of_a_public_run_are_no_spikes() -> None:
    (log,) = read_loss_log(LOGS / "modded_nanogpt_excerpt.csv", name="nanogpt")
    curve = log[1]
    far = curve["loss"] - curve["loss"].rolling(25, center=True, min_periods=1).median() > 0.5
    assert far.sum() >= 10
    assert find_spikes(curve) == []


def test_a_curve_needs_its_columns() -> None:
    with pytest.raises(InputError, match="no column `loss`, only step"):
        as_curve(pd.DataFrame({"step": [1]}))
