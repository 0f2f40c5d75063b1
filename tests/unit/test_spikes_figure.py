"""The figure of loss spikes: runs, series and words, for studies of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from figure_words import drawn, words
from spiking_runs import NONE
from whole_study import spike_tables

from lmshape.figures import FIGURES

pytestmark = pytest.mark.slow

FIGURE = FIGURES["spikes"].load()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    return spike_tables(tmp_path_factory.mktemp("study"), {"a": 3, "calm": 0, "b": 2, "c": 3})


@pytest.fixture(scope="module")
def data(tables):
    return FIGURE.data(tables)


@pytest.fixture(scope="module")
def figure(data):
    return FIGURE.draw(data)


def test_the_runs_that_spike_are_drawn_with_their_onsets(tables, data, figure) -> None:
    assert list(data.loc[data["series"] == "loss", "run"].unique()) == ["a", "b", "c"]
    said = words(figure)
    assert "a: 3 spikes" in said and "b: 2 spikes" in said and "Not drawn: 1 more runs" in said
    onsets = tables["spikes"].query("run == 'a'")["onset"].tolist()
    panel = figure.axes[0]
    assert sorted({line.get_xdata()[0] for line in panel.get_lines()[1:]}) == onsets
    assert len(panel.patches) == 3  # shaded


def test_three_series_are_chosen_and_drawn(tables, data, figure) -> None:
    roles = data.dropna(subset="role").groupby("role")[["metric", "layer"]].first()
    assert roles.loc["dimension"].tolist() == ["id_twonn", 1]  # the middle of two blocks
    baselines = tables["warnings"].query("kind == 'baseline'")
    assert roles.loc["baseline", "metric"] == baselines.loc[baselines["auc"].idxmax(), "metric"]
    assert roles.loc["geometry", "metric"] == "id_twonn" and roles.loc["geometry", "layer"] == 2
    points = dict(drawn(figure))
    course = data[(data["series"] == "course") & (data["role"] == "dimension")].sort_values("step")
    assert points["before spikes: mean, 95 %"]
    first = [ax for ax in figure.axes if ax.get_title(loc="left").startswith("The dimension")][0]
    line = [line for line in first.get_lines() if line.get_label().startswith("before")][0]
    np.testing.assert_allclose(line.get_ydata(), course["value"])


def test_the_words_say_what_it_comes_to(data, figure) -> None:
    said = words(figure)
    assert "the dimension of block 1 rises: +" in said
    assert "8 spikes of 3 runs" in said
    assert (
        "told by an alarm set to 10 false alarms in 10 000 quiet steps of other runs: TwoNN dimension, block 1"
        in said
    )
    area = data[(data["series"] == "auc") & (data["role"] == "dimension")].iloc[0]
    assert f"{area['value']:.2f} [{area['ci_low']:.2f}, {area['ci_high']:.2f}]" in said


@pytest.mark.parametrize(("low", "high", "sentence"), [
    (-3.0, -1.0, "falls, where the article says it rises: -2.00 [-3.00, -1.00]"),
    (-3.0, 1.0, "neither rises nor falls significantly"),
    (np.nan, np.nan, "moves by -2.00 quiet deviations"),
])  # fmt: skip
def test_a_claim_that_does_not_hold_is_said_not_to(data, low: float, high: float, sentence: str) -> None:
    move = (data["series"] == "move_before") & (data["role"] == "dimension")
    gain = (data["series"] == "auc_gain") & (data["role"] == "dimension")
    changed = data.copy()
    changed.loc[move, ["value", "ci_low", "ci_high"]] = [-2.0, low, high]
    changed.loc[gain, ["value", "ci_low", "ci_high"]] = [-0.3, -0.5, -0.1]
    said = words(FIGURE.draw(changed))
    assert sentence in said and "As an alarm it is worse than the best baseline: area -0.30" in said


@pytest.mark.parametrize(
    ("low", "high", "quiet", "sentence"),
    [
        (-0.4, -0.1, 1.0, "Its mean change is below 0 in the last steps (-0.25 [-0.40, -0.10]), within what quiet"),
        (-0.4, -0.1, 0.1, "beyond what quiet windows do"),
        (-0.4, 0.1, 1.0, None),
    ],
)  # fmt: skip
def test_a_mean_course_that_leaves_0_is_said(data, low, high, quiet, sentence) -> None:
    changed, last = data.copy(), data.loc[(data["series"] == "course") & (data["step"] < 0), "step"].max()
    row = (changed["series"] == "course") & (changed["role"] == "dimension") & (changed["step"] == last)
    changed.loc[row, ["value", "ci_low", "ci_high", "quiet_low", "quiet_high"]] = [
        -0.25,
        low,
        high,
        -quiet,
        quiet,
    ]
    said = words(FIGURE.draw(changed))
    assert (sentence in said) if sentence else ("Its mean change" not in said)


def test_quiet_windows_far_beyond_the_line_are_cut_and_the_line_is_whole(data) -> None:
    changed = data.copy()
    course = (changed["series"] == "course") & (changed["role"] == "dimension")
    changed.loc[course & (changed["step"] < 0), "quiet_low"] = -500.0
    panel = [ax for ax in FIGURE.draw(changed).axes if ax.get_title(loc="left").startswith("The dimension")][
        0
    ]
    assert "grey reaches -5e+02" in " ".join(text.get_text() for text in panel.texts)
    low, high = panel.get_ylim()
    drawn_numbers = data.loc[course, ["value", "ci_low", "ci_high"]].to_numpy(float)
    assert -500 < low < np.nanmin(drawn_numbers) and np.nanmax(drawn_numbers) < high


@pytest.mark.parametrize(
    ("runs", "watched", "sentence"),
    [
        ({}, True, "This study has no pretraining run"),
        ({"calm": 0}, True, "No run has a spike. What moves before a spike cannot be told here: not measurable:"),
        ({"one": 1}, False, "no run was measured while it trained (`probe_every`)"),
        ({"one": 2, "calm": 0}, True, "too few: 2 spikes in 1 runs"),
    ],
)  # fmt: skip
def test_studies_of_every_kind_are_drawn(tmp_path: Path, runs: dict, watched: bool, sentence: str) -> None:
    assert sentence in words(FIGURE.draw(FIGURE.data(spike_tables(tmp_path, runs, watched=watched))))


def test_many_runs_are_drawn_eight_at_most(tmp_path: Path) -> None:
    runs = {f"run-{number}": 1 + (number % 3 == 0) for number in range(12)}
    short = {"id_twonn": NONE}
    data = FIGURE.data(spike_tables(tmp_path, runs, watched=False, series=short))
    kept = list(data.loc[data["series"] == "loss", "run"].unique())
    assert len(kept) == 8 and {"run-0", "run-3", "run-6", "run-9"} <= set(kept)
    assert "Not drawn: 4 more runs" in words(FIGURE.draw(data))


def test_a_study_whose_tables_are_not_there_is_said_to_have_none() -> None:
    figure = FIGURE.draw(FIGURE.data({"metrics": pd.DataFrame()}))
    assert "no pretraining run" in words(figure)
