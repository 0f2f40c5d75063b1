"""Snakemake's report as a job of the run: made of a finished study, refused by hand, and never left half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.jobs.pages import Report, write_report
from lmshape.jobs.rule import CONFIG_VARIABLE, Given, Wildcards

pytestmark = pytest.mark.slow

SNAKEFILE = """
rule made:
    output: report("results/made.txt", caption="caption.rst", category="Made", labels={"of": config["of"]})
    shell: "echo made > {output}"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one file, which has been made."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "caption.rst").write_text("Of {{ snakemake.config['of'] }}, it says.\n")
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", "of=nothing", "--", "made"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def study(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_it_shows_results_with_caption_and_category_needs_no_network_and_takes_no_text_for_markup(
    study: Path,
) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    config = json.dumps({"of": "clay", "origin": hostile, "license": hostile})
    write_report(
        study / "report.html", snakefile=study / "Snakefile", target="results/made.txt", config=config
    )
    page = (study / "report.html").read_text()
    for words in ("made.txt", "Made", "Of clay, it says."):
        assert words in page, words
    assert 'src="http' not in page and "@import" not in page
    assert not list(study.glob(".*report*"))
    assert "<img src=x" not in page and "onerror" in page


def test_what_snakemake_refuses_leaves_no_report(study: Path) -> None:
    with pytest.raises(InputError, match=r"no report of `results/other.txt`; its messages are above"):
        write_report(
            study / "other.html", snakefile=study / "Snakefile", target="results/other.txt", config="{}"
        )
    assert not (study / "other.html").exists()


def test_by_hand_it_names_the_command_that_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with pytest.raises(InputError, match=r"is a job of the workflow; .*`make report`"):
        Report.run(object.__new__(Report), Wildcards(), Given())
