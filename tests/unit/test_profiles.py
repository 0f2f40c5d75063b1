"""Profiles over the blocks: domes, plateaus and flat ones, with intervals, and the distance to the last checkpoint."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from benchmarks.trajectories import PROFILES, correlated, profile, sampled

from lmshape.dynamics.noise import (
    Noise,
    largest,
    leave_one_out,
    may_be_largest,
    noise_of,
    one_sided,
    replicated,
    size,
    spread,
    squeezed,
)
from lmshape.dynamics.profiles import distance, dome, excess, profiles
from lmshape.geometry.resample import jackknife, over_draws

pytestmark = pytest.mark.slow

BLOCKS = np.arange(1, 13) / 12


def table(
    values: list[float], *, noise: float = 0.001, seed: int = 0, draws: int = 5, **cell: str | int
) -> pd.DataFrame:
    """Rows of anisotropy as a model's own table has them: the embedding, the blocks, and a final norm above all."""
    blocks = len(values) - 1
    shifts = noise * np.random.default_rng(seed).standard_normal((blocks + 1, draws))
    shifts -= shifts.mean(axis=1, keepdims=True)
    frame = pd.DataFrame({"layer": np.arange(blocks + 1), "value": values})
    frame = frame.assign(
        study="test", model="m", family="bert", kind="encoder", checkpoint="step1", step=1, tokens_seen=0.0,
        dataset="wiki", site=np.where(frame["layer"] > 0, "block", "embedding"), depth=frame["layer"] / blocks,
        rows="all", metric="anisotropy", ci_low=frame["value"] - 0.01, ci_high=frame["value"] + 0.01,
        interval="jackknife", verdict="", flag="",
    )  # fmt: skip
    frame["replicates"] = [
        np.array([value, *(value + shift)]) for value, shift in zip(values, shifts, strict=True)
    ]
    frame = frame.assign(**cell)
    return pd.concat([frame, frame.tail(1).assign(site="final_norm", value=1.0)], ignore_index=True)


def described(values: list[float], **options: float) -> pd.Series:
    found = profiles(table(values, **options))
    assert len(found) == 1
    return found.iloc[0]


# What is said of a profile


def test_a_dome_is_described_by_its_peak_over_the_edge_blocks() -> None:
    row = described([0.9, 0.2, 0.5, 0.95, 0.6, 0.3])
    assert (row["peak_layer"], row["peak_depth"], row["height"]) == (3, pytest.approx(0.6), 0.95)
    assert (row["peak_layer_low"], row["peak_layer_high"]) == (3, 3)
    assert (row["height_low"], row["height_high"]) == (pytest.approx(0.94), pytest.approx(0.96))
    assert row["edges"] == pytest.approx(0.3) and row["dome_index"] == pytest.approx(0.65)
    assert row["dome_index_low"] < 0.65 < row["dome_index_high"]
    assert (row["dome"], row["flag"]) == ("dome", "")


def test_the_interval_of_a_clear_dome_is_the_paired_jackknife_of_the_difference() -> None:
    """One peak and one edge that no noise can exchange: Student's t of their difference, in float64."""
    frame = table([0.9, 0.2, 0.5, 0.95, 0.6, 0.3], noise=0.01)
    numbers = replicated(frame[frame["site"] == "block"])
    expected = jackknife(0.65, numbers[1:, 2] - numbers[1:, 4])
    row = profiles(frame).iloc[0]
    assert row["dome_index_low"] == pytest.approx(expected.low, abs=2e-3)
    assert row["dome_index_high"] == pytest.approx(expected.high, abs=2e-3)


def test_the_embedding_is_no_part_of_the_profile() -> None:
    assert described([0.99, 0.2, 0.6, 0.3])["dome_index"] == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("values", "peak"), [([0.1, 0.2, 0.3, 0.4], 3), ([0.1, 0.5, 0.3, 0.2], 1), ([0.9, 0.6, 0.5, 0.2], 1)]
)
def test_a_peak_at_an_edge_is_no_dome(values: list[float], peak: int) -> None:
    row = described(values)
    assert (row["peak_layer"], row["dome_index"], row["flag"]) == (peak, 0.0, "monotone")
    assert row["dome"] == "none" and np.isnan(row["width"])


