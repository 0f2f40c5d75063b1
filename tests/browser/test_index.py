"""The page of a study in a real browser: it fits its screens, opens what an address names, leads to the explorer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page

from lmshape.claims import CLAIM_COLUMNS, CLAIMS
from lmshape.dynamics.profiles import profiles
from lmshape.figures import FIGURES
from lmshape.pages.index import build_index

from .conftest import SOURCES
from .explorer_page import Explorer
from .studies import Run, metrics_table

HOSTILE = "<img src=x onerror=document.title='run'>$\\alpha_{\u202e"
SCREENS = {"wide": (1400, 900), "narrow": (390, 844)}
MOST_SCREENS = 8
PIXEL = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 4'><path d='M0,0H9'/></svg>"


def claims_table() -> pd.DataFrame:
    """Every claim once, the verdicts in turn; one with a hostile reason."""
    verdicts = ("supported", "contradicted", "undecided", "out of scope", "not measurable")
    rows = [
        {
            "slug": claim.slug, "sentence": claim.sentence, "source": claim.source, "source_kind": claim.source_kind,
            "part": "answer", "model": "small-decoder", "dataset": "wiki", "rows": "all", "place": "",
            "statistic": claim.statistic, "number": 0.5, "ci_low": 0.4, "ci_high": 0.6, "threshold": 0.3,
            "rule_says": "supported", "verdict": verdicts[number % len(verdicts)], "rule": str(claim.rule),
            "published": "", "published_source": "", "why": HOSTILE if number == 1 else "",
        }
        for number, claim in enumerate(CLAIMS)
    ]  # fmt: skip
    return pd.DataFrame(rows).reindex(columns=CLAIM_COLUMNS.names)


@pytest.fixture(scope="module")
def index_page(study_page: str, metrics: pd.DataFrame) -> str:
    """Address of a page beside the explorer's, of the same study."""
    folder = Path(study_page.removeprefix("file://")).parent
    hostile = metrics_table([Run(HOSTILE, steps=(0, 8), datasets=("wiki",))])
    every = pd.concat([metrics, hostile], ignore_index=True)
    tables = folder / "page_tables"
    tables.mkdir()
    every.to_parquet(tables / "metrics.parquet")
    checkpoints = pd.read_parquet(folder / "tables/checkpoints.parquet")
    checkpoints = checkpoints.assign(weights_sha256="f" * 64, flag="", note=HOSTILE)
    checkpoints.to_parquet(tables / "checkpoints.parquet")
    profiles(every).to_parquet(tables / "profiles.parquet")
    claims_table().to_parquet(tables / "claims.parquet")
    for name in ("warnings", "before_spikes"):
        pd.DataFrame(columns=["source"]).to_parquet(tables / f"{name}.parquet")
    figures = folder / "figures"
    figures.mkdir()
    for name in FIGURES:
        for end in ("png", "svg", "csv"):
            (figures / f"{name}.{end}").write_text(PIXEL)
    build_index(
        folder / "index.html",
        tables_dir=tables,
        figures_dir=figures,
        captions_dir=SOURCES.parent,
        provenance={"datasets": {"wiki": HOSTILE}},
    )
    return (folder / "index.html").as_uri()


@pytest.fixture
def shown(explorer: Explorer, index_page: str) -> Iterator[Page]:
    """The page as it opens; whatever a test does, nothing hostile runs and nothing complains."""
    page = explorer.page
    page.goto("about:blank")
    page.goto(index_page)
    explorer.complaints.clear()
    yield page
    assert explorer.complaints == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1280, "height": 900})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_the_screen(shown: Page, screen: str, scheme: str, tmp_path: Path) -> None:
    width, height = SCREENS[screen]
    shown.emulate_media(color_scheme=scheme)
    shown.set_viewport_size({"width": width, "height": height})
    shown.reload()
    shown.screenshot(path=tmp_path / f"{screen}-{scheme}.png", full_page=True)
    whole = shown.evaluate(
        "() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
    )
    assert whole[0] == width
    assert whole[1] < MOST_SCREENS * height
    if screen == "wide":
        assert shown.locator(".counts").bounding_box()["y"] < height  # the verdicts are on the first screen


def test_figures_and_claims_are_folded_until_an_address_names_them(shown: Page) -> None:
    first, outside = CLAIMS[0], CLAIMS[3]
    assert not shown.locator("img").first.is_visible()
    shown.locator(f"#claim-{first.slug} a", has_text="figure").click()
    shown.locator("img").filter(visible=True).first.wait_for()
    assert shown.locator("img").filter(visible=True).count() == 1
    assert not shown.locator(f"#claim-{outside.slug}").is_visible()
    shown.evaluate("slug => { location.hash = `claim-${slug}`; }", outside.slug)
    shown.locator(f"#claim-{outside.slug}").wait_for(state="visible")


def test_a_small_curve_opens_the_explorer_at_its_view_and_back(shown: Page, explorer: Explorer) -> None:
    shown.get_by_label("Intrinsic dimension, in the explorer").click()
    explorer.wait(lambda: explorer.drawings() > 0)
    assert shown.input_value("#metric") == "id_twonn"
    assert shown.input_value("#scale") == "log"
    assert "Not in this study" not in shown.inner_text("#status")
    shown.get_by_role("link", name="Back to the page").click()
    assert shown.locator("#claims").is_visible()


def test_what_names_and_texts_hold_is_shown_and_not_run(shown: Page) -> None:
    shown.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert shown.locator("img[src=x]").count() == 0
    assert shown.title() != "run"
    for part in ("#provenance", "#claims"):
        assert "<img src=x" in shown.inner_text(part)


def test_a_table_is_sorted_by_a_click_on_its_heading(shown: Page) -> None:
    shown.locator("summary", has_text="Models (4 rows)").click()
    table = shown.get_by_role("region", name="Models", exact=True)
    names = lambda: table.locator("tbody th").all_inner_texts()  # noqa: E731
    table.get_by_role("button", name="model").first.click()
    assert names() == sorted(names(), key=str.casefold)
    assert len(names()) == 4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_has_no_barrier_that_axe_knows_of(shown: Page, scheme: str) -> None:
    if any(map(os.environ.get, ("CI", "LMSHAPE_NEEDS_CHROMIUM"))):
        import axe_playwright_python.sync_playwright as axe
    else:
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed")
    shown.emulate_media(color_scheme=scheme)
    shown.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = axe.Axe().run(shown).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
