"""The study's tables, as Parquet and CSV: `metrics`, `checkpoints`, `profiles` and `audit`.

`metrics` is the tidy table of all models. `checkpoints` says which weights a checkpoint holds and how well it
predicts. `profiles` describes each curve of anisotropy over the layers: where its peak is, and how dome-like.
`audit` says of each site which rows repeat, which are sinks, and how exact its neighbor distances are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import hypot, isnan
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lmshape.audits import AUDIT_DESCRIPTIONS, AUDIT_INTEGERS, AUDIT_REALS
from lmshape.errors import InputError
from lmshape.gather import (
    AUDITS_KEY,
    CHECKPOINTS_KEY,
    COLUMN_DESCRIPTIONS,
    COLUMNS,
    MODEL_COLUMNS,
    Value,
    declare,
)
from lmshape.table_files import write_table

PROFILED = "anisotropy"

_CELL = ("study", "model", "family", "kind", "checkpoint", "step", "tokens_seen", "dataset")
_KEYS = ("model", "checkpoint", "dataset")
_CELL_DESCRIPTIONS = {name: COLUMN_DESCRIPTIONS[name] for name in _CELL}

CHECKPOINT_COLUMNS = declare(
    {
        **_CELL_DESCRIPTIONS,
        "repository": "repository on the hub, or folder, that the weights came from",
        "revision": "branch or tag of the repository, as the hub spells it; name of the folder for local runs",
        "commit": "commit of the repository that the weights came from; empty for local folders",
        "weights_sha256": "fingerprint of the weights",
        "duplicate_of": "first other checkpoint of the model, by step, with equal weights; empty when none",
        "verdict": "what the audit of the hub says of the weights: `lmshape audit`; empty for local folders",
        "same_weights_as": "all checkpoints on the hub with equal weights, studied or not, and main; empty when none",
        "note": "what else the audit says, with the source of a known fault; empty when nothing",
        "loss": "nats per token",
        "loss_low": "lower end of its 95 % interval",
        "loss_high": "upper end of its 95 % interval",
        "flag": "the reason of NaN, or of a doubt about the checkpoint; empty when fine",
    },
    integers=["step"],
    reals=["tokens_seen", "loss", "loss_low", "loss_high"],
)

PROFILE_COLUMNS = declare(
    {
        **_CELL_DESCRIPTIONS,
        "rows": COLUMN_DESCRIPTIONS["rows"],
        "metric": "the metric that is followed over the layers",
        "peak_layer": "block after which the value is largest",
        "peak_depth": "peak_layer / number of blocks",
        "height": "value at the peak",
        "height_low": "lower end of its 95 % interval",
        "height_high": "upper end of its 95 % interval",
        "edges": "the larger of the values after the first and after the last block",
        "dome_index": "height - edges, in [0, 1]; 0 for a profile that is flat or monotone",
        "dome_index_low": "lower end of its 95 % interval, too wide rather than too narrow",
        "dome_index_high": "upper end of its 95 % interval, too wide rather than too narrow",
        "flag": "monotone: the peak is at the first or last block; and the reason of NaN; empty when fine",
    },
    integers=["step", "peak_layer"],
    reals=[
        "tokens_seen",
        "peak_depth",
        "height",
        "height_low",
        "height_high",
        "edges",
        "dome_index",
        "dome_index_low",
        "dome_index_high",
    ],
)

AUDIT_COLUMNS = declare(AUDIT_DESCRIPTIONS, integers=AUDIT_INTEGERS, reals=AUDIT_REALS)


def combine(metric_files: Sequence[Path], output_dir: Path) -> None:
    """Write `metrics`, `checkpoints`, `profiles` and `audit` as .parquet and .csv from the metrics of each model.

    Parameters
    ----------
    metric_files : what `gather` wrote, one file a model; the tables keep their order
    output_dir : folder of the tables; each file is replaced when the new one is whole

    Raises
    ------
    InputError
        For a file that is not what `gather` writes.
    """
    models = [_read(Path(path)) for path in metric_files]
    metrics = pa.concat_tables(models).select(COLUMNS.names).replace_schema_metadata(None)
    frame = metrics.to_pandas()
    weights = pd.DataFrame([entry for model in models for entry in _weights(model)])
    write_table(metrics, COLUMNS, Path(output_dir) / "metrics")
    write_table(checkpoints(frame, weights), CHECKPOINT_COLUMNS, Path(output_dir) / "checkpoints")
    write_table(profiles(frame), PROFILE_COLUMNS, Path(output_dir) / "profiles")
    audits = [row for model in models for row in json.loads(model.schema.metadata[AUDITS_KEY])]
    write_table(pa.Table.from_pylist(audits, schema=AUDIT_COLUMNS), AUDIT_COLUMNS, Path(output_dir) / "audit")


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"`{path}` cannot be read as Parquet ({error}); gather it again.") from error
    metadata = table.schema.metadata or {}
    if not table.schema.equals(MODEL_COLUMNS) or {CHECKPOINTS_KEY, AUDITS_KEY} - metadata.keys():
        raise InputError(f"`{path}` is not a table of metrics as this lmshape writes it; gather it again.")
    return table


def _weights(model: pa.Table) -> Iterator[dict[str, str]]:
    name = model["model"][0].as_py()
    for checkpoint, identity in json.loads(model.schema.metadata[CHECKPOINTS_KEY]).items():
        yield {"model": name, "checkpoint": checkpoint, **identity}


def checkpoints(metrics: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Say of each checkpoint and dataset whose weights they are and what the loss is.

    Parameters
    ----------
    metrics : the tidy table
    weights : model, checkpoint, commit, weights_sha256

    Returns
    -------
    The columns of CHECKPOINT_COLUMNS, a row for each model, checkpoint and dataset.
    """
    cells = metrics[list(_CELL)].drop_duplicates()
    loss = metrics.loc[metrics["metric"] == "loss", [*_KEYS, "value", "ci_low", "ci_high", "flag"]]
    loss = loss.rename(columns={"value": "loss", "ci_low": "loss_low", "ci_high": "loss_high"})
    frame = cells.merge(weights, on=["model", "checkpoint"]).merge(loss, on=list(_KEYS), how="left")
    others = _same_weights(frame)
    reasons = zip(frame["flag"].fillna("loss not gathered"), others, strict=True)
    flags = ["; ".join(filter(None, [flag, other and f"same weights as {other}"])) for flag, other in reasons]
    return frame.assign(duplicate_of=others, flag=flags)


