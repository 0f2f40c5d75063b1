"""Paths of a study's files below its working directory, shared by the rules and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path

ACTIVATIONS = "results/activations/{model}/{checkpoint}/{dataset}.h5"
TOKENS = "results/tokens/{model}/{dataset}.h5"
LOSSES_FOLDER = "results/losses/{model}"
LOSSES = LOSSES_FOLDER + "/{checkpoint}/{dataset}.json"
STATISTICS_FOLDER = "results/statistics/{model}/{checkpoint}/{dataset}"
BLOCK = "{family}/layers-{first}-{last}.h5"  # below it
STATISTICS = f"{STATISTICS_FOLDER}/{BLOCK}"
MEASURED = f"{STATISTICS_FOLDER}/measured-layers-{{first}}-{{last}}"  # written when all archives of a block are there
METRICS = "results/metrics/{model}.parquet"
LOCK = "results/revisions/{model}.tsv"
UNASKED = (
    "results/revisions/.{model}.unasked"  # newer than a lock that does not list the files of what is taken
)
WEIGHTS_FOLDER = "results/weights/{model}"
WEIGHTS = WEIGHTS_FOLDER + "/{checkpoint}"  # of a published run; a folder as `save_pretrained` writes it
STAGED = "results/staged/{model}/{checkpoint}"  # there while cells wait for the weights
RELEASED = "results/released/{model}/{checkpoint}/{reader}"
SEEN_WEIGHTS = "results/seen_weights/{model}/{checkpoint}.json"  # of a local run: `lmshape.store.weights`
SHAPES = "results/shapes/{model}/{table}.parquet"  # spectra and clouds
TOKENIZER = "results/tokenizers/{model}"
TRUNCATION = "results/truncation/{model}/{checkpoint}/{dataset}.parquet"
READER_SEPARATOR = "@"
TRUNCATED = "{dataset}@truncation"  # a truncation among the readers of weights; no dataset has such a name


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
    return [LOSSES.format(**cell) for cell in cells(model, checkpoints, datasets)]


def cells(model: str, checkpoints: Iterable[str], datasets: Iterable[str]) -> list[dict[str, str]]:
    """List the cells of a model, spelt as the patterns take them."""
    axes = product(checkpoints, datasets)
    return [{"model": model, "checkpoint": checkpoint, "dataset": dataset} for checkpoint, dataset in axes]


def partial_folder(folder: Path) -> Path:
    """Say where a download lies until it is whole."""
    return folder.with_name(f".{folder.name}.partial")


def no_xet_file(folder: Path) -> Path:
    """Name the file that says of a folder of weights and its neighbors that Xet has failed in this run."""
    return folder.parents[1] / ".no-xet"


def staged_file(folder: Path) -> Path:
    """Name the file that says that the weights of a folder are on the disk."""
    return Path(STAGED.format(model=folder.parent.name, checkpoint=folder.name))
