"""The figures: every one at every size of study, what they select and say, and the files they are."""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from color_vision import DEFICIENCIES, contrast, distance, lab
from figure_studies import HOSTILE, LONG, STUDIES, Model, metrics_table, spike_tables, study
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lmshape import cli
from lmshape.errors import InputError
from lmshape.figures import FIGURES, over_training, render, selection
from lmshape.figures.drawing import read_losses, read_tables
from lmshape.figures.layout import places_by_rank, some, step_axis, step_name
from lmshape.figures.phases import significant_segments
from lmshape.figures.style import COLORS, FAINT, INK, PAPER, SCREEN, sequence
from lmshape.hub.integrity import DISTRUSTED
from lmshape.study.registry import REPOSITORY

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, ("error::UserWarning", "ignore:Glyph"))]

OF_METRICS = tuple(name for name in FIGURES if name not in ("truncation", "losses", "warnings"))
OVER_TRAINING = (
    "anisotropy_over_training",
    "dimension_over_training",
    "phases",
    "anisotropy_map",
    "dimension_map",
)
NUMBERS = ["value", "ci_low", "ci_high"]
# Figures of which a study of that size has nothing to show.
NOTHING = {
    "embedded": {"sinks"},
    "many models": {*OVER_TRAINING, "losses", "warnings"},
    "many checkpoints": {"controls", "losses", "warnings"},
    "least": {*OVER_TRAINING, "sinks", "controls", "losses", "warnings"},
    "hostile": {"losses", "warnings"},
}
DRAWN = [(size, name) for size in STUDIES for name in FIGURES]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory):
    @cache
    def made(size: str) -> dict[str, pd.DataFrame]:
        trained = {}
        if size == "embedded":
            trained = spike_tables(tmp_path_factory.mktemp("runs"), {"a": 3, "calm": 0, "b": 2})
        return study(STUDIES[size], gone=(8,)) | trained

    return made


@pytest.fixture(scope="module")
def drawn(tables):
    @cache
    def made(size: str, name: str, paper: str = "") -> tuple[pd.DataFrame, Figure]:
        figure = FIGURES[name].load()
        data = figure.data(tables(size))
        picture = figure.draw(data, PAPER[paper] if paper else SCREEN)
        picture.draw_without_rendering()
        return data, picture

    return made


def draw(name: str, study: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, Figure]:
    data = FIGURES[name].load().data(study)
    return data, FIGURES[name].load().draw(data)


def texts(figure: Figure) -> list[Text]:
    """All visible text of a figure but the names of ticks; title, footer and the name of y are among `texts`."""
    titles = [
        title for ax in figure.axes for title in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)
    ]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    inside = [text for ax in figure.axes for text in ax.texts]
    return [text for text in (*titles, *figure.texts, *legends, *inside) if text.get_text()]


def said(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text().split()) for text in texts(figure))


# Every figure, at every size of study


@pytest.mark.parametrize(("size", "name"), DRAWN)
def test_a_figure_is_drawn_or_says_in_one_line_why_not(drawn, size: str, name: str) -> None:
    _, figure = drawn(size, name)
    assert FIGURES[name].load().title in said(figure)
    assert bool(figure.axes) == (name not in NOTHING[size])
    if not figure.axes:
        assert figure.get_figheight() < 1 and len(said(figure).split()) < 45


@pytest.mark.parametrize(("size", "name"), DRAWN)
def test_numbers_are_those_of_the_tables(drawn, tables, size: str, name: str) -> None:
    data, _ = drawn(size, name)
    if name in OF_METRICS and len(data):
        keys = [*selection.PLACE, "metric"]
        both = data.merge(tables(size)["metrics"][[*keys, *NUMBERS]], on=keys, suffixes=("", "_table"))
        assert len(both) == len(data) == len(data.drop_duplicates(keys))
        for number in NUMBERS:
            np.testing.assert_array_equal(both[number], both[f"{number}_table"])


@pytest.mark.parametrize(("size", "name"), DRAWN)
def test_words_are_few_and_no_text_lies_on_panels_or_other_text(drawn, size: str, name: str) -> None:
    _, figure = drawn(size, name)
    check_places(figure)
    panels = len([ax for ax in figure.axes if ax.get_label() != "<colorbar>"])
    assert len(said(figure).split()) <= 48 + 9 * panels