def _same_weights(frame: pd.DataFrame) -> list[str]:
    """Name for each row the first checkpoint of its model with equal weights; nothing where that is the row itself."""
    by_step = frame.sort_values("step", kind="stable").groupby(["model", "weights_sha256"])["checkpoint"]
    first = by_step.first().to_dict()
    rows = frame[["model", "weights_sha256", "checkpoint"]].itertuples(index=False, name=None)
    pairs = [
        (checkpoint, first[model, sha256] if sha256 else checkpoint) for model, sha256, checkpoint in rows
    ]
    return ["" if other == checkpoint else other for checkpoint, other in pairs]


def profiles(metrics: pd.DataFrame) -> pd.DataFrame:
    """Describe the curve of anisotropy over the blocks of each cell, for each choice of rows.

    Embedding and final norm are no part of the curve: they are other spaces than the residual stream between.
    The dome index is the height of the peak over the higher edge, the larger value of first and last block: in
    [0, 1], 0 for a curve that is flat, or rises or falls throughout. The tidy table holds no draws, so its
    interval adds the half-widths of peak and edge in quadrature, as if layers were independent. They share
    their tokens and mostly rise and fall together, so that the true interval of the difference is narrower.

    Returns
    -------
    The columns of PROFILE_COLUMNS; NaN with a flag where a layer has no value or there are under 3 blocks.
    """
    curve = metrics[(metrics["metric"] == PROFILED) & (metrics["site"] == "block")]
    cells = curve.groupby([*_KEYS, "rows"], sort=False)
    return pd.DataFrame([_profile(layers.sort_values("layer")) for _, layers in cells])


def _profile(blocks: pd.DataFrame) -> dict[str, Value | None]:
    cell = {name: blocks.iloc[0][name] for name in (*_CELL, "rows", "metric")}
    missing = blocks[blocks["value"].isna()]
    if len(missing):
        reason = missing.iloc[0]
        return {**cell, "peak_layer": None, "flag": f"layer {reason['layer']}: {reason['flag']}"}
    if len(blocks) < 3:
        return {**cell, "peak_layer": None, "flag": f"too few blocks: {len(blocks)}; a dome needs 3"}
    edges = blocks.iloc[[0, -1]]
    return {**cell, **_dome(blocks.loc[blocks["value"].idxmax()], edges.loc[edges["value"].idxmax()])}


def _dome(peak: pd.Series, edge: pd.Series) -> dict[str, Value]:
    """Return the columns that describe a peak over the higher edge; the two are one in a monotone curve."""
    index = peak["value"] - edge["value"]
    half_width = hypot(_half_width(peak), _half_width(edge))
    apart = peak["layer"] != edge["layer"]
    unsure = [row for row in ([peak, edge] if apart else [peak]) if isnan(_half_width(row))]
    reasons = [f"layer {row['layer']}: {row['flag']}" for row in unsure]
    return {
        "peak_layer": peak["layer"],
        "peak_depth": peak["depth"],
        "height": peak["value"],
        "height_low": peak["ci_low"],
        "height_high": peak["ci_high"],
        "edges": edge["value"],
        "dome_index": index,
        "dome_index_low": max(index - half_width, 0.0),
        "dome_index_high": min(index + half_width, 1.0),
        "flag": "; ".join([*([] if apart else ["monotone"]), *reasons]),
    }


def _half_width(row: pd.Series) -> float:
    # intervals are clipped to the metric's range: the longer side is the honest one
    return max(row["value"] - row["ci_low"], row["ci_high"] - row["value"])
