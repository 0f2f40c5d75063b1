"""Spectrum, sinks and clouds: what is selected, what is said, and that every study draws."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from figure_tables import Model, metrics_table
from matplotlib.figure import Figure
from shape_tables import clouds_table, shape_tables, spectra_table

from lmshape.figures import FIGURES, clouds, selection, sinks, spectrum
from lmshape.figures.sinks import percent
from lmshape.hub.integrity import DISTRUSTED

pytestmark = pytest.mark.slow

SHORT = (0, 16, 128, 700)
LONG = (0, *np.unique(np.round(np.geomspace(1, 143_000, 59)).astype(int) + np.arange(59)).tolist())
DECODER, ENCODER = Model("decoder", steps=SHORT), Model("encoder", kind="encoder", steps=SHORT)
NAMES = ("spectrum", "sinks", "clouds")  # those of `shape_tables`


def texts(figure: Figure) -> str:
    figure.draw_without_rendering()
    found = [text.get_text() for ax in figure.axes for text in (ax.title, ax.xaxis.label, ax.yaxis.label)]
    found += [ax.get_title(loc="left") for ax in figure.axes]
    found += [text.get_text() for ax in figure.axes for text in ax.texts]
    return " | ".join([*found, figure.get_supxlabel(), figure.get_suptitle()])


def drawn(name: str, tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, str]:
    data = FIGURES[name].load().data(tables)
    return data, texts(FIGURES[name].load().draw(data))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "models",
    [
        (DECODER,),
        (DECODER, ENCODER),
        (Model("alone", blocks=1, steps=(-1,), final_norm=False),),
        (Model("once", blocks=2, steps=(0,)),),
    ],
    ids=["one", "two", "unknown-step", "one-checkpoint"],
)
def test_every_study_draws(name: str, models: tuple[Model, ...]) -> None:
    data, said = drawn(name, shape_tables(models))
    assert FIGURES[name].load().title.split(":")[0].split(",")[0] in said
    assert set(data["model"]) <= {model.name for model in models}


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_measured_is_said(name: str) -> None:
    data, said = drawn(name, {"metrics": metrics_table((Model("m", steps=(0, 8)),))})
    assert data.empty and "the family" in said.replace("\n", " ")


@pytest.mark.parametrize("name", NAMES)
def test_flagged_numbers_leave_gaps(name: str) -> None:
    tables = shape_tables((DECODER,))
    for table, columns in (
        ("metrics", ["value", "ci_low", "ci_high"]),
        ("spectra", ["share", "ci_low", "ci_high"]),
        ("clouds", ["axis_1", "axis_2", "axis_3", "share_1"]),
    ):
        tables[table].loc[tables[table]["step"] == 16, columns] = np.nan
        tables[table].loc[tables[table]["step"] == 16, "flag"] = "zero variance"
    _, said = drawn(name, tables)
    assert "decoder" in said


def test_many_models_and_steps_are_thinned_and_the_rest_named() -> None:
    models = [Model(f"m{i:02}", kind="encoder" if i == 13 else "decoder", steps=SHORT) for i in range(14)]
    models[0] = replace(models[0], steps=LONG)
    tables = {"spectra": spectra_table(models), "clouds": clouds_table(models)}
    data = FIGURES["spectrum"].load().data(tables)
    assert data["model"].nunique() == spectrum.MOST_MODELS and "m13" in set(data["model"])
    note = selection.left_out_note(data, "spectra")
    assert "Not shown, for want of room: m05, m06" in note and "and 2 more" in note
    steps = data.loc[data["model"] == "m00", "step"].unique()
    assert len(steps) <= spectrum.MOST_LINES and {0, LONG[-1]} <= set(steps)
    assert FIGURES["clouds"].load().data(tables)["model"].nunique() == clouds.MOST_MODELS


def test_the_first_of_every_kind_is_shown() -> None:
    frame = pd.DataFrame({"model": list("abcd"), "kind": ["decoder"] * 3 + ["encoder"]})
    assert list(selection.shown(frame, most=2)["model"]) == ["a", "d"]
    assert selection.left_out_note(selection.shown(frame, most=2), "spectra").startswith(
        "Not shown, for want of room: b, c;"
    )
    assert selection.left_out_note(selection.shown(frame, most=4), "spectra") == ""


def test_few_steps_are_the_ends_and_even_in_logarithms() -> None:
    steps = spectrum.few_steps(range(1025))
    assert (steps[0], steps[-1]) == (0, 1024) and len(steps) == 12
    assert spectrum.few_steps([5, 3]) == [3, 5]


def test_a_distrusted_checkpoint_is_not_drawn() -> None:
    tables = shape_tables((DECODER,))
    tables["checkpoints"] = pd.DataFrame(
        {
            "model": ["decoder"] * 2,
            "checkpoint": ["checkpoint-128", "checkpoint-0"],
            "step": [128, 0],
            "verdict": [DISTRUSTED[0]] * 2,
        }
    )
    data, said = drawn("spectrum", tables)
    assert set(data["step"]) == {16, 700}
    assert "another step's: decoder: checkpoint-0, checkpoint-128." in said.replace("\n", " ")
    assert FIGURES["clouds"].load().data(tables).empty


def test_the_sentence_says_what_position_0_carries_where_anisotropy_is_highest() -> None:
    data, said = drawn("sinks", shape_tables((DECODER, ENCODER)))
    assert "70 % [68, 72] of $\\lambda_1$ at layer 4 is position 0,\nwhich is 0.78 % of the rows" in said
    assert "0.78 % [-1.2, 2.8] of $\\lambda_1$ at layer 1 is position 0" in said
    assert "layer 4, of the highest anisotropy" in said
    followed = data[data["view"] == "training"]
    assert set(followed.loc[followed["model"] == "decoder", "layer"]) == {4}


def test_the_parts_of_a_bar_make_a_whole() -> None:
    data = FIGURES["sinks"].load().data(shape_tables((DECODER,)))
    figure = sinks.SINKS.draw(data)
    bars = [patch for patch in figure.axes[0].patches if patch.get_height() > 0]
    tops: dict[float, float] = {}
    for bar in bars:
        tops[bar.get_x()] = max(tops.get(bar.get_x(), 0), bar.get_y() + bar.get_height())
    sums = data[(data["view"] == "layers") & data["metric"].isin(sinks.PARTS)].groupby(["site", "layer"])
    np.testing.assert_allclose(sorted(tops.values()), sorted(sums["value"].sum()), rtol=1e-12)
    assert len(tops) == 8  # embedding, six blocks, final norm


def test_a_share_below_the_axis_stands_at_its_edge_and_is_said() -> None:
    tables = shape_tables((DECODER,))
    metrics = tables["metrics"]
    metrics.loc[metrics["metric"].isin(sinks.OVER_TRAINING), ["value", "ci_low", "ci_high"]] = [0.1, 0.1, 0.1]
    assert "Hollow triangles" not in drawn("sinks", tables)[1]
    low = (metrics["metric"] == sinks.SHARE) & (metrics["step"].isin([16, 128]))
    metrics.loc[low, ["value", "ci_low", "ci_high"]] = [1e-5, 0.0, 2e-5]
    figure = sinks.SINKS.draw(FIGURES["sinks"].load().data(tables))
    marked = [line for line in figure.axes[2].get_lines() if line.get_label() == "_below"]
    assert [(*line.get_xdata(), *line.get_ydata()) for line in marked] == [
        (16, 128, sinks.LEAST_SHARE, sinks.LEAST_SHARE)
    ]
    assert "Hollow triangles at the lower edge: under 0.0005." in texts(figure).replace("\n", " ")


def test_the_share_of_the_rows_is_named_where_it_is_drawn() -> None:
    figure = sinks.SINKS.draw(FIGURES["sinks"].load().data(shape_tables((DECODER,))))
    named = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in figure.axes[:3]]
    assert [sinks.OF_ROWS in names for names in named] == [True, False, True]


def test_sink_tokens_are_named_where_others_than_position_0_are() -> None:
    tables = shape_tables((DECODER,))
    place = tables["metrics"][["model", "checkpoint", "step", "dataset", "site", "layer", "rows"]]
    tables["audit"] = place.drop_duplicates().assign(sink_tokens="{\"'\\\\n'\": 40, \"'of'\": 3}")
    _, said = drawn("sinks", tables)
    assert r"Tokens of the sinks there: decoder: '\n' (40), 'of' (3)." in said.replace("\n", " ")


HOSTILE = ("$x_{", "a$b$c\\", "_^{\\frac{", "\u202e\u05d0\u05d1\u200b", "\U0001f600", "x" * 200, "\0")


@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
def test_tokens_are_text_whatever_they_hold() -> None:
    tables = shape_tables((DECODER,))
    place = tables["metrics"][
        ["model", "checkpoint", "step", "dataset", "site", "layer", "rows"]
    ].drop_duplicates()
    for token in HOSTILE:
        sinks_of = json.dumps({repr(token): 40, f"'{token}$'": 3}, ensure_ascii=False)
        figure = figure_of_sinks(tables | {"audit": place.assign(sink_tokens=sinks_of)})
        figure.draw_without_rendering()  # parses what is math
        said = figure.get_supxlabel().replace("\n", " ")
        assert "Tokens of the sinks there: decoder: " in said and r"\$' (3)" in said
        assert "\u202e" not in said and "\0" not in said


def figure_of_sinks(tables: dict[str, pd.DataFrame]) -> Figure:
    return sinks.SINKS.draw(FIGURES["sinks"].load().data(tables))


@pytest.mark.parametrize(
    ("share", "written"),
    [(1.0, "100"), (0.0, "0"), (0.9931, "99.3"), (0.93, "93"), (0.0078, "0.78"), (0.0123, "1.2")],
)
def test_percent(share: float, written: str) -> None:
    assert percent(share) == written


def test_clouds_are_in_units_of_the_spread_of_all_rows() -> None:
    data = FIGURES["clouds"].load().data(shape_tables((DECODER, ENCODER)))
    assert set(data["band"]) == {"middle"} and set(data["moment"]) == {"only checkpoint"}
    own = data[data["model"] == "encoder"]
    squares = np.average((own[["axis_1", "axis_2", "axis_3"]] ** 2).sum(axis=1), weights=own["weight"])
    assert squares == pytest.approx(0.8)  # the share of variance of the three axes


def test_moments_of_a_cloud_are_first_middle_and_last() -> None:
    model = Model("m", steps=(0, 1, 2, 3, 30, 40, 50, 60, 900))  # clouds at 0, 30 and 900
    data = FIGURES["clouds"].load().data(shape_tables((model,)))
    found = data.drop_duplicates("step").set_index("step")["moment"].to_dict()
    assert found == {0: "early", 30: "midway", 900: "late"} and data["band"].nunique() == 3


def test_far_rows_bring_a_close_up_of_the_others() -> None:
    steps = (0, 1, 2, 3, 30, 40, 50, 60, 900)
    far = clouds.CLOUDS.draw(FIGURES["clouds"].load().data(shape_tables((Model("m", steps=steps),))))
    near = clouds.CLOUDS.draw(
        FIGURES["clouds"].load().data(shape_tables((Model("m", "encoder", steps=steps),)))
    )
    counts = [sum(len(ax.child_axes) for ax in figure.axes) for figure in (far, near)]
    assert counts == [6, 0]  # of midway and late, in three blocks