def test_a_plateau_is_told_from_a_dome_by_its_top() -> None:
    """Llama-2-7B's published profile, a level top between two cliffs; a parabola; a tent with half width 1/2."""
    llama = [0.17, *[1.0] * 14, 0.99, 0.99, 0.985, 0.98, 0.975, 0.97, 0.96, 0.95, 0.94, 0.935, 0.93, 0.915, 0.9, 0.88,
             0.875, 0.06]  # fmt: skip
    row = described([0.5, *llama])
    assert row["dome"] == "plateau" and row["width"] > 0.85 and row["top_share"] > 0.7
    parabola = dome(PROFILES["dome of 0.3"](np.linspace(0, 1, 401)), np.linspace(0, 1, 401), None)
    assert parabola.width == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert parabola.top_share == pytest.approx(np.sqrt(0.2), abs=2e-3)
    tent = dome(1 - np.abs(np.linspace(-1, 1, 401)), np.linspace(0, 1, 401), None)
    assert (tent.width, tent.top_share) == (pytest.approx(0.5), pytest.approx(0.2))
    assert described([0.5, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2])["dome"] == "dome"
    assert described([0.5, 0.2, 0.22, 0.24, 0.22, 0.2])["dome"] == "slight"


def test_a_layer_without_a_value_leaves_no_profile() -> None:
    frame = table([0.1, 0.2, np.nan, 0.4])
    frame["flag"] = np.where(frame["value"].isna(), "not finite: 3 of 100 rows", "")
    row = profiles(frame).iloc[0]
    assert row["flag"] == "layer 2: not finite: 3 of 100 rows" and pd.isna(row["peak_layer"])
    assert described([0.1, 0.2, 0.3])["flag"] == "too few blocks: 2; a dome needs 3"


def test_without_replicates_there_is_no_interval_and_a_reason() -> None:
    bounds = ["dome_index_low", "dome_index_high", "dome_index_null", "distance_low"]
    for frame in (
        table([0.1, 0.2, 0.8, 0.4]).drop(columns=["interval", "replicates"]),
        table([0.1, 0.2, 0.8, 0.4], draws=1),
    ):
        row = profiles(pd.concat([frame, frame.assign(step=2, checkpoint="step2")])).iloc[0]
        assert row["dome_index"] == pytest.approx(0.4) and row["dome"] == "" and row["width"] > 0
        assert row[bounds].isna().all() and row["flag"] == "no interval: the table has no replicates"
    reason = "no interval: not defined without one of its draws"
    frame = table([0.1, 0.2, 0.8, 0.4])
    frame.loc[2, ["ci_low", "flag"]] = [np.nan, reason]
    frame.at[2, "replicates"] = np.array([0.8, *[np.nan] * 5])
    assert profiles(frame).iloc[0]["flag"] == f"layer 2: {reason}"


def test_each_choice_of_rows_has_its_profile_in_the_order_of_the_table() -> None:
    one, two = table([0.1, 0.2, 0.8, 0.4]), table([0.1, 0.2, 0.3, 0.1], rows="no_sink")
    later = [frame.assign(step=2, checkpoint="step2") for frame in (one, two)]
    found = profiles(pd.concat([one, two, *later]))
    assert list(found["rows"]) == ["all", "no_sink"] * 2 and list(found["step"]) == [1, 1, 2, 2]
    assert list(found["height"]) == [0.8, 0.3] * 2


# Distance to the last checkpoint


def steps(*profiles_by_step: tuple[int, list[float]], **cell: str) -> pd.DataFrame:
    parts = [table(values, step=step, checkpoint=f"step{step}", **cell) for step, values in profiles_by_step]
    return pd.concat(parts, ignore_index=True)


def test_the_distance_is_that_to_the_last_trusted_checkpoint() -> None:
    frame = steps((0, [0, 0.1, 0.1, 0.1]), (8, [0, 0.1, 0.4, 0.1]), (9, [0, 0.9, 0.9, 0.9]))
    found = profiles(frame.assign(verdict=np.where(frame["step"] == 9, "wrong_weights", "ok")))
    assert found["distance_to_final"].tolist() == pytest.approx(
        [np.sqrt(0.03), 0, np.sqrt((0.64 * 2 + 0.25) / 3)], rel=1e-3
    )
    # all checkpoints have the same replicates about their values: their noise is shared, and cancels
    assert found["distance_high"][0] - found["distance_low"][0] == pytest.approx(0, abs=1e-9)


