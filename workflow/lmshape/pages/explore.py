"""The explorer: one HTML page to browse the study's numbers offline.

Template, style and programs are in workflow/report/explore; plotly.js draws. The page's Content-Security-Policy lets it
run the two programs that it was written with, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lmshape import __version__
from lmshape.figures.selection import VARIANT_NAMES
from lmshape.hub.integrity import AUDIT_VERDICTS, DISTRUSTED
from lmshape.metrics.registry import added_metrics, describe
from lmshape.tables.columns import SITES, read_table
from lmshape.tables.rows import in_order
from lmshape.writing import replaced_when_whole

TABLES = ("metrics", "checkpoints", "profiles")
TEMPLATE, STYLE = "page.html.j2", "style.css"
INDEX = "index.html"  # the page of the study, in the same folder
# The page's program, in the order in which its parts need one another.
SCRIPTS = "numbers study state theme axes views traces heatmap panels words copies controls main".split()

# Beginnings of metrics' names, as a reader knows them; the first that fits.
WORDS = {
    "id_twonn": "dimension (TwoNN)",
    "id_gride": "dimension (GRIDE), neighbor",
    "id_mle": "dimension (maximum likelihood)",
    "id_mada": "dimension (MADA)",
    "id_local": "local dimension,",
    "id_released": "dimension as released",
    "skdim.": "dimension, ",
    "rankme": "RankMe",
    "alpha_req": "α-ReQ",
    "isoscore": "IsoScore",
}

Json = dict[str, Any]


# The page


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
        For a table that does not exist.
    """
    tables = {name: read_table(Path(tables_dir) / f"{name}.parquet") for name in TABLES}
    added = added_metrics(tables["metrics"]["metric"].unique(), own)
    head, chunks = contents(tables, describe(added), datasets=datasets)
    text = page_of(head, chunks, Path(sources_dir))
    with replaced_when_whole(output) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return len(text.encode())


