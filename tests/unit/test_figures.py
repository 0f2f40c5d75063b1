"""Figures of the table of metrics: what is selected, what is drawn, that every study draws, that files are whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from figure_tables import (
    DATASETS,
    LINEARITIES,
    MODELS,
    Model,
    loss_table,
    metrics_table,
    profiles_table,
    tables,
)
from figure_words import drawn, words
from matplotlib.figure import Figure
from matplotlib.image import imread
from whole_study import whole_study

from lmshape.errors import InputError
from lmshape.figures import FIGURES, TABLES, layout, marks, notes, render, selection
from lmshape.figures.files import read_tables, save
from lmshape.figures.steps import step_name, step_norm, step_ticks
from lmshape.figures.style import Look
from lmshape.hub.integrity import DISTRUSTED
from lmshape.site import named_layers
from lmshape.tables.loss_spikes import write_spikes
from lmshape.tables.rows import final_checkpoints, in_order, trajectories

pytestmark = pytest.mark.slow

# The figures that draw from `metrics` and `profiles` alone.
NAMES = tuple(name for name, entry in FIGURES.items() if not entry.more_tables)
OVER_TRAINING = ("anisotropy_over_training", "anisotropy_map", "dimension_over_training", "dimension_map")


@pytest.fixture(scope="module")
def embedded() -> dict[str, pd.DataFrame]:
    """Tables like those of the embedded study."""
    return tables()


@dataclass
class Drawn:
    """The data of a figure, and the figure of its first model: every panel more takes a tenth of a second."""

    name: str
    data: pd.DataFrame

    @cached_property
    def figure(self) -> Figure:
        of_first = self.data["model"].isin([MODELS[0].name]) | self.data["model"].isna()
        return FIGURES[self.name].load().draw(self.data[of_first])


@pytest.fixture(scope="module")
def drawings(embedded) -> dict[str, Drawn]:
    return {name: Drawn(name, FIGURES[name].load().data(embedded)) for name in NAMES}


def draw(name: str, study: dict[str, pd.DataFrame]) -> Figure:
    return FIGURES[name].load().draw(FIGURES[name].load().data(study))


def small(**properties: object) -> Model:
    return Model("a", **({"blocks": 2, "steps": (0, 700)} | properties))


TEXT = metrics_table((small(),), ("text",))
STUDIES = {
    "one checkpoint, one block": metrics_table((small(blocks=1, steps=(143_000,)),), ("text",)),
    "no known step": metrics_table((small(steps=(-1,)),), ("text", "random")),
    "embedding only": metrics_table((small(blocks=0, steps=(0,), final_norm=False),), ("text",)),
    "one draw": TEXT.assign(ci_low=np.nan, ci_high=np.nan, draws=1, flag=""),
    "no dimension": TEXT.query("metric == 'anisotropy'"),
    "no anisotropy": TEXT.query("metric == 'id_twonn'"),
    "every value flagged": TEXT.assign(
        value=np.nan, ci_low=np.nan, ci_high=np.nan, flag="not finite: 6400 of 6400 rows"
    ),
    "nothing measured": TEXT.iloc[:0],
}


WITHOUT = {"no dimension": "id_twonn", "no anisotropy": "anisotropy"}


@cache
def said(name: str, study: str) -> str:
    """The words of a figure of one of the studies."""
    # one choice of rows, as every panel more takes a tenth of a second
    return words(draw(name, tables(STUDIES[study].query("rows == 'all'"))))


# What is selected


def test_by_layer_takes_the_last_checkpoint_of_each_model_on_the_first_dataset(drawings):
    data = drawings["anisotropy_by_layer"].data
    assert set(data["step"]) == {700}
    assert set(data["dataset"]) == {"wiki"}
    assert set(data["rows"]) == {"all", "no_sink"}
    assert data.groupby("model").size().to_dict() == {"wiki-decoder": 16, "wiki-encoder": 14}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_holds_the_controls_of_its_metric(drawings, name):
    of_rows = drawings[name].data.groupby("metric")["rows"].agg(set)
    for metric, rows in of_rows.items():
        by_type = {"one_per_type"} if metric.startswith("id_") else set()
        assert rows == {"all", "no_sink"} | by_type


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_says_which_metrics_it_reads_and_needs_no_others(embedded, drawings, name):
    read = embedded["metrics"][embedded["metrics"]["metric"].isin(FIGURES[name].load().reads)]
    pd.testing.assert_frame_equal(
        FIGURES[name].load().data(embedded | {"metrics": read}), drawings[name].data
    )


NULLS = {
    "anisotropy_by_layer": {"anisotropy": "anisotropy_null"},
    "anisotropy_over_training": {"anisotropy": "anisotropy_null"},
    "anisotropy_map": {"anisotropy": "anisotropy_null"},
    "dimension_by_layer": {"id_twonn": "id_twonn_surrogate"},
    "dimension_over_training": {"id_twonn": "id_twonn_surrogate"},
    "dimension_map": {"id_twonn": "id_twonn_surrogate"},
    "dimension_by_scale": {"id_gride_2": "id_twonn_surrogate"},
    "dimension_by_size": {"id_twonn": "id_twonn_surrogate"},
    "linearity_by_layer": {
        "linearity_held_out": "linearity_null",
        "linearity_residual_held_out": "linearity_null",
    },
    "controls": {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"},
    "encoders_and_decoders": {"anisotropy": "anisotropy_null", "id_twonn": "id_twonn_surrogate"},
}


@pytest.mark.parametrize("name", NAMES)
def test_the_null_of_the_table_stands_beside_each_value(embedded, drawings, name):
    data = drawings[name].data
    for metric, null in NULLS[name].items():
        metrics = embedded["metrics"]
        nulls = metrics[metrics["metric"] == null].set_index(list(selection.PLACE))["value"]
        values = data[(data["metric"] == metric) & data["checkpoint"].notna()]
        np.testing.assert_array_equal(
            values["null"], nulls.loc[list(values[[*selection.PLACE]].itertuples(index=False))]
        )
        assert len(values)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"anisotropy_map", "dimension_map"}))
def test_nulls_are_drawn_and_named(drawings, name):
    data, figure = drawings[name].data, drawings[name].figure
    drawn_values = {value for _, points in drawn(figure) for _, value in points}
    null = data["null"].dropna()
    assert len(null) and drawn_values & {*null}
    assert any(of in words(figure) for of in ("isotropic rows", "Gaussian, same covariance", "of noise: d/n"))


@pytest.mark.parametrize("name", NAMES)
def test_without_the_null_in_the_table_the_figure_selects_the_values_alone(embedded, drawings, name):
    metrics = embedded["metrics"]
    data = (
        FIGURES[name]
        .load()
        .data(embedded | {"metrics": metrics[~metrics["metric"].isin(NULLS[name].values())]})
    )
    apart = ["null", *({"as_null"} & {*data})]
    assert data.loc[data["metric"] != "dome_index", "null"].isna().all()
    assert "as_null" not in data or not data["as_null"].any()
    pd.testing.assert_frame_equal(data.drop(columns=apart), drawings[name].data.drop(columns=apart))


def test_one_row_of_each_token_id_has_panels_of_its_own_on_the_scale_of_its_model(drawings):
    figure, data = drawings["dimension_over_training"].figure, drawings["dimension_over_training"].data
    assert in_order(data["rows"]) == ["all", "no_sink", "one_per_type"]
    panels = figure.axes[:3]
    titles = [ax.get_title(loc="left") for ax in panels]
    assert titles == [
        f"wiki-decoder (decoder)\n{layout.SHORT_VARIANT_NAMES[name]}" for name in data["rows"].unique()
    ]
    assert len({ax.get_ylim() for ax in panels}) == 1
    assert [ax.get_legend() is not None for ax in panels] == [True, False, False]
    middle = data.query("model == 'wiki-decoder' and layer == 3 and rows == 'one_per_type'")
    curve = next(line for line in panels[2].get_lines() if line.get_label() == "middle (layer 3)")
    assert list(curve.get_ydata()) == list(middle["value"])


def test_scales_are_those_of_the_last_checkpoint(drawings):
    data, figure = drawings["dimension_by_scale"].data, drawings["dimension_by_scale"].figure
    assert (set(data["step"]), set(data["dataset"]), set(data["site"])) == ({700}, {"wiki"}, {"block"})
    assert sorted(data["scale"].unique()) == [2, 4, 8, 16, 32, 64]
    assert set(data.loc[data["null"].notna(), "scale"]) == {2}
    last = data.query("model == 'wiki-decoder' and layer == 6 and rows == 'all'")
    curve = next(line for line in figure.axes[0].get_lines() if line.get_label() == "layer 6")
    assert dict(curve.get_xydata()) == dict(zip(last["scale"], last["value"], strict=True))


def test_parts_of_the_rows_grow_to_the_right(drawings):
    data, figure = drawings["dimension_by_size"].data, drawings["dimension_by_size"].figure
    assert sorted(data["scale"].unique()) == [1, 2, 4, 8]
    whole = data.query("scale == 1")
    assert set(whole["metric"]) == {"id_twonn"} and len(whole) == 2 * 6 * 3
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["n", "n/2", "n/4", "n/8"]
    assert panel.get_xlim()[0] > panel.get_xlim()[1]  # n at the right
    assert "at most 960" in words(figure)


@pytest.mark.parametrize("name", ["dimension_by_scale", "dimension_by_size"])
def test_a_scale_alone_is_no_curve(embedded, name):
    metrics = embedded["metrics"]
    alone = metrics[~metrics["metric"].str.contains("gride_4|gride_8|_16|_32|_64|decimated_")]
    assert FIGURES[name].load().data(embedded | {"metrics": alone}).empty
    assert "at no two" in words(draw(name, embedded | {"metrics": alone}))


def test_linearity_is_the_held_out_one_beside_that_in_sample(drawings):
    data = drawings["linearity_by_layer"].data
    assert set(data["metric"]) == {"linearity_held_out", "linearity_residual_held_out"}
    assert set(LINEARITIES) == set(FIGURES["linearity_by_layer"].load().reads)
    assert (data["in_sample"] - data["value"]).to_numpy() == pytest.approx(0.03)
    assert set(data["panel"]) == {
        f"{what}, {rows}"
        for what in ("whole output", "update alone")
        for rows in ("all rows", "without sinks")
    }


def test_of_two_checkpoints_at_a_step_the_later_name_stands():
    frame = metrics_table((small(steps=(5,)),), ("text",))
    twice = pd.concat([frame.assign(checkpoint="step5"), frame.assign(checkpoint="main")])
    assert set(final_checkpoints(twice)["checkpoint"]) == {"main"}
    assert set(trajectories(twice)["checkpoint"]) == {"main"}
    assert len(trajectories(twice)) == len(frame)


def with_verdicts(frame: pd.DataFrame, **verdicts: str) -> pd.DataFrame:
    """Give checkpoints a verdict, as in step5="duplicate"; the others are ok."""
    known = {f"checkpoint-{name.removeprefix('step')}": verdict for name, verdict in verdicts.items()}
    return frame.assign(verdict=frame["checkpoint"].map(known).fillna("ok"))


def test_trajectories_leave_out_distrusted_checkpoints_and_name_them():
    frame = metrics_table((Model("a", steps=(0, 1, 2, 4, 8)), Model("b", steps=(0, 1))), ("text",))
    told = with_verdicts(
        frame, step0="expected_duplicate", step1="wrong_weights", step4="mixed_shards", step8="doubtful"
    )
    kept = trajectories(told)
    steps = kept.groupby("model")["step"].unique().map(list).to_dict()
    assert steps == {"a": [0, 2, 8], "b": [0]}
    named = kept.groupby("model")["distrusted"].unique().map(list).to_dict()
    assert named == {"a": ["checkpoint-1, checkpoint-4"], "b": ["checkpoint-1"]}


@pytest.mark.parametrize("verdict", DISTRUSTED)
def test_a_distrusted_checkpoint_takes_no_place_from_a_sound_one_of_its_step(verdict: str):
    frame = metrics_table((small(steps=(5,)),), ("text",))
    twice = pd.concat([frame.assign(checkpoint="step5"), frame.assign(checkpoint="again", verdict=verdict)])
    kept = trajectories(twice)
    assert set(kept["checkpoint"]) == {"step5"} and len(kept) == len(frame)
    assert set(kept["distrusted"]) == {"again"}


def test_where_nothing_is_trusted_figures_over_training_are_drawn_empty():
    frame = metrics_table((small(),), ("text",)).assign(verdict="duplicate")
    assert trajectories(frame).empty
    for name in (*OVER_TRAINING, "controls"):
        assert draw(name, tables(frame)).axes


def test_trajectories_leave_out_unknown_steps_and_sort_the_others():
    frame = metrics_table((Model("a", steps=(8, -1, 2)), Model("b", steps=(4, 0))), ("text",))
    steps = trajectories(frame).groupby("model", sort=False)["step"].unique()
    assert {model: list(of_model) for model, of_model in steps.items()} == {"a": [2, 8], "b": [0, 4]}


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        (0, {}),
        (1, {"last": 1}),
        (2, {"middle": 1, "last": 2}),
        (6, {"early": 2, "middle": 3, "last": 6}),
        (24, {"early": 6, "middle": 12, "last": 24}),
    ],
)
def test_named_layers_are_distinct_and_in_order(blocks, named):
    assert named_layers(blocks) == named
    assert list(named_layers(blocks).values()) == sorted(named.values())


def test_controls_hold_every_dataset_and_put_decoders_first(drawings):
    data = drawings["controls"].data
    assert tuple(in_order(data["dataset"])) == DATASETS
    assert in_order(data["model"])[-1] == "wiki-encoder"
    assert set(data.loc[data["view"] == "over training", "layer"]) == {3}
    assert set(data.loc[data["view"] == "by layer", "step"]) == {700}


def test_controls_leave_out_models_without_control_by_name_unless_none_has_one():
    one = metrics_table((small(),), ("wiki", "random"))
    both = pd.concat([one, metrics_table((Model("c", blocks=2, steps=(700,)),), ("wiki",))])
    data = FIGURES["controls"].load().data(tables(both.query("rows == 'all'")))
    assert in_order(data["model"]) == ["a"]
    assert "Not drawn, as measured on one dataset only: c." in words(FIGURES["controls"].load().draw(data))
    alone = FIGURES["controls"].load().data(tables(both.query("rows == 'all' and dataset == 'wiki'")))
    assert in_order(alone["model"]) == ["a", "c"]
    assert set(alone["left_out"]) == {""}


@pytest.mark.parametrize(
    "name", ["dimension_by_layer", "dimension_over_training", "dimension_map", "controls"]
)
def test_the_dimension_of_the_embedding_is_left_out_and_the_figure_says_so(drawings, name):
    data = drawings[name].data
    dimension = data[data["metric"] == "id_twonn"]
    assert len(dimension) and dimension["layer"].min() >= 1
    assert "embedding" not in set(dimension["site"])
    assert "The embedding's dimension is left out: its rows are a finite set" in words(drawings[name].figure)


@pytest.mark.parametrize("name", ["dimension_by_layer", "dimension_over_training", "dimension_by_size"])
def test_a_dimension_under_1_is_said_to_be_none(embedded, drawings, name):
    metrics = embedded["metrics"]
    low = (metrics["metric"] == "id_twonn") & (metrics["layer"] == 2) & (metrics["model"] == "wiki-decoder")
    of_one = metrics[metrics["model"] == "wiki-decoder"].copy()
    of_one.loc[low, ["value", "ci_low"]] = [0.7, 0.6]
    assert notes.UNDER_ONE in words(draw(name, embedded | {"metrics": of_one}))
    assert notes.UNDER_ONE not in words(drawings[name].figure)  # with anisotropies, which are under 1


def test_without_an_embedding_there_is_no_tick_for_it(drawings):
    ticks = drawings["dimension_by_layer"].figure.axes[0].get_xticks()
    assert ticks.min() == 0.25


def test_dashes_of_coinciding_nulls_are_as_long_and_narrower_from_one_to_the_next(drawings):
    lines = [ax.get_lines() for ax in drawings["controls"].figure.axes if "dimension" in ax.get_ylabel()][0]
    dashed = [line for line in lines if line.get_label() == "_surrogate"]
    assert [line.get_linewidth() for line in dashed] == pytest.approx([4.12, 2.56, 1.0])
    lengths = {tuple(np.round(line._dash_pattern[1], 6)) for line in dashed}  # in points
    assert lengths == {(8.0, 5.0)}
    legend = [text.get_text() for text in drawings["controls"].figure.legends[0].get_texts()]
    assert legend[-2:] == ["isotropic rows at this n and d", "Gaussian, same covariance"]


# Steps


@pytest.mark.parametrize(
    ("steps", "ticks"),
    [
        ([], []),
        ([0], [0, 1]),
        ([0, 700], [0, 1, 10, 100, 700]),
        ([0, 1280], [0, 1, 10, 100, 1000]),
        ([1, 143_000], [1, 10, 100, 1000, 10_000, 100_000]),
        ([1500], [1500]),
    ],
)
def test_step_ticks_show_zero_only_when_it_is_drawn(steps, ticks):
    assert step_ticks(steps) == ticks


def test_steps_are_written_shortly():
    assert [step_name(step) for step in (0, 512, 1000, 1280, 143_000)] == ["0", "512", "1k", "1280", "143k"]


def test_step_zero_has_the_first_color_and_decades_are_as_far_apart():
    norm = step_norm([0, 1, 10, 100, 1000])
    colors = norm([0, 1, 10, 100, 1000]).data
    assert colors[0] == 0 and colors[-1] == 1
    assert np.diff(colors[1:]) == pytest.approx(np.diff(colors[1:])[0])


# What is drawn


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    return whole_study(tmp_path_factory.mktemp("study"))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_from_the_tables_it_names_and_its_csv_holds_all(everything, name, tmp_path):
    entry = FIGURES[name]
    figure = entry.load()
    read = {table: everything[table] for table in entry.tables if table in everything}
    read["metrics"] = everything["metrics"][everything["metrics"]["metric"].isin(figure.reads)]
    read["losses"] = everything["losses"] if entry.draws_losses else everything["losses"].head(0)
    data = figure.data(read)
    first = figure.draw(data)
    assert len(data) and figure.title in words(first)
    data.to_csv(tmp_path / "data.csv", index=False)
    again = figure.draw(pd.read_csv(tmp_path / "data.csv"))
    assert words(again) == words(first)
    for (label, points), (same_label, same_points) in zip(drawn(first), drawn(again), strict=True):
        assert label == same_label
        assert np.allclose(np.array(points), np.array(same_points))


@pytest.mark.parametrize(
    ("name", "study"),
    [
        (name, study)
        for name in NAMES
        for study in STUDIES
        # without the other metric, a figure of one is what it is with it
        if study not in WITHOUT or WITHOUT[study] in FIGURES[name].load().reads
    ],
)
def test_every_study_draws(name, study):
    assert FIGURES[name].load().title in said(name, study)


@pytest.mark.parametrize(
    ("name", "study", "note"),
    [
        ("anisotropy_by_layer", "one draw", "No encoder in this study."),
        ("anisotropy_by_layer", "nothing measured", "no anisotropy to draw"),
        (
            "anisotropy_over_training",
            "no known step",
            "No checkpoint of this study has a known training step.",
        ),
        ("anisotropy_over_training", "every value flagged", "every value is flagged: nothing to draw"),
        ("anisotropy_map", "no known step", "no anisotropy at a known training step"),
        ("anisotropy_map", "every value flagged", "8 of 8 cells have no number (not finite)"),
        ("dimension_over_training", "one checkpoint, one block", "One checkpoint only: a."),
        ("dimension_over_training", "one draw", "One draw of sequences: no interval."),
        ("controls", "no dimension", "`id_twonn` not measured"),
        ("controls", "no anisotropy", "`anisotropy` not measured"),
        ("controls", "one draw", "no control to compare with"),
        ("controls", "no known step", "fewer than two training steps"),
        ("controls", "embedding only", "`id_twonn` not measured on a block"),
        ("dimension_over_training", "embedding only", "no `id_twonn` of a block at a known training step"),
        ("dimension_by_layer", "no dimension", "no `id_twonn` of a block"),
        ("linearity_by_layer", "no dimension", "no held-out linearity"),
        ("encoders_and_decoders", "one draw", "No encoder in this study."),
        ("encoders_and_decoders", "no anisotropy", "`anisotropy` not measured on a block"),
    ],
)
def test_what_is_missing_is_said_in_the_figure(name, study, note):
    assert note in said(name, study)


def test_values_that_are_not_numbers_are_gaps_and_counted():
    metrics = metrics_table((Model("a", steps=(700,)),), ("text",))
    lost = (metrics["layer"] == 3) & (metrics["rows"] == "all")
    metrics.loc[lost, ["value", "ci_low", "ci_high"]] = np.nan
    metrics.loc[lost, "flag"] = "not finite: 12 of 6400 rows"
    figure = draw("anisotropy_by_layer", tables(metrics))
    assert "1 of 16 values are not numbers (not finite)" in words(figure)
    curve = next(line for line in figure.axes[0].get_lines() if line.get_label() == "a")
    assert np.isnan(curve.get_ydata()).tolist() == [False] * 3 + [True] + [False] * 3


def test_flagged_numbers_have_open_markers_and_are_counted():
    metrics = metrics_table((Model("a"),), ("text",))
    metrics.loc[metrics["layer"] == 6, "flag"] = "fewer unique rows: 612 of 1024 per draw"
    figure = draw("dimension_over_training", tables(metrics))
    assert "Open markers: 9 of 27 values are flagged (fewer unique rows)." in words(figure)
    lines = [line for line in figure.axes[0].get_lines() if "surrogate" not in line.get_label()]
    assert [len(line.get_xdata()) for line in lines if line.get_markerfacecolor() == "white"] == [3]


def test_a_value_without_interval_is_drawn_and_marked():
    metrics = metrics_table((Model("a", steps=(700,)),), ("text",))
    alone = (metrics["metric"] == "anisotropy") & (metrics["layer"] == 3) & (metrics["site"] == "block")
    metrics.loc[alone, ["ci_low", "ci_high"]] = np.nan
    metrics.loc[alone, "flag"] = "no interval: not defined without one of its draws"
    figure = draw("anisotropy_by_layer", tables(metrics))
    curve = next(points for label, points in drawn(figure) if label == "a")
    assert [x for x, _ in curve] == pytest.approx([layer / 6 for layer in range(7)])
    assert "Open markers: 2 of 16 values are flagged (no interval)." in words(figure)


def test_the_scale_of_a_panel_fits_its_own_model():
    models = metrics_table((Model("low"), Model("high")), ("text",))
    high = (models["model"] == "high") & (models["metric"] == "id_twonn")
    models.loc[high, ["value", "ci_low", "ci_high"]] += 100
    data = FIGURES["dimension_over_training"].load().data(tables(models))
    figure = FIGURES["dimension_over_training"].load().draw(data)
    for ax, (_, of_model) in zip(figure.axes[:2], data.groupby("model", sort=False), strict=True):
        drawn_values = of_model[["ci_low", "ci_high", "null"]]
        low, high = np.log(drawn_values.min(axis=None)), np.log(drawn_values.max(axis=None))
        limits = [low - 0.05 * (high - low), high + 0.05 * (high - low)]
        assert np.log(ax.get_ylim()) == pytest.approx(limits)
    assert "Each model has its own scale" in words(figure)


def test_dimensions_of_the_controls_have_one_scale(drawings):
    panels = [ax for ax in drawings["controls"].figure.axes if "dimension" in ax.get_ylabel()]
    dimension = drawings["controls"].data.query("metric == 'id_twonn'")
    (limits,) = {ax.get_ylim() for ax in panels}
    assert limits[0] < dimension["ci_low"].min() and dimension["ci_high"].max() < limits[1]
    assert len(panels) == 3 * 2  # of three choices of rows, two views


def test_the_mark_of_a_final_norm_is_seen():
    figure = Figure()
    row = pd.DataFrame({"value": [0.5], "ci_low": [0.4], "ci_high": [0.6]})
    marks.off_line(figure.subplots(), row, x=1, look=Look("#000000", "-", "_"))
    assert figure.axes[0].get_lines()[0].get_markeredgecolor() == "#000000"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"anisotropy_map", "dimension_map"}))
def test_intervals_and_draws_are_named(drawings, name):
    assert "95 % interval over 5 draws of sequences" in words(drawings[name].figure)


def test_final_norm_is_off_the_line(drawings):
    figure = drawings["anisotropy_by_layer"].figure
    curve = next(points for label, points in drawn(figure) if label == "wiki-decoder")
    assert [x for x, _ in curve] == pytest.approx([layer / 6 for layer in range(7)])
    assert "final norm" in words(figure, ticks=True)


def test_step_zero_is_on_the_axis(drawings):
    figure = drawings["dimension_over_training"].figure
    assert figure.axes[0].get_xticks().tolist() == [0, 1, 10, 100, 700]
    assert figure.axes[0].get_xlim()[0] < 0


def test_drawing_leaves_the_callers_settings_alone(drawings):
    with matplotlib.rc_context({"lines.linewidth": 9.0, "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        FIGURES["anisotropy_by_layer"].load().draw(drawings["anisotropy_by_layer"].data)
        assert dict(matplotlib.rcParams) == before


# Files


def written_tables(folder: Path) -> tuple[Path, Path]:
    metrics = metrics_table((Model("run", blocks=3, steps=(0, 1, 700)),), ("b", "a"))
    metrics.to_parquet(folder / "metrics.parquet")
    profiles_table(metrics).to_parquet(folder / "profiles.parquet")
    pd.DataFrame({"model": ["run"]}).to_parquet(folder / "checkpoints.parquet")
    loss_table(spike=True).to_csv(folder / "loss.csv", index=False)
    return folder, folder / "loss.csv"


def test_render_writes_picture_twin_and_data(tmp_path):
    folder, loss = written_tables(tmp_path)
    write_spikes(folder, study="s", losses={"run": loss}, logs={}, geometry={})
    render("spikes", folder, output_stem=tmp_path / "figures" / "spikes", losses={"run": loss})
    assert sorted(os.listdir(tmp_path / "figures")) == ["spikes.csv", "spikes.png", "spikes.svg"]
    assert imread(tmp_path / "figures" / "spikes.png").shape[:2] == (630, 2200)
    assert set(pd.read_csv(tmp_path / "figures" / "spikes.csv")["series"]) == {"loss", "runs", "spike"}


@pytest.mark.parametrize(
    "name", ["anisotropy_by_layer", "anisotropy_map"]
)  # of lines, and with pixels in the SVG
def test_the_same_tables_give_the_same_bytes_whatever_the_callers_theme(tmp_path, name):
    folder, _ = written_tables(tmp_path)
    render(name, folder, output_stem=tmp_path / "one", losses={})
    with matplotlib.rc_context({"lines.linewidth": 9.0, "text.color": "red", "font.size": 20.0}):
        render(name, folder, output_stem=tmp_path / "two", losses={})
    for end in ("png", "svg", "csv"):
        assert (tmp_path / f"one.{end}").read_bytes() == (tmp_path / f"two.{end}").read_bytes()


def test_datasets_are_taken_in_the_order_of_the_study(tmp_path):
    folder, _ = written_tables(tmp_path)
    assert in_order(read_tables(folder, TABLES, losses={})["metrics"]["dataset"]) == ["b", "a"]
    ordered = read_tables(folder, TABLES, losses={}, datasets=["a", "b"])["metrics"]
    assert in_order(ordered["dataset"]) == ["a", "b"]
    assert FIGURES["anisotropy_by_layer"].load().data({"metrics": ordered})["dataset"].unique().tolist() == [
        "a"
    ]


def test_only_the_metrics_that_a_figure_asks_for_are_read(tmp_path):
    folder, _ = written_tables(tmp_path)
    read = read_tables(folder, TABLES, losses={}, metrics=["anisotropy"])
    assert set(read["metrics"]["metric"]) == {"anisotropy"}
    assert len(read_tables(folder, TABLES, losses={})["metrics"]) > len(read["metrics"])


def test_a_table_that_a_figure_does_not_name_is_not_read(tmp_path):
    folder, _ = written_tables(tmp_path)
    (folder / "phases.parquet").write_text("no table")
    assert set(read_tables(folder, TABLES, losses={})) == {"metrics", "checkpoints", "profiles", "losses"}
    render("anisotropy_by_layer", folder, output_stem=tmp_path / "x", losses={})
    assert (tmp_path / "x.png").is_file()


@pytest.mark.parametrize("name", [name for name, entry in FIGURES.items() if entry.more_tables])
def test_a_table_that_a_figure_names_is_needed(tmp_path, name):
    folder, _ = written_tables(tmp_path)
    with pytest.raises(InputError, match=rf"{FIGURES[name].more_tables[0]}\.parquet` does not exist"):
        render(name, folder, output_stem=tmp_path / "x", losses={})


def test_a_failure_leaves_no_file(tmp_path):
    class Broken(Figure):
        def savefig(self, target: Path, **options: object) -> None:
            Path(target).write_text("half a pict")
            if "svg" in str(target):
                raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save(Broken(), pd.DataFrame(), tmp_path / "figures" / "x")
    assert os.listdir(tmp_path / "figures") == []


def test_an_unknown_figure_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"unknown figure `control`. Nearest: controls."):
        render("control", tmp_path, output_stem=tmp_path / "x", losses={})


def test_missing_tables_are_refused_by_name(tmp_path):
    with pytest.raises(
        InputError,
        match=r"metrics.parquet` does not exist. Make it first",
    ):
        render("controls", tmp_path, output_stem=tmp_path / "x", losses={})
