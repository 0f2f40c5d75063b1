"""The explorer in a real browser, from a file and without a network: what it shows is what the tables say."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from .conftest import write_page
from .explorer_page import NUMBERS, Explorer
from .studies import FLAGGED, METRICS, MISSING, Run, metrics_table

FLOAT32 = 1e-6  # seven digits are kept, four are shown
POINTS = "small-decoder"  # the name of the chosen line


def written(row: pd.Series) -> str:
    """Value and interval of a row of the table as the page writes them: four digits of the largest."""
    numbers = [row[name] for name in NUMBERS if math.isfinite(row[name])]
    decimals = max(3 - math.floor(math.log10(max(map(abs, numbers)))), 0)
    value, *ends = (f"{number:.{decimals}f}" for number in numbers)
    return f"{value} [{', '.join(ends)}]" if ends else value


def rows_of(metrics: pd.DataFrame, **chosen: object) -> pd.DataFrame:
    """Rows of the table in the order of a curve: by step, then by place."""
    wanted = {"model": POINTS, "dataset": "wiki", "metric": "anisotropy", "rows": "all"} | chosen
    for column, value in wanted.items():
        metrics = metrics[metrics[column] == value]
    rank = metrics["site"].map({"embedding": 0, "block": 1, "final_norm": 2})
    return metrics.assign(rank=rank).sort_values(["step", "rank", "layer"], kind="stable")


def numbers_of(explorer: Explorer, picture: str, name: str = POINTS) -> list[float]:
    """Values of a line, sorted along its axis."""
    curve = explorer.curve(picture, name)
    return [y for _, y in sorted(zip(curve["x"], curve["y"], strict=True))]


def same(found: list[float], expected: pd.Series) -> bool:
    return found == pytest.approx(list(expected), rel=FLOAT32, nan_ok=True)


def chosen_step(explorer: Explorer) -> float:
    """Where the trajectory is marked."""
    (mark,) = explorer.frames("trajectory")
    return mark["x0"]


def test_the_first_view_is_the_last_checkpoint_that_can_be_trusted(
    opened: Explorer, metrics: pd.DataFrame
) -> None:
    assert "step 512" in opened.text("#step-text")
    assert same(numbers_of(opened, "profile"), rows_of(metrics, step=512)["value"])
    assert opened.page.evaluate("isSecureContext && location.protocol") == "file:"


def test_every_control_is_reached_by_the_tabulator_and_has_a_name(opened: Explorer) -> None:
    opened.choose("compare", "model")
    names = opened.page.evaluate("""() => [...document.querySelectorAll("select, input, button, summary")]
        .filter((one) => one.checkVisibility() && !one.disabled)
        .map((one) => (one.labels?.[0] ?? one).textContent.trim())""")
    assert all(names)
    seen = []
    opened.page.evaluate("() => document.activeElement.blur()")
    for _ in range(len(names) + 2):
        opened.page.keyboard.press("Tab")
        seen.append(
            opened.page.evaluate("""() => { const one = document.activeElement;
            return [one.tagName, one.id || one.value, getComputedStyle(one).outlineStyle]; }""")
        )
    assert len({tuple(one[:2]) for one in seen}) >= len(names)
    assert all(outline != "none" for tag, _, outline in seen if tag != "BODY")


def test_the_slider_moves_all_pictures_by_keyboard(opened: Explorer, metrics: pd.DataFrame) -> None:
    marked = chosen_step(opened)
    opened.press("step", "ArrowLeft")
    assert "step 64" in opened.text("#step-text")
    assert opened.page.get_attribute("#step", "aria-valuetext").startswith("step 64")
    assert same(numbers_of(opened, "profile"), rows_of(metrics, step=64)["value"])
    assert chosen_step(opened) < marked
    frames = opened.frames("heatmap")
    opened.press("step", "Home")
    assert same(numbers_of(opened, "profile"), rows_of(metrics, step=0)["value"])
    assert chosen_step(opened) == 0
    assert opened.frames("heatmap")[1]["x1"] < frames[1]["x0"]
    assert opened.page.evaluate("document.activeElement.id") == "step"


def test_the_layer_moves_all_pictures_by_keyboard(opened: Explorer, metrics: pd.DataFrame) -> None:
    trusted = metrics[~metrics["step"].eq(8)]
    opened.press("place", "ArrowRight")
    assert opened.text("#place-text") == "block 3"
    block = rows_of(trusted, site="block", layer=3)
    assert same(numbers_of(opened, "trajectory"), block["value"])
    assert opened.frames("profile")[0]["x0"] == 3
    row = opened.frames("heatmap")[0]
    assert (row["y0"], row["y1"]) == (2.5, 3.5)
    opened.press("place", "End")
    assert same(numbers_of(opened, "trajectory"), rows_of(trusted, site="final_norm")["value"])


def test_the_heat_map_holds_every_trusted_checkpoint(opened: Explorer, metrics: pd.DataFrame) -> None:
    grid = [row for row in opened.heat() if any(number is not None for number in row)]
    expected = rows_of(metrics[~metrics["step"].eq(8)])
    assert [len(row) for row in grid] == [4] * 5
    flat = [number for column in zip(*grid, strict=True) for number in column]
    assert same(flat, expected["value"])


@pytest.mark.parametrize(
    ("control", "value", "column"),
    [
        ("dataset", "wiki-random", "dataset"),
        ("metric", "id_twonn", "metric"),
        ("rows", "no_sink", "rows"),
        ("model", "deep-decoder", "model"),
    ],
)
def test_each_choice_shows_its_numbers(
    opened: Explorer, metrics: pd.DataFrame, control: str, value: str, column: str
) -> None:
    opened.choose(control, value)
    expected = rows_of(metrics, step=512, **{column: value})
    line = value if column == "model" else POINTS
    assert same(numbers_of(opened, "profile", line), expected["value"])
    assert f"{column}={value}" in opened.fragment()
    if column == "metric":
        assert "Facco" in opened.text("#meaning")


def test_scales(opened: Explorer) -> None:
    kinds = "() => ['profile', 'trajectory'].map((id) => document.getElementById(id)._fullLayout.yaxis.type)"
    bottom = "() => document.getElementById('profile')._fullLayout.yaxis.range[0]"
    assert opened.page.evaluate(kinds) == ["linear", "linear"]
    low = opened.page.evaluate(bottom)
    opened.choose("scale", "log")
    assert opened.page.evaluate(kinds) == ["log", "log"]
    assert "no place on a logarithmic scale" not in opened.text("#trajectory-note")
    opened.choose("scale", "close")
    assert opened.page.evaluate(bottom) >= low


def test_a_dimension_is_on_a_logarithmic_scale_from_the_start(opened: Explorer) -> None:
    opened.choose("metric", "id_twonn")
    assert opened.page.input_value("#scale") == "log"
    assert "scale" not in opened.fragment()
    opened.choose("metric", "anisotropy")
    assert opened.page.input_value("#scale") == "linear"


def test_the_embedding_does_not_set_the_range(opened: Explorer, metrics: pd.DataFrame) -> None:
    chosen = metrics[
        (metrics["model"] == POINTS) & (metrics["dataset"] == "wiki") & (metrics["rows"] == "all")
    ]
    chosen = chosen[chosen["metric"].isin(["anisotropy", "anisotropy_null"])]
    inside = chosen.loc[chosen["site"] != "embedding", ["value", "ci_low", "ci_high"]].max().max()
    _, high = opened.page.evaluate("document.getElementById('profile').layout.yaxis.range")
    assert inside < high < 1.06 * inside
    outside = chosen[(chosen["site"] == "embedding") & (chosen["step"] == 512)]
    outside = outside[(outside["metric"] == "anisotropy") & (outside["value"] > high)]
    assert len(outside) == opened.text("#profile-note").count("The embedding lies outside the axis")


def test_hovering_says_value_and_interval_as_in_the_table(opened: Explorer, metrics: pd.DataFrame) -> None:
    row = rows_of(metrics, step=512, site="block", layer=2).iloc[0]
    assert f"anisotropy {written(row)}" in opened.hover("profile", POINTS, 1)
    row = rows_of(metrics, step=64, site="block", layer=2).iloc[0]
    assert f"anisotropy {written(row)}" in opened.hover("trajectory", POINTS, 2)
    reading = " ".join(opened.text("#reading tbody tr").split())
    row = rows_of(metrics, step=512, site="block", layer=2).iloc[0]
    value, low, high = re.findall(r"[\d.]+", written(row))
    assert reading.startswith(f"anisotropy {value} {low} to {high}")


def test_what_is_missing_or_doubtful_says_why(opened: Explorer, metrics: pd.DataFrame) -> None:
    opened.choose("metric", "id_twonn")
    assert MISSING in opened.hover("profile", "no number", 0)
    said = opened.hover("profile", POINTS, 0)
    assert FLAGGED in said
    assert written(rows_of(metrics, step=512, metric="id_twonn", site="block", layer=1).iloc[0]) in said
    opened.press("place", "Home")
    assert MISSING in opened.text("#reading")
    opened.choose("metric", "norm_max")
    assert written(rows_of(metrics, step=512, metric="norm_max", site="embedding").iloc[0]) in opened.text(
        "#reading"
    )
    assert "no interval" in opened.text("#reading")


def test_nulls_are_dashed_lines(opened: Explorer, metrics: pd.DataFrame) -> None:
    (dash,) = opened.page.evaluate("""() => document.getElementById("profile").data
        .filter((trace) => trace.name === "null").map((trace) => trace.line.dash)""")
    assert dash == "dash"
    blocks = rows_of(metrics, step=512, metric="anisotropy_null", site="block")
    assert same(numbers_of(opened, "profile", "null"), blocks["value"])
    assert "anisotropy, null value" in opened.text("#key")


def test_a_distrusted_checkpoint_is_marked_and_in_no_curve_over_training(
    opened: Explorer, metrics: pd.DataFrame
) -> None:
    assert "1 of 5 checkpoints are not trusted" in opened.text("#trajectory-note")
    assert len(numbers_of(opened, "trajectory")) == 4
    opened.follow("#checkpoint=step8")
    assert "not trusted" in opened.text("#step-text")
    assert "the weights of main, under the name of an earlier step (its shards say so)" in opened.text(
        "#reading"
    )
    assert same(numbers_of(opened, "profile"), rows_of(metrics, step=8)["value"])
    assert len(opened.frames("heatmap")) == 2  # the row's, and no column's


def test_a_copy_is_the_rows_of_the_table(opened: Explorer, metrics: pd.DataFrame) -> None:
    expected = pd.concat([rows_of(metrics, step=512), rows_of(metrics, step=512, metric="anisotropy_null")])
    check_copy(opened.copied_table("profile"), expected)
    opened.choose("metric", "id_twonn")
    trusted = metrics[~metrics["step"].eq(8)]
    check_copy(
        opened.copied_table("heatmap").sort_values("step", kind="stable"), rows_of(trusted, metric="id_twonn")
    )


def check_copy(copied: pd.DataFrame, expected: pd.DataFrame) -> None:
    names = [name for name in copied if name not in NUMBERS]
    assert {"model", "checkpoint", "step", "dataset", "site", "layer", "rows", "metric", "flag"} <= set(names)
    plain = expected[names].reset_index(drop=True)
    pd.testing.assert_frame_equal(copied[names].reset_index(drop=True), plain, check_dtype=False)
    np.testing.assert_allclose(copied[list(NUMBERS)], expected[list(NUMBERS)], rtol=FLOAT32)


def test_lines_beside_one_another(opened: Explorer, metrics: pd.DataFrame) -> None:
    opened.choose("compare", "rows")
    line = "without sinks"
    assert same(numbers_of(opened, "profile", line), rows_of(metrics, step=512, rows="no_sink")["value"])
    assert line in opened.text("#reading")
    assert line in opened.text("#key")
    opened.choose("compare", "model")
    deep = rows_of(metrics, model="deep-decoder", step=512)
    assert same(numbers_of(opened, "profile", "deep-decoder"), deep["value"])
    assert "deep-decoder at step 512" in opened.text("#key")
    opened.after(lambda: opened.page.uncheck("#others input[value=deep-decoder]"))
    assert "deep-decoder" not in opened.text("#key")


def test_a_link_restores_the_view(opened: Explorer, study_page: str) -> None:
    opened.follow("#dataset=wiki-random&metric=id_twonn&rows=no_sink&checkpoint=step64&place=block-3&scale=log"
                  "&compare=dataset&beside=wiki")  # fmt: skip
    numbers, link = numbers_of(opened, "trajectory", "wiki-random"), opened.copied("copy-link")
    assert link.startswith(study_page + "#")
    opened.follow("#first")
    opened.open(link)
    assert opened.page.evaluate("location.href") == link
    assert numbers_of(opened, "trajectory", "wiki-random") == numbers
    shown = {
        name: opened.page.input_value(f"#{name}")
        for name in ("dataset", "metric", "rows", "scale", "compare")
    }
    assert list(shown.values()) == ["wiki-random", "id_twonn", "no_sink", "log", "dataset"]
    assert "step 64" in opened.text("#step-text")
    assert opened.page.is_checked("#others input[value=wiki]")


def test_a_link_of_another_study_says_what_is_not_here(opened: Explorer) -> None:
    opened.follow("#model=gpt-7&metric=id_twonn")
    assert "model gpt-7" in opened.text("#status")
    assert opened.page.input_value("#metric") == "id_twonn"


def test_a_click_on_the_heat_map_chooses_step_and_layer(opened: Explorer) -> None:
    opened.page.locator("#heatmap").scroll_into_view_if_needed()
    box = opened.page.locator("#heatmap .nsewdrag").bounding_box()
    assert box
    opened.after(lambda: opened.page.mouse.click(box["x"] + 5, box["y"] + box["height"] / 2))
    assert "checkpoint=step0" in opened.fragment()
    assert "place=block-2" in opened.fragment()


def test_one_checkpoint_of_an_unknown_step(opened: Explorer, metrics: pd.DataFrame) -> None:
    opened.choose("model", "small-encoder")
    assert "step unknown" in opened.text("#step-text")
    assert opened.page.is_disabled("#step")
    expected = rows_of(metrics, model="small-encoder")
    assert same(numbers_of(opened, "profile", "small-encoder"), expected["value"])
    nothing = (
        "() => ['trajectory', 'heatmap'].map((id) => document.getElementById(id).layout.annotations[0].text)"
    )
    assert all("No checkpoint of a known step" in text for text in opened.page.evaluate(nothing))
    check_copy(opened.copied_table("profile"), expected)


def test_the_play_button_walks_through_training(opened: Explorer) -> None:
    opened.press("play", "Enter")
    assert "checkpoint=step0" in opened.fragment()
    opened.wait(lambda: "checkpoint=step1&" in opened.fragment())
    opened.page.keyboard.press("Enter")
    assert opened.page.get_attribute("#play", "aria-pressed") == "false"


def test_the_table_below_holds_the_curves(opened: Explorer, metrics: pd.DataFrame) -> None:
    opened.after(lambda: opened.page.click("#table summary"))
    text = " ".join(opened.text("#table table").split())
    for _, row in rows_of(metrics, step=512).iterrows():
        assert written(row).split(" ")[0] in text
    opened.after(lambda: opened.page.click("#table summary"))


BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"
LETTERS = "() => document.getElementById('profile')._fullLayout.font.color"


def test_light_and_dark(opened: Explorer) -> None:
    light = [opened.page.evaluate(script) for script in (BACKGROUND, LETTERS)]
    opened.choose("theme", "dark")
    dark = [opened.page.evaluate(script) for script in (BACKGROUND, LETTERS)]
    assert all(a != b for a, b in zip(light, dark, strict=True))
    opened.choose("theme", "system")
    assert [opened.page.evaluate(script) for script in (BACKGROUND, LETTERS)] == light
    opened.after(lambda: opened.page.emulate_media(color_scheme="dark"))
    assert [opened.page.evaluate(script) for script in (BACKGROUND, LETTERS)] == dark
    opened.after(lambda: opened.page.emulate_media(color_scheme="light"))


@pytest.fixture
def narrow(opened: Explorer) -> Iterator[Explorer]:
    opened.page.set_viewport_size({"width": 340, "height": 700})
    yield opened
    opened.page.set_viewport_size({"width": 1280, "height": 900})


def test_a_narrow_screen_needs_no_sideways_scrolling(narrow: Explorer) -> None:
    narrow.choose("compare", "rows")
    narrow.wait(
        lambda: narrow.page.evaluate("() => document.getElementById('profile')._fullLayout.width") < 340
    )
    assert narrow.page.evaluate("() => document.documentElement.scrollWidth") <= 340


def test_without_a_clipboard_the_text_is_there_to_be_copied(opened: Explorer) -> None:
    opened.page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    opened.page.click("#copy-profile")
    area = opened.page.locator("#by-hand textarea")
    area.wait_for(state="visible")
    assert area.input_value().startswith("model,checkpoint,step,")
    opened.page.keyboard.press("Escape")
    opened.page.evaluate("() => { delete navigator.clipboard.writeText; }")


def test_a_hundred_cells_of_thirteen_layers(
    explorer: Explorer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [0, *(2**k for k in range(19))]
    runs = [
        Run(
            f"model-{i}",
            steps,
            blocks=12,
            datasets=("wiki",),
            metrics=METRICS,
            rows=("all", "no_sink", "one_per_type"),
        )
        for i in range(5)
    ]
    page = write_page(tmp_path, metrics_table(runs))
    megabytes = page.stat().st_size / 1e6
    explorer.open(page.as_uri())
    milliseconds = explorer.page.evaluate("performance.getEntriesByName('drawn')[0].startTime")
    with capsys.disabled():
        print(f"\n100 cells x 13 layers: {megabytes:.1f} MB, drawn {milliseconds:.0f} ms after it was opened")
    assert megabytes < 10
    explorer.press("step", "ArrowLeft")
    assert "step 131072" in explorer.text("#step-text")
    assert explorer.complaints == []
