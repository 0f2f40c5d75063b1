"""The columns of the tidy tables: each is declared once, with its type and what it means.

This module imports nothing of lmshape: a table depends on what its columns are called, not on how they are computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

Row = dict[str, Any]  # column → value

# Of the key-value metadata of a model's own table: where its weights came from, and the audit of its sites.
CHECKPOINTS_KEY = b"lmshape.checkpoints"
AUDITS_KEY = b"lmshape.audits"


def text(name: str, meaning: str) -> pa.Field:
    """Declare a column of text."""
    return _column(name, meaning, pa.string())


def category(name: str, meaning: str) -> pa.Field:
    """Declare a column of few different texts: a category in pandas and Polars, a factor in R."""
    return _column(name, meaning, pa.dictionary(pa.int32(), pa.string()))


def integer(name: str, meaning: str) -> pa.Field:
    """Declare a column of whole numbers."""
    return _column(name, meaning, pa.int64())


def real(name: str, meaning: str) -> pa.Field:
    """Declare a column of real numbers."""
    return _column(name, meaning, pa.float64())


def interval(
    declare_one: Callable[[str, str], pa.Field], name: str, meaning: str, note: str = ""
) -> list[pa.Field]:
    """Declare a column of numbers with its 95 % interval: `name`, `name`_low and `name`_high."""
    ends = {"low": "lower", "high": "upper"}
    bounds = [
        declare_one(f"{name}_{end}", f"{word} end of its 95 % interval{note}") for end, word in ends.items()
    ]
    return [declare_one(name, meaning), *bounds]


def declare(*columns: pa.Field) -> pa.Schema:
    """Declare a table."""
    return pa.schema(columns)


def _column(name: str, meaning: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


def joined(*reasons: str) -> str:
    """Write the reasons of a flag one behind the other, without empty ones."""
    return "; ".join(filter(None, reasons))


COLUMNS = declare(
    category("study", "name of the study, from the config"),
    category("model", "name of the model, from the registry"),
    category("family", "architecture of the model"),
    category("kind", "decoder or encoder"),
    integer("parameters", "number of parameters of the model"),
    category("checkpoint", "name of the checkpoint"),
    integer("step", "training steps before the checkpoint; empty when unknown"),
    real("tokens_seen", "training tokens before the checkpoint; empty when unknown"),
    category("dataset", "name of the dataset, from the registry"),
    category("site", "embedding, block, final_norm; output for the loss"),
    integer("layer", "0 for the embedding, l after block l; the number of blocks for final_norm and output"),
    real("depth", "layer / number of blocks"),
    category(
        "rows", "all; no_sink: without the attention sinks; one_per_type: a row of each token id in a draw"
    ),
    category("metric", "name of the metric: `lmshape metrics`"),
    real("value", "the estimate; empty never without a reason in flag"),
    real("ci_low", "lower end of the 95 % interval; empty where there is none"),
    real("ci_high", "upper end of the 95 % interval; empty where there is none"),
    real(
        "change",
        "value less that of the trusted checkpoint before; empty at the first, and where either has no value",
    ),
    real(
        "change_low",
        "lower end of its 95 % interval, of differences taken draw by draw; empty where there is none",
    ),
    real("change_high", "upper end of its 95 % interval; empty where there is none"),
    integer("draws", "number of independent draws of sequences behind the interval"),
    integer("n_rows", "number of token rows over all draws; for the loss, tokens that have one"),
    integer("n_unique", "rows that repeat none of their own draw; empty for the loss"),
    integer("d", "width of a row; empty for the loss"),
    integer("seed", "seed of the choice of tokens"),
    text("flag", "the reason of an empty value, or of a doubt about the value; empty when fine"),
    category(
        "verdict",
        "what the audit says of the checkpoint's weights: `lmshape audit`; of local folders `duplicate` or empty",
    ),
)
GONE = "gone"  # of a checkpoint of which only the tables are left: how its `note` begins
CHANGES = ("change", "change_low", "change_high")
SITES = ("embedding", "block", "final_norm", "output")  # in the order of the network

# Of a model's own table alone, for what is computed over layers and steps draw by draw: `lmshape.dynamics`.
MODEL_COLUMNS = declare(
    *COLUMNS,
    category("interval", "how the interval is made: jackknife, draws, or none"),
    _column(
        "replicates",
        "the numbers behind it: over all rows, then without each draw; for `draws`, of each draw",
        pa.list_(pa.float64()),
    ),
)


def shared(names: str) -> list[pa.Field]:
    """Return columns of the metrics, by their names with spaces between, that another table has too."""
    return [COLUMNS.field(name) for name in names.split()]
