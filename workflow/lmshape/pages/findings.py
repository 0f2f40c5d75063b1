"""The findings: one HTML page with the claims and their verdicts, figures and tables; it needs no network.

Text, style and layout are in `workflow/report/findings.html.j2`; here is what it shows.
"""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from docutils.core import publish_parts
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lmshape import __version__
from lmshape.claims.claim import ALL_MODELS, VERDICTS
from lmshape.figures import FIGURES
from lmshape.metrics.registry import added_metrics, describe
from lmshape.pages import overview
from lmshape.pages.overview import Cell, Table
from lmshape.tables.files import read_table
from lmshape.tables.rows import in_order
from lmshape.writing import replaced_when_whole

TEMPLATE = "findings.html.j2"
SHOWN = ("metrics", "checkpoints", "profiles", "claims")
SMALLEST_CLAIMED = 10**8  # parameters
ARXIV = re.compile(r"arXiv\s(\d{4}\.\d{4,5}|[a-z-]+/\d{7})")
LARGEST_VECTOR = 700_000  # bytes; a picture of more paths loads slower than its pixels


# The page


def build_findings(
    output: Path,
    *,
    tables_dir: Path,
    figures_dir: Path,
    captions_dir: Path,
    provenance: Mapping[str, Any],
    own: Path | None = None,
) -> None:
    """Write the findings of a study as one file; links to figures and tables beside it are relative.

    Parameters
    ----------
    output : HTML file to write
    tables_dir : folder of metrics, checkpoints, profiles and claims, each as .parquet and .csv
    figures_dir : folder of {name}.png, .svg and .csv; a figure that is not there is left out
    captions_dir : folder of {name}.rst for each figure and of the page's template
    provenance : what the tables do not say, shown as it is, nested as it is; of its keys `sampling` and
        `datasets` (name → description) go to the head of the page as well, and so does `runs` (pretraining
        run → its summary)
    own : file of the user's own metrics, which is run for what they mean
    """
    output, tables_dir, captions_dir = Path(output), Path(tables_dir), Path(captions_dir)
    read = {name: read_table(tables_dir / f"{name}.parquet") for name in SHOWN}
    metrics, profiles = read["metrics"], read["profiles"]
    pictures = [_picture(name, Path(figures_dir), captions_dir, output.parent) for name in FIGURES]
    runs = provenance.get("runs") or {}
    tables = {
        "models": overview.models(metrics),
        "runs": pd.DataFrame([{"run": run, **summary} for run, summary in runs.items()]),
        "findings": overview.findings(metrics, profiles),
        "layers": overview.last_layers(metrics),
        "checkpoints": overview.checkpoints(read["checkpoints"]),
        "profiles": overview.domes(profiles),
        "flags": overview.flags(metrics),
        "definitions": pd.DataFrame(describe(added_metrics(metrics["metric"].unique(), own))),
    }
    page = _template(captions_dir).render(
        study=", ".join(in_order(metrics["study"])),
        datasets=in_order(metrics["dataset"]),
        numbers=len(metrics),
        claims=summaries(read["claims"]),
        counts=counts(read["claims"]),
        verdicts=VERDICTS,
        small=_largest_if_small(metrics),
        pictures=[picture for picture in pictures if picture],
        links={name: _relative(tables_dir / f"{name}.csv", output.parent) for name in SHOWN},
        provenance={"versions": versions(), **provenance},
        **{name: overview.table(frame) for name, frame in tables.items()},
    )
    with replaced_when_whole(output) as partial:
        partial.write_text(page, encoding="utf-8")


def _largest_if_small(metrics: pd.DataFrame) -> int:
    """Parameters of the largest model where it is smaller than any that the claims are about; else 0."""
    largest = int(metrics["parameters"].max()) if len(metrics) else 0
    return largest if largest < SMALLEST_CLAIMED else 0


