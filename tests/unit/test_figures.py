"""Figures: what is selected, what is drawn, that every study draws, and that a file is whole or absent."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from lmshape.errors import InputError
from lmshape.figures import FIGURES, marks, render, selection
from lmshape.figures.files import read_tables, save
from lmshape.figures.loss_spike import beside, spikes, with_spikes
from lmshape.figures.steps import step_name, step_norm, step_ticks
from lmshape.figures.style import Look, looks, looks_by_kind, nested_looks
from lmshape.hub.integrity import DISTRUSTED

STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 200, 300, 400, 500, 600, 700)
DATASETS = ("wiki", "wiki-shuffled", "wiki-random")
COLUMNS = (
    "study model family kind parameters checkpoint step tokens_seen dataset site layer depth rows metric "
    "value ci_low ci_high draws n_rows n_unique d seed flag verdict"
).split()


@dataclass(frozen=True, slots=True)
class Model:
    """A made-up model as the article has them: a dome for decoders, a dimension that rises and falls."""

    name: str
    kind: str = "decoder"
    blocks: int = 6
    steps: tuple[int, ...] = STEPS
    final_norm: bool = True
    lower: float = 0.0

    def progress(self, step: int) -> float:
        return 1.0 if step < 0 else min(math.log1p(step) / math.log1p(700), 1.0)

    def anisotropy(self, depth: float, step: int, rows: str) -> float:
        grown = self.progress(step)
        if self.kind == "encoder":
            return 0.05 + 0.04 * depth + 0.02 * grown
        height = (0.85 if rows == "all" else 0.25) * (1 - self.lower) * grown**2
        return 0.04 + height * math.exp(-(((depth - 0.5) / 0.28) ** 4))

    def dimension(self, depth: float, step: int, dataset: str) -> float:
        late = self.progress(step)
        peak = {"wiki": 6.0, "wiki-shuffled": 4.0}.get(dataset, 2.0)
        return 12 + 6 * depth + peak * math.sin(math.pi * late) - 5 * late * depth

    def reading(self, metric: str, depth: float, step: int, dataset: str, rows: str) -> float:
        """A dimension at some scale; one row of each token type as the study found it: 30, then 5.5, then 9."""
        late = self.progress(step)
        surrogate = 33 - 9 * late + 4 * depth
        if metric == "id_twonn_surrogate":
            return surrogate
        scale = int(metric.rpartition("_")[2]) if metric[-1].isdigit() else 2
        fall = (1 - 0.04 * math.log2(scale)) if "gride" in metric else 1 + 0.05 * math.log2(scale / 2 + 1)
        if rows == "one_per_type":
            return fall * (5.5 + (surrogate - 5.5) * max(1 - late / 0.75, 0) ** 2 + 14 * max(late - 0.75, 0))
        return fall * self.dimension(depth, step, dataset) * (0.35 if rows == "no_sink" else 0.4)


SCALES = (
    *(f"id_gride_{n2}" for n2 in (2, 4, 8, 16, 32, 64)),
    *(f"id_twonn_decimated_{part}" for part in (2, 4, 8)),
)
DIMENSIONS = ("id_twonn", "id_twonn_surrogate")
MEASURED = {
    "all": ("anisotropy", "anisotropy_null", *DIMENSIONS),
    "no_sink": ("anisotropy", "anisotropy_null", *DIMENSIONS),
    "one_per_type": DIMENSIONS,
}
MODELS = (
    Model("wiki-decoder"),
    Model("wiki-encoder", kind="encoder", final_norm=False),
    Model("wiki-decoder-unstable", lower=0.2),
)


def metrics_table(models: tuple[Model, ...] = MODELS, datasets: tuple[str, ...] = DATASETS) -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for model in models:
        sites = [("embedding" if layer == 0 else "block", layer) for layer in range(model.blocks + 1)]
        for step in model.steps:
            for dataset in datasets:
                for site, layer in sites + [("final_norm", model.blocks)] * model.final_norm:
                    for variant, names in MEASURED.items():
                        cell = (model, step, dataset, site, layer, variant)
                        # scales: a row more for each would make the table ten times as long
                        scales = SCALES if step == model.steps[-1] and dataset == datasets[0] else ()
                        more = scales if variant != "no_sink" else ()
                        rows += [row(cell, metric, random) for metric in (*names, *more)]
    return pd.DataFrame(rows, columns=COLUMNS)


def row(cell: tuple, metric: str, random: np.random.Generator) -> dict[str, object]:
    model, step, dataset, site, layer, variant = cell
    depth = layer / max(model.blocks, 1)
    flag = ""
    if metric == "anisotropy_null":
        value, width = 0.0105, 0.0
    elif metric == "anisotropy":
        value, width = model.anisotropy(depth, step, variant), 0.02
        value = value * 0.4 if site == "final_norm" else value
    else:
        value, width = model.reading(metric, depth, step, dataset, variant) + random.normal(0, 0.1), 0.4
        flag = "fewer unique rows: 612 of 1024 per draw" if layer == 0 else ""
    return {
        "study": "synthetic", "model": model.name, "family": "gpt_neox", "kind": model.kind,
        "parameters": 1_200_000, "checkpoint": f"checkpoint-{step}", "step": step,
        "tokens_seen": 2048.0 * step, "dataset": dataset, "site": site, "layer": layer, "depth": depth,
        "rows": variant, "metric": metric, "value": value, "ci_low": max(value - width, 0),
        "ci_high": value + width, "draws": 5, "n_rows": 5120, "n_unique": 4800, "d": 128, "seed": 0,
        "flag": flag,
        "verdict": "",
    }  # fmt: skip


def loss_table(*, spike: bool) -> pd.DataFrame:
    """A loss of 700 steps that falls from 7.6 to about 4.2, with a spike at steps 350 to 420 if asked for."""
    step = np.arange(1, 701)
    loss = 4.2 + 3.4 * np.exp(-step / 60) + np.random.default_rng(1).normal(0, 0.06, 700)
    if spike:
        loss += np.where((step >= 350) & (step < 420), 1.6 * np.exp(-(step - 350) / 40), 0)
    return pd.DataFrame(
        {"step": step, "tokens": step * 2048, "loss": loss, "learning_rate": 1e-3, "gradient_norm": 1.0}
    )


def tables(
    metrics: pd.DataFrame | None = None, losses: Mapping[str, pd.DataFrame] | None = None
) -> dict[str, pd.DataFrame]:
    runs = [table.assign(run=run) for run, table in (losses or {}).items()]
    return {
        "metrics": metrics_table() if metrics is None else metrics,
        "losses": pd.concat(runs) if runs else pd.DataFrame(columns=["run", "step", "loss"]),
    }


@pytest.fixture(scope="module")
def embedded() -> dict[str, pd.DataFrame]:
    """Tables like those of the embedded study."""
    return tables(
        losses={"wiki-decoder": loss_table(spike=False), "wiki-decoder-unstable": loss_table(spike=True)}
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of the embedded study and the data behind it."""

    data: pd.DataFrame
    figure: Figure


