"""The figure of phases: courses with their strips, for few and many models, few and many steps, and without phases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from benchmarks.trajectories import GRIDS
from matplotlib.text import Text

from lmshape.dynamics.phases import phases as phases_table
from lmshape.figures import phases
from lmshape.figures import phases as figure

KINDS = {"id_twonn": [6.0, 9.0, 5.0], "effective_rank": [40.0, 8.0, 30.0]}


def metrics(models: int = 1, checkpoints: int = 20, rows: tuple[str, ...] = ("all",)) -> pd.DataFrame:
    """Rows of the models' own tables: a rise and fall, and a fall and rise, at four blocks."""
    steps, generator = np.array(GRIDS[checkpoints]), np.random.default_rng(0)
    axis, parts = np.log10(1.0 + steps), []
    for place in range(models):
        for metric, heights in KINDS.items():
            for choice in rows:
                value = np.exp(np.interp(axis, [0, 2.5, axis[-1]], np.log(heights)))
                draws = value[:, None] * (1 + 0.01 * generator.standard_normal((len(steps), 5)))
                frame = pd.DataFrame({"step": steps, "value": draws.mean(axis=1), "replicates": list(draws)})
                named = {"model": f"model-{place}", "metric": metric, "rows": choice}
                parts += [frame.assign(layer=layer, depth=layer / 4, **named) for layer in (1, 2, 3, 4)]
    frame = pd.concat(parts, ignore_index=True)
    return frame.assign(
        study="s", kind="decoder", checkpoint=frame["step"].astype(str), dataset="text", site="block",
        ci_low=frame["value"] * 0.98, ci_high=frame["value"] * 1.02, draws=5, n_rows=1, n_unique=1, d=128,
        interval="draws", flag="", verdict="",
    )  # fmt: skip


def drawn(frame: pd.DataFrame, found: pd.DataFrame | None = None):
    tables = {"metrics": frame, "phases": phases_table(frame) if found is None else found}
    data = figure.data(tables)
    return data, figure.draw(data)


def words(picture) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in picture.findobj(Text))


def test_courses_stand_beside_their_phases_and_the_verdict_is_in_the_panel() -> None:
    data, picture = drawn(metrics())
    assert set(data["series"]) == {"intrinsic dimension, all rows", "effective rank, all rows"}
    assert set(data["band"]) == {"early", "middle", "last"} and len(data) == 2 * 3 * 20
    assert set(data.loc[data["metric"] == "id_twonn", "shape"]) == {"rise_fall"}
    text = words(picture)
    assert all(
        f"{band}: rise, fall" in text and f"{band}: fall, rise" in text
        for band in ("early", "middle", "last")
    )


def test_the_bar_of_a_turn_is_its_interval() -> None:
    data, picture = drawn(metrics())
    row = data[(data["metric"] == "id_twonn") & (data["band"] == "last")].iloc[0]
    lines = [tuple(line.get_xdata()) for line in picture.axes[0].get_lines()]
    assert (row["peak_step_low"], row["peak_step_high"]) in lines


@pytest.mark.parametrize(("models", "checkpoints"), [(1, 5), (9, 5), (1, 154)])
def test_every_size_of_study_is_drawn(models: int, checkpoints: int) -> None:
    data, picture = drawn(metrics(models, checkpoints, ("all", "one_per_type")))
    assert len(picture.axes) == models * 3
    assert ("few checkpoints" in " ".join(data["phase_flag"])) == (checkpoints == 5)


def test_without_phases_or_courses_the_figure_says_so() -> None:
    frame = metrics()
    picture = figure.draw(figure.data({"metrics": frame}))
    assert "The table `phases` has no row" in words(picture) and "early:" in words(picture)
    assert "at a known training step" in words(figure.draw(figure.data({"metrics": frame.assign(step=-1)})))
    _, short = drawn(frame[frame["step"] < 4])
    assert "under 4 checkpoints of a known step" in words(short)


def test_a_flat_or_lost_course_is_drawn() -> None:
    level = metrics().assign(value=4.0, ci_low=4.0, ci_high=4.0)
    level["replicates"] = [np.full(5, 4.0)] * len(level)
    assert "last: flat" in words(drawn(level)[1])
    lost = metrics().assign(value=np.nan, ci_low=np.nan, ci_high=np.nan, flag="not finite: 3 rows")
    assert "every value is flagged" in words(drawn(lost)[1])


def test_verdicts_in_words() -> None:
    row = {"moves": "fall, rise", "shape": "undecided", "flag": ""}
    assert phases.verdict(row) == "undecided; sure: fall, rise"
    assert phases.verdict(row | {"moves": ""}) == "undecided"


COURSE = pd.DataFrame({"step": [0, 9, 30, 50, 99], "value": [5.0, 5.1, 2.0, np.nan, 4.0]})


@pytest.mark.parametrize(
    ("moves", "noise", "found"),
    [
        ("fall, rise", 0.1, [(9.0, 30.0, "fall"), (30.0, 99.0, "rise")]),
        ("fall, rise", np.nan, [(9.0, 30.0, "fall"), (30.0, 99.0, "rise")]),  # of one draw
        ("fall", 0.7, [(9.0, 30.0, "fall")]),  # the rise is lost in the noise
        ("", 2.0, []),
        ("rise, fall", 0.1, []),  # words of another course
    ],
)
def test_a_strip_holds_the_moves_of_the_words_alone(moves: str, noise: float, found: list) -> None:
    phase = {"least": 0.1, "noise": noise, "moves": moves}
    assert list(phases.sure_moves(phase, COURSE)) == found


def test_the_strips_of_the_picture_are_the_moves_of_its_words() -> None:
    data, picture = drawn(metrics())
    panel = picture.axes[0]
    stretches = {
        (extents.x0, extents.x1)
        for strip in panel.collections
        if strip.get_hatch()
        for extents in [strip.get_paths()[0].get_extents()]
    }
    course = data[(data["metric"] == "id_twonn") & (data["band"] == "last")]
    assert (course.loc[course["value"].idxmax(), "step"], course["step"].max()) in stretches