def versions() -> dict[str, str]:
    """Give the versions of Python, lmshape and the libraries whose results the report shows."""
    libraries = ("torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "snakemake")
    installed = {name: version(name) for name in libraries}
    return {"python": platform.python_version(), "lmshape": __version__, **installed}


def _template(folder: Path) -> Template:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arxiv"] = _arxiv
    return environment.get_template(TEMPLATE)


def _arxiv(text: str) -> Markup:
    return Markup(_linked(str(escape(text))))


def _linked(html: str) -> str:
    """Make each arXiv number a link: the one thing of the page that leads out of it."""
    return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">\g<0></a>', html)


# Figures


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page: its picture as a data address, what it shows in words, and its files."""

    name: str
    title: str
    source: str
    caption: str
    alternative: str
    files: dict[str, str]


def _picture(name: str, figures_dir: Path, captions_dir: Path, page_dir: Path) -> Picture | None:
    files = {end: figures_dir / f"{name}.{end}" for end in ("png", "svg", "csv")}
    if not all(path.is_file() for path in files.values()):
        return None
    vector = files["svg"].stat().st_size <= LARGEST_VECTOR
    path, kind = (files["svg"], "image/svg+xml") if vector else (files["png"], "image/png")
    title = FIGURES[name].load().title
    text = (captions_dir / f"{name}.rst").read_text(encoding="utf-8")
    return Picture(
        name=name,
        title=title,
        source=f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}",
        caption=_linked(_html(text)),
        alternative=f"{title}. {' '.join(text.split('. ')[0].split())}.",
        files={end: _relative(path, page_dir) for end, path in files.items()},
    )


def _html(text: str) -> str:
    settings = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 2, "halt_level": 2}
    return publish_parts(text, writer="html5", settings_overrides=settings)["body"]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


# Claims

MOST_NUMBERS = 3  # beside a verdict; the table below has all
ROWS = {"all": "all rows", "no_sink": "without sinks", "one_per_type": "one row a token id"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict with one choice of rows, and on how many models it rests."""

    rows: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class ClaimSummary:
    """One claim of the page."""

    name: str
    statement: str
    source: str
    statistic: str
    rule: str
    answers: list[Answer]
    numbers: Table

    @property
    def measured(self) -> bool:
        """Whether this study says anything about it."""
        return any(answer.verdict != "not measurable" for answer in self.answers)


def summaries(claims: pd.DataFrame) -> list[ClaimSummary]:
    """Sum up the table `claims`, one entry a claim, in its order."""
    return [_summary(of_claim) for _, of_claim in claims.groupby("claim", sort=False)]


def counts(claims: pd.DataFrame) -> dict[str, int]:
    """Count the claims by their verdict: that of all rows where there is one, else of the first choice of rows."""
    first = [summary.answers[0].verdict for summary in summaries(claims)]
    return {verdict: first.count(verdict) for verdict in VERDICTS}


def _summary(of_claim: pd.DataFrame) -> ClaimSummary:
    first = of_claim.iloc[0]
    said = {name: str(first[name]) for name in ("statement", "source", "statistic", "rule")}
    return ClaimSummary(
        name=str(first["claim"]), answers=list(_answers(of_claim)), numbers=_numbers(of_claim), **said
    )


def _answers(of_claim: pd.DataFrame) -> Iterator[Answer]:
    for rows, of_rows in of_claim.groupby("rows", sort=False):
        together = of_rows[of_rows["model"] == ALL_MODELS]
        single = of_rows[of_rows["model"] != ALL_MODELS]
        shown = together.iloc[0] if len(together) else _weakest(of_rows)
        told = list(_told(single[single["verdict"] != "not measurable"]))
        lone = [shown["why"]] if len(together) or not told else []
        why = ". ".join(filter(None, [*lone, *_corrected(single), "; ".join(told)]))
        yield Answer(ROWS.get(rows, rows), shown["verdict_adjusted"], why)


def _told(measured: pd.DataFrame) -> Iterator[str]:
    for _, row in measured.head(MOST_NUMBERS).iterrows():
        yield _numbered(row)
    if (more := len(measured) - MOST_NUMBERS) > 0:
        yield f"{more} more below"


def _corrected(single: pd.DataFrame) -> list[str]:
    """Say which verdicts the correction for many tests took back."""
    lost = single[single["verdict"] != single["verdict_adjusted"]]
    if lost.empty:
        return []
    alone = ", ".join(
        f"{verdict} in {count}" for verdict, count in lost["verdict"].value_counts(sort=False).items()
    )
    return [f"after correction for {single['p'].notna().sum()} tests undecided, each alone {alone}"]


def _weakest(of_rows: pd.DataFrame) -> pd.Series:
    """Of the places of a single model, one whose verdict is not the best: a claim holds where it holds everywhere."""
    order = ("contradicted", "undecided", "supported", "not measurable")
    ranks = of_rows["verdict_adjusted"].map(order.index)
    return of_rows.loc[ranks.idxmin()]


def _numbered(row: pd.Series) -> str:
    """Spell a finding: its number, or its words where the rule has no threshold to hold a number against."""
    place = f", {row['place']}" if row["place"] else ""
    told = row["why"] if pd.isna(row["threshold"]) and row["why"] else _value(row).text
    return f"{row['model']}{place}: {told}"


def _numbers(of_claim: pd.DataFrame) -> Table:
    single = of_claim[of_claim["model"] != ALL_MODELS]
    rows = single["rows"].map(lambda name: ROWS.get(name, name))
    shown = single[["model", "dataset"]].assign(rows=rows, place=single["place"])
    shown["statistic"] = [_value(row) for _, row in single.iterrows()]
    shown = shown.assign(threshold=single["threshold"], verdict=single["verdict"])
    shown["after correction"] = single["verdict_adjusted"]
    if (single["published"] != "").any():
        shown["published"] = [
            Cell(text, text, source)
            for text, source in zip(single["published"], single["published_source"], strict=True)
        ]
    return overview.table(shown.assign(why=single["why"]))


def _value(row: pd.Series) -> Cell:
    cell = overview.interval(row, "estimate", "low", "high", "why", apart_from=row["threshold"])
    return Cell(cell.text, cell.key)
