"""One browser and one page for all tests of the explorer; no test leaves the page on another file than it found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from lmshape.pages.explore import build_explorer

from .chromium import FLAGS, CannotStart, find_chromium
from .explorer_page import Explorer
from .studies import Run, metrics_table, write_tables

SOURCES = Path(__file__).parents[2] / "workflow/report/explore"
NEEDED = ("CI", "LMSHAPE_NEEDS_CHROMIUM")  # variables that forbid to skip

RUNS = (
    Run("small-decoder", steps=(0, 1, 8, 64, 512), verdicts=((8, "same_as_main"),)),
    Run("deep-decoder", steps=(0, 16, 512), blocks=6, datasets=("wiki",)),
    Run("small-encoder", steps=(-1,), kind="encoder", metrics=("anisotropy",), rows=("all",)),
)


def write_page(folder: Path, metrics: pd.DataFrame) -> Path:
    page = folder / "explore.html"
    build_explorer(page, tables_dir=write_tables(folder / "tables", metrics), sources_dir=SOURCES)
    return page


@pytest.fixture(scope="session")
def metrics() -> pd.DataFrame:
    return metrics_table(RUNS)


@pytest.fixture(scope="session")
def study_page(metrics: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_page(tmp_path_factory.mktemp("explorer"), metrics).as_uri()


@pytest.fixture(scope="module")
def explorer() -> Iterator[Explorer]:
    """A page without a network, in a browser without a profile."""
    try:
        program = find_chromium()
    except CannotStart as error:
        if any(map(os.environ.get, NEEDED)):
            raise
        pytest.skip(f"explorer not tested in a browser: {error}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        context = browser.new_context(
            offline=True, color_scheme="light", viewport={"width": 1280, "height": 900}
        )
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        yield Explorer(context.new_page())
        browser.close()


@pytest.fixture
def opened(explorer: Explorer, study_page: str) -> Iterator[Explorer]:
    """The study's page at its first view; whatever a test does, the page asks for nothing and complains of nothing."""
    if explorer.page.url.split("#")[0] != study_page:
        explorer.open(study_page)
    explorer.follow("#first")
    yield explorer
    assert {url.split("#")[0] for url in explorer.requests} <= {study_page, "about:blank"}
    assert explorer.complaints == []
