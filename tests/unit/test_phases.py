"""Phases of trajectories whose shape, change points and breaks are known: what is named, and how often wrongly."""

from __future__ import annotations

from itertools import combinations
from time import process_time

import numpy as np
import pandas as pd
import pytest
from benchmarks.dynamics import reads
from benchmarks.trajectories import GRIDS, PYTHIA, TRAJECTORIES, correlated, sampled, seeds

from lmshape.dynamics.noise import around, may_be_largest, noise_of
from lmshape.dynamics.phases import PHASED, describe, fit, knots, most_pieces, phases
from lmshape.dynamics.trajectories import (
    SHAPES,
    UNDECIDED,
    Segments,
    depths,
    segments,
    shape_name,
    shape_of,
    together,
    trajectories_of,
)
from lmshape.site import named_layers

pytestmark = pytest.mark.slow

STEPS = (0, 1, 4, 16, 64, 256, 512, 1000, 4000)
COUNT = 100


def table(
    values: list[float], steps: tuple[int, ...] = STEPS, *, noise: float = 0.001, **cell: str | int
) -> pd.DataFrame:
    """Rows of a model's own table: a metric at four blocks, the last of which has these values."""
    generator = np.random.default_rng(0)
    frames = []
    for layer in (1, 2, 3, 4):
        draws = np.array(values)[:, None] * (1 + noise * generator.standard_normal((len(values), 5)))
        draws += np.array(values)[:, None] - draws.mean(axis=1, keepdims=True)
        frame = pd.DataFrame({"step": steps, "value": values, "replicates": list(draws)})
        frames.append(frame.assign(layer=layer, depth=layer / 4))
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(
        study="test", model="m", kind="decoder", checkpoint="step" + frame["step"].astype(str), dataset="wiki",
        site="block", rows="all", metric="id_twonn", interval="draws", verdict="", flag="",
    ).assign(**cell)  # fmt: skip


def described(values: list[float], steps: tuple[int, ...] = STEPS, **options: float) -> pd.Series:
    return phases(table(values, steps, **options)).set_index("band").loc["last"]


# Segments


@pytest.mark.parametrize(
    ("values", "least", "words", "ends"),
    [
        ([1, 2, 3, 4], 1, ("rise",), (0, 3)),
        ([4, 4, 1, 1], 1, ("fall",), (0, 2)),
        ([1, 3, 2.5, 5, 2], 1, ("rise", "fall"), (0, 3, 4)),
        ([1, 3, 2.5, 5, 2], 0.5, ("rise", "fall", "rise", "fall"), (0, 1, 2, 3, 4)),
        ([5, 1, 5, 1.5, 5], 2, ("fall", "rise", "fall", "rise"), (0, 1, 2, 3, 4)),
        ([1, 1.2, 0.9, 1.1], 0.5, (), ()),
    ],
)
def test_segments_are_the_rises_and_falls_of_a_size(values, least, words, ends) -> None:
    found = segments(np.array(values, dtype=float), least)
    assert (found.words, found.ends, len(found)) == (words, ends, len(words))


def longest_alternation(values: np.ndarray, least: float) -> int:
    """Segments of the longest alternating subsequence, by trying all: what `segments` does in one pass."""
    for size in range(len(values), 1, -1):
        for places in combinations(range(len(values)), size):
            steps = np.diff(values[list(places)])
            if (np.abs(steps) >= least).all() and (np.sign(steps[1:]) != np.sign(steps[:-1])).all():
                return size - 1
    return 0


def test_no_alternating_sequence_has_more_moves() -> None:
    generator = np.random.default_rng(0)
    for _ in range(60):
        values = generator.standard_normal(7)
        least = float(generator.uniform(0.3, 1.5))
        assert len(segments(values, least)) == longest_alternation(values, least)


def test_depths_are_the_sizes_at_which_moves_vanish() -> None:
    generator = np.random.default_rng(1)
    for values in generator.standard_normal((40, 12)):
        for count, depth in enumerate(depths(values), start=1):
            assert len(segments(values, depth - 1e-9)) >= count > len(segments(values, depth + 1e-9))


