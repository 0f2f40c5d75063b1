"""The page itself: template, style and programs of workflow/report/explore, and plotly.js, in one file.

What it may do stands in its Content-Security-Policy: run the two programs that it was written with, and nothing from
elsewhere. No browser will ask the network for anything on its behalf.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from lmshape import __version__
from lmshape.errors import InputError
from lmshape.figures.layout import VARIANT_NAMES
from lmshape.hub.integrity import DISTRUSTED, VERDICTS
from lmshape.metrics.registry import describe, own_metrics
from lmshape.tables.files import read_table
from lmshape.tables.rows import in_order
from lmshape.writing import replaced_when_whole

DIGITS = 7  # kept; the page shows `HIDDEN` fewer, the CSV files copied from it all of them
HIDDEN = 3
LEAST_DECIMALS, MOST_DECIMALS = -100, 100  # what the page can write; smaller numbers become 0
MOST_FLAGS = 2**16

# What there is of a number.
WITH_INTERVAL, WITHOUT_INTERVAL, NO_VALUE, ABSENT = range(4)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Columns of equal length: values, the ends of their intervals, places of their flags in a list of texts.

    Attributes
    ----------
    value, low, high : (n,) float64; NaN where there is none
    flag : (n,) integers
    present : (n,) bool; whether the table has such a row at all
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    flag: np.ndarray
    present: np.ndarray


def pack(numbers: Numbers) -> str:
    """Return columns as text for the page: 16 planes of n bytes, compressed, in base 64.

    The planes: decimals; what there is (`WITH_INTERVAL` and so on); 2 of the flag, then 4 each, the least significant
    byte first, of the value, of value less low, and of how much longer the upper half of the interval is.
    """
    there, decimals, (value, low, high) = _written(numbers)
    below = value - low
    longer = (high - value) - below
    planes = [
        decimals.astype(np.int8).view(np.uint8),
        there,
        *_planes(numbers.flag.astype("<u2")),
        *(plane for column in (value, below, longer) for plane in _planes(column.astype("<i4"))),
    ]
    return base64.b64encode(zlib.compress(np.concatenate(planes).tobytes())).decode()


def _written(numbers: Numbers) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return what there is of each number, its decimals, and its three parts as whole numbers; 0 for what is not."""
    has_value = numbers.present & np.isfinite(numbers.value)
    has_interval = has_value & np.isfinite(numbers.low) & np.isfinite(numbers.high)
    value = np.where(has_value, numbers.value, 0.0)
    parts = [value, *(np.where(has_interval, end, value) for end in (numbers.low, numbers.high))]
    decimals = common_decimals(np.max(np.abs(parts), axis=0))
    there = np.select(
        [has_interval, has_value, numbers.present], [WITH_INTERVAL, WITHOUT_INTERVAL, NO_VALUE], ABSENT
    )
    return there.astype(np.uint8), decimals, [whole(part, decimals) for part in parts]


def common_decimals(largest: np.ndarray) -> np.ndarray:
    """Return the decimals with which numbers of this magnitude have `DIGITS` digits; 0 for zero."""
    magnitude = np.floor(np.log10(np.where(largest > 0, largest, 1.0)))
    decimals = np.where(largest > 0, DIGITS - 1 - magnitude, 0)
    return np.clip(decimals, LEAST_DECIMALS, MOST_DECIMALS).astype(np.int64)


def whole(numbers: np.ndarray, decimals: np.ndarray) -> np.ndarray:
    """Return numbers times 10^decimals, cut to whole numbers so that fewer digits of them round as the number does.

    Rounding twice may go wrong: 0.12345 from 0.123449, then 0.1235. What is cut off makes a last digit of 0 or 5 one
    greater (ROUND_05UP of the decimal arithmetic), which tells the second rounding that there was more.
    """
    scaled = np.abs(numbers) * np.power(10.0, decimals)
    nearest = np.rint(scaled)
    # float64: 0.29 times 10^8 is a little under 29 000 000
    exact = np.abs(scaled - nearest) <= 4 * np.spacing(scaled)
    cut = np.floor(scaled)
    cut = np.where((cut % 5 == 0) & (cut > 0), cut + 1, cut)
    return (np.sign(numbers) * np.where(exact, nearest, cut)).astype(np.int64)


def _planes(column: np.ndarray) -> np.ndarray:
    """Return the bytes of a column (n,), those of like significance together: (bytes of one number, n)."""
    return column.view(np.uint8).reshape(len(column), -1).T


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
    descriptions : what each metric means, from `lmshape.metrics.registry.describe`; those that are not
    measured are passed over
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


TABLES = ("metrics", "checkpoints", "profiles")
TEMPLATE, STYLE = "page.html.j2", "style.css"
# The page's program, in the order in which its parts need one another.
SCRIPTS = (
    "numbers",
    "study",
    "state",
    "theme",
    "axes",
    "views",
    "traces",
    "heatmap",
    "panels",
    "words",
    "copies",
    "controls",
    "main",
)


def build_explorer(
    output: Path,
    *,
    tables_dir: Path,
    sources_dir: Path,
    datasets: Sequence[str] = (),
    own: Path | None = None,
) -> int:
    """Write the explorer of a study as one file.

    Parameters
    ----------
    output : HTML file to write
    tables_dir : folder of metrics, checkpoints and profiles as .parquet
    sources_dir : folder of the page's template, style and programs
    datasets : the study's datasets in its order; without them the order of the table
    own : file of the user's own metrics, which is run for what they mean

    Returns
    -------
    The length of the file in bytes.

    Raises
    ------
    InputError
        For a table that does not exist or has no row.
    """
    tables = {name: read_table(Path(tables_dir) / f"{name}.parquet") for name in TABLES}
    head, chunks = contents(tables, describe(own_metrics(own)), datasets=datasets)
    text = render(head, chunks, Path(sources_dir))
    with replaced_when_whole(output) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return len(text.encode())


def render(head: dict, chunks: Sequence[str], sources: Path) -> str:
    """Return the page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    program = "\n".join((sources / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    head = head | {"versions": {"lmshape": __version__, "plotly": version("plotly")}}
    environment = Environment(loader=FileSystemLoader(sources), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(TEMPLATE).render(
        study=head["study"],
        policy=policy(program, library),
        style=(sources / STYLE).read_text(encoding="utf-8"),
        head=as_data(head),
        chunks=chunks,
        library=library,
        program=program,
    )


def policy(*programs: str) -> str:
    """Return the Content-Security-Policy under which these programs run, and no others, and nothing is fetched.

    Style within the page is allowed, since plotly.js writes some; pictures, since it draws heat maps as data addresses.
    """
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]
    scripts = " ".join(f"'sha256-{one}'" for one in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def as_data(head: dict) -> str:
    """Return what the page reads as JSON, safe between the tags of an element: it holds no `<`."""
    return json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )
