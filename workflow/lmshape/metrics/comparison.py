"""Comparison families: similarity of two clouds of the same tokens, draw by draw.

`comparison` compares the clouds before and after a block, `comparison_final` a layer now and at the final checkpoint.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from lmshape.geometry.comparison import (
    cka,
    imbalance_from_neighbors,
    neighborhood_overlap_null,
    overlap_from_neighbors,
)
from lmshape.geometry.neighbors import nearest_neighbors
from lmshape.geometry.rows import unique_rows
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, kept_array
from lmshape.metrics.rows import UniqueRows, unique_rows_by_draw

NEIGHBORS = 30
FEWEST_ROWS = NEIGHBORS + 2  # a row has others than its neighbors
NAMES = ("overlap", "overlap_null", "imbalance", "imbalance_back", "cka")


def statistics(layer: Layer) -> dict[str, Found]:
    """Return of each choice of rows the numbers `NAMES` of its K draws, (K,) each: O(n² d / K) time.

    The rows are those of the neighbor family, without those that repeat another in the other cloud. Under 32 of them
    in a draw: a flag, and NaN.
    """
    return {name: _of_choice(layer, taken) for name, taken in unique_rows_by_draw(layer).items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have none."""
    return {name: np.full(draws, np.nan) for name in NAMES}


def _of_choice(layer: Layer, taken: UniqueRows) -> Found:
    found, fewest = [], taken.size
    for index in taken.index.values():
        x, y = layer.compared().take(index), layer.rows.take(index)
        kept = unique_rows(x)
        fewest = min(fewest, len(kept))
        found.append(_of_draw(x[kept], y[kept]))
    flag = f"fewer unique rows: {fewest} of {taken.size} per draw in the other cloud" * (fewest < taken.size)
    if fewest < FEWEST_ROWS:
        flag = f"too few unique rows: {fewest} per draw; {NEIGHBORS} neighbors need {FEWEST_ROWS}"
    arrays = dict(zip(NAMES, np.array(found).T, strict=True))
    return arrays, {"flag": flag or taken.flag}


def _of_draw(x: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """Return the numbers `NAMES` of unique rows (m, d) of the other cloud and of the layer."""
    if len(x) < FEWEST_ROWS:
        return (np.nan,) * len(NAMES)
    first, second = (nearest_neighbors(rows, NEIGHBORS, assume_unique=True).indices for rows in (x, y))
    return (
        overlap_from_neighbors(first, second),
        neighborhood_overlap_null(len(x), k=NEIGHBORS),
        imbalance_from_neighbors(first[:, 0], y),
        imbalance_from_neighbors(second[:, 0], x),
        cka(x, y),
    )


def _family(
    name: str, *, paired: Literal["before", "final"], names: tuple[str, ...], here: str, there: str
) -> Family:
    """Return a family that compares a site with another cloud; `here` and `there` say where each of the two is."""
    unstated = "a draw has under 32 unique rows"
    metric = partial(
        Metric, family=name, interval="draws", low=0.0, high=1.0, range="[0, 1]", undefined=unstated
    )
    imbalance = partial(
        metric,
        high=2.0,
        range="[2/n, 2)",
        null="1: the nearest neighbor of one cloud is any row of the other; 2/n where it is its nearest",
        source="Glielmo et al. 2022, doi:10.1093/pnasnexus/pgac039",
    )
    overlap, overlap_null, forward, back, alignment = names
    return Family(
        name,
        measured=Measured(name=name, statistics=statistics, missing=missing, paired=paired, capped=True),
        metrics=(
            metric(
                name=overlap,
                definition=f"share of a row's 30 nearest neighbors {here} that are so {there}, mean over draws",
                null=f"30/(n - 1), {overlap_null}; near 1 where little has changed",
                source="Doimo et al. 2020",
                values=partial(kept_array, array="overlap"),
            ),
            metric(
                name=overlap_null,
                definition=f"30/(n - 1): {overlap} of clouds that are independent of each other",
                null="itself a null",
                source="Doimo et al. 2020",
                values=partial(kept_array, array="overlap_null"),
            ),
            imbalance(
                name=forward,
                definition=f"2/n × mean rank {here} of a row's nearest neighbor {there}, mean over draws",
                values=partial(kept_array, array="imbalance"),
            ),
            imbalance(
                name=back,
                definition=f"2/n × mean rank {there} of a row's nearest neighbor {here}, mean over draws",
                values=partial(kept_array, array="imbalance_back"),
            ),
            metric(
                name=alignment,
                definition=f"‖Y'X‖² / (‖X'X‖ ‖Y'Y‖), rows X {there} and Y {here}, centered, unbiased, mean over draws",
                low=-1.0,
                range="about 0 to 1",
                null="0 for independent clouds; one far row of both makes it 1",
                source="Kornblith et al. 2019, arXiv 1905.00414; Nguyen et al. 2021, arXiv 2010.15327",
                undefined=f"{unstated}, or a cloud has no variance",
                values=partial(kept_array, array="cka"),
            ),
        ),
    )


COMPARISON = _family(
    "comparison",
    paired="before",
    names=(
        "neighborhood_overlap",
        "neighborhood_overlap_null",
        "information_imbalance",
        "information_imbalance_back",
        "cka",
    ),
    here="behind a block",
    there="before it",
)
COMPARISON_FINAL = _family(
    "comparison_final",
    paired="final",
    names=(
        "neighborhood_overlap_final",
        "neighborhood_overlap_final_null",
        "information_imbalance_from_final",
        "information_imbalance_to_final",
        "cka_final",
    ),
    here="at a checkpoint",
    there="at the final one",
)
