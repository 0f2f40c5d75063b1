"""From the statistics of a model to rows of the tidy table, one row a number.

Behind the columns of `lmshape.tables.columns` stand the numbers that each estimate is made of. The file also carries,
in its key-value metadata, the commit and the fingerprint of the weights behind every checkpoint, and the audit of every
site.
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

from lmshape.errors import InputError
from lmshape.hub.provenance import Provenance
from lmshape.metrics import Arrays, Metric, own_metrics, select
from lmshape.store import read_statistics
from lmshape.tables.agreement import check_agreement, check_complete, check_families
from lmshape.tables.audits import Audits
from lmshape.tables.changes import add_changes
from lmshape.tables.columns import AUDITS_KEY, CHECKPOINTS_KEY, MODEL_COLUMNS, Value
from lmshape.writing.atomic import replaced_when_whole

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
    ranks = {metric.name: rank for rank, metric in enumerate(chosen)}
    datasets: dict[Value, int] = {}
    attributes: dict[Path, Mapping[str, Value]] = {}
    audits, provenance = Audits(study), Provenance.of(lock, known_issues)
    rows: dict[tuple[Value, ...], tuple[dict[str, Value], np.ndarray, Path]] = {}
    for path in (Path(path) for path in (*statistics, *losses)):
        attributes[path], entries = _read_card(path) if path.suffix == ".json" else _read_archive(path)
        check_complete(path, attributes[path])
        provenance.check(path, attributes[path])
        for entry in entries:
            audits.add(attributes[path], entry.site, entry.layer, entry.rows, entry.attributes)
        datasets.setdefault(attributes[path]["dataset"], len(datasets))
        verdict = provenance.verdict(attributes[path]["checkpoint"])
        for row, replicates in _rows(entries, attributes[path], study=study, metrics=chosen, verdict=verdict):
            *_, other = rows.setdefault(_order(row, datasets, ranks), (row, replicates, path))
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


def _order(
    row: Mapping[str, Value], datasets: Mapping[Value, int], metrics: Mapping[str, int]
) -> tuple[Value, ...]:
    """Return what a row is sorted by; datasets and metrics come with their ranks."""
    cell = (row["step"], row["checkpoint"], datasets[row["dataset"]])
    place = (row["layer"], _SITES.index(row["site"]), row["rows"])
    return (*cell, *place, metrics[str(row["metric"])])


def _metadata(attributes: Iterable[Mapping[str, Value]], provenance: Provenance) -> dict[bytes, bytes]:
    """Return the Parquet metadata: where the weights of each checkpoint came from, as JSON."""
    identity = {
        str(cell["checkpoint"]): {
            **{name: cell.get(name, "") for name in ("repository", "revision", "commit", "weights_sha256")},
            **provenance.doubts(cell["checkpoint"]),
        }
        for cell in attributes
    }
    return {CHECKPOINTS_KEY: json.dumps(identity, sort_keys=True).encode()}
