"""Jobs for figures, explorer, the page of the study and, on request, Snakemake's report."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lmshape import paths
from lmshape.digest import check_digest, write_digest
from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.fingerprint import code_fingerprint
from lmshape.jobs.rule import CONFIG_VARIABLE, LEAST_DISK_MEGABYTES, Files, Given, Rule, Wildcards
from lmshape.jobs.texts import by_run, trained_files
from lmshape.study.registry import REPOSITORY, Dataset
from lmshape.study.study import Study
from lmshape.writing import replaced_when_whole

REPORT_WORDS = REPOSITORY / "workflow" / "report"


def figure_files(names: Iterable[str], folder: str = str(paths.FIGURES_FOLDER)) -> list[str]:
    """Return the files of figures."""
    return [f"{folder}/{name}.{kind}" for name in names for kind in ("png", "svg", "csv")]


def loss_files(study: Study) -> dict[str, Path]:
    """Return the losses of the study's runs, and those of `loss_logs`, by run."""
    logs = {name: Path(log.losses) for name, log in study.loss_logs.items()}
    return by_run(trained_files(study, "loss.csv")) | logs


@cache
def digest_of_words(folder: Path) -> str:
    """Hash the files of a folder: a page's words count as much as its code."""
    pages = [path for path in sorted(folder.glob("*")) if path.is_file()]
    return hashlib.sha256(b"".join(page.read_bytes() for page in pages)).hexdigest()


class DrawFigures(Rule):
    """All figures in one process, since imports take most of the time; of each PNG, SVG and CSV."""

    usual = 40.0
    source, folder = str(paths.TABLES_FOLDER), str(paths.FIGURES_FOLDER)
    log_file = "results/logs/figures.log"
    memory_megabytes = 1000
    disk = LEAST_DISK_MEGABYTES

    @property
    def names(self) -> list[str]:
        """Names of the figures that are drawn."""
        return list(self.study.figures)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        tables = dict.fromkeys(table for name in self.names for table in FIGURES[name].tables)
        return {
            "tables": paths.table_files(*tables, formats=("parquet",)),
            "losses": [str(path) for path in self.losses.values()],
        }

    @property
    def losses(self) -> dict[str, Path]:
        """The training losses that are drawn, by run."""
        drawn = any(FIGURES[name].draws_losses for name in self.names)
        return loss_files(self.study) if drawn else {}

    @property
    def files(self) -> list[str]:
        """Files of the figures, with the wildcards of the rule."""
        return figure_files(self.names, self.folder)

    def outputs(self, job: Wildcards) -> list[str]:
        return list(map(job.fill, self.files))

    def facts(self, job: Wildcards) -> object:
        return [list(self.study.datasets), {name: str(path) for name, path in self.losses.items()}]

    def code_of(self, job: Wildcards) -> str:
        return code_fingerprint("lmshape.figures.render", *(FIGURES[name].code for name in self.names))

    def run(self, job: Wildcards, given: Given) -> None:
        self.draw(job)
        for file in map(Path, self.outputs(job)):
            write_digest(file)  # the page of the study shows it

    def draw(self, job: Wildcards) -> None:
        from lmshape.figures import render

        for name in self.names:
            render(
                name,
                Path(job.fill(self.source)),
                output_stem=Path(job.fill(self.folder)) / name,
                losses=self.losses if FIGURES[name].draws_losses else {},
                datasets=list(self.study.datasets),
            )


class DrawModelFigures(DrawFigures):
    """Figures of one model, from its own table: they are there as soon as it is measured, days before the others."""

    usual = 5.0
    source, folder = paths.MODEL_METRICS, paths.MODEL_FIGURES
    log_file = "results/logs/model_figures/{model}.log"
    rank = 40

    def jobs(self) -> Iterator[Wildcards]:
        return (Wildcards(model=name) for name in (self.study.models if self.names else ()))

    @property
    def names(self) -> list[str]:
        return [name for name in self.study.figures if FIGURES[name].of_each_model]

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"metrics": job.fill(self.source)}

    def facts(self, job: Wildcards) -> object:
        """Datasets of other models are none of its concern."""
        return [name for name in self.study.datasets if name in self.study.datasets_of[job.model]]

    def run(self, job: Wildcards, given: Given) -> None:
        self.draw(job)