def test_tops_and_bottoms_are_told_apart() -> None:
    found = Segments((0, 2, 5, 9), rises=False)
    assert found.words == ("fall", "rise", "fall")
    assert (found.change_points(top=True), found.change_points(top=False)) == ((5,), (2,))
    assert [shape_name(Segments(tuple(range(count + 1)), rises=True)) for count in range(1, 5)] == [
        "rise", "rise_fall", "three_phase", "many_phase"
    ]  # fmt: skip
    assert shape_name(Segments()) == "flat" and {*SHAPES} > {shape_name(Segments((0, 1, 2)))}


# Pieces


def test_pieces_without_noise_are_found_exactly() -> None:
    """Breaks at checkpoints: the fit is the curve."""
    axis = np.log10(1.0 + np.array(GRIDS[20]))
    breaks = axis[[6, 13]]
    curve = np.interp(axis, [axis[0], *breaks, axis[-1]], [2.0, 1.0, 2.5, 2.0])
    found = fit(axis, curve[None], 3)
    assert found.breaks[:, 0].tolist() == breaks.tolist() and found.misfit[0] == pytest.approx(0, abs=1e-7)
    lengths = np.diff([axis[0], *breaks, axis[-1]])
    np.testing.assert_allclose(found.slopes[:, 0] * lengths, [-1.0, 1.5, -0.5], rtol=1e-9)


def test_one_piece_is_the_weighted_line_of_numpy() -> None:
    axis = np.log10(1.0 + np.array(STEPS))
    curve = np.random.default_rng(0).standard_normal(len(axis))
    edges = np.concatenate([axis[:1], (axis[1:] + axis[:-1]) / 2, axis[-1:]])
    slope, level = np.polyfit(axis, curve, 1, w=np.sqrt(np.diff(edges)))
    found = fit(axis, curve[None], 1)
    assert found.slopes[0, 0] == pytest.approx(slope, rel=1e-9)
    misfit = np.sqrt(np.average((curve - level - slope * axis) ** 2, weights=np.diff(edges)))
    assert found.misfit[0] == pytest.approx(misfit, rel=1e-6)


def test_mixtures_of_curves_are_fitted_as_they_are() -> None:
    axis, generator = np.log10(1.0 + np.array(STEPS)), np.random.default_rng(0)
    curves, mixed = generator.standard_normal((3, len(axis))), generator.standard_normal((5, 3))
    one, two = fit(axis, mixed @ curves, 3), fit(axis, curves, 3, mixed=mixed)
    np.testing.assert_allclose(one.slopes, two.slopes, rtol=1e-6, atol=1e-9)
    assert one.breaks.tolist() == two.breaks.tolist()


def test_few_checkpoints_have_few_pieces_and_many_have_few_knots() -> None:
    assert [most_pieces(count) for count in (4, 5, 6, 7, 9, 154)] == [1, 2, 2, 3, 4, 4]
    axis = np.log10(1.0 + np.array(PYTHIA))
    assert 24 <= len(knots(axis)) <= 36 and axis[1] <= knots(axis)[0] < knots(axis)[-1] <= axis[-2]


# A row of the table


def test_a_collapse_an_expansion_and_a_compression_are_three_phases() -> None:
    row = described([20.0, 20.0, 12.0, 5.0, 9.0, 16.0, 24.0, 20.0, 15.0])
    assert (row["shape"], row["moves"], row["layer"]) == ("three_phase", "fall, rise, fall", 4)
    assert (row["collapse_step"], row["recovery_step"]) == (16, 256)
    assert row["collapse_depth"] == pytest.approx(0.75)
    assert row["collapse_depth_low"] < 0.75 < row["collapse_depth_high"] < 0.8
    assert [row[f"peak_step{end}"] for end in ("", "_low", "_high")] == [512, 256, 1000]
    assert [row[f"trough_step{end}"] for end in ("", "_low", "_high")] == [16, 4, 64]
    assert row["p_three_phase"] < 1e-3 and row["flag"] == ""
    assert (row["seeds"], row["checkpoints"], row["draws"]) == (1, 9, 5)


def test_a_rise_has_its_peak_at_the_end_and_no_collapse() -> None:
    row = described([5.0, 5.0, 5.0, 5.0, 6.0, 8.0, 9.0, 10.0, 12.0])
    assert (row["shape"], row["peak_step"], row["peak_step_low"], row["trough_step_low"]) == (
        "rise",
        4000,
        1000,
        0,
    )
    assert row[["collapse_depth", "collapse_step", "recovery_step"]].isna().all()
    assert row["p_monotone"] < 1e-3 and row["p_unimodal"] == row["p_three_phase"] == 1.0
    assert abs(row["slope_1"]) < 0.05 < row["slope_2"]
    assert row["boundary_1_step_low"] <= row["boundary_1_step"] <= row["boundary_1_step_high"]


