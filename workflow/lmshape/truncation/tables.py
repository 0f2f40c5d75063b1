"""The file of a cell's truncation, and two tables of them: the loss at every layer and rank, and the least rank.

Differences are taken draw by draw: the tokens are the same, so that the intervals are those of the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from math import isfinite, nan
from operator import attrgetter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from lmshape.checkpoints import Checkpoint
from lmshape.geometry.resample import Estimate, over_draws
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import or_nan, or_null
from lmshape.tables.columns import (
    Row,
    declare,
    integer,
    interval,
    joined,
    read_parquet,
    read_table,
    real,
    shared,
    text,
    write_parquet,
    write_table,
)
from lmshape.truncation.ranks import TOLERANCES, least_rank, rank_interval

KEY = b"lmshape.truncation"


@dataclass(frozen=True, slots=True, kw_only=True)
class TruncatedLoss:
    """The loss with a truncated residual stream behind one layer.

    Attributes
    ----------
    layer : 0 for the embedding, l after block l
    rows : which rows were projected: `all`, `no_sink`
    variant : `keep` or `remove` the leading axes
    rank : how many
    losses : of each draw, nats a token; NaN with a reason in `flag`
    flag : the reason of NaN, or of a doubt; empty when fine
    """

    layer: int
    rows: str
    variant: str
    rank: int
    losses: tuple[float, ...]
    flag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """All of a cell.

    Attributes
    ----------
    attributes : model, kind, checkpoint, step, dataset, blocks, width, versions, …
    tokens : predicted tokens of each draw
    whole : loss of each draw without truncation, nats a token
    measured : every layer, choice of rows, variant and rank
    """

    attributes: Attributes
    tokens: tuple[int, ...]
    whole: tuple[float, ...]
    measured: tuple[TruncatedLoss, ...]


def write_truncation(path: Path, truncation: Truncation) -> None:
    """Write a truncation as Parquet; the attributes stand in its metadata. The same numbers give the same bytes."""
    card = {
        "attributes": {key: or_null(value) for key, value in truncation.attributes.items()},
        "tokens": truncation.tokens,
        "whole": [or_null(loss) for loss in truncation.whole],
    }
    table = pa.Table.from_pylist([asdict(one) for one in truncation.measured])
    write_parquet(table.replace_schema_metadata({KEY: json.dumps(card, sort_keys=True)}), path)


def read_truncation(path: Path) -> Truncation:
    """Read what `write_truncation` wrote."""
    table = read_parquet(path)
    card = json.loads(table.schema.metadata[KEY])
    return Truncation(
        attributes={key: or_nan(value) for key, value in card["attributes"].items()},
        tokens=tuple(card["tokens"]),
        whole=tuple(map(or_nan, card["whole"])),
        measured=tuple(TruncatedLoss(**{**row, "losses": tuple(row["losses"])}) for row in table.to_pylist()),
    )


DIMENSIONS_BESIDE = ("participation_ratio", "effective_rank", "id_twonn")  # of the same layer and rows

_PLACE = (
    *shared("study model kind checkpoint step dataset"),
    integer("layer", "0 for the embedding, l after block l"),
    *shared("depth"),
    integer("d", "width of the residual stream"),
)
_ROWS = text("rows", "all; no_sink: the attention sinks neither fit the axes nor are projected")
TRUNCATION_COLUMNS = declare(
    *_PLACE,
    text("variant", "keep: only the leading principal axes behind the layer; remove: all but them"),
    _ROWS,
    integer("rank", "number of these axes"),
    real("loss", "nats per token, the mean of the draws"),
    *interval(
        real,
        "loss_increase",
        "loss - whole_loss; NaN never without a reason in flag",
        ", of differences taken draw by draw",
    ),
    real("whole_loss", "nats per token on the same tokens with nothing left out"),
    integer("draws", "number of draws; the axes tried on each are those of the others"),
    integer("tokens", "tokens that have a loss, over all draws"),
    text("flag", "the reason of an empty value, or of a doubt about the axes; empty when fine"),
)
RANKS_COLUMNS = declare(
    *_PLACE,
    _ROWS,
    real("tolerance", "nats per token that the loss may exceed whole_loss by"),
    integer(
        "rank", "least number of leading axes within the tolerance, as are all larger ones that were tried"
    ),
    integer("rank_low", "lower end of its 95 % interval: ranks under it exceed the tolerance significantly"),
    integer(
        "rank_high",
        "upper end of its 95 % interval: from it on the loss is significantly within; empty where no rank is",
    ),
    real("share_of_d", "rank / d"),
    *(
        real(name, "of the same layer and rows; empty where it was not measured")
        for name in DIMENSIONS_BESIDE
    ),
    real("whole_loss", "nats per token with nothing left out"),
    integer("draws", "number of draws"),
    text("flag", "the reason of an empty value; empty when fine"),
)


def write_truncation_tables(
    files: Mapping[Path, Sequence[Checkpoint]], metrics: Path, output_dir: Path, *, study: str
) -> None:
    """Write `truncation` and `truncation_ranks` as .parquet and .csv; without a decoder they have columns and no rows.

    Parameters
    ----------
    files : what `truncate` wrote, one file per cell → the checkpoints with its weights; the tables keep their order
    metrics : the study's table of metrics
    output_dir : folder of the tables
    study : name of the study
    """
    cells = [_as_of(read_truncation(path), one) for path, those in files.items() for one in those]
    wanted = ["model", "checkpoint", "dataset", "site", "layer", "rows", "metric", "value"]
    known = dimensions(read_table(metrics, columns=wanted))
    curves = [row for cell in cells for row in loss_rows(cell, study)]
    ranks = [row for cell in cells for row in rank_rows(cell, study, known)]
    write_table(pd.DataFrame(curves), TRUNCATION_COLUMNS, output_dir / "truncation")
    write_table(pd.DataFrame(ranks), RANKS_COLUMNS, output_dir / "truncation_ranks")


def _as_of(cell: Truncation, one: Checkpoint) -> Truncation:
    """Say of a checkpoint what was measured with the same weights."""
    return replace(cell, attributes={**cell.attributes, "checkpoint": one.name, "step": one.step})


def dimensions(metrics: pd.DataFrame) -> dict[tuple[str | int, ...], float]:
    """Return (model, checkpoint, dataset, layer, rows, metric) → value of the metrics that stand beside a rank."""
    chosen = metrics[metrics["metric"].isin(DIMENSIONS_BESIDE) & metrics["site"].isin(["embedding", "block"])]
    return chosen.set_index(["model", "checkpoint", "dataset", "layer", "rows", "metric"])["value"].to_dict()


def loss_rows(cell: Truncation, study: str) -> Iterator[Row]:
    """Yield the rows of `truncation`: one for each layer, variant, choice of rows and rank."""
    for one in cell.measured:
        increase = _increase(one, cell)
        yield {
            **_shared(one, cell, study),
            "variant": one.variant,
            "rank": one.rank,
            "loss": float(np.mean(one.losses)),
            "loss_increase": increase.value,
            "loss_increase_low": increase.low,
            "loss_increase_high": increase.high,
            "tokens": sum(cell.tokens),
            "flag": one.flag,
        }


def rank_rows(cell: Truncation, study: str, known: Mapping[tuple[str | int, ...], float]) -> Iterator[Row]:
    """Yield the rows of `truncation_ranks`: one for each layer, choice of rows and tolerance."""
    kept = (one for one in cell.measured if one.variant == "keep")
    for (layer, rows), group in groupby(kept, key=attrgetter("layer", "rows")):
        curve = list(group)
        increases = {one.rank: _increase(one, cell) for one in curve}
        values, lows, highs = (
            {rank: getattr(one, end) for rank, one in increases.items()} for end in ("value", "low", "high")
        )
        place = _shared(curve[0], cell, study)
        key = (place["model"], place["checkpoint"], place["dataset"], layer, rows)
        beside = {name: known.get((*key, name), nan) for name in DIMENSIONS_BESIDE}
        absent = ", ".join(name for name, value in beside.items() if not isfinite(value))
        flags = [*dict.fromkeys(one.flag for one in curve), f"no number: {absent}" if absent else ""]
        for tolerance in TOLERANCES:
            rank = least_rank(values, tolerance)
            low, high = (None, None) if rank is None else rank_interval(lows, highs, tolerance)
            yield {
                **place,
                "tolerance": tolerance,
                "rank": rank,
                "rank_low": low,
                "rank_high": high,
                "share_of_d": nan if rank is None else rank / place["d"],
                **beside,
                "flag": joined(*flags),
            }


def _increase(one: TruncatedLoss, cell: Truncation) -> Estimate:
    return over_draws(np.subtract(one.losses, cell.whole))


def _shared(one: TruncatedLoss, cell: Truncation, study: str) -> Row:
    """Return what rows of both tables say."""
    own = cell.attributes
    return {
        "study": study,
        **{name: own[name] for name in ("model", "kind", "checkpoint", "step", "dataset")},
        "layer": one.layer,
        "depth": one.layer / int(own["blocks"]),
        "d": own["width"],
        "rows": one.rows,
        "whole_loss": float(np.mean(cell.whole)),
        "draws": len(cell.whole),
    }
