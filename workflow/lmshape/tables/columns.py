"""The columns of the tidy tables, each with what it means; here they are declared, once, for whoever writes or reads.

This module imports nothing of lmshape: a table depends on what its columns are called, not on how they are computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

Value = str | int | float

# Of the key-value metadata of a model's own table: where its weights came from, and the audit of its sites.
CHECKPOINTS_KEY = b"lmshape.checkpoints"
AUDITS_KEY = b"lmshape.audits"

CHANGE_DESCRIPTIONS = {
    "change": "value less that of the trusted checkpoint before; NaN at the first, and where either has no value",
    "change_low": "lower end of its 95 % interval, of differences taken draw by draw; NaN where there is none",
    "change_high": "upper end of its 95 % interval; NaN where there is none",
}
COLUMN_DESCRIPTIONS = {
    "study": "name of the study, from the config",
    "model": "name of the model, from the registry",
    "family": "architecture of the model",
    "kind": "decoder or encoder",
    "parameters": "number of parameters of the model",
    "checkpoint": "name of the checkpoint",
    "step": "training steps before the checkpoint",
    "tokens_seen": "training tokens before the checkpoint; NaN when unknown",
    "dataset": "name of the dataset, from the registry",
    "site": "embedding, block, final_norm; output for the loss",
    "layer": "0 for the embedding, l after block l; the number of blocks for final_norm and output",
    "depth": "layer / number of blocks",
    "rows": "all; no_sink: without the attention sinks; one_per_type: a row of each token id in a draw",
    "metric": "name of the metric: `lmshape metrics`",
    "value": "the estimate; NaN never without a reason in flag",
    "ci_low": "lower end of the 95 % interval; NaN where there is none",
    "ci_high": "upper end of the 95 % interval; NaN where there is none",
    **CHANGE_DESCRIPTIONS,
    "draws": "number of independent draws of sequences behind the interval",
    "n_rows": "number of token rows over all draws; for the loss, tokens that have one",
    "n_unique": "rows that repeat none of their own draw; 0 for the loss",
    "d": "width of a row; 0 for the loss",
    "seed": "seed of the choice of tokens",
    "flag": "the reason of NaN, or of a doubt about the value; empty when fine",
    "verdict": "what the audit says of the checkpoint's weights: `lmshape audit`; empty for local folders",
}
_INTEGERS = ("parameters", "step", "layer", "draws", "n_rows", "n_unique", "d", "seed")
_REALS = ("tokens_seen", "depth", "value", "ci_low", "ci_high", *CHANGE_DESCRIPTIONS)


def declare(
    descriptions: Mapping[str, str],
    *,
    integers: Iterable[str] = (),
    reals: Iterable[str] = (),
    lists: Iterable[str] = (),
) -> pa.Schema:
    """Declare a table from what its columns mean: integers, reals, lists of reals; all others are text."""
    types = (
        dict.fromkeys(integers, pa.int64())
        | dict.fromkeys(reals, pa.float64())
        | dict.fromkeys(lists, pa.list_(pa.float64()))
    )
    return pa.schema(
        pa.field(name, types.get(name, pa.string()), metadata={"description": text})
        for name, text in descriptions.items()
    )


COLUMNS = declare(COLUMN_DESCRIPTIONS, integers=_INTEGERS, reals=_REALS)

# Of a model's own table alone, for what is computed over layers and steps draw by draw: `lmshape.dynamics`.
REPLICATE_DESCRIPTIONS = {
    "interval": "how the interval is made: jackknife, draws, or none",
    "replicates": "the numbers behind it: over all rows, then without each draw; for `draws`, of each draw",
}
MODEL_COLUMNS = declare(
    COLUMN_DESCRIPTIONS | REPLICATE_DESCRIPTIONS, integers=_INTEGERS, reals=_REALS, lists=["replicates"]
)
