"""Verbs of the command line that make of the models' metrics what is read: tables, figures, the report.

Stations are imported inside their verb, as in `lmshape.commands.cli`, which registers these.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lmshape.commands.arguments import Output, OwnMetrics

CAPTIONS = Path(__file__).parents[2] / "report"


def tables(
    files: Annotated[list[Path], typer.Argument(help="the models' metrics")],
    output: Output,
    recipe: Annotated[
        list[str] | None, typer.Option(help="model=recipe that other seeds of it share")
    ] = None,
    unstable: Annotated[
        list[str] | None, typer.Option(help="model that is in no comparison of decoders with encoders")
    ] = None,
) -> None:
    """Combine the models into the study's tables, as Parquet and CSV."""
    from lmshape.tables.study_tables import combine

    groups = {model: name for model, _, name in (pair.partition("=") for pair in recipe or [])}
    combine(files, output, groups=groups, unstable=unstable or ())


def claims(
    files: Annotated[list[Path], typer.Argument(help="the models' metrics")],
    tables: Annotated[
        Path, typer.Option(help="folder of the study's tables; the new one goes there as well")
    ],
    dataset: Annotated[
        list[str] | None, typer.Option(help="dataset=text, =shuffled or =random, in the study's order")
    ] = None,
) -> None:
    """Test the published claims on the study's own numbers."""
    from lmshape.claims import decide_study

    orders = {name: order for name, _, order in (pair.partition("=") for pair in dataset or [])}
    decide_study(files, tables, orders=orders)


def spikes(
    output: Annotated[Path, typer.Option(help="folder of the study's tables; the new ones go there as well")],
    study: Annotated[str, typer.Option(help="name of the study, a column of the tables")],
    losses: Annotated[list[str] | None, typer.Option(help="run=loss.csv of a pretraining run")] = None,
    log: Annotated[list[str] | None, typer.Option(help="name=CSV of the losses of another run")] = None,
    geometry: Annotated[list[str] | None, typer.Option(help="run=geometry.csv measured in it")] = None,
    dataset: Annotated[list[str] | None, typer.Option(help="datasets in the study's order")] = None,
) -> None:
    """Find the spikes of losses, and what moves before them."""
    from lmshape.tables.loss_spikes import write_spikes

    write_spikes(
        output,
        study=study,
        losses=_paths(losses),
        logs=_paths(log),
        geometry=_paths(geometry),
        metrics=output / "metrics.parquet",
        datasets=dataset or [],
    )


def _paths(pairs: list[str] | None) -> dict[str, Path]:
    return {name: Path(path) for name, _, path in (pair.partition("=") for pair in pairs or [])}


def figure(
    name: str,
    output: Annotated[Path, typer.Option(help="PNG to write; SVG and CSV appear beside it")],
    tables: Annotated[Path, typer.Option(help="folder of the study's tables")],
    dataset: Annotated[list[str] | None, typer.Option(help="datasets in the study's order")] = None,
    losses: Annotated[list[str] | None, typer.Option(help="model=loss.csv of a pretraining run")] = None,
) -> None:
    """Draw a figure of the study."""
    from lmshape.figures import render

    render(name, tables, output_stem=output.with_suffix(""), losses=_paths(losses), datasets=dataset or [])


def explore(
    output: Output,
    tables: Annotated[Path, typer.Option(help="folder of the study's tables")],
    dataset: Annotated[list[str] | None, typer.Option(help="datasets in the study's order")] = None,
    own_metrics: OwnMetrics = None,
) -> None:
    """Write the explorer: one page to walk through the study's numbers, which works offline."""
    from lmshape.pages.explore import build_explorer

    size = build_explorer(
        output, tables_dir=tables, sources_dir=CAPTIONS / "explore", datasets=dataset or [], own=own_metrics
    )
    print(f"{output}: {size / 1e6:.1f} MB")


def findings(
    output: Output,
    tables: Annotated[Path, typer.Option(help="folder of the study's tables")],
    figures: Annotated[Path, typer.Option(help="folder of the study's figures")],
    provenance: Annotated[str, typer.Option(help="what was run, as JSON")],
    runs: Annotated[list[Path] | None, typer.Option(help="summary.json of a pretraining run")] = None,
    own_metrics: OwnMetrics = None,
) -> None:
    """Write the page of the findings, which works offline."""
    from lmshape.pages.findings import build_findings

    summaries = {path.parent.name: json.loads(path.read_text()) for path in runs or []}
    build_findings(
        output,
        tables_dir=tables,
        figures_dir=figures,
        captions_dir=CAPTIONS,
        provenance=json.loads(provenance) | {"runs": summaries},
        own=own_metrics,
    )


def report(
    output: Output,
    snakefile: Annotated[Path, typer.Option(help="the workflow's")],
    target: Annotated[str, typer.Option(help="file behind which all results lie")] = "results/findings.html",
) -> None:
    """Write Snakemake's report of the study that is being run; for other times there is `snakemake --report`."""
    import os

    from lmshape.errors import InputError
    from lmshape.pages.report import CONFIG, write_report

    if CONFIG not in os.environ:
        raise InputError(
            "`lmshape report` is a job of the workflow; by hand, type `snakemake --report results/report.html`."
        )
    write_report(output, snakefile=snakefile, target=target, config=os.environ[CONFIG])
