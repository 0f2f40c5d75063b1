"""The site: it builds without a warning, its links lead somewhere, it loads nothing, and its numbers are the study's.

Building takes most of the time: once for all tests, with what `make docs` installs below .docs/.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from typer.main import get_command

from lmshape.cli import app
from lmshape.dynamics.profiles import PROFILE_COLUMNS
from lmshape.metrics.registry import METRICS
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import CHECKPOINT_COLUMNS

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
DOCS, TOOLS = REPOSITORY / "docs", REPOSITORY / ".docs"
FIGURES_OF_PAGES = {"results.html": 3, "from_tables_to_a_figure.html": 2}
LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
NOT_LOADED = {"canonical", "next", "prev", "index", "search", "author"}  # links of a head that fetch nothing


@dataclass
class Page(HTMLParser):
    """What a page refers to."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    figures: int = 0

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)
        self.feed(self.path.read_text(encoding="utf-8"))

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if LOADING.get(tag) in given and not NOT_LOADED & set(given.get("rel", "").split()):
            self.loaded.append(given[LOADING[tag]])
        self.figures += tag == "img" and "_images" in given.get("src", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it, in a folder of its own."""
    if not (TOOLS / "sphinx").is_dir() and "CI" not in os.environ:
        pytest.skip("the site's generator is not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-q", "-d", folder / "doctrees"]
    command = [sys.executable, "-m", "sphinx", *options, DOCS, folder]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return folder


@cache
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def text_of(site: Path, page: str) -> str:
    return (site / page).read_text(encoding="utf-8")


def test_every_page_of_the_folder_is_in_the_site(site: Path) -> None:
    sources = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".ipynb")]
    pages_of = [path for path in sources if not {"data", "_build"} & set(path.parts)]
    assert {path.relative_to(DOCS).with_suffix(".html") for path in pages_of} <= {
        path.relative_to(site) for path in pages(site)
    }


def test_every_link_leads_to_a_page_and_to_a_place_on_it(site: Path) -> None:
    known = pages(site)
    for page in known.values():
        for link in page.links:
            target = urlsplit(link)
            if target.scheme in ("http", "https", "mailto"):
                continue
            path = (page.path.parent / unquote(target.path)).resolve() if target.path else page.path
            assert path.exists(), f"{page.path.name}: {link}"
            if target.fragment and path in known:
                assert unquote(target.fragment) in known[path].ids, f"{page.path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in pages(site).values():
        for source in page.loaded:
            assert not urlsplit(source).netloc, f"{page.path.name} loads {source}"
            inside = (
                source.startswith("data:") or (page.path.parent / unquote(urlsplit(source).path)).exists()
            )
            assert inside, f"{page.path.name} lacks {source}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), (
            sheet.name
        )


@pytest.mark.parametrize("page", FIGURES_OF_PAGES)
def test_what_a_page_draws_is_on_it(site: Path, page: str) -> None:
    assert pages(site)[site / page].figures == FIGURES_OF_PAGES[page]
    assert "Traceback" not in text_of(site, page)


def test_every_metric_has_its_section(site: Path) -> None:
    ids = pages(site)[site / "reference/metrics.html"].ids
    assert {f"metric-{name.replace('_', '-')}" for name in METRICS} <= ids


def test_every_column_has_its_row(site: Path) -> None:
    page = text_of(site, "reference/tables.html")
    for name in {*COLUMNS.names, *CHECKPOINT_COLUMNS.names, *PROFILE_COLUMNS.names}:
        assert f'<span class="pre">{name}</span>' in page, name


def options_of_commands() -> Iterator[tuple[str, str]]:
    for verb, command in get_command(app).commands.items():
        yield from (
            (verb, option) for one in command.params for option in one.opts if option.startswith("--")
        )


def test_every_option_has_its_row(site: Path) -> None:
    page = text_of(site, "reference/commands.html")
    for verb, option in options_of_commands():
        section = re.split(rf'<section id="(?:command|lmshape)-{verb}">', page)[1].partition("</section>")[0]
        assert f'<span class="pre">{option}</span>' in section, (verb, option)


def test_every_key_of_a_study_has_its_row(site: Path) -> None:
    page = text_of(site, "reference/configuration.html")
    for key in (
        "sampling.rows_per_draw",
        "pretraining.runs.{name}.gradient_clip",
        "texts.{name}.sha256",
        "reason",
    ):
        assert f'<span class="pre">{key}</span>' in page, key


@pytest.mark.parametrize("name", ["anisotropy", "intrinsic_dimension", "nearest_neighbors", "Estimate"])
def test_the_functions_of_arrays_are_documented(site: Path, name: str) -> None:
    assert f"lmshape.geometry.{name}" in pages(site)[site / "reference/geometry.html"].ids
