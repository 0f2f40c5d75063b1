"""The command line: one verb a station, explicit flags, nothing but dispatch.

Stations are imported inside their verb: a job that measures must not pay for importing torch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lmshape.commands.arguments import Order, Output, OwnMetrics, Protocol, Span, Threads
from lmshape.commands.extraction_cli import extract
from lmshape.commands.hub_cli import admit, audit, download, fetch_tokenizer, lock, plan, release, resolve
from lmshape.commands.results_cli import claims, explore, figure, findings, report, spikes, tables
from lmshape.commands.shapes_cli import combine_shapes, shapes
from lmshape.commands.truncation_cli import truncate, truncation_tables
from lmshape.errors import InputError

HELP = "Measure the shape of a language model's activations: one command for each step, from a text to the report."

commands = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)


def app() -> None:
    """Run the command line; wrong input ends in one sentence and exit code 2, not in a traceback."""
    try:
        commands()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


@commands.command()
def fetch(
    source: Annotated[str, typer.Argument(help="file (plain, .xz, .gz, .zip) or http(s) address")],
    output: Output,
    md5: Annotated[str | None, typer.Option(help="checksum of the unpacked text")] = None,
    sha256: Annotated[str | None, typer.Option(help="checksum of the unpacked text")] = None,
    size: Annotated[int | None, typer.Option("--bytes", help="length of the unpacked text")] = None,
) -> None:
    """Fetch a text, unpack it, and verify it; a download resumes where it broke off."""
    from lmshape.study.registry import find_file
    from lmshape.texts.fetch import fetch as bring

    local = "://" not in source
    bring(find_file(source, root=Path.cwd()) if local else source, output, md5=md5, sha256=sha256, size=size)


@commands.command()
def clean(source: Path, output: Output) -> None:
    """Take Wikipedia's markup out of a dump."""
    from lmshape.texts.corpus import clean_file

    clean_file(source, output)


@commands.command()
def train_tokenizer(
    text: Path,
    output: Output,
    vocabulary: Annotated[int, typer.Option(help="entries, 256 bytes and 3 special tokens included")],
    span: Span = (0.0, 1.0),
) -> None:
    """Train the embedded study's byte-level BPE tokenizer."""
    from lmshape.texts import corpus
    from lmshape.texts import tokenizer as bpe

    bpe.write_tokenizer(corpus.span(corpus.read_text(text), *span), output, vocabulary=vocabulary)


@commands.command()
def pretrain(
    text: Path,
    output: Output,
    tokenizer: Annotated[Path, typer.Option(help="folder of the tokenizer")],
    recipe: Annotated[str, typer.Option(help="the fields of lmshape.training.recipe.Recipe, as JSON")],
    span: Span = (0.0, 1.0),
    threads: Threads = 1,
) -> None:
    """Train a small model from scratch; a killed run resumes from its last checkpoint."""
    from lmshape.monitor import held_out, monitor_of
    from lmshape.texts import corpus
    from lmshape.training.pretrain import pretrain as train
    from lmshape.training.recipe import Recipe

    whole, plan = corpus.read_text(text), Recipe.from_json(recipe)
    monitor = monitor_of(held_out(whole, *span), tokenizer, plan) if plan.probe_every else None
    train(corpus.span(whole, *span), tokenizer, output, recipe=plan, monitor=monitor, threads=threads)


