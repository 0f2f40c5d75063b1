"""What the explorer's page holds: the study's names, what its metrics mean, and all numbers as dense blocks.

A chunk is all that was measured of one model on one dataset. It is a list of series, one for each choice of rows and
metric; the numbers of a series stand by place (site and layer), then by checkpoint. What the table does not have is
marked as absent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from lmshape.errors import InputError
from lmshape.explore.numbers import MOST_FLAGS, Numbers, pack
from lmshape.figures.marks import VARIANT_NAMES
from lmshape.hub.integrity import DISTRUSTED, VERDICTS
from lmshape.tables.rows import in_order

Json = str | int | float | bool | None | Sequence["Json"] | Mapping[str, "Json"]

SITES = ("embedding", "block", "final_norm", "output")
_WITHOUT_REFERENCE = ("_null", "_surrogate")


def contents(
    tables: Mapping[str, pd.DataFrame],
    descriptions: Sequence[Mapping[str, str]],
    *,
    datasets: Sequence[str] = (),
) -> tuple[dict[str, Json], list[str]]:
    """Lay a study out for the page.

    Parameters
    ----------
    tables : `metrics`, `checkpoints` and `profiles`
    descriptions : what each metric means, from `lmshape.metrics.describe`; those that are not measured are passed over
    datasets : the study's datasets in its order; others follow in that of the table

    Returns
    -------
    What the page's head says, to be written as JSON, and the packed numbers of each of its chunks.

    Raises
    ------
    InputError
        When the table of metrics is empty, or has more distinct flags than the page can tell apart.
    """
    metrics = tables["metrics"]
    if metrics.empty:
        raise InputError("the table `metrics` has no row; measure a cell before you explore the study.")
    flags = ["", *in_order(metrics.loc[metrics["flag"].fillna("") != "", "flag"])]
    if len(flags) > MOST_FLAGS:
        raise InputError(
            f"the table `metrics` has {len(flags)} distinct flags; the explorer holds {MOST_FLAGS}."
        )
    order = {entry["name"]: place for place, entry in enumerate(descriptions)}
    models = [_model(frame, tables["checkpoints"]) for _, frame in metrics.groupby("model", sort=False)]
    chunks = list(_chunks(metrics, models, flags, order))
    head = {
        "study": ", ".join(in_order(metrics["study"])),
        "models": models,
        "datasets": _ranked(in_order(metrics["dataset"]), datasets),
        "rows": {
            rows: VARIANT_NAMES.get(rows, rows) for rows in _ranked(in_order(metrics["rows"]), VARIANT_NAMES)
        },
        "metrics": _metrics(in_order(metrics["metric"]), descriptions),
        "flags": flags,
        "verdicts": {
            verdict: VERDICTS.get(verdict, verdict) for verdict in in_order(metrics["verdict"].fillna(""))
        },
        "chunks": [chunk for chunk, _ in chunks],
        "domes": _domes(tables["profiles"]),
    }
    return head, [packed for _, packed in chunks]


def _model(frame: pd.DataFrame, checkpoints: pd.DataFrame) -> dict[str, Json]:
    first = frame.iloc[0]
    blocks = frame.loc[frame["site"] == "block", "layer"]
    notes = checkpoints[checkpoints["model"] == first["model"]].drop_duplicates("checkpoint")
    notes = notes.set_index("checkpoint")["note"].fillna("")
    return {
        **{name: str(first[name]) for name in ("kind", "family")},
        "name": str(first["model"]),
        "parameters": int(first["parameters"]),
        "blocks": int(blocks.max()) if len(blocks) else 0,
        "checkpoints": [
            _checkpoint(row, str(notes.get(row.checkpoint, ""))) for row in _checkpoints(frame).itertuples()
        ],
        "places": [list(place) for place in _places(frame)],
    }


def _checkpoint(row: tuple, note: str) -> dict[str, Json]:
    verdict = row.verdict if isinstance(row.verdict, str) else ""
    return {
        "name": str(row.checkpoint),
        "step": int(row.step),
        "tokens": None if pd.isna(row.tokens_seen) else float(row.tokens_seen),
        "verdict": verdict,
        "distrusted": verdict in DISTRUSTED,
        "note": note,
    }


def _checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Checkpoints of a model by step; those of an unknown one, -1, are the last."""
    distinct = frame.drop_duplicates("checkpoint")
    step = distinct["step"].fillna(-1)
    place = step.where(step >= 0, np.inf)
    return distinct.assign(step=step).iloc[np.argsort(place, kind="stable")]


def _places(frame: pd.DataFrame) -> list[tuple[str, int]]:
    distinct = frame[["site", "layer"]].drop_duplicates().itertuples(index=False, name=None)
    rank = {site: place for place, site in enumerate(SITES)}
    pairs = [(str(site), int(layer)) for site, layer in distinct]
    return sorted(pairs, key=lambda pair: (rank.get(pair[0], len(SITES)), pair[1]))