class Explore(Rule):
    """The explorer: a page in which a reader walks through the study's numbers."""

    code = ("lmshape.pages.explore.build_explorer",)
    log_file = "results/logs/explore.log"
    writes = (paths.EXPLORER_PAGE,)
    time_minutes = 15
    disk = 20

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"tables": paths.table_files("metrics", "checkpoints", "profiles", formats=("parquet",))}

    def facts(self, job: Wildcards) -> object:
        return [list(self.study.datasets), self.own_facts, digest_of_words(REPORT_WORDS / "explore")]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.pages.explore import build_explorer

        size = build_explorer(
            Path(paths.EXPLORER_PAGE),
            tables_dir=paths.TABLES_FOLDER,
            sources_dir=REPORT_WORDS / "explore",
            datasets=list(self.study.datasets),
            own=self.own_path,
        )
        print(f"{paths.EXPLORER_PAGE}: {size / 1e6:.1f} MB")


class Index(Rule):
    """The page of the study."""

    code = ("lmshape.pages.index.build_index", "lmshape.figures.FIGURES")
    log_file = "results/logs/index.log"
    writes = (paths.INDEX_PAGE,)
    memory_megabytes = 1000
    time_minutes = 15
    disk = LEAST_DISK_MEGABYTES

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {
            "tables": paths.table_files(
                "metrics", "checkpoints", "profiles", "claims", "warnings", "before_spikes"
            ),
            "figures": figure_files(self.study.figures),
            "runs": trained_files(self.study, "summary.json"),
        }

    @property
    def provenance(self) -> dict[str, object]:
        """Facts of the study for the reader."""
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
        runs, words = self.inputs(job)["runs"], digest_of_words(REPORT_WORDS)
        return [self.provenance, runs, self.study.unstable, self.own_facts, words]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.pages.index import build_index

        runs = by_run(trained_files(self.study, "summary.json"))
        for file in (*runs.values(), *map(Path, figure_files(self.study.figures))):
            check_digest(file)
        summaries = {name: json.loads(path.read_text()) for name, path in runs.items()}
        build_index(
            Path(paths.INDEX_PAGE),
            tables_dir=paths.TABLES_FOLDER,
            figures_dir=paths.FIGURES_FOLDER,
            captions_dir=REPORT_WORDS,
            provenance=self.provenance | {"runs": summaries},
            unstable=self.study.unstable,
            own=self.own_path,
        )


class Report(Rule):
    """Snakemake's report: all results with their captions and provenance; no part of `all`."""

    stage = "report"
    code = ("lmshape.jobs.pages.write_report",)
    log_file = "results/logs/report.log"
    writes = (paths.REPORT_PAGE,)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"page": paths.INDEX_PAGE}

    def facts(self, job: Wildcards) -> object:
        return digest_of_words(REPORT_WORDS)

    def run(self, job: Wildcards, given: Given) -> None:
        config = json.loads(os.environ.get(CONFIG_VARIABLE, "{}")).get(str(Path.cwd()))
        if config is None:
            raise InputError("The report is a job of the workflow; by hand, type `make report`.")
        snakefile = REPOSITORY / "Snakefile"
        write_report(
            Path(paths.REPORT_PAGE), snakefile=snakefile, target=paths.INDEX_PAGE, config=json.dumps(config)
        )


# Snakemake writes what it shows as JSON into scripts of the page, where `</script>` in a name would end them.
REPORTING = """
import json
plain = json.dumps
json.dumps = lambda *values, **options: plain(*values, **options).replace("<", "\\\\u003c")
from snakemake.cli import main
main()
"""


def write_report(output: Path, *, snakefile: Path, target: str, config: str) -> None:
    """Write Snakemake's report of `target` and all that leads to it, as one HTML file that needs no network.

    A process of its own, which is a job of the run that it reports on: so the report is made again when what it shows
    has changed.

    Parameters
    ----------
    output : HTML file to write
    snakefile : of the workflow; the working directory is the study's
    target : the results that it shows are those behind this file
    config : the study's configuration, as JSON

    Raises
    ------
    InputError
        When Snakemake makes none; its words stand above.
    """
    with replaced_when_whole(output) as partial, TemporaryDirectory() as folder:
        file, page = Path(folder) / "config.json", Path(folder) / "report.html"
        file.write_text(config, encoding="utf-8")
        # the run that this is a job of holds the study's lock, and has set what its own jobs shall have
        command = [sys.executable, "-c", REPORTING, "--snakefile", str(snakefile), "--configfile", str(file)]
        command += ["--workflow-profile", "none", "--nolock", "--report", str(page), "--", target]
        # a profile named by variable, which Snakemake gives its jobs, would add options to the command
        own = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
        if subprocess.run(command, check=False, env=own).returncode or not page.is_file():
            raise InputError(f"Snakemake wrote no report of `{target}`; its messages are above.")
        partial.write_bytes(page.read_bytes())
