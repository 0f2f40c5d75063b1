"""Verbs of the command line that make of the models' metrics what is read: tables, figures, the report.

Stations are imported inside their verb, as in `lmshape.cli`, which registers these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lmshape.arguments import Output

CAPTIONS = Path(__file__).parents[1] / "report"


def tables(files: Annotated[list[Path], typer.Argument(help="the models' metrics")], output: Output) -> None:
    """Combine the models into the study's tables, as Parquet and CSV."""
    from lmshape.tables import combine

    combine(files, output)


def figure(
    name: str,
    output: Annotated[Path, typer.Option(help="PNG to write; SVG and CSV appear beside it")],
    tables: Annotated[Path, typer.Option(help="folder of the study's tables")],
    dataset: Annotated[list[str] | None, typer.Option(help="datasets in the study's order")] = None,
    losses: Annotated[list[str] | None, typer.Option(help="model=loss.csv of a pretraining run")] = None,
) -> None:
    """Draw a figure of the study."""
    from lmshape.figures import render

    runs = {model: Path(path) for model, _, path in (pair.partition("=") for pair in losses or [])}
    render(name, tables, output_stem=output.with_suffix(""), losses=runs, datasets=dataset or [])


def report(
    output: Output,
    tables: Annotated[Path, typer.Option(help="folder of the study's tables")],
    figures: Annotated[Path, typer.Option(help="folder of the study's figures")],
    provenance: Annotated[str, typer.Option(help="what was run, as JSON")],
    runs: Annotated[list[Path] | None, typer.Option(help="summary.json of a pretraining run")] = None,
) -> None:
    """Write the report: one page that works offline."""
    from lmshape.report import build_report

    summaries = {path.parent.name: json.loads(path.read_text()) for path in runs or []}
    build_report(
        output,
        tables_dir=tables,
        figures_dir=figures,
        captions_dir=CAPTIONS,
        provenance=json.loads(provenance) | {"runs": summaries},
    )
