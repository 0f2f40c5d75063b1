"""Maps of layers and steps, figures of many models, means of kinds: what stands where."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from figure_tables import Model, metrics_table, profiles_table, tables
from figure_words import drawn, words
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from scipy.stats import t

from lmshape.figures import FIGURES, layout, maps
from lmshape.figures.files import save
from lmshape.figures.kinds import kind_means
from lmshape.figures.steps import near_steps, spread, step_axis

pytestmark = pytest.mark.slow


def draw(name: str, metrics: pd.DataFrame) -> Figure:
    return FIGURES[name].load().draw(FIGURES[name].load().data(tables(metrics)))


def meshes(figure: Figure, panel: int = 0) -> list[QuadMesh]:
    return [mesh for mesh in figure.axes[panel].collections if isinstance(mesh, QuadMesh)]


# The axis of steps


def test_places_of_steps_are_those_of_the_axis():
    steps = np.array([0, 1, 3, 10, 500, 143_000])
    ax = Figure().subplots()
    step_axis(ax, steps)
    pixels = ax.transData.transform(np.c_[steps, np.zeros(6)])[:, 0]
    places = maps.PLACES.transform(steps)
    assert np.diff(pixels) / np.diff(pixels)[0] == pytest.approx(np.diff(places) / np.diff(places)[0])
    assert maps.PLACES.inverted().transform(places) == pytest.approx(steps)


def test_edges_lie_halfway_between_checkpoints():
    steps = [0, 1, 10, 1000]
    places, edges = (
        maps.PLACES.transform(np.array(steps)),
        maps.PLACES.transform(maps.step_edges(steps)),
    )
    assert edges[1:-1] == pytest.approx((places[1:] + places[:-1]) / 2)
    assert edges[0] < places[0] and edges[-1] > places[-1]
    low, high = maps.step_edges([512])
    assert low < 512 < high


def test_checkpoints_too_near_for_a_logarithmic_axis_are_slivers():
    assert not maps.has_slivers([0, 2, 8, 16, 64, 128, 384, 1024])
    assert maps.has_slivers([0, 8, 64, 640, 704, 768])
    assert not maps.has_slivers([512])
    assert not maps.has_slivers(range(0, 154_000, 1000))  # many are a picture of narrow cells


def test_slivers_are_drawn_evenly_and_the_figure_says_so():
    steps = (0, 64, 640, 704, 768)
    figure = draw("anisotropy_map", metrics_table((Model("a", blocks=4, steps=steps),), ("text",)))
    edges = np.asarray(meshes(figure)[0].get_coordinates())[0, :, 0]
    assert edges.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    panel = figure.axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == [str(step) for step in steps]
    assert panel.get_xlim() == (-0.5, 4.5)
    assert "too near one another for a logarithmic axis are evenly spaced." in words(figure)
    assert "evenly spaced" not in words(draw("anisotropy_map", metrics_table((Model("a"),), ("text",))))


# Labels of steps


def test_steps_whose_colors_are_alike_are_near():
    assert near_steps([0, 8, 64, 256, 384, 448, 512]) == [384, 448, 512]
    assert near_steps([0, 1, 2, 4]) == []
    assert near_steps(range(0, 154_000, 1000)) == []  # more than have room


def test_labels_are_moved_apart_and_keep_their_order():
    moved = spread([0.5, 0.1, 0.52, 0.51], 0.1)
    assert moved == pytest.approx([0.41, 0.1, 0.61, 0.51])
    assert spread([], 0.1) == []
    for heights in (np.linspace(0, 0.2, 9), [0.0, 0.05, 0.3, 0.31, 0.32, 0.45]):
        assert np.diff(spread(list(heights), 0.1)).min() >= 0.1 - 1e-12


def test_near_steps_stand_beside_their_lines():
    model = Model("a", blocks=4, steps=(0, 64, 640, 704))
    figure = draw("anisotropy_over_training", metrics_table((model,), ("text",)))
    assert [text.get_text() for text in figure.axes[0].texts] == ["640", "704"]
    assert "Steps beside lines: those within a factor of 1.5 of another." in words(figure)


# Maps


def test_a_map_holds_the_table_with_layers_upwards():
    metrics = metrics_table((Model("a", blocks=4),), ("text",))
    inside, final = meshes(draw("anisotropy_map", metrics))
    chosen = metrics.query("metric == 'anisotropy' and rows == 'all' and site != 'final_norm'")
    matrix = chosen.pivot(index="layer", columns="step", values="value").to_numpy()
    np.testing.assert_allclose(np.asarray(inside.get_array()).reshape(matrix.shape), matrix)
    edges = np.asarray(inside.get_coordinates())
    assert edges[:, 0, 1].tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5]
    assert edges[0, :, 0] == pytest.approx(maps.step_edges([0, 16, 700]))
    assert final.get_coordinates()[0, 0, 1] > 4.5


def test_cells_without_a_number_are_hatched_with_the_reason():
    metrics = metrics_table((Model("a", blocks=4),), ("text",))
    lost = (metrics["step"] == 16) & (metrics["layer"] == 2) & (metrics["metric"] == "anisotropy")
    metrics.loc[lost, ["value", "ci_low", "ci_high"]] = np.nan
    metrics.loc[lost, "flag"] = "not finite: 12 of 6400 rows"
    absent = (metrics["step"] == 700) & (metrics["layer"] == 1) & (metrics["rows"] == "all")
    figure = draw("anisotropy_map", metrics[~absent])
    assert "Hatched: 3 of 36 cells have no number (not finite; not measured)." in words(figure)
    hatched = [patch for patch in figure.axes[0].patches if patch.get_hatch()]
    assert len(hatched) == 1 and hatched[0].zorder < meshes(figure)[0].zorder
    assert meshes(figure)[0].get_array().mask.sum() == 2
    assert "Hatched" not in words(draw("anisotropy_map", metrics[~lost & (metrics["step"] != 16)]))


def profile(values: list[float], *, half_width: float, site: str = "block") -> pd.DataFrame:
    value = np.array(values)
    cell = {"model": "a", "dataset": "text", "rows": "all", "metric": "anisotropy", "step": 0, "site": site}
    frame = pd.DataFrame({"layer": range(1, len(values) + 1), "value": value}).assign(**cell)
    return frame.assign(ci_low=value - half_width, ci_high=value + half_width)


@pytest.mark.parametrize(
    ("values", "half_width", "peak"),
    [
        ([0.1, 0.5, 0.2], 0.05, 2),
        ([0.5, 0.1, 0.2], 0.05, 1),
        ([0.1, 0.5, 0.2], 0.21, None),  # the intervals of highest and lowest meet
        ([0.1, 0.5, 0.2], np.nan, 2),
        ([0.1, np.nan, 0.2, 0.4], 0.01, 4),
        ([0.1, 0.5], 0.05, None),
        ([np.nan, np.nan, np.nan], 0.05, None),
    ],
)
def test_the_peak_is_the_highest_block_unless_the_profile_is_level(values, half_width, peak):
    norm = profile([2.0], half_width=0.0, site="final_norm")  # in another space, and no block
    marked = maps.with_peaks(pd.concat([profile(values, half_width=half_width), norm], ignore_index=True))
    assert marked.loc[marked["peak"], "layer"].tolist() == ([peak] if peak else [])
    assert set(marked.loc[marked["peak"], "site"]) <= {"block"}


def test_cells_as_high_as_their_null_carry_a_dot():
    metrics = metrics_table((Model("a", blocks=3),), ("text",))
    metrics.loc[metrics["metric"] == "id_twonn_surrogate", "value"] = 8.0
    data = FIGURES["dimension_map"].load().data(tables(metrics))
    assert set(data["as_null"]) == {True, False}
    pd.testing.assert_series_equal(data["as_null"], data["ci_high"] >= 8.0, check_names=False)
    assert "as high as Gaussian rows of the same covariance" in words(
        FIGURES["dimension_map"].load().draw(data)
    )
    isotropic = FIGURES["anisotropy_map"].load().data(tables(metrics))
    assert (isotropic["as_null"] == (isotropic["ci_low"] <= 0.0105)).all() and isotropic["as_null"].any()


def test_one_row_of_each_token_id_has_its_own_scale_of_colors():
    figure = draw("dimension_map", metrics_table((Model("a", blocks=3),), ("text",)))
    scales = [(mesh.norm.vmin, mesh.norm.vmax) for panel in range(3) for mesh in meshes(figure, panel)[:1]]
    assert scales[0] == scales[1] != scales[2]
    assert "One row of each token id has its own scale of colors." in words(figure)


def test_154_checkpoints_of_48_layers_are_a_small_file(tmp_path):
    steps = (0, *(2**k for k in range(10)), *range(1000, 144_000, 1000))
    metrics = metrics_table((Model("a", blocks=48, steps=steps),), ("text",))
    data = (
        FIGURES["anisotropy_map"].load().data(tables(metrics[metrics["metric"].str.startswith("anisotropy")]))
    )
    assert data["step"].nunique() == 154
    figure = FIGURES["anisotropy_map"].load().draw(data)
    save(figure, data, tmp_path / "map")
    assert (tmp_path / "map.svg").stat().st_size < 500_000
    peaks = [line for line in figure.axes[0].get_lines() if line.get_label() == "_peak"]
    assert all(line.get_linestyle() == "-" for line in peaks) and len(peaks) == 2


# Many models


MIDDLE = {f"d{i}": 1 + (i % 3 > 0) for i in range(9)} | {f"e{i}": 2 for i in range(3)}


@pytest.fixture(scope="module")
def crowd() -> pd.DataFrame:
    decoders = [Model(f"d{i}", blocks=2 + i % 3, steps=(0, 700), lower=i / 12) for i in range(9)]
    encoders = [Model(f"e{i}", kind="encoder", blocks=3, steps=(-1,)) for i in range(3)]
    return metrics_table((*encoders, *decoders), ("text", "random"))


def test_each_of_many_models_has_a_panel_over_all_the_others(crowd):
    figure = draw("anisotropy_by_layer", crowd)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [*(f"d{i} (decoder)" for i in range(9)), *(f"e{i} (encoder)" for i in range(3))]
    for ax in figure.axes:
        labels = [line.get_label() for line in ax.get_lines()]
        assert labels.count("_other") == 12 and {"all", "no_sink"} <= {*labels}
    assert figure.get_figwidth() < 14


def test_trajectories_of_many_models_are_small_panels_and_those_without_are_left_out(crowd):
    figure = draw("dimension_over_training", crowd)
    titles = [ax.get_title(loc="left").split("\n")[0] for ax in figure.axes if ax.get_title(loc="left")]
    assert set(titles) == {f"d{i} (decoder)" for i in range(9)}
    assert figure.get_figwidth() < 14
    assert "early: a quarter of the blocks" in words(figure)


def test_controls_of_many_models_are_dots_of_their_middle_blocks(crowd):
    data = FIGURES["controls"].load().data(tables(crowd))
    figure = FIGURES["controls"].load().draw(data)
    assert len(figure.axes) == 5  # anisotropy of two choices of rows, the dimension of three
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [*(f"d{i}" for i in range(9)), *(f"e{i}" for i in range(3))]
    last = data.query("view == 'by layer' and metric == 'anisotropy' and rows == 'all' and dataset == 'text'")
    middle = last[(last["site"] == "block") & (last["layer"] == last["model"].map(MIDDLE))]
    points = next(points for label, points in drawn(figure) if label == "text")
    assert [x for x, _ in points] == middle["value"].tolist()
    assert "The middle block of each model at its last checkpoint" in words(figure)


# Kinds


def flat(model: str, value: float, *, blocks: int, kind: str = "decoder") -> pd.DataFrame:
    layers = np.arange(1, blocks + 1)
    frame = pd.DataFrame({"layer": layers, "depth": layers / blocks, "value": value, "null": value / 2})
    return frame.assign(model=model, kind=kind, rows="all", metric="anisotropy")


def test_the_mean_of_a_kind_has_students_interval_over_models():
    values = [0.2, 0.3, 0.7]
    blocks = [flat(f"m{i}", value, blocks=3 + i) for i, value in enumerate(values)]
    mean = kind_means(pd.concat(blocks), logarithmic=False)
    half = t.ppf(0.975, 2) * np.std(values, ddof=1) / np.sqrt(3)
    assert mean["depth"].to_numpy() == pytest.approx([1 / 3, 2 / 3, 1])  # of the model with the fewest blocks
    assert mean["value"].to_numpy() == pytest.approx(0.4) and mean["null"].to_numpy() == pytest.approx(0.2)
    assert (mean["ci_high"] - mean["value"]).to_numpy() == pytest.approx(half)
    assert (mean["value"] - mean["ci_low"]).to_numpy() == pytest.approx(half)
    assert set(mean["models"]) == {3}


def test_means_of_dimensions_are_geometric_and_two_models_have_no_interval():
    mean = kind_means(pd.concat([flat("a", 2.0, blocks=3), flat("b", 8.0, blocks=6)]), logarithmic=True)
    assert mean["value"].to_numpy() == pytest.approx(4.0)
    assert mean["ci_low"].isna().all() and mean["ci_high"].isna().all()


def test_models_of_another_depth_are_interpolated():
    rising = flat("a", 0.0, blocks=4).assign(value=[0.25, 0.5, 0.75, 1.0])
    mean = kind_means(pd.concat([rising, flat("b", 0.0, blocks=2)]), logarithmic=False)
    assert mean["depth"].tolist() == [0.5, 1.0]
    assert mean["value"].to_numpy() == pytest.approx([0.25, 0.5])


def test_the_domes_of_the_kinds_are_those_of_the_table(crowd):
    one_dataset = crowd[crowd["dataset"] == "text"]
    data = FIGURES["encoders_and_decoders"].load().data(tables(one_dataset))
    domes = data[data["view"] == "dome"].set_index(["model", "rows"])["value"]
    last = one_dataset[one_dataset["step"] != 0]
    expected = profiles_table(last).set_index(["model", "rows"])["dome_index"]
    pd.testing.assert_series_equal(domes.sort_index(), expected.sort_index(), check_names=False)
    figure = FIGURES["encoders_and_decoders"].load().draw(data)
    assert "mean of 9 decoders" in words(figure) and "mean of 3 encoders" in words(figure)
    assert "Bands of means: 95 % interval over models (Student's t)." in words(figure)


def test_kinds_of_one_or_two_models_have_no_mean_and_their_models_are_named():
    models = (Model("healthy"), Model("broken"), *(Model(f"e{i}", kind="encoder") for i in range(3)))
    data = FIGURES["encoders_and_decoders"].load().data(tables(metrics_table(models, ("text",))))
    assert set(data.loc[data["view"] == "kind", "kind"]) == {"encoder"}
    figure = FIGURES["encoders_and_decoders"].load().draw(data)
    said = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert {"healthy", "broken", "mean of 3 encoders", "each encoder"} <= {*said} and "e0" not in said
    assert "No mean of decoders: fewer than three models." in words(figure)
    panel = next(points for label, points in drawn(figure) if label == "broken")
    values = data.query("view == 'model' and model == 'broken' and metric == 'anisotropy' and rows == 'all'")
    assert [y for _, y in panel] == values["value"].tolist()


def test_the_dome_of_each_model_stands_beside_its_name(crowd):
    data = FIGURES["encoders_and_decoders"].load().data(tables(crowd))
    panel = FIGURES["encoders_and_decoders"].load().draw(data).axes[2]
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert names == [*(f"d{i}" for i in range(9)), *(f"e{i}" for i in range(3))]
    dots = [line for line in panel.get_lines() if line.get_label() == "_dome"]
    index = data[(data["view"] == "dome")].set_index(["model", "rows"])["value"]
    for dot in dots:
        rows = "no_sink" if dot.get_markerfacecolor() == "white" else "all"
        (place,) = dot.get_ydata()
        assert dot.get_xdata()[0] == index[names[round(place)], rows]
    assert len(dots) == len(index) == 24


def test_without_profiles_there_is_no_dome_panel_and_the_figure_says_so(crowd):
    study = tables(crowd[crowd["model"] == "d0"]) | {"profiles": pd.DataFrame({"model": ["d0"]})}
    figure = FIGURES["encoders_and_decoders"].load().draw(FIGURES["encoders_and_decoders"].load().data(study))
    assert "no dome index" in words(figure)


# Layout


def test_only_the_outer_panels_name_their_axes():
    figure, panels = layout.panel_grid(["a", "b", "c"], ["all", "no_sink"], size=(2, 2), columns=2)
    for ax in panels.values():
        ax.set(xlabel="x", ylabel="y")
    layout.label_outer_panels(panels.values())
    assert {place for place, ax in panels.items() if ax.get_xlabel()} == {("b", "no_sink"), ("c", "no_sink")}
    assert {name for (name, _), ax in panels.items() if ax.get_ylabel()} == {"a", "c"}


def test_a_title_beside_a_legend_is_wrapped_to_the_room_that_is_left():
    lines = {}
    for legend in (False, True):
        figure = Figure(figsize=(8, 4))
        figure.subplots().plot([0, 1], label="a name that takes half of the width of the figure")
        if legend:
            figure.legend(loc="outside upper right")
        layout.finish(figure, title="A title of the figure that takes more than half of its width", notes=[])
        lines[legend] = figure._suptitle.get_text().count("\n")
    assert lines[False] == 0 < lines[True]
