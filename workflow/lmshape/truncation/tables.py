"""The file of a cell's truncation, and two tables of them: the loss at every layer and rank, and the least rank.

Differences are taken draw by draw: the tokens are the same, so that the intervals are those of the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

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
SCHEMA = pa.schema(
    {
        "layer": pa.int64(),
        "rows": pa.string(),
        "variant": pa.string(),
        "rank": pa.int64(),
        "losses": pa.list_(pa.float64()),
        "flag": pa.string(),
    }
)


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
    rows = [asdict(one) for one in truncation.measured]
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({KEY: json.dumps(card, sort_keys=True)}))
    write_parquet(table, path)


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


def by_rank(measured: Iterable[TruncatedLoss], *, layer: int, rows: str, variant: str) -> list[TruncatedLoss]:
    """Choose one curve, ranks ascending."""
    place = (layer, rows, variant)
    chosen = [one for one in measured if (one.layer, one.rows, one.variant) == place]
    return sorted(chosen, key=lambda one: one.rank)


DIMENSIONS_BESIDE = (
    "participation_ratio",
    "effective_rank",
    "id_twonn",
)  # dimensions of the same layer and rows

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


def write_truncation_tables(files: Sequence[Path], metrics: Path, output_dir: Path, *, study: str) -> None:
    """Write `truncation` and `truncation_ranks` as .parquet and .csv; without a decoder they have columns and no rows.

    Parameters
    ----------
    files : what `truncate` wrote, one file per cell; the tables keep their order
    metrics : the study's table of metrics
    output_dir : folder of the tables
    study : name of the study
    """
    cells = [read_truncation(Path(path)) for path in files]
    wanted = ["model", "checkpoint", "dataset", "site", "layer", "rows", "metric", "value"]
    known = dimensions(read_table(metrics, columns=wanted))
    curves = [row for cell in cells for row in loss_rows(cell, study)]
    ranks = [row for cell in cells for row in rank_rows(cell, study, known)]
    write_table(pd.DataFrame(curves), TRUNCATION_COLUMNS, Path(output_dir) / "truncation")
    write_table(pd.DataFrame(ranks), RANKS_COLUMNS, Path(output_dir) / "truncation_ranks")


def dimensions(metrics: pd.DataFrame) -> dict[tuple[str | int, ...], float]:
    """Return (model, checkpoint, dataset, layer, rows, metric) → value of the metrics that stand beside a rank."""
    chosen = metrics[metrics["metric"].isin(DIMENSIONS_BESIDE) & metrics["site"].isin(["embedding", "block"])]
    return chosen.set_index(["model", "checkpoint", "dataset", "layer", "rows", "metric"])["value"].to_dict()


def loss_rows(cell: Truncation, study: str) -> Iterator[Row]:
    """Yield the rows of `truncation`: one for each layer, variant, choice of rows and rank."""
    for one in cell.measured:
        increase = _increase(one, cell)
        yield {
            **_place(cell, one.layer, study),
            "variant": one.variant,
            "rows": one.rows,
            "rank": one.rank,
            "loss": float(np.mean(one.losses)),
            "loss_increase": increase.value,
            "loss_increase_low": increase.low,
            "loss_increase_high": increase.high,
            "whole_loss": float(np.mean(cell.whole)),
            "draws": len(cell.whole),
            "tokens": sum(cell.tokens),
            "flag": one.flag,
        }


def rank_rows(cell: Truncation, study: str, known: Mapping[tuple[str | int, ...], float]) -> Iterator[Row]:
    """Yield the rows of `truncation_ranks`: one for each layer, choice of rows and tolerance."""
    for layer, rows in dict.fromkeys((one.layer, one.rows) for one in cell.measured):
        curve = by_rank(cell.measured, layer=layer, rows=rows, variant="keep")
        place = _place(cell, layer, study)
        key = tuple(place[name] for name in ("model", "checkpoint", "dataset"))
        beside = {name: known.get((*key, layer, rows, name), nan) for name in DIMENSIONS_BESIDE}
        for tolerance in TOLERANCES:
            found = _least(curve, cell, tolerance)
            yield {
                **place,
                "rows": rows,
                "tolerance": tolerance,
                **found,
                "share_of_d": nan if found["rank"] is None else found["rank"] / place["d"],
                **beside,
                "whole_loss": float(np.mean(cell.whole)),
                "draws": len(cell.whole),
                "flag": _flag(curve, found, beside),
            }


def _least(curve: Sequence[TruncatedLoss], cell: Truncation, tolerance: float) -> dict[str, int | None]:
    """Return the least rank of a curve and its interval; nothing where a loss is not a number."""
    increases = {one.rank: _increase(one, cell) for one in curve}
    rank = least_rank({rank: one.value for rank, one in increases.items()}, tolerance)
    if rank is None:
        return {"rank": None, "rank_low": None, "rank_high": None}
    lows = {rank: one.low if isfinite(one.low) else np.inf for rank, one in increases.items()}
    highs = {rank: one.high if isfinite(one.high) else np.inf for rank, one in increases.items()}
    low, high = rank_interval(lows, highs, tolerance)
    return {"rank": rank, "rank_low": low, "rank_high": high}


def _increase(one: TruncatedLoss, cell: Truncation) -> Estimate:
    return over_draws(np.subtract(one.losses, cell.whole))


def _flag(
    curve: Iterable[TruncatedLoss], found: Mapping[str, int | None], beside: Mapping[str, float]
) -> str:
    """Say why there is no rank, doubts about the axes, and which dimensions are not numbers."""
    flags = dict.fromkeys(one.flag for one in curve if one.flag)
    absent = [name for name, value in beside.items() if not isfinite(value)]
    lacking = [f"no number: {', '.join(absent)}"] if absent else []
    return joined(*flags, *lacking)


def _place(cell: Truncation, layer: int, study: str) -> Row:
    own = cell.attributes
    known = {name: own[name] for name in ("model", "kind", "checkpoint", "step", "dataset")}
    return {
        "study": study,
        **known,
        "layer": layer,
        "depth": layer / int(own["blocks"]),
        "d": own["width"],
    }
