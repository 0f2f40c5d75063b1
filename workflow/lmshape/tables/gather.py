"""From the statistics of a model to rows of the tidy table, one row per number.

Behind the columns of `lmshape.tables.columns` stand the numbers that each estimate is made of. The file also carries,
in its key-value metadata, the commit and the fingerprint of the weights behind every checkpoint, and the audit of every
site: which of its rows repeat, which are sinks, and how exact its neighbor distances are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pyarrow as pa

from lmshape.checkpoints import Checkpoint, under_each_name
from lmshape.errors import InputError, first_line
from lmshape.hub.integrity import DISTRUSTED, check_weights, doubts
from lmshape.hub.lock import Lock, LockedCheckpoint
from lmshape.metrics.metric import Metric
from lmshape.metrics.registry import own_metrics, select
from lmshape.site import Site
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import DrawLoss, LayerStatistics, read_loss_card, read_statistics
from lmshape.tables.columns import (
    AUDITS_KEY,
    CHANGES,
    CHECKPOINTS_KEY,
    GONE,
    MODEL_COLUMNS,
    SITES,
    Row,
    declare,
    integer,
    joined,
    real,
    shared,
    text,
    with_nulls,
    write_parquet,
)

# What the files of one model, checkpoint or dataset must say alike: else they come from other activations.
_AGREEMENT = {
    "model": ("model", "architecture", "kind", "parameters", "blocks", "dtype"),
    "checkpoint": ("weights_sha256", "commit", "step", "tokens_seen"),
    "dataset": ("tokenizer_sha256", "text_sha256", "sampling", "seed"),
}


def gather(
    statistics: Sequence[Path],
    losses: Sequence[Path],
    output: Path,
    *,
    study: str,
    metrics: Sequence[str],
    own: Path | None = None,
    lock: Lock | None = None,
    gone: Sequence[str] = (),
    same: Mapping[str, Sequence[Checkpoint]] | None = None,
) -> None:
    """Write the tidy rows of one model as Parquet.

    Sorted by step, checkpoint, dataset (in the order in which the files first come to it), layer, rows and
    metric. One archive is in memory at a time. The layers of a cell may come in several archives.

    Parameters
    ----------
    statistics, losses : statistics archives and loss cards of every cell of the model
    output : Parquet file to write
    study : name of the study
    metrics : names of metrics or families; other statistics are skipped
    own : file of the user's own metrics, if `metrics` names any
    lock : of a model on the hub, with the verdicts of what is known today
    gone : checkpoints that were deleted since they were measured
    same : checkpoint → others with its weights, which get their rows from its files

    Raises
    ------
    InputError
        For files that contradict each other, or come from another commit than the lock's.
    """
    chosen = {metric.name: metric for metric in select(metrics, own_metrics(own))}
    order = {name: place for place, name in enumerate(chosen)}
    locked, audited = {one.checkpoint: one for one in lock.checkpoints} if lock else {}, []
    cells: list[Attributes] = []
    datasets: dict[str, int] = {}
    attributes: dict[Path, Attributes] = {}
    rows: dict[tuple[str | int, ...], tuple[Row, np.ndarray]] = {}
    for path in map(Path, (*statistics, *losses)):
        attributes[path], entries = _read(path)
        dataset = datasets.setdefault(str(attributes[path]["dataset"]), len(datasets))
        names = list(under_each_name(attributes[path], same or {}))
        for cell in names:
            check_weights(path, cell, locked.get(cell["checkpoint"]))
            audited += [(cell, entry.site, entry.rows, entry.attributes) for entry in entries]
        cells += names
        for measured, replicates in _rows(entries, attributes[path], chosen.values()):
            for row in under_each_name(measured, same or {}):
                rows[_order(row, dataset, order[row["metric"]])] = row, replicates
    check_agreement(attributes)
    weights = _weights(cells, locked, gone, same or {})
    ordered = [rows[key] for key in sorted(rows)]
    for row, replicates in ordered:
        row |= {"study": study, "verdict": weights[row["checkpoint"]]["verdict"]}
        row |= {"interval": chosen[row["metric"]].interval, "replicates": replicates}
    add_changes(ordered, chosen)
    metadata = {
        CHECKPOINTS_KEY: json.dumps(weights, sort_keys=True),
        AUDITS_KEY: json.dumps(audits(study, audited)),
    }
    table = pa.Table.from_pylist([row for row, _ in ordered], schema=MODEL_COLUMNS)
    write_parquet(with_nulls(table).replace_schema_metadata(metadata), output)


def _read(path: Path) -> tuple[Attributes, list[LayerStatistics]]:
    if path.suffix == ".json":
        attributes, draws = read_loss_card(path)
        return {**attributes, "family": "loss"}, [_loss(attributes, draws)]
    return read_statistics(path)


def _loss(attributes: Attributes, draws: Sequence[DrawLoss]) -> LayerStatistics:
    names = ("nats", "tokens", "bytes")
    arrays = {name: np.array([getattr(draw, name) for draw in draws], dtype=np.float64) for name in names}
    reason = str(attributes.get("flag", ""))  # why a checkpoint has no loss at all
    flag = reason or ("" if np.isfinite(arrays["nats"]).all() else "not finite: loss")
    tokens = int(arrays["tokens"].sum())
    counts: Row = {"draws": len(draws), "n_rows": tokens, "n_unique": 0, "d": 0, "flag": flag}
    return LayerStatistics(Site("output", int(attributes["blocks"])), "all", arrays, counts)


def check_agreement(attributes: Mapping[Path, Attributes]) -> None:
    """Refuse a file whose attributes differ from those of most files of its model, checkpoint or dataset."""
    for group, names in _AGREEMENT.items():
        of_group: dict[object, list[Path]] = {}
        for path, own in attributes.items():
            of_group.setdefault("" if group == "model" else own[group], []).append(path)
        for paths in of_group.values():
            for name in names:
                _check_equal(name, {path: str(attributes[path][name]) for path in paths})


def _check_equal(name: str, values: Mapping[Path, str]) -> None:
    usual, _ = Counter(values.values()).most_common(1)[0]
    for path, value in values.items():
        if value != usual:
            other = next(path for path in values if values[path] == usual)
            raise InputError(
                f"`{path}` has `{name}` {value}, `{other}` has {usual}: they were made from different "
                "activations. Delete the stale one and run its job again; if the weights of its checkpoint are gone, "
                "delete the checkpoint's folder in results/losses to leave it out."
            )


def _rows(
    entries: Iterable[LayerStatistics], cell: Attributes, metrics: Iterable[Metric]
) -> Iterator[tuple[Row, np.ndarray]]:
    """Yield the rows of a file, and beside each the numbers that its estimate is made of."""
    names = ("model", "kind", "parameters", "checkpoint", "step", "tokens_seen", "dataset", "seed")
    of_cell = {"family": cell["architecture"], **{name: cell[name] for name in names}}
    own = [metric for metric in metrics if metric.family == cell["family"]]
    for entry in entries:
        layer = entry.site.layer
        place = {"site": entry.site.name, "layer": layer, "depth": layer / int(cell["blocks"])}
        for metric in own:
            replicates, failure = _replicates(metric, entry)
            reasons = {**entry.attributes, **({f"flag_{metric.name}": failure} if failure else {})}
            estimate = _estimate(metric, replicates, reasons)
            if isfinite(estimate["ci_low"]):
                estimate["flag"] = joined(
                    estimate["flag"], metric.doubt(entry.arrays), str(cell.get("shared_documents", ""))
                )
            yield {**of_cell, **place, "rows": entry.rows, "metric": metric.name, **estimate}, replicates


def _replicates(metric: Metric, entry: LayerStatistics) -> tuple[np.ndarray, str]:
    """Return the numbers of a metric; NaN and the reason where it fails, so that one site never costs the others."""
    try:
        return metric.replicates(entry.arrays), ""
    except InputError:  # the archive lacks its arrays
        raise
    except Exception as error:
        count = 1 if metric.interval == "none" else int(entry.attributes["draws"])
        missing = np.full(count + (metric.interval == "jackknife"), nan)
        return missing, f"{metric.name} failed: {type(error).__name__}: {first_line(error)}"


def _estimate(metric: Metric, replicates: np.ndarray, attributes: Attributes) -> Row:
    """Return the columns of a row that come from the statistics, with the reason of what is NaN among them."""
    estimate = metric.estimate(replicates)
    counts = {name: attributes[name] for name in ("draws", "n_rows", "n_unique", "d")}
    flag = str(attributes.get(f"flag_{metric.name}", attributes["flag"]))
    numbers = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    if not isfinite(estimate.value):
        return counts | dict.fromkeys(numbers, nan) | {"flag": flag or metric.undefined}
    return counts | numbers | {"flag": joined(flag, metric.missing_interval(estimate))}


def _order(row: Row, dataset: int, metric: int) -> tuple[str | int, ...]:
    """Return what a row is sorted by; dataset and metric by their place in the study."""
    site = SITES.index(row["site"])
    return row["step"], row["checkpoint"], dataset, row["layer"], site, row["rows"], metric


def add_changes(rows: Iterable[tuple[Row, np.ndarray]], metrics: Mapping[str, Metric]) -> None:
    """Set the columns `CHANGES` in rows of one model.

    Parameters
    ----------
    rows : ascending by step; beside each the numbers that its estimate was made of (`Metric.replicates`). A row
        whose checkpoint is distrusted (`verdict`) has no change, and none is counted from it
    metrics : name → the metric
    """
    before: dict[tuple[str | int, ...], np.ndarray] = {}
    for row, values in rows:
        line = tuple(row[name] for name in ("dataset", "site", "layer", "rows", "metric"))
        row.update(dict.fromkeys(CHANGES, nan))
        if row.get("verdict") in DISTRUSTED:
            continue
        if line in before and before[line].shape == values.shape:
            change = metrics[row["metric"]].change(before[line], values)
            row.update(change=change.value, change_low=change.low, change_high=change.high)
        before[line] = values


def _weights(
    cells: Iterable[Attributes],
    locked: Mapping[str, LockedCheckpoint],
    gone: Sequence[str],
    same: Mapping[str, Sequence[Checkpoint]],
) -> dict[str, Row]:
    """Return where the weights of each checkpoint came from, and what the audit says of them."""
    names = ("repository", "revision", "commit", "weights_sha256")
    known = {str(cell["checkpoint"]): {name: cell.get(name, "") for name in names} for cell in cells}
    measured_as = {one.name: name for name, others in same.items() for one in others}
    fingerprints = {one: row["weights_sha256"] for one, row in known.items()}
    for one, row in known.items():
        row |= doubts(locked.get(one), measured_as.get(one, ""))
        equal = [other for other in known if other != one and fingerprints[other] == fingerprints[one]]
        if equal and not locked:  # of a local run
            row |= {"verdict": "duplicate", "same_weights_as": ", ".join(equal)}
        if one in gone:
            row["note"] = f"{GONE}: deleted since it was measured"
    return known


AUDIT_COLUMNS = declare(
    *shared("study model checkpoint step dataset"),
    text("site", "embedding, block or final_norm"),
    integer("layer", "0 for the embedding, l after block l; the number of blocks for final_norm"),
    *shared("rows"),
    integer("n_rows", "number of token rows over all draws"),
    integer("n_unique", "rows that repeat none of their own draw"),
    integer("duplicates", "rows that repeat another of their draw: neighbors are searched without them"),
    integer(
        "zero_rows",
        "rows of zeros, which have no direction: mean_cosine leaves them out; empty where not counted",
    ),
    integer(
        "sink_rows",
        "sinks of the site, position 0 and rows over 10 × its median norm, which no_sink leaves out",
    ),
    integer(
        "near_sink_rows",
        "rows of 5 to 10 × its median norm, which no_sink keeps: where there are some, the cut runs among them",
    ),
    text(
        "sink_positions",
        "position in the sequence → sink rows there, JSON: the 20 most common, then other",
    ),
    text(
        "sink_tokens",
        "token, its text in quotes or its id → sink rows of it, JSON: the 20 most common, then other",
    ),
    real(
        "audit_error",
        "largest relative error of the neighbor distances of 200 random rows against direct differences",
    ),
    integer("recomputed", "rows whose neighbors could not be certified at first and were searched again"),
    text("flag", "why the neighbors were not audited, or a doubt about these rows; empty when fine"),
)

# The families in the order in which they are asked how many rows there are; all others come behind, by name. Paired
# families count the rows that two sites share, and the released protocol's takes the first 4096.
_ASKED = ("neighbor", "spectral", "angular")


def audits(study: str, entries: Iterable[tuple[Attributes, Site, str, Attributes]]) -> list[Row]:
    """Say of each site which of its rows repeat, which are sinks, and how exact its neighbor distances are.

    Parameters
    ----------
    study : name of the study
    entries : root attributes of a file; site, rows and attributes of one of its entries. A loss has no rows

    Returns
    -------
    The rows of AUDIT_COLUMNS, by step, checkpoint and dataset in the order of the files.
    """
    datasets: dict[str, int] = {}
    found: dict[tuple[str | int, ...], tuple[Row, dict[str, Attributes]]] = {}
    for cell, site, rows, attributes in entries:
        if site.name == "output":
            continue
        own = {name: cell[name] for name in ("model", "checkpoint", "step", "dataset")}
        place = {"study": study, **own, "site": site.name, "layer": site.layer, "rows": rows}
        key = _order(place, datasets.setdefault(str(cell["dataset"]), len(datasets)), 0)
        found.setdefault(key, (place, {}))[1][str(cell["family"])] = attributes
    return [_audit(*found[key]) for key in sorted(found)]


def _audit(place: Row, families: Mapping[str, Attributes]) -> Row:
    asked = [*(name for name in _ASKED if name in families), *sorted(families)]
    counts = families[asked[0]]
    neighbors = families.get("neighbor", {})
    return {
        **place,
        **{name: counts.get(name) for name in ("n_rows", "n_unique")},
        "duplicates": int(counts["n_rows"]) - int(counts["n_unique"]),
        "zero_rows": families.get("angular", {}).get("zero_rows"),
        **{
            name: counts.get(name)
            for name in ("sink_rows", "near_sink_rows", "sink_positions", "sink_tokens")
        },
        **{name: neighbors.get(name) for name in ("audit_error", "recomputed")},
        "flag": joined(
            _doubt(counts, neighbors), _near_the_cut(counts) if place["rows"] == "no_sink" else ""
        ),
    }


def _near_the_cut(counts: Attributes) -> str:
    """Say that the cut between sinks and others runs among rows of much the same norm; empty where it does not."""
    near = int(counts.get("near_sink_rows") or 0)
    return f"sinks near the cut: {near} rows of 5 to 10 × the median norm are kept" if near else ""


def _doubt(counts: Attributes, neighbors: Attributes) -> str:
    """Return the doubt about the rows, else why there is no audit of their neighbors."""
    flag = str(neighbors.get("flag") or counts["flag"])
    if flag or "audit_error" in neighbors:
        return flag
    return "neighbors not audited" if neighbors else "neighbors not measured"