def test_changes_under_a_tenth_are_none_and_noise_leaves_a_trajectory_undecided() -> None:
    waves = [5.0, 5.2, 5.0, 5.3, 5.0, 5.2, 5.1, 5.3, 5.0]
    assert described(waves)["shape"] == "flat"
    assert described(waves, noise=0.2)["shape"] == UNDECIDED


def test_every_named_block_and_choice_of_rows_has_its_trajectory() -> None:
    frame = pd.concat([table([5.0] * 9), table([5.0] * 9, rows="no_sink"), table([5.0] * 9, metric="loss")])
    found = phases(frame)
    assert list(found["band"]) == [*named_layers(4)] * 2 == ["early", "middle", "last"] * 2
    assert list(found["rows"]) == ["all"] * 3 + ["no_sink"] * 3 and set(found["metric"]) < {*PHASED}


def test_48_trajectories_of_a_whole_published_run_take_seconds() -> None:
    steps = tuple(range(0, 143_001, 1000))
    values = list(20 + 10 * np.exp(-((np.log10(1 + np.array(steps)) - 4) ** 2)))
    model = pd.concat([table(values, steps, dataset=str(number), noise=0.01) for number in range(16)])
    begun = process_time()
    assert len(phases(model)) == 48
    assert process_time() - begun < 10  # 1 s on a quiet core


def test_distrusted_unknown_and_missing_checkpoints_are_left_out_and_counted() -> None:
    frame = table([5.0, 5.0, 5.0, 9.0, 5.0, 5.0, 5.0, 5.0, np.nan])
    frame["verdict"] = np.where(frame["step"] == 16, "wrong_weights", "ok")
    frame["step"] = frame["step"].where(frame["step"] != 64, -1)
    row = phases(frame).iloc[-1]
    assert (row["shape"], row["checkpoints"]) == ("flat", 6)
    left_out, few = row["flag"].split("; ", 1)
    assert left_out == "checkpoints left out: 1 distrusted, 1 of unknown step, 1 without a number"
    assert few.startswith("few checkpoints: 6")