@pytest.fixture(scope="module")
def drawings(embedded) -> dict[str, Drawn]:
    data = {name: FIGURES[name].data(embedded) for name in FIGURES}
    return {name: Drawn(data[name], FIGURES[name].draw(data[name])) for name in FIGURES}


STUDIES = {
    "many models": tables(
        metrics_table(
            tuple(Model(f"decoder-{i}", blocks=4 + i, steps=(1, 512, 143_000)) for i in range(5))
            + (Model("encoder", kind="encoder", steps=(0,)),),
            ("text",),
        )
    ),
    "one checkpoint, one block": tables(
        metrics_table((Model("main", blocks=1, steps=(143_000,)),), ("text",))
    ),
    "no known step": tables(metrics_table((Model("main", steps=(-1,)),), ("text", "random"))),
    "embedding and final norm": tables(metrics_table((Model("main", blocks=0, steps=(0,)),), ("text",))),
    "embedding only": tables(
        metrics_table((Model("main", blocks=0, steps=(0,), final_norm=False),), ("text",))
    ),
    "a spike and no number beside it": tables(
        metrics_table((Model("a"),)).assign(value=np.nan, flag="not finite: 6400 of 6400 rows"),
        {"a": loss_table(spike=True)},
    ),
    "one draw": tables(
        metrics_table((Model("a", steps=(0, 1)),), ("text",)).assign(ci_low=np.nan, ci_high=np.nan, draws=1)
    ),
    "no dimension": tables(
        metrics_table((Model("a"),)).query("metric == 'anisotropy'"), {"a": loss_table(spike=True)}
    ),
    "no anisotropy": tables(metrics_table((Model("a"),)).query("metric == 'id_twonn'")),
    "every value flagged": tables(
        metrics_table((Model("a", steps=(0, 1)),)).assign(
            value=np.nan, ci_low=np.nan, ci_high=np.nan, flag="not finite: 6400 of 6400 rows"
        ),
        {"a": loss_table(spike=False)},
    ),
    "nothing measured": tables(metrics_table().iloc[:0]),
    "a run that is not in the study": tables(metrics_table((Model("a"),)), {"b": loss_table(spike=True)}),
}


