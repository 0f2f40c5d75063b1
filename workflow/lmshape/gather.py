"""From the statistics of a model to rows of the tidy table, one row a number.

The table's columns are declared here, once, with what each means; behind them stand the numbers that each
estimate is made of. The file also carries, in its key-value
metadata, the commit and the fingerprint of the weights behind every checkpoint, and the audit of every site.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmshape.agreement import check_agreement, check_complete, check_families
from lmshape.audits import Audits
from lmshape.changes import CHANGE_DESCRIPTIONS, add_changes
from lmshape.errors import InputError
from lmshape.hub.provenance import Provenance
from lmshape.metrics import Arrays, Metric, own_metrics, select
from lmshape.store import read_statistics, replaced_when_whole

Value = str | int | float

CHECKPOINTS_KEY = b"lmshape.checkpoints"
AUDITS_KEY = b"lmshape.audits"

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

_SITES = ("embedding", "block", "final_norm", "output")


@dataclass(frozen=True, slots=True)
class _Entry:
    """The statistics of one family at one place, from an archive or a loss card."""

    site: str
    layer: int
    rows: str
    arrays: Arrays
    attributes: Mapping[str, Value]


def gather(
    statistics: Sequence[Path],
    losses: Sequence[Path],
    output: Path,
    *,
    study: str,
    metrics: Sequence[str],
    own: Path | None = None,
    lock: Path | None = None,
    known_issues: Path | None = None,
) -> None:
    """Write the tidy rows of one model as Parquet.

    Sorted by step, checkpoint, dataset (in the order in which the files first come to it), layer, rows and
    metric. One archive is in memory at a time. The layers of a cell may come in several archives.

    Parameters
    ----------
    statistics, losses : statistics archives and loss cards of every cell of the model
    output : Parquet file to write
    study : name of the study
    metrics : names of metrics or families; statistics that none of them needs are passed over
    own : file of the user's own metrics, if `metrics` names any
    lock, known_issues : what stands behind the checkpoints of a model of the hub, and the list of known faults

    Raises
    ------
    InputError
        For files that contradict each other, overlap, or come from another commit than the lock's; and for a cell
        without a family that is asked for.
    """
    chosen = select(metrics, own_metrics(own))
    names = [metric.name for metric in chosen]
    attributes: dict[Path, Mapping[str, Value]] = {}
    audits, provenance = Audits(study), Provenance.of(lock, known_issues)
    rows: dict[tuple[Value, ...], tuple[dict[str, Value], np.ndarray, Path]] = {}
    for path in (Path(path) for path in (*statistics, *losses)):
        attributes[path], entries = _read_card(path) if path.suffix == ".json" else _read_archive(path)
        check_complete(path, attributes[path])
        provenance.check(path, attributes[path])
        for entry in entries:
            audits.add(attributes[path], entry.site, entry.layer, entry.rows, entry.attributes)
        datasets = list(dict.fromkeys(own["dataset"] for own in attributes.values()))
        verdict = provenance.verdict(attributes[path]["checkpoint"])
        for row, replicates in _rows(entries, attributes[path], study=study, metrics=chosen, verdict=verdict):
            *_, other = rows.setdefault(_order(row, datasets, names), (row, replicates, path))
            _check_single(row, path, other)
    if not attributes:
        raise InputError("`statistics` and `losses` name no file; measure a cell of the model first.")
    check_agreement(attributes)
    check_families(attributes, chosen)
    ordered = [rows[key][:2] for key in sorted(rows)]
    add_changes(ordered, {metric.name: metric for metric in chosen})
    kinds = {metric.name: metric.interval for metric in chosen}
    table = pa.Table.from_pylist(
        [
            {**row, "interval": kinds[str(row["metric"])], "replicates": replicates}
            for row, replicates in ordered
        ],
        schema=MODEL_COLUMNS,
    )
    with replaced_when_whole(output) as partial:
        metadata = {
            **_metadata(attributes.values(), provenance),
            AUDITS_KEY: json.dumps(audits.rows()).encode(),
        }
        pq.write_table(table.replace_schema_metadata(metadata), partial)


def _check_single(row: Mapping[str, Value], path: Path, other: Path) -> None:
    if other != path:
        raise InputError(
            f"`{path}` and `{other}` both hold `{row['metric']}` of layer {row['layer']}, checkpoint "
            f"`{row['checkpoint']}`, dataset `{row['dataset']}`; delete the stale one."
        )


def _read_archive(path: Path) -> tuple[Mapping[str, Value], list[_Entry]]:
    attributes, layers = read_statistics(path)
    return attributes, [
        _Entry(layer.site.name, layer.site.layer, layer.rows, layer.arrays, layer.attributes)
        for layer in layers
    ]


def _read_card(path: Path) -> tuple[Mapping[str, Value], list[_Entry]]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        attributes = {name: nan if value is None else value for name, value in card["attributes"].items()}
        arrays = {
            name: np.array([draw[name] for draw in card["draws"]], dtype=np.float64)  # null, too, becomes NaN
            for name in ("nats", "tokens", "bytes")
        }
        layer = attributes["blocks"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"`{path}` is no loss card ({error!r}); extract its cell again.") from error
    draws, tokens = len(card["draws"]), int(arrays["tokens"].sum())
    reason = str(attributes.get("flag", ""))  # why a checkpoint has no loss at all
    flag = reason or ("" if np.isfinite(arrays["nats"]).all() else "not finite: loss")
    counts = {"draws": draws, "n_rows": tokens, "n_unique": 0, "d": 0, "flag": flag}
    return {**attributes, "family": "loss"}, [_Entry("output", layer, "all", arrays, counts)]


def _rows(
    entries: Iterable[_Entry],
    attributes: Mapping[str, Value],
    *,
    study: str,
    metrics: Sequence[Metric],
    verdict: str,
) -> Iterator[tuple[dict[str, Value], np.ndarray]]:
    """Yield the rows of an archive, and beside each the numbers that its estimate is made of."""
    cell = {
        "study": study,
        "family": attributes["architecture"],
        **{name: attributes[name] for name in ("model", "kind", "parameters", "checkpoint", "step")},
        **{name: attributes[name] for name in ("tokens_seen", "dataset", "seed")},
    }
    for entry in entries:
        place = {"site": entry.site, "layer": entry.layer, "depth": entry.layer / attributes["blocks"]}
        for metric in metrics:
            if metric.family == attributes["family"]:
                replicates = metric.replicates(entry.arrays)
                estimate = _estimate(metric, replicates, entry.attributes)
                names = {"rows": entry.rows, "metric": metric.name, "verdict": verdict}
                yield {**cell, **place, **names, **estimate}, replicates


def _estimate(metric: Metric, replicates: np.ndarray, attributes: Mapping[str, Value]) -> dict[str, Value]:
    """Return the columns of a row that come from the statistics, with the reason of what is NaN among them."""
    estimate = metric.estimate(replicates)
    counts = {name: attributes[name] for name in ("draws", "n_rows", "n_unique", "d")}
    flag = attributes.get(f"flag_{metric.name}", attributes["flag"])
    if not isfinite(estimate.value):
        return {**counts, "value": nan, "ci_low": nan, "ci_high": nan, "flag": flag or metric.undefined}
    return {
        **counts,
        "value": estimate.value,
        "ci_low": estimate.low,
        "ci_high": estimate.high,
        "flag": "; ".join(filter(None, [flag, metric.missing_interval(estimate)])),
    }


def _order(row: Mapping[str, Value], datasets: Sequence[Value], metrics: Sequence[str]) -> tuple[Value, ...]:
    cell = (row["step"], row["checkpoint"], datasets.index(row["dataset"]))
    place = (row["layer"], _SITES.index(row["site"]), row["rows"])
    return (*cell, *place, metrics.index(row["metric"]))


def _metadata(attributes: Iterable[Mapping[str, Value]], provenance: Provenance) -> dict[bytes, bytes]:
    """Return the Parquet metadata: where the weights of each checkpoint came from, as JSON."""
    identity = {
        str(own["checkpoint"]): {
            **{name: own.get(name, "") for name in ("repository", "revision", "commit", "weights_sha256")},
            **provenance.doubts(own["checkpoint"]),
        }
        for own in attributes
    }
    return {CHECKPOINTS_KEY: json.dumps(identity, sort_keys=True).encode()}