def test_what_has_no_shape_says_why() -> None:
    short = described([5.0, 6.0, 7.0], (0, 1, 2))
    assert (short["shape"], short["flag"]) == ("", "under 4 checkpoints of a known step: 3")
    assert pd.isna(short["peak_step"]) and np.isnan(short["p_unimodal"])
    negative = described([0.1, -0.1, 0.1, 0.2, 0.1], (0, 1, 2, 4, 8))
    assert negative["shape"] == "" and negative["flag"].startswith("not positive")
    frame = table([5.0, 8.0, 12.0, 8.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    frame["replicates"] = [numbers[:1] for numbers in frame["replicates"]]
    alone = phases(frame).iloc[-1]
    assert (alone["shape"], alone["moves"], alone["peak_step"]) == (UNDECIDED, "rise, fall", 4)
    assert (
        pd.isna(alone["peak_step_low"])
        and alone["flag"] == "no interval: one draw, or not defined without one of them"
    )


def test_runs_of_a_recipe_are_averaged_and_their_spread_counts() -> None:
    runs = [
        table([5.0, 5.0, 6.0, 8.0, 9.0, 9.0, 9.0, 9.0, shift], model=f"run{shift}")
        for shift in (7.0, 8.0, 9.0)
    ]
    short = table([5.0] * 8, STEPS[:8], model="alone")
    found = phases(
        pd.concat([*runs, short]),
        {"run7.0": "recipe", "run8.0": "recipe", "run9.0": "recipe", "alone": "own"},
    )
    assert list(found["model"].drop_duplicates()) == ["run7.0", "run8.0", "run9.0", "alone", "recipe"]
    row, one = found.iloc[-1], found[found["model"] == "run7.0"].iloc[-1]
    assert (row["seeds"], one["seeds"]) == (3, 1)
    assert row["noise"] > 3 * one["noise"]
    assert (one["shape"], row["shape"]) == ("rise_fall", UNDECIDED)


def test_runs_of_a_recipe_share_the_steps_that_all_have() -> None:
    one, two = table([5.0] * 9, model="a"), table([6.0] * 5, STEPS[::2], model="b")
    found = [*trajectories_of(pd.concat([one, two]), {"a": "recipe", "b": "recipe"})][-1]
    assert found.steps.tolist() == [*STEPS[::2]] and found.seeds.shape == (2, 5)
    np.testing.assert_allclose(found.numbers[0], np.sqrt(30.0))


# How often trajectories are read rightly: the small version of docs/dynamics.md


@pytest.mark.parametrize("checkpoints", [5, 20, 154])
@pytest.mark.parametrize("kind", TRAJECTORIES)
def test_shapes_are_right_at_one_percent_of_noise(kind: str, checkpoints: int) -> None:
    found = reads(kind, checkpoints, 0.01, 8 if checkpoints == 154 else 20)
    assert np.mean([read.row["shape"] == read.shape for read in found]) >= 0.9
    turned = np.mean([read.row["p_unimodal"] < 0.05 for read in found])
    assert turned >= 0.9 if kind.count(",") and "waves" not in kind else turned <= 0.1


@pytest.mark.parametrize("kind", ["flat", "flat, waves of 4 %", "rise"])
def test_turns_are_not_seen_where_there_are_none_however_much_noise(kind: str) -> None:
    found = reads(kind, 20, 0.05, COUNT)
    assert np.mean([read.row["p_unimodal"] < 0.05 for read in found]) <= 0.05
    assert np.mean([read.row["shape"] not in (read.shape, UNDECIDED) for read in found]) <= 0.05


def test_peaks_and_boundaries_are_covered() -> None:
    found = reads("fall, rise, fall", 20, 0.02, COUNT)
    assert np.mean([read.covers("peak_step", read.truth.peak) for read in found]) >= 0.93
    right = [read for read in found if read.pieces_right]
    assert len(right) >= 0.8 * COUNT
    for place in (1, 2):
        covered = [read.covers(f"boundary_{place}_step", read.truth.breaks[place]) for read in right]
        bias = [np.log10(1 + read.row[f"boundary_{place}_step"]) - read.truth.breaks[place] for read in right]
        assert np.mean(covered) >= 0.93 and abs(np.mean(bias)) < 0.1


def test_the_largest_of_a_level_top_stays_in_the_set() -> None:
    generator, axis = np.random.default_rng(4), np.linspace(0, 5, 20)
    top = np.where((axis > 1) & (axis < 4), 0.0, -0.3)
    top[10] = 0.001
    kept = []
    for _ in range(150):
        numbers = sampled(top, 0.01 * np.sqrt(5) * correlated(axis, generator, reach=0.5))
        kept.append(may_be_largest(numbers[0], noise_of(numbers)))
    assert np.mean([10 in places for places in kept]) >= 0.95
    assert max(len(places) for places in kept) <= 12  # the ends are struck off
    assert around(np.array([0, 3]), 5) == (0, 4) and around(np.array([4]), 5) == (3, 4)


def test_the_p_value_at_the_threshold_is_no_smaller_than_it_says() -> None:
    generator, axis = np.random.default_rng(6), np.linspace(0, 5, 12)
    edge = np.where(axis > 2.5, 0.1, 0.0)  # as high as a move must be, and no higher
    p = []
    for _ in range(200):
        numbers = sampled(edge, 0.01 * np.sqrt(5) * correlated(axis, generator, reach=0.5))
        p.append(shape_of(numbers[0], noise_of(numbers)).p[0])
    assert np.mean(np.array(p) < 0.05) <= 0.06


def test_what_one_run_wanders_is_no_phase_of_its_recipe() -> None:
    generator = np.random.default_rng(7)
    groups = [
        seeds(TRAJECTORIES["flat"](generator), GRIDS[20], 5, wander=0.06, noise=0.01, generator=generator)
        for _ in range(40)
    ]
    alone = [describe(members[0])["p_unimodal"] < 0.05 for members in groups]
    recipe = [describe(together("recipe", members))["p_unimodal"] < 0.05 for members in groups]
    assert np.mean(alone) > 0.1 > 0.05 >= np.mean(recipe)
