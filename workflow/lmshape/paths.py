"""Paths of a study's files below its working directory, shared by the rules and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

TEXT_FILE = "results/texts/{text}.txt"
CLEAN_TEXT = "results/texts/{text}.clean.txt"
PRETRAINED_FOLDER = Path("results/pretrained")  # where the study's own runs are written
PRETRAINED = f"{PRETRAINED_FOLDER}/{{run}}"
PRETRAINED_TOKENIZER = f"{PRETRAINED_FOLDER}/tokenizer"
ACTIVATIONS = "results/activations/{model}/{checkpoint}/{dataset}.h5"
TOKENS_FILE = "results/tokens/{model}/{dataset}.h5"
LOSSES_FOLDER = "results/losses/{model}"
LOSS_CARD = LOSSES_FOLDER + "/{checkpoint}/{dataset}.json"
STATISTICS_FOLDER = "results/statistics/{model}/{checkpoint}/{dataset}"
BLOCK = "{family}/layers-{first}-{last}.h5"  # below it
STATISTICS = f"{STATISTICS_FOLDER}/{BLOCK}"
# There once all archives of a block are.
MEASURED_MARK = f"{STATISTICS_FOLDER}/measured-layers-{{first}}-{{last}}"
MODEL_METRICS = "results/metrics/{model}.parquet"
LOCK = "results/revisions/{model}.tsv"
# Newer than a lock that does not list the files of what is taken.
UNASKED = "results/revisions/.{model}.unasked"
WEIGHTS_FOLDER = "results/weights/{model}"
WEIGHTS = WEIGHTS_FOLDER + "/{checkpoint}"  # of a published run; a folder as `save_pretrained` writes it
STAGED = "results/staged/{model}/{checkpoint}"  # there while cells wait for the weights
RELEASE_MARK = "results/released/{model}/{checkpoint}/{reader}"
SEEN_WEIGHTS = "results/seen_weights/{model}/{checkpoint}.json"  # of a local run: `lmshape.store.weights`
MODEL_SHAPES = "results/shapes/{model}/{table}.parquet"  # spectra and clouds
TOKENIZER = "results/tokenizers/{model}"
TRUNCATION_FILE = "results/truncation/{model}/{checkpoint}/{dataset}.parquet"
TABLES_FOLDER, FIGURES_FOLDER = Path("results/tables"), Path("results/figures")
MODEL_FIGURES = f"{FIGURES_FOLDER}/{{model}}"
METRICS_TABLE = f"{TABLES_FOLDER}/metrics.parquet"
INDEX_PAGE, EXPLORER_PAGE, REPORT_PAGE = "results/index.html", "results/explore.html", "results/report.html"
READER_SEPARATOR = "@"
# A truncation among the readers of weights; no dataset has such a name.
TRUNCATION_READER = "{dataset}@truncation"


def layers(first: int, last: int) -> dict[str, str]:
    """Spell a block of layers as its files do: two digits each."""
    return {"first": f"{first:02d}", "last": f"{last:02d}"}


def statistics_files(
    model: str,
    checkpoints: Iterable[str],
    datasets: Iterable[str],
    *,
    families: Iterable[str],
    blocks: Iterable[tuple[int, int]],
) -> list[str]:
    """List the statistics archives of a model: of every checkpoint, dataset, family and block of layers."""
    axes = product(checkpoints, datasets, families, blocks)
    return [
        STATISTICS.format(model=model, checkpoint=name, dataset=dataset, family=family, **layers(*block))
        for name, dataset, family, block in axes
    ]


def loss_cards(model: str, checkpoints: Iterable[str], datasets: Iterable[str]) -> list[str]:
    """List the loss cards of a model: of every checkpoint and dataset."""
    return [LOSS_CARD.format(**cell) for cell in cells(model, checkpoints, datasets)]


def cells(model: str, checkpoints: Iterable[str], datasets: Iterable[str]) -> list[dict[str, str]]:
    """List the cells of a model, spelt as the patterns take them."""
    axes = product(checkpoints, datasets)
    return [{"model": model, "checkpoint": checkpoint, "dataset": dataset} for checkpoint, dataset in axes]


def table_files(*names: str, formats: tuple[str, ...] = ("parquet", "csv")) -> list[str]:
    """Return the files of tables of the study."""
    return [f"{TABLES_FOLDER}/{name}.{suffix}" for name in names for suffix in formats]


def partial_folder(folder: Path) -> Path:
    """Say where a download lies until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def no_xet_file(folder: Path) -> Path:
    """Name the file that says of a folder of weights and its neighbors that Xet has failed in this run."""
    return folder.parents[1] / ".no-xet"


def staged_file(folder: Path) -> Path:
    """Name the file that says that the weights of a folder are on the disk."""
    return Path(STAGED.format(model=folder.parent.name, checkpoint=folder.name))