def check_places(figure: Figure) -> None:
    """Legends lie outside of panels, names and ticks on no other, and all within the figure."""
    panels = [ax.get_window_extent() for ax in figure.axes]
    outside = [box(legend) for legend in figure.legends]
    titles = [box(text) for ax in figure.axes for text in (ax._left_title, ax.xaxis.label) if text.get_text()]
    around = [
        box(text) for text in (figure._suptitle, figure._supxlabel, figure._supylabel) if text is not None
    ]
    for text in (*outside, *titles, *around):
        assert not [panel for panel in panels if meet(text, panel)]
    for one, other in combinations([*outside, *titles, *around], 2):
        assert not meet(one, other), (one, other)
    for ax in figure.axes:
        around = ax.get_tightbbox()  # of what is drawn: ticks beyond the limits have names, too
        for axis in (ax.xaxis, ax.yaxis):
            named = [name for name in axis.get_ticklabels() if name.get_text() and not name.get_rotation()]
            shown = [place for place in map(box, named) if meet(place, around)]
            assert not any(meet(*pair) for pair in combinations(shown, 2)), ax.get_title(loc="left")
    whole = figure.bbox.padded(3)
    assert all(whole.contains(*corner) for text in (*outside, *titles) for corner in (text.min, text.max))


def box(artist) -> Bbox:
    return artist.get_window_extent()


