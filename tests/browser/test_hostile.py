"""Text is text: what names, notes and licenses hold is shown by the explorer and by Snakemake's report, and not run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lmshape.jobs.pages import write_report

from .conftest import write_page
from .explorer_page import Explorer
from .studies import Run, metrics_table

HOSTILE = "</script><img src=x onerror=document.title='run'>$\\alpha_{\u202e"
SNAKEFILE = f"""
rule made:
    output: report("results/made.txt", caption="caption.rst", category={HOSTILE!r}, labels={{"of": config["of"]}})
    params: origin=config["of"]
    shell: "echo made > {{output}}"
"""


def ran(explorer: Explorer) -> bool:
    return explorer.page.title() == "run" or explorer.page.locator("img[src=x]").count() > 0


def test_the_explorer_shows_what_names_and_notes_hold(explorer: Explorer, tmp_path: Path) -> None:
    runs = [Run(HOSTILE, steps=(0, 8, 64), datasets=(HOSTILE, "wiki"), verdicts=((8, HOSTILE),))]
    metrics = metrics_table(runs).assign(study=HOSTILE, family=HOSTILE)
    metrics["checkpoint"] = HOSTILE + metrics["checkpoint"]
    metrics.loc[metrics["flag"] != "", "flag"] = HOSTILE
    explorer.complaints.clear()
    explorer.open(write_page(tmp_path, metrics).as_uri())
    assert "<img src=x" in explorer.text("#model")
    for control, value in (("dataset", "wiki"), ("metric", "id_twonn"), ("rows", "no_sink")):
        explorer.choose(control, value)
    explorer.hover("profile", HOSTILE, 1)
    assert not ran(explorer) and explorer.complaints == []


def test_the_report_shows_what_the_configuration_holds(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "caption.rst").write_text("Of {{ snakemake.config['of'] }}, it says.\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"of": HOSTILE}))
    command = ["snakemake", "--cores", "1", "--configfile", "config.json", "--", "made"]
    subprocess.run([sys.executable, "-m", *command], check=True, capture_output=True)
    report = tmp_path / "report.html"
    config = (tmp_path / "config.json").read_text()
    write_report(report, snakefile=tmp_path / "Snakefile", target="results/made.txt", config=config)
    page = explorer.page
    page.goto(report.as_uri())
    page.locator("#app *").first.wait_for()
    assert "<img src=x onerror=document.title=" in str(page.evaluate("() => [categories, results]"))
    assert not ran(explorer)