def page_of(head: Json, chunks: Sequence[Json], sources: Path) -> str:
    """Return the page as text."""
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    program = "\n".join((sources / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    head = head | {"versions": {"lmshape": __version__, "plotly": version("plotly")}}
    environment = Environment(loader=FileSystemLoader(sources), autoescape=True, undefined=StrictUndefined)
    return environment.get_template(TEMPLATE).render(
        study=head["study"],
        index=INDEX,
        policy=policy(program, library),
        style=(sources / STYLE).read_text(encoding="utf-8"),
        head=as_data(head),
        chunks=[as_data(chunk) for chunk in chunks],
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


def as_data(data: Json) -> str:
    """Return what the page reads as JSON, safe between the tags of an element: it holds no `<`."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


# What it shows


def contents(
    tables: Mapping[str, pd.DataFrame],
    descriptions: Sequence[Mapping[str, str]],
    *,
    datasets: Sequence[str] = (),
) -> tuple[Json, list[Json]]:
    """Lay a study out for the page.

    Parameters
    ----------
    tables : `metrics`, `checkpoints` and `profiles`
    descriptions : what each metric means, from `lmshape.metrics.registry.describe`; those that are not
        measured are passed over
    datasets : the study's datasets in its order; others follow in that of the table

    Returns
    -------
    What the page's head says, and the numbers of each of its chunks (see `numbers_of`); both to be written as JSON.
    """
    metrics = tables["metrics"]
    flags = ["", *in_order(metrics.loc[metrics["flag"].fillna("") != "", "flag"])]
    order = {entry["name"]: place for place, entry in enumerate(descriptions)}
    models = [_model(frame, tables["checkpoints"]) for _, frame in metrics.groupby("model", sort=False)]
    by_name = {model["name"]: model for model in models}
    chunks = [
        _chunk(frame, by_name[model], flags, order)
        for (model, _), frame in metrics.groupby(["model", "dataset"], sort=False)
    ]
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
            verdict: AUDIT_VERDICTS.get(verdict, verdict)
            for verdict in in_order(metrics["verdict"].fillna(""))
        },
        "chunks": [chunk for chunk, _ in chunks],
        "domes": _domes(tables["profiles"]),
    }
    return head, [numbers for _, numbers in chunks]


def _model(frame: pd.DataFrame, checkpoints: pd.DataFrame) -> Json:
    first = frame.iloc[0]
    blocks = frame.loc[frame["site"] == "block", "layer"]
    notes = checkpoints[checkpoints["model"] == first["model"]].drop_duplicates("checkpoint")
    notes = notes.set_index("checkpoint")["note"].fillna("")
    distinct = frame.drop_duplicates("checkpoint").assign(step=lambda rows: rows["step"].fillna(-1))
    by_step = distinct.sort_values("step", key=lambda step: step.where(step >= 0, np.inf), kind="stable")
    places = {(str(site), int(layer)) for site, layer in zip(frame["site"], frame["layer"], strict=True)}
    return {
        **{name: str(first[name]) for name in ("kind", "family")},
        "name": str(first["model"]),
        "parameters": int(first["parameters"]),
        "blocks": int(blocks.max()) if len(blocks) else 0,
        "checkpoints": [_checkpoint(row, notes) for row in by_step.itertuples()],
        "places": [list(place) for place in sorted(places, key=lambda place: (SITES.index(place[0]), place))],
    }


def _checkpoint(row: Any, notes: pd.Series) -> Json:
    """Say what is known of a checkpoint; those of an unknown step, -1, are the last of their model."""
    verdict = row.verdict if isinstance(row.verdict, str) else ""
    return {
        "name": str(row.checkpoint),
        "step": int(row.step),
        "tokens": None if pd.isna(row.tokens_seen) else float(row.tokens_seen),
        "verdict": verdict,
        "distrusted": verdict in DISTRUSTED,
        "note": str(notes.get(row.checkpoint, "")),
    }


def _ranked(present: Sequence[str], order: Iterable[str]) -> list[str]:
    """Put names in a given order; those that it does not have keep theirs, behind."""
    places = {name: place for place, name in enumerate(order)}
    return sorted(present, key=lambda name: places.get(name, len(places)))


def _chunk(
    frame: pd.DataFrame, model: Json, flags: Sequence[str], order: Mapping[str, int]
) -> tuple[Json, Json]:
    """Return what was measured of a model on a dataset: its series, and their numbers one after the other.

    A series is a choice of rows and a metric, in the documented order of metrics, with its places as numbers in the
    model's list. Its numbers are sorted by place and checkpoint.
    """
    places = {tuple(place): number for number, place in enumerate(model["places"])}
    checkpoints = {one["name"]: number for number, one in enumerate(model["checkpoints"])}
    frame = frame.assign(
        place=[places[place] for place in zip(frame["site"], frame["layer"], strict=True)],
        rank=frame["metric"].map(order).fillna(len(order)),
        series=frame.groupby(["rows", "metric"], sort=False).ngroup(),
    )
    key = ["rank", "series", "place"]
    lines = frame.drop_duplicates(key).sort_values(key)
    named = [
        [*names, rows["place"].tolist()] for names, rows in lines.groupby(["rows", "metric"], sort=False)
    ]
    at = frame.groupby(key).ngroup() * len(checkpoints) + frame["checkpoint"].astype(str).map(checkpoints)
    count = len(lines) * len(checkpoints)
    told = {"model": model["name"], "dataset": frame["dataset"].iloc[0], "series": named, "count": count}
    return told, numbers_of(frame, at.to_numpy(), count, {flag: place for place, flag in enumerate(flags)})


def numbers_of(frame: pd.DataFrame, at: np.ndarray, count: int, flags: Mapping[str, int]) -> Json:
    """Lay rows of the table out at the positions `at` among `count`.

    Returns
    -------
    `value`, `low` and `high` as float32, little-endian, in base 64: NaN for what is not finite, and for the ends of an
    interval that lacks one. `flags` maps positions to numbers of flags, `absent` lists those without a row.
    """
    numbers = np.full((3, count), np.nan, dtype="<f4")  # seven digits, of which four are shown
    with np.errstate(over="ignore"):
        numbers[:, at] = frame[["value", "ci_low", "ci_high"]].to_numpy(dtype=np.float64).T
    numbers[:, ~np.isfinite(numbers[0])] = np.nan
    numbers[1:, ~np.isfinite(numbers[1:]).all(axis=0)] = np.nan
    flagged = frame["flag"].fillna("").map(flags).to_numpy()
    columns = {
        name: base64.b64encode(column.tobytes()).decode()
        for name, column in zip(("value", "low", "high"), numbers, strict=True)
    }
    return {
        **columns,
        "flags": {int(place): int(flag) for place, flag in zip(at, flagged, strict=True) if flag},
        "absent": np.setdiff1d(np.arange(count), at).tolist(),
    }


def _metrics(measured: Sequence[str], descriptions: Sequence[Mapping[str, str]]) -> Json:
    """Say of each metric what it means, and which other one is its null at the same place."""
    by_name = {entry["name"]: dict(entry) for entry in descriptions if entry["name"] in measured}
    unknown = {"family": "other", **dict.fromkeys(("definition", "range", "null", "source"), "")}
    return {
        name: {
            "name": name,
            **by_name.get(name, unknown),
            "reference": reference(name, by_name) if name in by_name else "",
            "words": in_words(name),
            "scale": "log" if name.startswith(("id_", "skdim.")) else "linear",  # of intrinsic dimensions
        }
        for name in _ranked(measured, by_name)
    }


def in_words(name: str) -> str:
    """Spell the name of a metric for readers.

    >>> in_words("id_twonn_surrogate")
    'dimension (TwoNN), Gaussian surrogate'
    """
    prefix = next((prefix for prefix in WORDS if name.startswith(prefix)), "")
    rest = (
        name.removeprefix(prefix)
        .replace("_null", ", null value")
        .replace("_surrogate", ", Gaussian surrogate")
    )
    return WORDS.get(prefix, "") + rest.replace("_", " ")


def reference(name: str, descriptions: Mapping[str, Mapping[str, str]]) -> str:
    """Name the metric that is the null value of this one; "" where none was measured.

    It is the one that the metric's own `null` names, or its own name with `_null`, or that of the metric that `null`
    refers to ("that of anisotropy").
    """
    if name.endswith(("_null", "_surrogate")):
        return ""
    words = descriptions[name]["null"]
    named = re.findall(r"\w+(?:_null|_surrogate)\b", words)
    found = [other for other in (*named, f"{name}_null", f"{name}_surrogate") if other in descriptions]
    if found:
        return found[0]
    referred = re.match(r"that of (\w+)", words)
    return reference(referred[1], descriptions) if referred and referred[1] in descriptions else ""


def _domes(profiles: pd.DataFrame) -> list[list[str | float | None]]:
    """Shape of each profile that the study describes: where its peak is, the dome index and its interval."""
    names = ["model", "checkpoint", "dataset", "rows", "metric", "peak_layer"]
    reals = ["dome_index", "dome_index_low", "dome_index_high"]
    return [
        [*row[:5], *(None if pd.isna(number) else float(f"{number:.3g}") for number in row[5:])]
        for row in profiles[names + reals].itertuples(index=False, name=None)
    ]