def test_where_no_step_tells_there_is_no_last_checkpoint_and_a_reason() -> None:
    unknown = steps((-1, [0, 0.1, 0.4, 0.1]))
    both = profiles(pd.concat([unknown, unknown.assign(checkpoint="main")]))
    assert both["distance_to_final"].isna().all()
    assert set(both["flag"]) == {"no last checkpoint: its step is unknown, or its weights are distrusted"}
    assert profiles(unknown)["distance_to_final"].tolist() == [0.0]
    lost = steps((0, [0, 0.1, 0.4, 0.1]), (1, [0, 0.1, np.nan, 0.1]))
    lost["flag"] = np.where(lost["value"].isna(), "not finite: 3 rows", "")
    assert (
        profiles(lost)["flag"].tolist()[0] == "no distance: the last checkpoint's layer 2: not finite: 3 rows"
    )


@pytest.mark.parametrize(("true", "bias"), [(0.0, 0.006), (0.02, 0.002), (0.2, 0.002)])
def test_distances_cover_the_truth_and_equal_profiles_read_about_nothing(true: float, bias: float) -> None:
    generator, wave = np.random.default_rng(3), np.sin(7 * BLOCKS)
    truth = true * wave / size(wave)
    found = []
    for _ in range(200):
        numbers = sampled(truth, 0.01 * np.sqrt(5) * correlated(BLOCKS, generator, reach=0.25))
        found.append(distance(numbers[0], noise_of(numbers)))
    assert abs(np.mean([one.value for one in found]) - true) < bias
    assert np.mean([one.low - 1e-12 <= true <= one.high for one in found]) >= 0.91


# How often domes are read rightly


def read(kind: str, noise: float, count: int = 150) -> list:
    generator = np.random.default_rng(5)
    measured = [profile(PROFILES[kind], 12, noise, generator) for _ in range(count)]
    return [dome(numbers[0], depth, noise_of(numbers)) for depth, numbers in measured]


def test_flat_profiles_are_domes_in_at_most_5_of_100() -> None:
    found = read("flat", 0.02)
    assert np.mean([one.index for one in found]) > 0.005  # what the null is for
    assert np.mean([one.index > one.null for one in found]) <= 0.06
    assert np.mean([one.index_low <= 0 for one in found]) >= 0.95


@pytest.mark.parametrize("kind", ["dome of 0.05", "dome of 0.3", "plateau of 0.8", "rises"])
def test_dome_indices_are_covered_and_peaks_found(kind: str) -> None:
    true = PROFILES[kind](BLOCKS)
    found = read(kind, 0.005)
    covered = [one.index_low - 1e-12 <= excess(true) <= one.index_high + 1e-12 for one in found]
    assert np.mean(covered) >= 0.93
    places = np.flatnonzero(true == true.max())
    assert (
        np.mean([(places >= one.peak_low).any() and (places <= one.peak_high).any() for one in found]) >= 0.95
    )
    seen = np.mean([one.kind in ("dome", "plateau", "slight") for one in found])
    assert seen == 0 if kind == "rises" else seen > 0.95
    if kind == "plateau of 0.8":
        assert {one.kind for one in found} == {"plateau"}


# The noise of curves


def test_left_out_means_are_those_of_the_draws_that_are_left() -> None:
    assert leave_one_out("draws", np.array([1.0, 2.0, 6.0])).tolist() == [4.0, 3.5, 1.5]
    assert leave_one_out("jackknife", np.array([3.0, 1.0, 2.0])).tolist() == [1.0, 2.0]
    assert not len(leave_one_out("draws", np.array([1.0]))) and not len(
        leave_one_out("none", np.array([1.0]))
    )


def test_the_bound_of_one_number_is_students() -> None:
    """The error of a mean over draws against `over_draws`, within the 400 directions' own error."""
    draws = np.random.default_rng(0).standard_normal((5, 1))
    left_out = (draws.sum(axis=0) - draws) / 4
    expected = over_draws(draws[:, 0])
    assert Noise.of_draws(left_out).bound(largest) == pytest.approx(expected.high - expected.value, rel=0.05)