def meet(one: Bbox, other: Bbox) -> bool:
    """Whether two boxes share more than a pixel in both directions."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    return across > 1 and min(one.y1, other.y1) - max(one.y0, other.y0) > 1


@pytest.mark.parametrize("name", FIGURES)
def test_hostile_names_are_written_as_they_are(drawn, name: str) -> None:
    _, figure = drawn("hostile", name)
    assert not any(text.get_parse_math() for text in texts(figure))
    if name not in (*NOTHING["hostile"], "cone"):
        assert HOSTILE in said(figure).replace(" ", "")


@pytest.mark.parametrize(
    ("paper", "name"), [*(("1col", name) for name in FIGURES), ("2col", "phases"), ("2col", "warnings")]
)
def test_for_paper_a_figure_has_the_width_the_letters_and_no_title(drawn, paper: str, name: str) -> None:
    _, figure = drawn("embedded", name, paper)
    assert figure.get_figwidth() == pytest.approx({"1col": 3.3, "2col": 7.0}[paper])
    assert FIGURES[name].load().title not in said(figure)
    assert {text.get_fontsize() for text in texts(figure)} <= {7.0, 8.0}
    check_places(figure)
    if figure._supylabel is not None:  # its words are whole: those of the screen
        on_screen = drawn("embedded", name)[1]._supylabel.get_text()
        assert figure._supylabel.get_text().split() == on_screen.split()


# What is selected


def test_a_row_of_twins_collapses_where_all_intervals_overlap() -> None:
    frame = metrics_table([Model("m", sinks=False)]).query("metric == 'anisotropy' and dataset == 'wiki'")
    assert set(selection.merge_twins(frame)["rows"]) == {"all"}
    assert set(selection.merge_twins(frame)["choice"]) == {"all rows (without sinks: intervals overlap)"}
    apart = (frame["rows"] == "no_sink") & (frame["layer"] == 3) & (frame["step"] == 64)
    other = frame.assign(**{end: frame[end] + 0.5 * apart for end in NUMBERS})
    assert set(selection.merge_twins(other)["choice"]) == {"all rows", "without sinks"}
    assert set(selection.merge_twins(other, ["step"]).query("step == 64")["rows"]) == {"all", "no_sink"}
    assert set(selection.merge_twins(other, ["step"]).query("step != 64")["rows"]) == {"all"}


def test_without_intervals_only_equal_twins_collapse() -> None:
    frame = metrics_table([Model("m", sinks=False)]).query("metric == 'anisotropy'")
    points = frame.assign(ci_low=np.nan, ci_high=np.nan)
    assert set(selection.merge_twins(points)["rows"]) == {"all"}
    moved = points.assign(value=points["value"] + 1e-6 * (points["rows"] == "no_sink"))
    assert set(selection.merge_twins(moved)["rows"]) == {"all", "no_sink"}


def test_the_last_checkpoint_and_the_main_text_are_drawn(drawn) -> None:
    data, _ = drawn("embedded", "anisotropy_by_layer")
    assert set(data["step"]) == {1024} and set(data["dataset"]) == {"wiki"}


def test_a_model_of_one_step_or_one_dataset_is_left_out_by_name() -> None:
    models = (Model("followed"), Model("once", steps=(16,), datasets=("wiki",)))
    for name, why in (("dimension_over_training", "one step"), ("controls", "one dataset")):
        data, figure = draw(name, study(models))
        assert set(data["model"]) == {"followed"} and f"not drawn: once ({why})" in said(figure)


def test_checkpoints_of_another_step_are_left_out_by_name() -> None:
    tables = study((Model("m"),))
    metrics = tables["metrics"]
    metrics["verdict"] = np.where(metrics["step"] == 64, DISTRUSTED[0], "")
    data, figure = draw("dimension_over_training", tables)
    assert 64 not in set(data["step"]) and "another step's: m checkpoint-64" in said(figure)


def test_a_missing_value_is_a_gap_and_a_flagged_one_an_open_marker() -> None:
    tables = study((Model("m", sinks=False),))
    metrics = tables["metrics"]
    here = (metrics["metric"] == "anisotropy") & (metrics["step"] == 1024) & (metrics["rows"] == "all")
    metrics.loc[here & (metrics["layer"] == 3), NUMBERS] = np.nan
    metrics.loc[here & metrics["layer"].isin([3, 5]) & (metrics["site"] == "block"), "flag"] = "zero variance"
    _, figure = draw("anisotropy_by_layer", tables)
    lines = [line.get_xdata() * 6 for line in figure.axes[0].get_lines() if line.get_linestyle() == "-"]
    assert not any((line < 2.5).any() and (3.5 < line).any() for line in lines)
    footer = said(figure)
    assert "gaps: 1 values are not numbers" in footer and "open markers: 1 values are flagged" in footer


def test_a_study_without_numbers_says_so() -> None:
    tables = study((Model("m"),))
    tables["metrics"] = tables["metrics"].assign(**dict.fromkeys(NUMBERS, np.nan), flag="not finite")
    for name in OF_METRICS:
        assert not draw(name, tables)[1].axes, name


# Marks


def test_the_steps_of_which_only_tables_are_left_are_marked(drawn) -> None:
    for name in ("dimension_over_training", "phases"):
        data, figure = drawn("embedded", name)
        assert set(data.loc[data["gone"], "step"]) == {8} and "weights gone" in said(figure)
        marked = [
            line.get_xdata() for ax in figure.axes for line in ax.get_lines() if line.get_label() == "_gone"
        ]
        assert marked and all(list(steps) == [8] for steps in marked)
    assert "weights gone" not in said(drawn("many checkpoints", "phases")[1])


@pytest.mark.parametrize("steps", [(200, 600, 1000), (0, 2, 8, 16, 64, 128, 384, 1024)])
def test_at_most_eight_steps_are_all_named(steps: tuple[int, ...]) -> None:
    ax = Figure(figsize=(3, 2)).subplots()
    step_axis(ax, steps)
    assert [text.get_text() for text in ax.get_xticklabels()] == [step_name(step) for step in steps]


def test_of_many_steps_the_first_and_the_last_are_named() -> None:
    ax = Figure(figsize=(3, 2)).subplots()
    step_axis(ax, LONG)
    assert (
        list(ax.get_xticks())[0] == 0 and list(ax.get_xticks())[-1] == 143_000 and len(ax.get_xticks()) < 12
    )
    assert (some(range(100))[0], some(range(100))[-1], len(some(range(100)))) == (0, 99, 8)


def test_colors_span_the_steps_of_each_run() -> None:
    frame = pd.DataFrame({"model": list("aaabb"), "step": [200, 600, 1000, 0, 143_000]})
    assert list(places_by_rank(frame)) == [0, 0.5, 1, 0, 1]


def test_a_null_beyond_the_values_is_named_and_does_not_set_the_scale(drawn) -> None:
    data, figure = drawn("embedded", "dimension_over_training")
    panel = figure.axes[0]
    assert panel.get_ylim()[1] < data.loc[data["rows"] == "all", "null"].min()
    assert "null: 22 to 45 ↑" in panel.get_title(loc="left") or "null:" in panel.get_title(loc="left")


def test_the_peak_is_the_highest_block_unless_the_profile_is_level(drawn) -> None:
    data, _ = drawn("many checkpoints", "anisotropy_map")
    peaks = data[data["peak"] & (data["rows"] == "all")]
    assert set(peaks["layer"]) == {16} and peaks["step"].max() == LONG[-1]
    level = data.assign(ci_low=0.0, ci_high=1.0)
    assert not over_training.with_peaks(level)["peak"].any()


def test_significant_segments_are_those_of_the_table(drawn) -> None:
    data, figure = drawn("many checkpoints", "phases")
    assert set(data["moves"]) == {"rise, fall"}
    panel = figure.axes[0]
    for kind, end in (("rise", 0), ("fall", -1)):
        moves = [line for line in panel.get_lines() if line.get_label() == kind]
        assert len(moves) == 3 and all(line.get_xdata()[end] == LONG[end] for line in moves)


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
def test_segments_hold_the_words_of_the_table_alone(moves: str, noise: float, found: list) -> None:
    phase = {"least": 0.1, "noise": noise, "moves": moves}
    assert list(significant_segments(phase, TRAJECTORY)) == found


def test_without_sinks_the_figure_is_a_sentence_with_the_number(drawn) -> None:
    data, figure = drawn("embedded", "sinks")
    most = data.loc[data["metric"].str.startswith("leading") & (data["site"] == "block"), "value"].max()
    assert f"carry at most {100 * most:.1f} % of the leading axis" in said(figure)


def test_least_ranks_stand_beside_the_dimensions(drawn, tables) -> None:
    data, _ = drawn("embedded", "truncation")
    ranks = tables("embedded")["truncation_ranks"].query("tolerance == 0.1")
    shown = data[data["series"] == "axes that keep the loss\nwithin 0.1 nat"]
    np.testing.assert_array_equal(shown.sort_values("layer")["value"], ranks.sort_values("layer")["rank"])
    assert "participation ratio" in set(data["series"])


def test_a_loss_that_needs_no_axis_has_its_place_below_one(tables) -> None:
    study = dict(tables("embedded"))
    none = study["truncation_ranks"].assign(rank=0.0, rank_low=0.0, rank_high=0.0)
    _, figure = draw("truncation", {**study, "truncation_ranks": none})
    figure.draw_without_rendering()
    ax = figure.axes[0]
    lines = [line for line in ax.get_lines() if len(line.get_ydata()) and not np.any(line.get_ydata())]
    places = [ax.transAxes.inverted().transform(ax.transData.transform((0, value)))[1] for value in (0, 1)]
    assert lines and 0 < places[0] < places[1] < 1
    assert [text.get_text() for text in ax.get_yticklabels()][:3] == ["0", "1", "2"]


# Losses


def test_losses_are_drawn_with_their_spikes(drawn, tables) -> None:
    data, figure = drawn("embedded", "losses")
    assert "a: 3 spikes" in said(figure) and "calm: no spike" in said(figure)
    onsets = tables("embedded")["spikes"].query("run == 'a'")["onset"]
    assert [line.get_xdata()[0] for line in figure.axes[0].get_lines()[1:]] == list(onsets)
    curve = data[(data["series"] == "loss") & (data["run"] == "a")]
    np.testing.assert_array_equal(figure.axes[0].get_lines()[0].get_ydata(), curve["value"])


def test_logs_of_other_runs_are_read_and_what_is_no_log_is_named(tmp_path: Path, capsys) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,7.5\n2,7.25\n")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    read = read_losses({"mine": tmp_path / "log.csv", "bad": tmp_path / "bad.csv"})
    assert list(read["loss"]) == [7.5, 7.25] and set(read["run"]) == {"mine"}
    assert "`bad`" in capsys.readouterr().err


def test_three_series_before_spikes_are_chosen(drawn, tables) -> None:
    data, figure = drawn("embedded", "warnings")
    roles = data.groupby("role")[["metric", "layer"]].first()
    assert roles.loc["dimension"].tolist() == ["id_twonn", 1]  # the middle of two blocks
    baselines = tables("embedded")["warnings"].query("kind == 'baseline'")
    assert roles.loc["baseline", "metric"] == baselines.loc[baselines["auc"].idxmax(), "metric"]
    area = data.loc[data["role"] == "dimension", "auc"].iloc[0]
    assert f"area under ROC {area:.2f}" in said(figure)
    changes = tables("embedded")["before_spikes"].query("metric == 'id_twonn' and layer == 1")
    np.testing.assert_array_equal(
        data.loc[data["role"] == "dimension", "value"], changes.sort_values("steps")["change"]
    )


# Colors


@pytest.mark.parametrize("vision", ("normal", *DEFICIENCIES))
def test_the_colors_of_lines_are_told_apart(vision: str) -> None:
    assert min(distance(*pair, vision) for pair in combinations(COLORS, 2)) > 15  # in CIELAB


@pytest.mark.parametrize("color", [INK, FAINT])
def test_letters_stand_out_from_the_page(color: str) -> None:
    assert contrast(color) > 4.5  # WCAG 2, AA


@pytest.mark.parametrize("vision", ("normal", *DEFICIENCIES, "grey"))
@pytest.mark.parametrize(
    "colors", [matplotlib.colormaps[over_training.COLORMAP], sequence()], ids=["map", "steps"]
)
def test_scales_of_colors_grow_evenly_lighter_or_darker_for_everyone(colors, vision: str) -> None:
    lightness = np.array([lab(colors(i), vision)[0] for i in range(0, 256, 5)])
    steps = np.diff(lightness) * np.sign(lightness[-1] - lightness[0])
    assert steps.min() > (-0.1 if vision == "tritanopia" else 0) and np.ptp(lightness) > 60


# Files


@pytest.fixture
def folder(tmp_path: Path, tables) -> Path:
    for name, table in tables("embedded").items():
        if name != "losses":
            table.to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_files_are_whole_and_the_same_tables_give_the_same_bytes(folder: Path) -> None:
    first, second = (
        render("controls", folder, output_stem=folder / stem, losses={}, datasets=["wiki"]) for stem in "ab"
    )
    assert [path.name for path in first] == ["a.png", "a.svg", "a.csv"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert imread(first[0]).shape[1] == 200 * SCREEN.width
    assert set(pd.read_csv(first[2])["model"]) == {"wiki-decoder"}


def test_files_for_paper_have_live_text(folder: Path) -> None:
    pdf, svg = render("anisotropy_by_layer", folder, output_stem=folder / "f", losses={}, paper="1col")
    assert (pdf.name, svg.name) == ("f-1col.pdf", "f-1col.svg")
    assert "<text" in svg.read_text() and b"TrueType" in pdf.read_bytes() or b"FontFile2" in pdf.read_bytes()


def test_the_verb_draws_a_figure_of_a_study_in_its_folder(tmp_path: Path, tables, capsys) -> None:
    (tmp_path / "results/tables").mkdir(parents=True)
    for name in ("metrics", "checkpoints"):
        tables("embedded")[name].to_parquet(tmp_path / f"results/tables/{name}.parquet")
    cli.figure(
        "anisotropy_by_layer", paper="2col", configfile=REPOSITORY / "config/config.yaml", directory=tmp_path
    )
    stem = tmp_path / "results/figures/anisotropy_by_layer-2col"
    assert capsys.readouterr().out.split() == [f"{stem}.pdf", f"{stem}.svg"]
    assert all(stem.with_suffix(end).stat().st_size for end in (".pdf", ".svg"))


def test_the_order_of_datasets_says_which_is_the_text(folder: Path) -> None:
    read = read_tables(folder, ("metrics",), losses={}, datasets=["wiki-random"], metrics=("anisotropy",))
    assert read["metrics"]["dataset"].iloc[0] == "wiki-random"
    assert set(read["metrics"]["metric"]) == {"anisotropy"}


@pytest.mark.parametrize(
    ("name", "paper", "named"), [("cone", "3col", "paper.*3col.*1col"), ("conee", "", "figure.*conee.*cone")]
)
def test_a_wrong_name_is_refused(folder: Path, name: str, paper: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        render(name, folder, output_stem=folder / "f", losses={}, paper=paper)


def test_a_missing_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.parquet.*does not exist"):
        render("cone", tmp_path, output_stem=tmp_path / "f", losses={})


def test_the_settings_of_the_caller_stay(folder: Path) -> None:
    with matplotlib.rc_context({"font.size": 31.0}):
        render("cone", folder, output_stem=folder / "f", losses={})
        assert matplotlib.rcParams["font.size"] == 31.0
