"""The figure of phases: trajectories with their strips, for studies of every size, and without phases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_words import words
from whole_study import phase_metrics

from lmshape.dynamics.phases import phases as phases_table
from lmshape.figures.phases import PHASES, significant_segments, verdict

pytestmark = pytest.mark.slow


def drawn(frame: pd.DataFrame, found: pd.DataFrame | None = None):
    tables = {"metrics": frame, "phases": phases_table(frame) if found is None else found}
    data = PHASES.data(tables)
    return data, PHASES.draw(data)


def test_trajectories_stand_beside_their_phases_and_the_verdict_is_in_the_panel() -> None:
    data, picture = drawn(phase_metrics())
    assert set(data["series"]) == {"intrinsic dimension, all rows", "effective rank, all rows"}
    assert set(data["band"]) == {"early", "middle", "last"} and len(data) == 2 * 3 * 20
    assert set(data.loc[data["metric"] == "id_twonn", "shape"]) == {"rise_fall"}
    text = words(picture)
    assert all(
        f"{band}: rise, fall" in text and f"{band}: fall, rise" in text
        for band in ("early", "middle", "last")
    )


def test_the_bar_of_a_change_point_is_its_interval() -> None:
    data, picture = drawn(phase_metrics())
    row = data[(data["metric"] == "id_twonn") & (data["band"] == "last")].iloc[0]
    lines = [tuple(line.get_xdata()) for line in picture.axes[0].get_lines()]
    assert (row["peak_step_low"], row["peak_step_high"]) in lines


@pytest.mark.parametrize(("models", "checkpoints"), [(1, 5), (9, 5), (1, 154)])
def test_every_size_of_study_is_drawn(models: int, checkpoints: int) -> None:
    data, picture = drawn(phase_metrics(models, checkpoints, ("all", "one_per_type")))
    assert len(picture.axes) == models * 3
    assert ("few checkpoints" in " ".join(data["phase_flag"])) == (checkpoints == 5)


def test_without_phases_or_trajectories_the_figure_says_so() -> None:
    frame = phase_metrics()
    picture = PHASES.draw(PHASES.data({"metrics": frame}))
    assert "The table `phases` has no row" in words(picture) and "early:" in words(picture)
    assert "at a known training step" in words(PHASES.draw(PHASES.data({"metrics": frame.assign(step=-1)})))
    _, short = drawn(frame[frame["step"] < 4])
    assert "under 4 checkpoints of a known step" in words(short)


def test_a_flat_or_lost_trajectory_is_drawn() -> None:
    level = phase_metrics().assign(value=4.0, ci_low=4.0, ci_high=4.0)
    level["replicates"] = [np.full(5, 4.0)] * len(level)
    assert "last: flat" in words(drawn(level)[1])
    lost = phase_metrics().assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, flag="not finite: 3 rows")
    assert "every value is flagged" in words(drawn(lost)[1])


def test_verdicts_in_words() -> None:
    row = {"moves": "fall, rise", "shape": "undecided", "phase_flag": ""}
    assert verdict(row) == "undecided; significant: fall, rise"
    assert verdict(row | {"moves": ""}) == "undecided"


TRAJECTORY = pd.DataFrame({"step": [0, 9, 30, 50, 99], "value": [5.0, 5.1, 2.0, np.nan, 4.0]})


@pytest.mark.parametrize(
    ("moves", "noise", "found"),
    [
        ("fall, rise", 0.1, [(9.0, 30.0, "fall"), (30.0, 99.0, "rise")]),
        ("fall, rise", np.nan, [(9.0, 30.0, "fall"), (30.0, 99.0, "rise")]),  # of one draw
        ("fall", 0.7, [(9.0, 30.0, "fall")]),  # the rise is lost in the noise
        ("", 2.0, []),
        ("rise, fall", 0.1, []),  # words of another trajectory
    ],
)
def test_a_strip_holds_the_segments_of_the_words_alone(moves: str, noise: float, found: list) -> None:
    phase = {"least": 0.1, "noise": noise, "moves": moves}
    assert list(significant_segments(phase, TRAJECTORY)) == found


def test_the_strips_of_the_picture_are_the_segments_of_its_words() -> None:
    data, picture = drawn(phase_metrics())
    panel = picture.axes[0]
    stretches = {
        (extents.x0, extents.x1)
        for strip in panel.collections
        if strip.get_hatch()
        for extents in [strip.get_paths()[0].get_extents()]
    }
    trajectory = data[(data["metric"] == "id_twonn") & (data["band"] == "last")]
    assert (trajectory.loc[trajectory["value"].idxmax(), "step"], trajectory["step"].max()) in stretches
