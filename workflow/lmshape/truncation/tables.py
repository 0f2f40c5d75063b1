"""The tables `truncation`, the loss at every layer and rank, and `truncation_ranks`, how many directions suffice.

Differences are taken draw by draw: the tokens are the same, so that the intervals are those of the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pandas as pd

from lmshape.geometry.resample import Estimate, over_draws
from lmshape.tables.columns import Row, declare, integer, interval, joined, real, shared, text
from lmshape.tables.files import write_table
from lmshape.truncation.file import Measured, Truncation, by_rank, read_truncation
from lmshape.truncation.ranks import TOLERANCES, least_rank, rank_interval

BESIDE = ("participation_ratio", "effective_rank", "id_twonn")  # dimensions of the same layer and rows

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
    text("flag", "the reason of NaN, or of a doubt about the axes; empty when fine"),
)
RANKS_COLUMNS = declare(
    *_PLACE,
    _ROWS,
    real("tolerance", "nats per token that the loss may exceed whole_loss by"),
    integer(
        "rank", "least number of leading axes within the tolerance, as are all larger ones that were tried"
    ),
    integer("rank_low", "lower end of its 95 % interval: ranks under it surely exceed the tolerance"),
    integer(
        "rank_high",
        "upper end of its 95 % interval: from it on the loss is surely within; empty where it nowhere is",
    ),
    real("share_of_d", "rank / d"),
    *(real(name, "of the same layer and rows; empty where it was not measured") for name in BESIDE),
    real("whole_loss", "nats per token with nothing left out"),
    integer("draws", "number of draws"),
    text("flag", "the reason of NaN; empty when fine"),
)


def write_truncation_tables(files: Sequence[Path], metrics: Path, output_dir: Path, *, study: str) -> None:
    """Write `truncation` and `truncation_ranks` as .parquet and .csv; without a decoder they have columns and no rows.

    Parameters
    ----------
    files : what `truncate` wrote, a file a cell; the tables keep their order
    metrics : the study's table of metrics
    output_dir : folder of the tables
    study : name of the study
    """
    cells = [read_truncation(Path(path)) for path in files]
    wanted = ["model", "checkpoint", "dataset", "site", "layer", "rows", "metric", "value"]
    known = dimensions(pd.read_parquet(metrics, columns=wanted))
    curves = [row for cell in cells for row in loss_rows(cell, study)]
    ranks = [row for cell in cells for row in rank_rows(cell, study, known)]
    write_table(pd.DataFrame(curves), TRUNCATION_COLUMNS, Path(output_dir) / "truncation")
    write_table(pd.DataFrame(ranks), RANKS_COLUMNS, Path(output_dir) / "truncation_ranks")


def dimensions(metrics: pd.DataFrame) -> dict[tuple[str | int, ...], float]:
    """Return (model, checkpoint, dataset, layer, rows, metric) → value of the metrics that stand beside a rank."""
    chosen = metrics[metrics["metric"].isin(BESIDE) & metrics["site"].isin(["embedding", "block"])]
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
        beside = {name: known.get((*key, layer, rows, name), nan) for name in BESIDE}
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


def _least(curve: Sequence[Measured], cell: Truncation, tolerance: float) -> dict[str, int | None]:
    """Return the least rank of a curve and its interval; nothing where a loss is not a number."""
    increases = {one.rank: _increase(one, cell) for one in curve}
    rank = least_rank({rank: one.value for rank, one in increases.items()}, tolerance)
    if rank is None:
        return {"rank": None, "rank_low": None, "rank_high": None}
    lows = {rank: one.low if isfinite(one.low) else np.inf for rank, one in increases.items()}
    highs = {rank: one.high if isfinite(one.high) else np.inf for rank, one in increases.items()}
    low, high = rank_interval(lows, highs, tolerance)
    return {"rank": rank, "rank_low": low, "rank_high": high}


def _increase(one: Measured, cell: Truncation) -> Estimate:
    return over_draws(np.subtract(one.losses, cell.whole))


def _flag(curve: Iterable[Measured], found: Mapping[str, int | None], beside: Mapping[str, float]) -> str:
    """Say why there is no rank, whatever is doubtful about the axes, and which dimensions are not numbers."""
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
