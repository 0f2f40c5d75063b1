"""From the statistics of a model to rows of the tidy table, one row a number.

Behind the columns of `lmshape.tables.columns` stand the numbers that each estimate is made of. The file also carries,
in its key-value metadata, the commit and the fingerprint of the weights behind every checkpoint, and the audit of every
site.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmshape.errors import InputError
from lmshape.hub.integrity import DISTRUSTED, Issue, Provenance
from lmshape.metrics.metric import Arrays, Metric
from lmshape.metrics.registry import own_metrics, select
from lmshape.store.statistics import read_statistics
from lmshape.tables.columns import AUDITS_KEY, CHANGE_DESCRIPTIONS, CHECKPOINTS_KEY, MODEL_COLUMNS, Value
from lmshape.writing import replaced_when_whole

# What the files of one model, checkpoint or dataset must say alike: else they come from other activations.
_AGREEMENT = {
    "model": ("model", "architecture", "kind", "parameters", "blocks", "dtype"),
    "checkpoint": ("weights_sha256", "commit", "step", "tokens_seen"),
    "dataset": ("tokenizer_sha256", "sampling", "seed"),
}


def check_complete(path: Path, attributes: Mapping[str, Value]) -> None:
    """Refuse a file whose root attributes lack what a row of the table says."""
    names = [name for group, shared in _AGREEMENT.items() for name in (group, *shared)]
    missing = [f"`{name}`" for name in names if name not in attributes]
    if missing:
        raise InputError(f"`{path}` does not say {', '.join(missing)}; delete it and run its job again.")


def check_agreement(attributes: Mapping[Path, Mapping[str, Value]]) -> None:
    """Refuse a file whose attributes differ from those of most files of its model, checkpoint or dataset."""
    for group, names in _AGREEMENT.items():
        of_group: dict[Value, list[Path]] = {}
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
                "activations. Delete the stale one and run its job again."
            )


def check_families(attributes: Mapping[Path, Mapping[str, Value]], metrics: Sequence[Metric]) -> None:
    """Refuse a cell without the family of a metric that is asked for."""
    cells: dict[tuple[Value, Value], set[Value]] = {}
    for own in attributes.values():
        cells.setdefault((own["checkpoint"], own["dataset"]), set()).add(own["family"])
    for (checkpoint, dataset), families in cells.items():
        for metric in metrics:
            if metric.family not in families:
                raise InputError(
                    f"`{metric.name}` needs the family `{metric.family}`, which no file holds for checkpoint "
                    f"`{checkpoint}`, dataset `{dataset}`; measure it, or leave the metric out."
                )


AUDIT_DESCRIPTIONS = {
    "study": "name of the study, from the config",
    "model": "name of the model, from the registry",
    "checkpoint": "name of the checkpoint",
    "step": "training steps before the checkpoint",
    "dataset": "name of the dataset, from the registry",
    "site": "embedding, block or final_norm",
    "layer": "0 for the embedding, l after block l; the number of blocks for final_norm",
    "rows": "all; no_sink: without the attention sinks; one_per_type: a row of each token id in a draw",
    "n_rows": "number of token rows over all draws",
    "n_unique": "rows that repeat none of their own draw",
    "duplicates": "rows that repeat another of their draw: neighbors are searched without them",
    "zero_rows": "rows of zeros, which have no direction: mean_cosine leaves them out; empty where not counted",
    "sink_rows": "sinks of the site, position 0 and rows over 10 × its median norm, which no_sink leaves out",
    "sink_positions": "position in the sequence → sink rows there, JSON: the 20 most common, then other",
    "sink_tokens": "token, its text in quotes or its id → sink rows of it, JSON: the 20 most common, then other",
    "audit_error": "largest relative error of the neighbor distances of 200 random rows against direct differences",
    "recomputed": "rows whose neighbors could not be certified at first and were searched again",
    "flag": "why the neighbors were not audited, or a doubt about these rows; empty when fine",
}
AUDIT_INTEGERS = ("step", "layer", "n_rows", "n_unique", "duplicates", "zero_rows", "sink_rows", "recomputed")
AUDIT_REALS = ("audit_error",)

# Which family is asked first how many rows there are: paired ones count rows that two sites share, and the released
# protocol's takes the first 4096.
_ASKED = ("neighbor", "spectral", "angular")
_audits_SITES = ("embedding", "block", "final_norm")


class Audits:
    """Collect what the entries of statistics archives say of their rows.

    Parameters
    ----------
    study : name of the study
    """

    def __init__(self, study: str) -> None:
        self._study = study
        self._found: dict[tuple[Value, ...], dict[str, Mapping[str, Value]]] = {}

    def add(
        self, cell: Mapping[str, Value], site: str, layer: int, rows: str, attributes: Mapping[str, Value]
    ) -> None:
        """Take the attributes of one entry of an archive whose root attributes are `cell`; a loss card has none."""
        if site in _audits_SITES:
            key = (*(cell[name] for name in ("model", "checkpoint", "step", "dataset")), site, layer, rows)
            self._found.setdefault(key, {})[str(cell["family"])] = attributes

    def rows(self) -> list[dict[str, Value | None]]:
        """Return the rows of the table, by step, checkpoint and dataset in the order of the files."""
        datasets = list(dict.fromkeys(key[3] for key in self._found))
        ordered = sorted(self._found, key=lambda key: _audits_order(key, datasets))
        return [self._row(key) for key in ordered]

    def _row(self, key: tuple[Value, ...]) -> dict[str, Value | None]:
        model, checkpoint, step, dataset, site, layer, rows = key
        families = self._found[key]
        place = {"site": site, "layer": layer, "rows": rows}
        cell = {"model": model, "checkpoint": checkpoint, "step": step, "dataset": dataset}
        counts = families[_first_of(families)]
        neighbors, angles = families.get("neighbor", {}), families.get("angular", {})
        return {
            "study": self._study,
            **cell,
            **place,
            **{name: counts.get(name) for name in ("n_rows", "n_unique")},
            "duplicates": int(counts["n_rows"]) - int(counts["n_unique"]),
            "zero_rows": angles.get("zero_rows"),
            **{name: counts.get(name) for name in ("sink_rows", "sink_positions", "sink_tokens")},
            **{name: neighbors.get(name) for name in ("audit_error", "recomputed")},
            "flag": _flag(counts, neighbors),
        }


def _flag(counts: Mapping[str, Value], neighbors: Mapping[str, Value]) -> str:
    """Return the doubt about the rows, else why there is no audit of their neighbors."""
    flag = str(neighbors.get("flag") or counts["flag"])
    if flag or "audit_error" in neighbors:
        return flag
    return "neighbors not audited" if neighbors else "neighbors not measured"


def _first_of(families: Iterable[str]) -> str:
    return min(families, key=lambda name: (_ASKED.index(name) if name in _ASKED else len(_ASKED), name))


def _audits_order(key: tuple[Value, ...], datasets: list[Value]) -> tuple[Value, ...]:
    _, checkpoint, step, dataset, site, layer, rows = key
    return (step, checkpoint, datasets.index(dataset), layer, _audits_SITES.index(site), rows)


Row = dict[str, str | int | float]


def add_changes(rows: Iterable[tuple[Row, np.ndarray]], metrics: Mapping[str, Metric]) -> None:
    """Set the columns of `CHANGE_DESCRIPTIONS` in rows of one model.

    Parameters
    ----------
    rows : ascending by step; beside each the numbers that its estimate was made of (`Metric.replicates`). A row
        whose checkpoint is distrusted (`verdict`) has no change, and none is counted from it
    metrics : name → the metric
    """
    before: dict[tuple[str | int | float, ...], np.ndarray] = {}
    for row, values in rows:
        line = tuple(row[name] for name in ("dataset", "site", "layer", "rows", "metric"))
        row.update(dict.fromkeys(CHANGE_DESCRIPTIONS, nan))
        if row.get("verdict") in DISTRUSTED:
            continue
        if line in before and before[line].shape == values.shape:
            change = metrics[str(row["metric"])].change(before[line], values)
            row.update(change=change.value, change_low=change.low, change_high=change.high)
        before[line] = values


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
    issues: Sequence[Issue] = (),
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
    lock, issues : what stands behind the checkpoints of a model of the hub, and the list of known faults

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
    audits, provenance = Audits(study), Provenance.of(lock, issues)
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
