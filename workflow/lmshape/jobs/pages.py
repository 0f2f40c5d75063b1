"""Jobs that make what people look at: figures, explorer, findings, Snakemake's report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.fingerprint import code_fingerprint
from lmshape.jobs.rule import (
    CONFIG_VARIABLE,
    LEAST_DISK_MEGABYTES,
    Files,
    Given,
    Rule,
    Wildcards,
    table_files,
)
from lmshape.jobs.tables import TABLES
from lmshape.jobs.texts import by_run, trained_files
from lmshape.study.registry import REPOSITORY, Dataset

WORDS = REPOSITORY / "workflow" / "report"
FIGURE_FOLDER = Path("results/figures")
FINDINGS, EXPLORER, REPORT = "results/findings.html", "results/explore.html", "results/report.html"


@cache
def digest_of_words(folder: Path) -> str:
    """Hash the files of a folder: a page's words count as much as its code."""
    pages = [path for path in sorted(folder.glob("*")) if path.is_file()]
    return hashlib.sha256(b"".join(page.read_bytes() for page in pages)).hexdigest()


class DrawFigure(Rule):
    """A figure: a picture for people, its vector twin, and the numbers behind it."""

    reads = ("tables", "losses")
    log_file = "results/logs/figure/{figure}.log"
    memory_megabytes = 1000
    time_minutes = 15
    disk = LEAST_DISK_MEGABYTES

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        figure = FIGURES[job.figure]
        return {
            "tables": table_files(*figure.tables, formats=("parquet",)),
            "losses": trained_files(self.study, "loss.csv") if figure.draws_losses else [],
        }

    def outputs(self, job: Wildcards) -> list[str]:
        return [f"{FIGURE_FOLDER}/{job.figure}.{suffix}" for suffix in ("png", "svg", "csv")]

    def caption(self, wildcards: Mapping[str, str]) -> str:
        """Return the file of a figure's caption, for Snakemake's report; words that change draw no figure again."""
        return str(WORDS / f"{Wildcards.of(wildcards).figure}.rst")

    def labels(self, wildcards: Mapping[str, str]) -> dict[str, str]:
        """Return what Snakemake's report lists a figure under."""
        return {"figure": Wildcards.of(wildcards).figure.replace("_", " ")}

    def facts(self, job: Wildcards) -> object:
        return [list(self.study.datasets), self.inputs(job)["losses"]]

    def code_of(self, job: Wildcards) -> str:
        figure = FIGURES[job.figure]
        return code_fingerprint("lmshape.figures.render", figure.code)

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.figures import render

        losses = trained_files(self.study, "loss.csv") if FIGURES[job.figure].draws_losses else []
        render(
            job.figure,
            TABLES,
            output_stem=FIGURE_FOLDER / job.figure,
            losses=by_run(losses),
            datasets=list(self.study.datasets),
        )


class Explore(Rule):
    """The explorer: a page in which a reader walks through the study's numbers."""

    reads = ("tables",)
    code = ("lmshape.pages.explore.build_explorer",)
    log_file = "results/logs/explore.log"
    writes = (EXPLORER,)
    time_minutes = 15
    disk = 20

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"tables": table_files("metrics", "checkpoints", "profiles", formats=("parquet",))}

    def facts(self, job: Wildcards) -> object:
        own = [str(self.own_path), self.own_fingerprint]
        return [list(self.study.datasets), own, digest_of_words(WORDS / "explore")]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.pages.explore import build_explorer

        size = build_explorer(
            Path(EXPLORER),
            tables_dir=TABLES,
            sources_dir=WORDS / "explore",
            datasets=list(self.study.datasets),
            own=self.own_path,
        )
        print(f"{EXPLORER}: {size / 1e6:.1f} MB")


class Findings(Rule):
    """The page of the findings."""

    reads = ("tables", "figures", "runs")
    code = ("lmshape.pages.findings.build_findings", "lmshape.figures.FIGURES")
    log_file = "results/logs/findings.log"
    writes = (FINDINGS,)
    memory_megabytes = 1000
    time_minutes = 15
    disk = LEAST_DISK_MEGABYTES

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        figures = self.study.figures
        return {
            "tables": table_files("metrics", "checkpoints", "profiles", "claims"),
            "figures": [
                f"{FIGURE_FOLDER}/{name}.{kind}" for name in figures for kind in ("png", "svg", "csv")
            ],
            "runs": trained_files(self.study, "summary.json"),
        }

    @property
    def provenance(self) -> dict[str, object]:
        """What was run, for the reader."""
        return {
            "study": self.study.name,
            "sampling": dataclasses.asdict(self.study.sampling),
            "extraction": dataclasses.asdict(self.study.extraction),
            "datasets": {name: self.describe(dataset) for name, dataset in self.study.datasets.items()},
        }

    def describe(self, dataset: Dataset) -> str:
        """Describe a dataset in one line."""
        text = "no text"
        if dataset.text:
            source = self.study.texts[dataset.text]
            about = "; ".join(filter(None, [source.origin, source.license]))
            cleaned = ", cleaned" if dataset.clean else ""
            text = f"{dataset.text}, {dataset.span[0]:.0%} to {dataset.span[1]:.0%}{cleaned}; {about}"
        orders = {
            "text": f"tokens of {text}",
            "shuffled": f"the same tokens, shuffled within each sequence ({text})",
            "random": "tokens drawn uniformly from the model's vocabulary",
        }
        return orders[dataset.order]

    def facts(self, job: Wildcards) -> object:
        own = [str(self.own_path), self.own_fingerprint]
        return [self.provenance, self.inputs(job)["runs"], own, digest_of_words(WORDS)]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.pages.findings import build_findings

        runs = by_run(trained_files(self.study, "summary.json"))
        summaries = {name: json.loads(path.read_text()) for name, path in runs.items()}
        build_findings(
            Path(FINDINGS),
            tables_dir=TABLES,
            figures_dir=FIGURE_FOLDER,
            captions_dir=WORDS,
            provenance=self.provenance | {"runs": summaries},
            own=self.own_path,
        )


class Report(Rule):
    """Snakemake's report: all results with their captions and provenance."""

    reads = ("findings",)
    code = ("lmshape.pages.report.write_report",)
    log_file = "results/logs/report.log"
    writes = (REPORT,)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"findings": FINDINGS}

    def facts(self, job: Wildcards) -> object:
        return digest_of_words(WORDS)

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.pages.report import write_report

        config = os.environ.get(CONFIG_VARIABLE)
        if config is None:
            raise InputError(
                "The report is a job of the workflow; by hand, type `snakemake --report results/report.html`."
            )
        write_report(Path(REPORT), snakefile=REPOSITORY / "Snakefile", target=FINDINGS, config=config)