@pytest.mark.parametrize("functional", [spread, largest, size])
@pytest.mark.parametrize("reach", [0.01, 0.5, 50.0])
def test_bounds_hold_in_95_of_100_whatever_the_correlations(functional, reach: float) -> None:
    generator, axis = np.random.default_rng(1), np.linspace(0, 5, 20)
    near = np.linalg.cholesky(np.exp(-np.abs(axis[:, None] - axis) / reach) + 1e-9 * np.eye(20)).T
    held = []
    for _ in range(300):
        draws = generator.standard_normal((5, 20)) @ near
        noise = Noise.of_draws((draws.sum(axis=0) - draws) / 4)
        held.append(functional(draws.mean(axis=0)) <= noise.bound(functional))
    assert 0.91 <= np.mean(held) <= 0.99


def test_independent_sources_add_their_variances() -> None:
    generator = np.random.default_rng(2)
    one, two = (Noise((scale * generator.standard_normal((4, 30)),)) for scale in (1.0, 3.0))
    variances = [(noise.rows() ** 2).sum() / 4 / 30 for noise in (one, two)]
    assert ((one + two).samples() ** 2).mean() == pytest.approx(sum(variances), rel=0.02)


@pytest.mark.parametrize("scales", [(1, 1, 1), (1, 2, 4), (2, 1, 2)])
def test_a_difference_is_covered_however_uneven_the_noise(scales: tuple[int, int, int]) -> None:
    """Of the two last numbers of a curve: as noisy as all, the noisiest of all, and noisier than the middle."""
    generator = np.random.default_rng(3)
    scale = np.exp(np.interp(np.arange(20), [0, 9.5, 19], np.log(scales)))
    held, freedoms = [], []
    for _ in range(1000):
        draws = scale * generator.standard_normal((5, 20)) + generator.standard_normal((5, 1))
        errors, freedom = Noise.of_draws((draws.sum(axis=0) - draws) / 4).errors_of_differences()
        found = draws.mean(axis=0)
        held.append(abs(found[-1] - found[-2]) <= one_sided(freedom) * errors[-1, -2])
        freedoms.append(freedom)
    assert 0.92 <= np.mean(held) <= 0.97
    assert np.median(freedoms) > 40


def test_variances_are_squeezed_as_far_as_they_are_alike() -> None:
    """Of a known prior: true variances 2 · 6 / χ²(6) about a trend, each estimated on 4 degrees of freedom."""
    generator, count = np.random.default_rng(4), 40_000
    place = np.linspace(0, 1, count)
    trend, common = np.stack([np.ones(count), place], axis=1), 2 * np.exp(3 * place)
    found = common * 6 / generator.chisquare(6, count) * generator.chisquare(4, count) / 4
    known, freedom = squeezed(found, 4, trend, most=1e9)
    assert freedom == pytest.approx(4 + 6, rel=0.05)
    np.testing.assert_allclose(known, (4 * found + 6 * common) / 10, rtol=0.05)
    alike, most = squeezed(common * generator.chisquare(4, count) / 4, 4, trend, most=100)
    assert most == 100 and alike == pytest.approx(common, rel=0.05)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_errors_of_short_curves_and_of_none_are_their_own(size: int) -> None:
    rows = np.random.default_rng(5).standard_normal((4, size))
    errors, freedom = Noise((rows,)).errors_of_differences()
    np.testing.assert_allclose(errors**2, ((rows[:, :, None] - rows[:, None, :]) ** 2).mean(axis=0))
    assert freedom == 4
    assert not Noise((np.zeros((4, 9)),)).errors_of_differences()[0].any()


def test_nothing_is_bounded_by_nothing() -> None:
    still = Noise((np.zeros((4, 5)),))
    assert (still.bound(spread), still.p_value(spread, 0.1), still.p_value(spread, 0.0)) == (0.0, 0.0, 1.0)
    assert may_be_largest(np.array([0.1, 0.3, 0.2]), Noise((np.zeros((4, 3)),))).tolist() == [1]
