"""Comparison family: similarity of the clouds before and after a block, draw by draw."""

from __future__ import annotations

from functools import partial

import numpy as np

from lmshape.geometry.comparison import (
    cka,
    information_imbalance,
    neighborhood_overlap,
    neighborhood_overlap_null,
)
from lmshape.geometry.rows import unique_rows
from lmshape.metrics.layer import Arrays, Found, Layer, Measured
from lmshape.metrics.metric import Family, Metric, kept_array
from lmshape.metrics.rows import UniqueRows, unique_rows_by_draw

NEIGHBORS = 30
FEWEST_ROWS = NEIGHBORS + 2  # a row has others than its neighbors
NAMES = ("overlap", "overlap_null", "imbalance", "imbalance_back", "cka")


def statistics(layer: Layer) -> dict[str, Found]:
    """Return of each choice of rows the numbers `NAMES` of its K draws, (K,) each: O(n² d / K) time.

    The rows are those of the neighbor family, without those that repeat another in the layer before. Under 32 of them
    in a draw: a flag, and NaN.
    """
    return {name: _of_choice(layer, taken) for name, taken in unique_rows_by_draw(layer).items()}


def missing(*, rows: int, width: int, draws: int, rows_per_draw: int | None = None) -> Arrays:
    """Return the arrays of `statistics`, NaN, for rows that have none."""
    return {name: np.full(draws, np.nan) for name in NAMES}


def _of_choice(layer: Layer, taken: UniqueRows) -> Found:
    found, fewest = [], taken.size
    for index in taken.index.values():
        x, y = layer.earlier().take(index), layer.rows.take(index)
        kept = unique_rows(x)
        fewest = min(fewest, len(kept))
        found.append(_of_draw(x[kept], y[kept]))
    flag = f"fewer unique rows: {fewest} of {taken.size} per draw in the layer before" * (fewest < taken.size)
    if fewest < FEWEST_ROWS:
        flag = f"too few unique rows: {fewest} per draw; {NEIGHBORS} neighbors need {FEWEST_ROWS}"
    arrays = dict(zip(NAMES, np.array(found).T, strict=True))
    return arrays, {"flag": flag or taken.flag}


def _of_draw(x: np.ndarray, y: np.ndarray) -> tuple[float, ...]:
    """Return the numbers `NAMES` of unique rows (m, d) before and after a block."""
    if len(x) < FEWEST_ROWS:
        return (np.nan,) * len(NAMES)
    overlap, null = (
        neighborhood_overlap(x, y, k=NEIGHBORS),
        neighborhood_overlap_null(len(x), k=NEIGHBORS),
    )
    return overlap, null, information_imbalance(x, y), information_imbalance(y, x), cka(x, y)


_comparison = partial(Metric, family="comparison", interval="draws", low=0.0, high=1.0, range="[0, 1]")
_overlap = partial(_comparison, source="Doimo et al. 2020", undefined="a draw has under 32 unique rows")
_imbalance = partial(
    _comparison,
    high=2.0,
    range="[2/n, 2)",
    null="1: the nearest neighbor of one cloud is any row of the other; 2/n where it is its nearest",
    source="Glielmo et al. 2022, doi:10.1093/pnasnexus/pgac039",
    undefined="a draw has under 32 unique rows",
)

COMPARISON = Family(
    "comparison",
    measured=Measured(name="comparison", statistics=statistics, missing=missing, paired=True, capped=True),
    metrics=(
        _overlap(
            name="neighborhood_overlap",
            definition="share of a row's 30 nearest neighbors behind a block that are so before it, mean over draws",
            null="30/(n - 1), neighborhood_overlap_null; near 1 where the residual stream outweighs the update",
            values=partial(kept_array, array="overlap"),
        ),
        _overlap(
            name="neighborhood_overlap_null",
            definition="30/(n - 1): neighborhood_overlap of clouds that are independent of each other",
            null="is one itself",
            values=partial(kept_array, array="overlap_null"),
        ),
        _imbalance(
            name="information_imbalance",
            definition="2/n × mean rank behind a block of a row's nearest neighbor before it, mean over draws",
            values=partial(kept_array, array="imbalance"),
        ),
        _imbalance(
            name="information_imbalance_back",
            definition="2/n × mean rank before a block of a row's nearest neighbor behind it, mean over draws",
            values=partial(kept_array, array="imbalance_back"),
        ),
        _comparison(
            name="cka",
            definition="‖Y'X‖² / (‖X'X‖ ‖Y'Y‖) of a block's centered input X and output Y, unbiased, mean over draws",
            low=-1.0,
            range="about 0 to 1",
            null="0 for independent clouds; one far row of both makes it 1",
            source="Kornblith et al. 2019, arXiv 1905.00414; Nguyen et al. 2021, arXiv 2010.15327",
            undefined="a draw has under 32 unique rows, or a cloud has no variance",
            values=partial(kept_array, array="cka"),
        ),
    ),
)
