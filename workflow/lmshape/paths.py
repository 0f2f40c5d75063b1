"""Where the files of a study lie, below its working directory: patterns shared by the rules and the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

ACTIVATIONS = "results/activations/{model}/{checkpoint}/{dataset}.h5"
LOSSES = "results/losses/{model}/{checkpoint}/{dataset}.json"
STATISTICS = "results/statistics/{model}/{checkpoint}/{dataset}/{family}/layers-{first}-{last}.h5"
METRICS = "results/metrics/{model}.parquet"


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
    cells = product(checkpoints, datasets)
    return [LOSSES.format(model=model, checkpoint=name, dataset=dataset) for name, dataset in cells]
