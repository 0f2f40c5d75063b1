"""What the README says of metrics, columns and commands is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from lmshape.geometry import anisotropy, intrinsic_dimension
from lmshape.metrics.registry import describe
from lmshape.tables.audits import AUDIT_COLUMNS
from lmshape.tables.columns import COLUMNS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
CITATION = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())


@pytest.mark.parametrize("metric", describe(), ids=[metric["name"] for metric in describe()])
def test_every_metric_is_in_the_table(metric: dict[str, str]) -> None:
    cells = (f"`{metric['name']}`", metric["family"], metric["definition"], metric["range"], metric["null"])
    assert f"| {' | '.join(cells)} |" in README


@pytest.mark.parametrize("column", COLUMNS.names)
def test_every_column_is_in_the_table(column: str) -> None:
    assert f"| `{column}` | {COLUMNS.field(column).metadata[b'description'].decode()} |" in README


@pytest.mark.parametrize("column", AUDIT_COLUMNS.names)
def test_every_column_of_the_audit_is_in_the_table(column: str) -> None:
    assert f"| `{column}` | {AUDIT_COLUMNS.field(column).metadata[b'description'].decode()} |" in README


def test_the_example_gives_the_numbers_that_it_states() -> None:
    x = np.random.default_rng(0).standard_normal((4096, 10)) @ np.random.default_rng(1).standard_normal(
        (10, 128)
    )
    stated = [float(number) for number in re.findall(r"\(x\) +# ([\d.]+)", README)]
    assert stated == [round(anisotropy(x), 3), round(intrinsic_dimension(x), 2)]


def test_every_link_leads_to_a_file() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (REPOSITORY / target).exists(), target


def test_the_environment_is_entered_before_its_first_command() -> None:
    commands = [
        line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL) for line in block.splitlines()
    ]
    first = next(n for n, line in enumerate(commands) if line.startswith(("lmshape ", "snakemake ")))
    assert "source .venv/bin/activate" in commands[:first]


@pytest.mark.parametrize("page", ["README.md", "docs/citing.md"])
def test_what_to_cite_is_what_the_citation_file_says(page: str) -> None:
    (bibtex,) = re.findall(r"```bibtex\n(.*?)```", (REPOSITORY / page).read_text(), re.DOTALL)
    text = " ".join(bibtex.split())
    (article,) = CITATION["references"]
    names = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in article["authors"])
    for said in (
        f"title = {{{article['title']}}}",
        f"author = {{{names}}}",
        f"booktitle = {{{article['collection-title']}}}",
        f"pages = {{{article['start']}--{article['end']}}}",
        f"year = {{{article['year']}}}",
        article["identifiers"][0]["value"],
        f"title = {{{CITATION['title']}}}",
        f"author = {{{{{CITATION['authors'][0]['name']}}}}}",
        f"version = {{{CITATION['version']}}}",
    ):
        assert said in re.sub(r" +=", " =", text), said