def _ranked(present: Sequence[str], order: Iterable[str]) -> list[str]:
    """Put names in a given order; those that it does not have keep theirs, behind."""
    return [
        *(name for name in order if name in present),
        *(name for name in present if name not in set(order)),
    ]


def _chunks(
    metrics: pd.DataFrame, models: Sequence[Mapping], flags: Sequence[str], order: Mapping[str, int]
) -> Iterator[tuple[dict[str, Json], str]]:
    by_name = {model["name"]: model for model in models}
    place_of_flag = {flag: place for place, flag in enumerate(flags)}
    for (name, dataset), frame in metrics.groupby(["model", "dataset"], sort=False):
        model = by_name[name]
        series = _series(frame, model, order)
        numbers = _numbers(frame, model, series, place_of_flag)
        named = [[rows, metric, places] for (rows, metric), places in series.items()]
        yield {"model": name, "dataset": dataset, "series": named, "count": len(numbers.value)}, pack(numbers)


def _series(
    frame: pd.DataFrame, model: Mapping, order: Mapping[str, int]
) -> dict[tuple[str, str], list[int]]:
    """Places, as numbers in the model's list, of each series (rows, metric): metrics in their documented order."""
    number = {tuple(place): position for position, place in enumerate(model["places"])}
    distinct = frame[["rows", "metric", "site", "layer"]].drop_duplicates()
    found: dict[tuple[str, str], list[int]] = {}
    for rows, metric, site, layer in distinct.itertuples(index=False, name=None):
        found.setdefault((rows, metric), []).append(number[site, layer])
    ranked = sorted(found, key=lambda key: order.get(key[1], len(order)))
    return {key: sorted(found[key]) for key in ranked}


def _numbers(
    frame: pd.DataFrame,
    model: Mapping,
    series: Mapping[tuple[str, str], Sequence[int]],
    flags: Mapping[str, int],
) -> Numbers:
    """Spread the rows of the table over the chunk's dense block."""
    checkpoints = len(model["checkpoints"])
    first: dict[tuple[str, str, str, int], int] = {}
    for (rows, metric), places in series.items():
        for place in places:
            first[rows, metric, *model["places"][place]] = len(first) * checkpoints
    column = {checkpoint["name"]: position for position, checkpoint in enumerate(model["checkpoints"])}
    keys = zip(*(frame[name] for name in ("rows", "metric", "site", "layer")), strict=True)
    at = np.array([first[key] for key in keys]) + frame["checkpoint"].astype(str).map(column).to_numpy()

    def spread(values: np.ndarray, empty: float) -> np.ndarray:
        block = np.full(len(first) * checkpoints, empty)
        block[at] = values
        return block

    return Numbers(
        **{
            part: spread(frame[name].to_numpy(dtype=np.float64), np.nan)
            for part, name in (("value", "value"), ("low", "ci_low"), ("high", "ci_high"))
        },
        flag=spread(frame["flag"].fillna("").map(flags).to_numpy(), 0),
        present=spread(np.ones(len(frame)), 0) > 0,
    )


def _metrics(measured: Sequence[str], descriptions: Sequence[Mapping[str, str]]) -> dict[str, Json]:
    """Say of each metric what it means, and which other one is its null at the same place."""
    by_name = {entry["name"]: dict(entry) for entry in descriptions if entry["name"] in measured}
    known = {name: entry | {"reference": reference(name, by_name)} for name, entry in by_name.items()}
    nothing = dict.fromkeys(("definition", "range", "null", "source", "reference"), "")
    others = [name for name in measured if name not in known]
    return known | {name: {"name": name, "family": "other", **nothing} for name in others}


def reference(name: str, descriptions: Mapping[str, Mapping[str, str]]) -> str:
    """Name the metric whose value is what this one reads where there is nothing to see; "" where none was measured.

    It is the one that the metric's own `null` names, or its own name with `_null`, or that of the metric that `null`
    refers to ("that of anisotropy").
    """
    if name.endswith(_WITHOUT_REFERENCE):
        return ""
    words = descriptions[name]["null"]
    named = re.findall(r"\w+(?:_null|_surrogate)\b", words)
    found = [other for other in (*named, f"{name}_null", f"{name}_surrogate") if other in descriptions]
    if found:
        return found[0]
    referred = re.match(r"that of (\w+)", words)
    return reference(referred[1], descriptions) if referred and referred[1] in descriptions else ""


def _domes(profiles: pd.DataFrame) -> list[Json]:
    """Shape of each profile that the study describes: where its peak is, the dome index and its interval."""
    names = ["model", "checkpoint", "dataset", "rows", "metric", "peak_layer"]
    reals = ["dome_index", "dome_index_low", "dome_index_high"]
    if profiles.empty or not {*names, *reals} <= set(profiles):
        return []
    return [
        [*row[:5], *(None if pd.isna(number) else float(f"{number:.3g}") for number in row[5:])]
        for row in profiles[names + reals].itertuples(index=False, name=None)
    ]
