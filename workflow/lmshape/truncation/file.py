"""The file of a truncation: the loss of each draw at every layer and rank, and what it was measured on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lmshape.errors import InputError
from lmshape.store.hdf5 import Attributes
from lmshape.store.loss_card import or_nan, or_null
from lmshape.writing import replaced_when_whole

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
class Measured:
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
    measured: tuple[Measured, ...]


def write_truncation(path: Path, truncation: Truncation) -> None:
    """Write a truncation as Parquet; the attributes stand in its metadata. The same numbers give the same bytes."""
    card = {
        "attributes": {key: or_null(value) for key, value in truncation.attributes.items()},
        "tokens": truncation.tokens,
        "whole": [or_null(loss) for loss in truncation.whole],
    }
    rows = [asdict(one) for one in truncation.measured]
    table = pa.Table.from_pylist(rows, schema=SCHEMA.with_metadata({KEY: json.dumps(card, sort_keys=True)}))
    with replaced_when_whole(path) as partial:
        pq.write_table(table, partial)


def read_truncation(path: Path) -> Truncation:
    """Read what `write_truncation` wrote.

    Raises
    ------
    InputError
        For another file.
    """
    try:
        table = pq.read_table(path)
        card = json.loads(table.schema.metadata[KEY])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise InputError(f"`{path}` is no truncation ({error!r}); truncate its cell again.") from error
    return Truncation(
        attributes={key: or_nan(value) for key, value in card["attributes"].items()},
        tokens=tuple(card["tokens"]),
        whole=tuple(map(or_nan, card["whole"])),
        measured=tuple(Measured(**{**row, "losses": tuple(row["losses"])}) for row in table.to_pylist()),
    )


def by_rank(measured: Iterable[Measured], *, layer: int, rows: str, variant: str) -> list[Measured]:
    """Choose one curve, ranks ascending."""
    place = (layer, rows, variant)
    chosen = [one for one in measured if (one.layer, one.rows, one.variant) == place]
    return sorted(chosen, key=lambda one: one.rank)