def words(figure: Figure) -> str:
    """All text of a figure, on one line."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text))


def drawn(figure: Figure) -> list[tuple[str, list[tuple[float, float]]]]:
    """Label and finite points of every line of every panel."""
    return [
        (str(line.get_label()), [tuple(point) for point in line.get_xydata() if np.isfinite(point).all()])
        for ax in figure.axes
        for line in ax.get_lines()
    ]


# What is selected


def test_by_layer_takes_the_last_checkpoint_of_each_model_on_the_first_dataset(drawings):
    data = drawings["anisotropy_by_layer"].data
    assert set(data["step"]) == {700}
    assert set(data["dataset"]) == {"wiki"}
    assert set(data["rows"]) == {"all", "no_sink"}
    assert data.groupby("model").size().to_dict() == {
        "wiki-decoder": 16,
        "wiki-encoder": 14,
        "wiki-decoder-unstable": 16,
    }


NULLS = {
    "anisotropy_by_layer": ("anisotropy_null", "isotropic rows at this n and d"),
    "anisotropy_over_training": ("anisotropy_null", "isotropic rows at this n and d"),
    "controls": ("anisotropy_null", "isotropic rows at this n and d"),
    "dimension_over_training": ("id_twonn_surrogate", "Gaussian, same covariance"),
}


@pytest.mark.parametrize("name", NULLS)
def test_the_null_of_the_table_stands_beside_each_value_and_is_drawn(embedded, drawings, name):
    metric, label = NULLS[name]
    data, figure = drawings[name].data, drawings[name].figure
    nulls = embedded["metrics"].query("metric == @metric").set_index(list(selection.PLACE))["value"]
    with_null = data[data["null"].notna()]
    assert len(with_null) == (data["metric"] == metric.removesuffix("_null").removesuffix("_surrogate")).sum()
    np.testing.assert_array_equal(
        with_null["null"], nulls.loc[list(with_null[[*selection.PLACE]].itertuples(index=False))]
    )
    dashed = [line for ax in figure.axes for line in ax.get_lines() if line.get_linewidth() == 1.0]
    assert label in words(figure) and "Dashed: " in words(figure)
    drawn_nulls = {value for line in dashed for value in line.get_ydata()}
    assert drawn_nulls and drawn_nulls <= {*with_null["null"]}


@pytest.mark.parametrize("name", NULLS)
def test_without_the_null_in_the_table_the_figure_draws_the_values_alone(embedded, drawings, name):
    metric, label = NULLS[name]
    metrics = embedded["metrics"].query("metric != @metric")
    data = FIGURES[name].data(embedded | {"metrics": metrics})
    assert data["null"].isna().all()
    pd.testing.assert_frame_equal(data.drop(columns="null"), drawings[name].data.drop(columns="null"))
    assert label not in words(FIGURES[name].draw(data))


def test_one_row_of_each_token_id_has_panels_of_its_own_on_the_scale_of_its_model(drawings):
    figure, data = drawings["dimension_over_training"].figure, drawings["dimension_over_training"].data
    assert selection.in_order(data["rows"]) == ["all", "one_per_type"]
    above, below = figure.axes[:3], figure.axes[3:6]
    for upper, lower, model in zip(above, below, MODELS, strict=True):
        assert upper.get_title(loc="left") == f"{model.name} ({model.kind})\nall rows"
        assert lower.get_title(loc="left") == f"{model.name} ({model.kind})\none row of each token id"
        assert upper.get_ylim() == lower.get_ylim()
        assert upper.get_legend() is not None and lower.get_legend() is None
    middle = data.query("model == 'wiki-decoder' and layer == 3 and rows == 'one_per_type'")
    curve = next(line for line in below[0].get_lines() if line.get_label() == "middle (layer 3)")
    assert list(curve.get_ydata()) == list(middle["value"])


def test_scales_are_those_of_the_last_checkpoint_on_all_rows_and_one_of_each_token_id(embedded, drawings):
    data, figure = drawings["dimension_by_scale"].data, drawings["dimension_by_scale"].figure
    assert (set(data["step"]), set(data["dataset"]), set(data["site"])) == ({700}, {"wiki"}, {"block"})
    scales = {view: sorted(of_view["scale"].unique()) for view, of_view in data.groupby("view")}
    assert scales == {"neighbors": [2, 4, 8, 16, 32, 64], "rows": [1, 2, 4, 8]}
    whole = data.query("view == 'rows' and scale == 1")
    assert set(whole["metric"]) == {"id_twonn"} and len(whole) == 3 * 6 * 2
    panel = figure.axes[1]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["n", "n/2", "n/4", "n/8"]
    assert panel.get_xlim()[0] > panel.get_xlim()[1]  # n at the right
    last = data.query("model == 'wiki-decoder' and layer == 6 and rows == 'all' and view == 'rows'")
    curve = next(line for line in panel.get_lines() if line.get_label() == "layer 6")
    assert dict(curve.get_xydata()) == dict(zip(last["scale"], last["value"], strict=True))


def test_a_scale_alone_is_no_curve(embedded):
    data = FIGURES["dimension_by_scale"].data
    metrics = embedded["metrics"]
    alone = metrics[~metrics["metric"].str.contains("gride_|decimated_")]
    assert data(embedded | {"metrics": alone}).empty
    assert "at no two scales" in words(
        FIGURES["dimension_by_scale"].draw(data(embedded | {"metrics": alone}))
    )
    gride = data(embedded | {"metrics": metrics[~metrics["metric"].str.contains("decimated_")]})
    assert set(gride["view"]) == {"neighbors"}
    assert "n/2" not in words(FIGURES["dimension_by_scale"].draw(gride))


def test_of_two_checkpoints_at_a_step_the_later_name_stands():
    frame = metrics_table((Model("a", steps=(5,)),), ("text",))
    twice = pd.concat([frame.assign(checkpoint="step5"), frame.assign(checkpoint="main")])
    assert set(selection.final_checkpoints(twice)["checkpoint"]) == {"main"}
    assert set(selection.trajectories(twice)["checkpoint"]) == {"main"}
    assert len(selection.trajectories(twice)) == len(frame)


def with_verdicts(frame: pd.DataFrame, **verdicts: str) -> pd.DataFrame:
    """Give checkpoints a verdict, as in step5="duplicate"; the others are ok."""
    known = {f"checkpoint-{name.removeprefix('step')}": verdict for name, verdict in verdicts.items()}
    return frame.assign(verdict=frame["checkpoint"].map(known).fillna("ok"))


def test_trajectories_leave_out_distrusted_checkpoints_and_name_them():
    frame = metrics_table((Model("a", steps=(0, 1, 2, 4, 8)), Model("b", steps=(0, 1))), ("text",))
    told = with_verdicts(
        frame, step0="expected_duplicate", step1="wrong_weights", step4="mixed_shards", step8="doubtful"
    )
    kept = selection.trajectories(told)
    steps = kept.groupby("model")["step"].unique().map(list).to_dict()
    assert steps == {"a": [0, 2, 8], "b": [0]}
    named = kept.groupby("model")["distrusted"].unique().map(list).to_dict()
    assert named == {"a": ["checkpoint-1, checkpoint-4"], "b": ["checkpoint-1"]}


@pytest.mark.parametrize("verdict", DISTRUSTED)
def test_a_distrusted_checkpoint_takes_no_place_from_a_sound_one_of_its_step(verdict: str):
    frame = metrics_table((Model("a", steps=(5,)),), ("text",))
    twice = pd.concat([frame.assign(checkpoint="step5"), frame.assign(checkpoint="again", verdict=verdict)])
    kept = selection.trajectories(twice)
    assert set(kept["checkpoint"]) == {"step5"} and len(kept) == len(frame)
    assert set(kept["distrusted"]) == {"again"}


def test_where_nothing_is_trusted_figures_over_training_are_drawn_empty():
    frame = metrics_table((Model("a", steps=(0, 1)),), ("text",)).assign(verdict="duplicate")
    assert selection.trajectories(frame).empty
    for name in ("anisotropy_over_training", "dimension_over_training", "controls"):
        assert FIGURES[name].draw(FIGURES[name].data(tables(frame))).axes


def test_trajectories_leave_out_unknown_steps_and_sort_the_others():
    frame = metrics_table((Model("a", steps=(8, -1, 2)), Model("b", steps=(4, 0))), ("text",))
    steps = selection.trajectories(frame).groupby("model", sort=False)["step"].unique()
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
    assert selection.named_layers(blocks) == named
    assert list(selection.named_layers(blocks).values()) == sorted(named.values())


def test_controls_hold_every_dataset_and_put_decoders_first(drawings):
    data = drawings["controls"].data
    assert tuple(selection.in_order(data["dataset"])) == DATASETS
    assert selection.in_order(data["model"])[-1] == "wiki-encoder"
    assert set(data.loc[data["view"] == "over training", "layer"]) == {3}
    assert set(data.loc[data["view"] == "by layer", "step"]) == {700}


def test_controls_leave_out_models_without_control_by_name_unless_none_has_one():
    both = pd.concat([metrics_table((Model("a"), Model("b"))), metrics_table((Model("c"),), ("wiki",))])
    data = FIGURES["controls"].data(tables(both))
    assert selection.in_order(data["model"]) == ["a", "b"]
    assert "Not drawn, as measured on one dataset only: c." in words(FIGURES["controls"].draw(data))
    alone = FIGURES["controls"].data(tables(metrics_table((Model("a"), Model("b")), ("wiki",))))
    assert selection.in_order(alone["model"]) == ["a", "b"]
    assert "Not drawn" not in words(FIGURES["controls"].draw(alone))


@pytest.mark.parametrize("name", ["dimension_over_training", "controls", "loss_spike"])
def test_the_dimension_of_the_embedding_is_left_out_and_the_figure_says_so(drawings, name):
    data = drawings[name].data
    dimension = data[data["metric"] == "id_twonn"]
    assert len(dimension) and dimension["layer"].min() >= 1
    assert "embedding" not in set(dimension["site"])
    assert "The embedding's dimension is left out: its rows are a finite set" in words(drawings[name].figure)


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


# The spike rule


def test_a_spike_is_found_where_it_is_and_nowhere_else():
    (region,) = spikes(with_spikes(loss_table(spike=True)))
    assert region[0] == 350
    assert 395 <= region[1] <= 420
    assert spikes(with_spikes(loss_table(spike=False))) == []


def test_a_spike_lasts_until_the_loss_is_back():
    run = loss_table(spike=False)
    run.loc[run["step"] > 300, "loss"] += 2
    assert spikes(with_spikes(run)) == [(301, 700)]


def test_a_single_hard_batch_is_no_spike():
    run = loss_table(spike=False)
    run.loc[[300, 500, 501], "loss"] += 3
    assert spikes(with_spikes(run)) == []


def test_a_loss_that_is_not_finite_is_in_a_spike():
    run = loss_table(spike=False)
    run.loc[499:519, "loss"] = [np.nan, *[np.inf] * 20]
    assert spikes(with_spikes(run)) == [(500, 520)]


def test_the_run_with_the_greatest_spike_is_drawn(drawings):
    assert set(drawings["loss_spike"].data["model"]) == {"wiki-decoder-unstable"}
    assert "steps 350–" in words(drawings["loss_spike"].figure)


def test_the_middle_block_beside_the_spike_is_circled(drawings):
    dimension = drawings["loss_spike"].data.query("series == 'dimension' and layer == 3").set_index("step")
    *_, circles = [points for _, points in drawn(drawings["loss_spike"].figure)][:-1]
    assert circles == [(step, dimension["value"][step]) for step in (200, 300, 400)]
    values = [f"{dimension['value'][step]:.2f} at step {step}" for step in (200, 300, 400)]
    note = (
        f"Circled, layer 3 beside the first shading: {values[0]} (before), {values[1]} (before), {values[2]}"
    )
    assert f"{note} (within)." in words(drawings["loss_spike"].figure)


@pytest.mark.parametrize(
    ("spike", "places"),
    [
        ((0, 700), {0: "within"}),
        ((350, 420), {200: "before", 300: "before", 400: "within"}),
        ((310, 390), {200: "before", 300: "before"}),
        ((900, 950), {600: "before", 700: "before"}),
    ],
)
def test_checkpoints_beside_a_spike_are_those_there_are(drawings, spike, places):
    dimension = drawings["loss_spike"].data.query("series == 'dimension'")
    rows = beside(dimension, spike)
    assert set(rows["layer"]) == {3}
    assert rows.set_index("step")["place"].to_dict() == places


def test_a_checkpoint_without_number_is_not_beside_a_spike(drawings):
    dimension = drawings["loss_spike"].data.query("series == 'dimension'")
    lost = dimension.assign(value=dimension["value"].where(~dimension["step"].isin([300, 400])))
    assert beside(lost, (350, 420))["step"].to_list() == [128, 200]


def test_the_peak_of_the_learning_rate_is_said_if_it_is_known():
    run = loss_table(spike=True)
    rising = run.assign(learning_rate=np.minimum(run["step"], 300) * 1e-5)
    metrics = metrics_table((Model("a"),), ("wiki",))
    for loss, note in ((rising, True), (run.drop(columns="learning_rate"), False)):
        data = FIGURES["loss_spike"].data(tables(metrics, {"a": loss}))
        said = "The learning rate is greatest, 0.003, at step 300." in words(FIGURES["loss_spike"].draw(data))
        assert said == note


# Looks


def test_nested_looks_grow_narrower_and_a_single_one_is_plain():
    widths = [look.width for look in nested_looks(DATASETS).values()]
    sizes = [look.size for look in nested_looks(DATASETS).values()]
    assert widths == pytest.approx([6.5, 3.9, 1.3]) and sizes == pytest.approx([10, 7.25, 4.5])
    assert nested_looks(["text"]) == looks(["text"])
    assert nested_looks([]) == {}


def test_looks_stay_different_beyond_the_colors():
    assert len(set(looks([str(i) for i in range(252)]).values())) == 252


def test_models_of_a_kind_differ_in_line_and_marker_alone():
    kinds = {f"m{i}": "encoder" if i % 3 else "decoder" for i in range(36)}
    shapes = {(look.line, look.marker) for look in looks_by_kind(kinds).values()}
    assert len(shapes) == 36


# What is drawn


@pytest.mark.parametrize("name", FIGURES)
def test_the_csv_holds_all_that_is_drawn(drawings, name, tmp_path):
    drawings[name].data.to_csv(tmp_path / "data.csv", index=False)
    again = FIGURES[name].draw(pd.read_csv(tmp_path / "data.csv"))
    first = drawings[name].figure
    assert words(again) == words(first)
    for (label, points), (same_label, same_points) in zip(drawn(first), drawn(again), strict=True):
        assert label == same_label
        assert np.allclose(np.array(points), np.array(same_points))


@pytest.mark.parametrize("name", FIGURES)
def test_a_choice_of_rows_for_dimensions_alone_is_in_the_figures_of_dimensions_alone(
    embedded, drawings, name
):
    metrics = embedded["metrics"]
    data = FIGURES[name].data(embedded | {"metrics": metrics[metrics["rows"] != "one_per_type"]})
    both = drawings[name].data
    if name.startswith("dimension_"):
        assert set(both["rows"]) == {"all", "one_per_type"}
        both = both[both["rows"] == "all"].reset_index(drop=True)
    pd.testing.assert_frame_equal(data, both)


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("name", FIGURES)
def test_every_study_draws(study, name):
    assert FIGURES[name].title in words(FIGURES[name].draw(FIGURES[name].data(STUDIES[study])))


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
        ("dimension_over_training", "one checkpoint, one block", "One checkpoint only: main."),
        ("dimension_over_training", "one draw", "One draw of sequences: no interval."),
        ("controls", "no dimension", "`id_twonn` not measured"),
        ("controls", "no anisotropy", "`anisotropy` not measured"),
        ("controls", "one draw", "no control to compare with"),
        ("controls", "no known step", "fewer than two training steps"),
        ("controls", "embedding only", "`id_twonn` not measured on a block"),
        ("dimension_over_training", "embedding only", "no `id_twonn` of a block at a known training step"),
        ("loss_spike", "many models", "This study has no pretraining run"),
        ("loss_spike", "every value flagged", "No spike"),
        ("loss_spike", "a run that is not in the study", "`id_twonn` was not measured on b"),
    ],
)
def test_what_is_missing_is_said_in_the_figure(name, study, note):
    assert note in words(FIGURES[name].draw(FIGURES[name].data(STUDIES[study])))


def test_values_that_are_not_numbers_are_gaps_and_counted():
    metrics = metrics_table((Model("a"),), ("text",))
    lost = (metrics["step"] == 700) & (metrics["layer"] == 3) & (metrics["rows"] == "all")
    metrics.loc[lost, ["value", "ci_low", "ci_high"]] = np.nan
    metrics.loc[lost, "flag"] = "not finite: 12 of 6400 rows"
    figure = FIGURES["anisotropy_by_layer"].draw(FIGURES["anisotropy_by_layer"].data(tables(metrics)))
    assert "1 of 16 values are not numbers (not finite)" in words(figure)
    curve = next(line for line in figure.axes[0].get_lines() if line.get_label() == "a")
    assert np.isnan(curve.get_ydata()).tolist() == [False] * 3 + [True] + [False] * 3


def test_flagged_numbers_have_open_markers_and_are_counted():
    metrics = metrics_table((Model("a"),), ("text",))
    metrics.loc[metrics["layer"] == 6, "flag"] = "fewer unique rows: 612 of 1024 per draw"
    figure = FIGURES["dimension_over_training"].draw(FIGURES["dimension_over_training"].data(tables(metrics)))
    assert "Open markers: 30 of 90 values are flagged (fewer unique rows)." in words(figure)
    hollow = [line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert [len(line.get_xdata()) for line in hollow] == [0, 0, 15]


def test_a_value_without_interval_is_drawn_and_marked():
    metrics = metrics_table((Model("a"),), ("text",))
    alone = (metrics["metric"] == "anisotropy") & (metrics["layer"] == 3) & (metrics["site"] == "block")
    metrics.loc[alone, ["ci_low", "ci_high"]] = np.nan
    metrics.loc[alone, "flag"] = "no interval: not defined without one of its draws"
    data = FIGURES["anisotropy_by_layer"].data(tables(metrics))
    figure = FIGURES["anisotropy_by_layer"].draw(data)
    curve = next(points for label, points in drawn(figure) if label == "a")
    assert [x for x, _ in curve] == pytest.approx([layer / 6 for layer in range(7)])
    assert "Open markers: 2 of 16 values are flagged (no interval)." in words(figure)


def test_the_scale_of_a_panel_fits_its_own_model():
    models = metrics_table((Model("low"), Model("high")), ("text",))
    high = (models["model"] == "high") & (models["metric"] == "id_twonn")
    models.loc[high, ["value", "ci_low", "ci_high"]] += 100
    data = FIGURES["dimension_over_training"].data(tables(models))
    figure = FIGURES["dimension_over_training"].draw(data)
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
    assert len(panels) == 6


def test_the_mark_of_a_final_norm_is_seen():
    figure = Figure()
    row = pd.DataFrame({"value": [0.5], "ci_low": [0.4], "ci_high": [0.6]})
    marks.off_line(figure.subplots(), row, x=1, look=Look("#000000", "-", "_"))
    assert figure.axes[0].get_lines()[0].get_markeredgecolor() == "#000000"


@pytest.mark.parametrize("name", FIGURES)
def test_intervals_and_draws_are_named(drawings, name):
    assert "95 % interval over 5 draws of sequences" in words(drawings[name].figure)


def test_final_norm_is_off_the_line(drawings):
    figure = drawings["anisotropy_by_layer"].figure
    curve = next(points for label, points in drawn(figure) if label == "wiki-decoder")
    assert [x for x, _ in curve] == pytest.approx([layer / 6 for layer in range(7)])
    assert "final norm" in words(figure)


def test_step_zero_is_on_the_axis(drawings):
    figure = drawings["dimension_over_training"].figure
    assert figure.axes[0].get_xticks().tolist() == [0, 1, 10, 100, 700]
    assert figure.axes[0].get_xlim()[0] < 0


def test_drawing_leaves_the_callers_settings_alone(drawings):
    before = dict(matplotlib.rcParams)
    FIGURES["loss_spike"].draw(drawings["loss_spike"].data)
    assert dict(matplotlib.rcParams) == before


# Files


def written_tables(folder: Path) -> tuple[Path, Path]:
    metrics = metrics_table((Model("run", steps=(0, 1, 700)),), ("b", "a"))
    metrics.to_parquet(folder / "metrics.parquet")
    for name in ("checkpoints", "profiles"):
        pd.DataFrame({"model": ["run"]}).to_parquet(folder / f"{name}.parquet")
    loss_table(spike=True).to_csv(folder / "loss.csv", index=False)
    return folder, folder / "loss.csv"


def test_render_writes_picture_twin_and_data(tmp_path):
    folder, loss = written_tables(tmp_path)
    render("loss_spike", folder, output_stem=tmp_path / "figures" / "loss_spike", losses={"run": loss})
    assert sorted(os.listdir(tmp_path / "figures")) == ["loss_spike.csv", "loss_spike.png", "loss_spike.svg"]
    assert imread(tmp_path / "figures" / "loss_spike.png").shape[:2] == (1240, 1800)
    assert set(pd.read_csv(tmp_path / "figures" / "loss_spike.csv")["series"]) == {"loss", "dimension"}


def test_the_same_tables_give_the_same_bytes(tmp_path):
    folder, _ = written_tables(tmp_path)
    for stem in ("one", "two"):
        render("anisotropy_by_layer", folder, output_stem=tmp_path / stem, losses={})
    for end in ("png", "svg", "csv"):
        assert (tmp_path / f"one.{end}").read_bytes() == (tmp_path / f"two.{end}").read_bytes()


def test_datasets_are_taken_in_the_order_of_the_study(tmp_path):
    folder, _ = written_tables(tmp_path)
    assert selection.in_order(read_tables(folder, losses={})["metrics"]["dataset"]) == ["b", "a"]
    ordered = read_tables(folder, losses={}, datasets=["a", "b"])["metrics"]
    assert selection.in_order(ordered["dataset"]) == ["a", "b"]
    assert FIGURES["anisotropy_by_layer"].data({"metrics": ordered})["dataset"].unique().tolist() == ["a"]


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
        match=r"metrics.parquet` does not exist; figures and report need it. Make the tables first",
    ):
        render("controls", tmp_path, output_stem=tmp_path / "x", losses={})
