"""The figure of truncations: what is drawn for one decoder and for many, with gaps, and without any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from whole_study import truncation_tables

from lmshape.figures.files import save
from lmshape.figures.truncation import FLOOR, TRUNCATION

pytestmark = pytest.mark.slow


def drawn(figure: object) -> list[object]:
    return [ax for ax in figure.axes if ax.get_title(loc="left")]


def test_curves_least_ranks_and_dimensions_are_selected() -> None:
    data = TRUNCATION.data(truncation_tables(["one"], rows=("all",)))
    counts = data.groupby(["view", "series"]).size().to_dict()
    assert counts == {
        ("keep", "loss increase"): 18,
        ("remove", "loss increase"): 18,
        ("least", "0.01"): 3,
        ("least", "0.1"): 3,
        ("least", "1"): 3,
        ("least", "participation_ratio"): 3,
        ("least", "id_twonn"): 2,  # not of the embedding
    }
    least = data[data["series"] == "0.1"]
    assert set(least["value"]) == {5} and set(least["ci_low"]) == {4} and set(least["ci_high"]) == {7}


def test_the_last_checkpoint_of_the_first_dataset() -> None:
    every = truncation_tables(["one"], rows=("all",))
    for name in ("truncation", "truncation_ranks"):
        early = every[name].assign(checkpoint="step1", step=1)
        every[name] = pd.concat([every[name], early, every[name].assign(dataset="other")])
    data = TRUNCATION.data(every)
    assert set(data["step"]) == {9} and set(data["dataset"]) == {"wiki"}


@pytest.mark.parametrize(("models", "panels"), [(1, 6), (2, 12), (9, 18)])
def test_few_models_have_their_curves_and_many_the_least_ranks_alone(models: int, panels: int) -> None:
    names = [f"model-{number}" for number in range(models)]
    figure = TRUNCATION.draw(TRUNCATION.data(truncation_tables(names)))
    assert len(drawn(figure)) == panels
    assert all(ax.has_data() for ax in drawn(figure))
    limits = {ax.get_ylim() for ax in drawn(figure) if "directions" in ax.get_ylabel() or models > 8}
    assert len(limits) == 1  # one scale for all models


def test_a_panel_says_on_how_many_tokens_the_untouched_loss_is() -> None:
    figure = TRUNCATION.draw(TRUNCATION.data(truncation_tables(["one"], rows=("all",))))
    title = drawn(figure)[0].get_title(loc="left")
    assert title == "one, all rows\nuntouched loss 4 nats (on 50 tokens)"


def test_small_increases_and_decreases_stand_at_the_edge() -> None:
    every = truncation_tables(["one"], rows=("all",))
    every["truncation"]["loss_increase"] -= 1.0
    figure = TRUNCATION.draw(TRUNCATION.data(every))
    lines = drawn(figure)[0].get_lines()
    assert min(np.min(line.get_ydata()) for line in lines if len(line.get_ydata()) > 2) == FLOOR


def test_gaps_are_told(tmp_path: Path) -> None:
    every = truncation_tables(["one", "two"])
    lost = every["truncation"]["model"] == "one"
    numbers = ["loss_increase", "loss_increase_low", "loss_increase_high"]
    every["truncation"].loc[lost, numbers] = np.nan
    every["truncation"].loc[lost, "flag"] = "not finite: loss"
    lost = every["truncation_ranks"]["model"] == "one"
    for name in ("rank", "rank_low", "rank_high"):
        every["truncation_ranks"][name] = every["truncation_ranks"][name].astype(float)
        every["truncation_ranks"].loc[lost, name] = np.nan
    every["metrics"] = every["metrics"].query("metric == 'none'")
    figure = TRUNCATION.draw(TRUNCATION.data(every))
    words = " ".join(figure._supxlabel.get_text().split())
    assert "72 of 144 values are not numbers (not finite)" in words
    shown = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert sum("every value is flagged" in text for text in shown) == 6
    save(figure, TRUNCATION.data(every), tmp_path / "figure")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize("absent", ["truncation", "truncation_ranks", None])
def test_a_study_without_decoders_says_so(absent: str | None) -> None:
    every = {name: frame.iloc[:0] for name, frame in truncation_tables(["one"]).items()}
    if absent:
        del every[absent]
    figure = TRUNCATION.draw(TRUNCATION.data(every))
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == [
        "No decoder of this study was truncated."
    ]
