"""One style: told apart by the color-blind and in grey, readable letters, and no figure that needs its caption."""

from __future__ import annotations

from itertools import combinations

import matplotlib
import numpy as np
import pytest
from color_vision import DEFICIENCIES, contrast, distance, lab
from figure_tables import Model, metrics_table, tables
from figure_words import words
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lmshape.figures import FIGURES, layout
from lmshape.figures.layout import crowded
from lmshape.figures.maps import COLORS as MAP_COLORS
from lmshape.figures.steps import step_colors
from lmshape.figures.style import (
    COLORS,
    FAINT,
    INK,
    KIND_COLORS,
    looks,
    looks_by_kind,
    nested_looks,
    paler,
    styled,
)

pytestmark = pytest.mark.slow

VISIONS = ("normal", *DEFICIENCIES)
APART = 15  # in CIELAB; 10 is seen at a glance
# Lines of a panel that follow one another in a bar of colors, and are told apart by their order.
IN_ORDER = {"anisotropy_over_training": "step", "dimension_by_scale": "depth", "dimension_by_size": "depth"}
MANY = ("anisotropy_by_layer", "linearity_by_layer", "encoders_and_decoders", "controls")
# Figures of lines that draw from `metrics` and `profiles` alone.
NAMES = tuple(name for name, entry in FIGURES.items() if not entry.more_tables and not name.endswith("_map"))


class Figures(dict[str, Figure]):
    """Figures of some models, each drawn when it is first asked for."""

    def __init__(self, *models: Model) -> None:
        self.study = tables(metrics_table(models, ("text", "random")))

    def __missing__(self, name: str) -> Figure:
        return self.setdefault(name, FIGURES[name].load().draw(FIGURES[name].load().data(self.study)))


@pytest.fixture(scope="module")
def few() -> Figures:
    """Figures of three models, one of them an encoder."""
    return Figures(Model("a", blocks=3), Model("b", blocks=3), Model("c", kind="encoder", blocks=3))


@pytest.fixture(scope="module")
def many() -> Figures:
    """Figures of more models than share a panel."""
    kinds = ["decoder"] * 6 + ["encoder"] * 3
    models = [Model(f"m{i}", kind=kind, blocks=2, steps=(0, 700)) for i, kind in enumerate(kinds)]
    assert crowded(models)
    return Figures(*models)


# Colors


@pytest.mark.parametrize("vision", VISIONS)
def test_the_colors_of_lines_are_told_apart(vision: str):
    nearest = min(distance(*pair, vision) for pair in combinations(COLORS, 2))
    assert nearest > APART
    assert distance(*KIND_COLORS.values(), vision) > 80


def test_the_test_of_colors_finds_those_that_the_color_blind_confuse():
    red, green = "#b35900", "#6b8e00"
    assert distance(red, green) > 3 * distance(red, green, "protanopia")
    assert distance("#ffffff", "#000000") == pytest.approx(100)
    assert lab("#777777", "deuteranopia") == pytest.approx(lab("#777777"), abs=0.1)


@pytest.mark.parametrize("color", [INK, FAINT])
def test_letters_stand_out_from_the_page(color: str):
    assert contrast(color) > 4.5  # WCAG 2, AA


@pytest.mark.parametrize("color", [*COLORS, *(paler(color) for color in KIND_COLORS.values())])
def test_lines_stand_out_from_the_page(color: str):
    assert contrast(color) > 1.9


@pytest.mark.parametrize("vision", [*VISIONS, "grey"])
@pytest.mark.parametrize("colors", [matplotlib.colormaps[MAP_COLORS], step_colors()], ids=["map", "steps"])
def test_scales_of_colors_grow_evenly_lighter_or_darker_for_everyone(colors, vision: str):
    lightness = np.array([lab(colors(i), vision)[0] for i in range(0, 256, 5)])
    steps = np.diff(lightness) * np.sign(lightness[-1] - lightness[0])
    assert steps.min() > 0 or vision == "tritanopia" and steps.min() > -0.1
    assert np.ptp(lightness) > 60
    if vision in ("normal", "grey"):
        assert steps.max() < 2 * steps.min()


# Looks


def test_nested_looks_grow_narrower_and_a_single_one_is_plain():
    names = ["text", "shuffled", "random"]
    widths = [look.width for look in nested_looks(names).values()]
    sizes = [look.size for look in nested_looks(names).values()]
    assert widths == pytest.approx([6.5, 3.9, 1.3]) and sizes == pytest.approx([10, 7.25, 4.5])
    assert nested_looks(["text"]) == looks(["text"])
    assert nested_looks([]) == {}


def test_looks_stay_different_beyond_the_colors():
    assert len(set(looks([str(i) for i in range(252)]).values())) == 252


def test_36_looks_differ_in_line_and_marker_alone():
    kinds = {f"m{i}": "encoder" if i % 3 else "decoder" for i in range(36)}
    for made in (looks(list(kinds)), looks_by_kind(kinds)):
        assert len({(look.line, look.marker) for look in made.values()}) == 36


def test_a_crowded_figure_has_smaller_letters():
    with styled():
        size = matplotlib.rcParams["axes.titlesize"]
    with styled(crowded=True):
        assert matplotlib.rcParams["axes.titlesize"] < size


# Figures


def _shape(line: Line2D) -> tuple[object, ...]:
    """How a line looks in grey, its lightness aside."""
    dashes = line._dash_pattern[1]
    marker = line.get_marker() if line.get_marker() not in ("None", "") else ""
    return tuple(dashes) if dashes else line.get_linestyle(), marker, round(line.get_linewidth(), 2)


def _named(lines: list[Line2D]) -> list[Line2D]:
    return [line for line in lines if not str(line.get_label()).startswith("_")]


STUDIES = [*(("few", name) for name in NAMES), *(("many", name) for name in MANY)]


@pytest.mark.parametrize(("size", "name"), [study for study in STUDIES if study[1] not in IN_ORDER])
def test_lines_of_a_panel_differ_in_grey(request, size: str, name: str):
    compared = 0
    for ax in request.getfixturevalue(size)[name].axes:
        lines = {line.get_label(): line for line in _named(ax.get_lines())}
        for one, other in combinations(lines.values(), 2):
            assert _shape(one) != _shape(other), (
                ax.get_title(loc="left"),
                one.get_label(),
                other.get_label(),
            )
            compared += 1
    assert compared


@pytest.mark.parametrize("name", IN_ORDER)
def test_lines_in_order_grow_darker(few, name: str):
    for ax in few[name].axes[:6]:
        lines = [line for line in _named(ax.get_lines()) if "isotropic" not in line.get_label()]
        lightness = [lab(to_hex(line.get_color()), "grey")[0] for line in lines]
        assert len(lines) > 1 and np.diff(lightness).max() < -3


@pytest.mark.parametrize(("size", "name"), STUDIES)
def test_axes_have_names_and_the_figure_a_title_and_notes(request, size: str, name: str):
    figure = request.getfixturevalue(size)[name]
    said = words(figure)
    assert FIGURES[name].load().title in said
    assert any(name in said for name in ("depth", "layer", "training step", "neighbor", "rows of a draw"))
    whole = figure._supylabel.get_text() if figure._supylabel else ""
    values = [ax.get_ylabel() or ax.get_xlabel() for ax in figure.axes]
    assert any(unit in whole + "".join(values) for unit in ("λ", "lambda", "dimension", "variance"))
    assert figure._supxlabel.get_text()
    assert figure.legends or figure.axes[0].get_legend() or name in IN_ORDER


def test_every_choice_of_rows_has_a_name():
    assert set(layout.VARIANT_NAMES) == set(layout.SHORT_VARIANT_NAMES)