@commands.command()
def tokenize(
    tokenizer: Annotated[Path, typer.Argument(help="folder of the tokenizer")],
    output: Output,
    window: Annotated[int, typer.Option(help="tokens of a sequence, in windows")] = 128,
    draws: Annotated[int, typer.Option(help="disjoint draws of whole sequences")] = 5,
    rows_per_draw: Annotated[int, typer.Option(help="unique rows that a draw must yield, in windows")] = 1024,
    seed: Annotated[int, typer.Option(help="of the choice of sequences")] = 0,
    text: Annotated[Path | None, typer.Option(help="random tokens in windows need none")] = None,
    span: Span = (0.0, 1.0),
    protocol: Protocol = Protocol.windows,
    order: Order = Order.text,
    context: Annotated[int | None, typer.Option(help="the model's longest sequence")] = None,
) -> None:
    """Sample the tokens that every checkpoint of a model will see."""
    from lmshape.store.tokens import write_tokens
    from lmshape.texts import corpus
    from lmshape.texts.tokenizer import load_tokenizer
    from lmshape.texts.tokens import sample_tokens

    tokens = sample_tokens(
        load_tokenizer(tokenizer),
        corpus.span(corpus.read_text(text), *span) if text else "",
        protocol=protocol.value,
        order=order.value,
        window=window,
        draws=draws,
        rows_per_draw=rows_per_draw,
        seed=seed,
        context=context,
    )
    write_tokens(output, tokens)


commands.command()(extract)


@commands.command()
def measure(
    activations: Path,
    output: Annotated[Path, typer.Option(help="folder of the cell's archives, {family}/layers-00-12.h5")],
    family: Annotated[
        list[str], typer.Option(help="metric family, see `lmshape metrics`; may be given again")
    ],
    first: Annotated[int, typer.Option(help="first layer; 0 is the embedding")],
    last: Annotated[int, typer.Option(help="last layer, included")],
    rows: Annotated[list[str], typer.Option(help="all, no_sink, one_per_type; may be given again")],
    rows_per_draw: Annotated[int | None, typer.Option(help="rows of a draw in neighbor statistics")] = None,
    own_metrics: OwnMetrics = None,
) -> None:
    """Reduce a block of layers to the statistics that metric families need; what is there already is kept."""
    from lmshape.metrics.block import measure_block

    measure_block(
        activations,
        output,
        families=family,
        first=first,
        last=last,
        rows=rows,
        rows_per_draw=rows_per_draw,
        own_metrics=own_metrics,
    )


@commands.command()
def gather(
    model: str,
    output: Output,
    study: Annotated[str, typer.Option(help="name of the study, a column of the table")],
    checkpoint: Annotated[list[str], typer.Option(help="may be given again, as may the following")],
    dataset: Annotated[list[str], typer.Option()],
    layers: Annotated[list[str], typer.Option(help="block of layers as in the files, 00-06")],
    metric: Annotated[list[str], typer.Option(help="metric or family")],
    own_metrics: OwnMetrics = None,
    lock: Annotated[Path | None, typer.Option(help="lock of a model of the hub")] = None,
    known_issues: Annotated[
        Path | None, typer.Option(help="list of known faults of published checkpoints")
    ] = None,
) -> None:
    """Turn the statistics of a model, below results/, into rows with intervals."""
    from lmshape.metrics.families import measured_families
    from lmshape.metrics.own import read_own
    from lmshape.paths import loss_cards, statistics_files
    from lmshape.tables.gather import gather as run

    blocks = [tuple(int(layer) for layer in block.split("-")) for block in layers]
    families = measured_families(metric, read_own(own_metrics).names if own_metrics else ())
    archives = statistics_files(model, checkpoint, dataset, families=families, blocks=blocks)
    cards = loss_cards(model, checkpoint, dataset)
    run(
        archives,
        cards,
        output,
        study=study,
        metrics=metric,
        own=own_metrics,
        lock=lock,
        known_issues=known_issues,
    )


HUB = (plan, lock, audit, resolve, download, admit, release, fetch_tokenizer)
TABLES = (truncate, truncation_tables, tables, shapes, combine_shapes, spikes, claims)
for verb in (*HUB, *TABLES, figure, explore, findings, report):
    commands.command()(verb)


@commands.command()
def metrics(own_metrics: OwnMetrics = None) -> None:
    """List the metrics: family, definition, range, value where there is nothing to see, source."""
    from lmshape.metrics.registry import describe
    from lmshape.metrics.registry import own_metrics as own

    for entry in describe(own(own_metrics)):
        print(f"{entry['name']}  ({entry['family']})")
        for key in ("definition", "range", "null", "source"):
            print(f"    {key:<11}{entry[key]}")
