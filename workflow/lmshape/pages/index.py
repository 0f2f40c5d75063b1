"""The findings: one HTML page with the claims and their verdicts, figures and tables; it needs no network.

Text, style and layout are in `workflow/report/index.html.j2`; here is what it shows.
"""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import ceil, isnan, log10, nan
from pathlib import Path
from typing import Any

import pandas as pd
from docutils.core import publish_parts
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lmshape import __version__
from lmshape.claims.claim import ALL_MODELS, VERDICTS
from lmshape.figures import FIGURES
from lmshape.metrics.registry import METRICS, added_metrics, describe
from lmshape.site import middle_layer
from lmshape.tables.files import read_table
from lmshape.tables.rows import final_checkpoints, first_dataset, has_flag, in_order, reason, trajectories
from lmshape.writing import replaced_when_whole

TEMPLATE = "index.html.j2"
SHOWN = ("metrics", "checkpoints", "profiles", "claims")
SMALLEST_CLAIMED = 10**8  # parameters
ARXIV = re.compile(r"arXiv\s(\d{4}\.\d{4,5}|[a-z-]+/\d{7})")
LARGEST_VECTOR = 700_000  # bytes; a picture of more paths loads slower than its pixels


# The page


def build_index(
    output: Path,
    *,
    tables_dir: Path,
    figures_dir: Path,
    captions_dir: Path,
    provenance: Mapping[str, Any],
    own: Path | None = None,
) -> None:
    """Write the findings of a study as one file; links to figures and tables beside it are relative.

    Parameters
    ----------
    output : HTML file to write
    tables_dir : folder of metrics, checkpoints, profiles and claims, each as .parquet and .csv
    figures_dir : folder of {name}.png, .svg and .csv; a figure that is not there is left out
    captions_dir : folder of {name}.rst for each figure and of the page's template
    provenance : what the tables do not say, shown as it is, nested as it is; of its keys `sampling` and
        `datasets` (name → description) go to the head of the page as well, and so does `runs` (pretraining
        run → its summary)
    own : file of the user's own metrics, which is run for what they mean
    """
    output, tables_dir, captions_dir = Path(output), Path(tables_dir), Path(captions_dir)
    read = {name: read_table(tables_dir / f"{name}.parquet") for name in SHOWN}
    metrics, profiles = read["metrics"], read["profiles"]
    pictures = [_picture(name, Path(figures_dir), captions_dir, output.parent) for name in FIGURES]
    runs = provenance.get("runs") or {}
    tables = {
        "models": models(metrics),
        "runs": pd.DataFrame([{"run": run, **summary} for run, summary in runs.items()]),
        "findings": findings(metrics, profiles),
        "layers": last_layers(metrics),
        "checkpoints": checkpoints(read["checkpoints"]),
        "profiles": domes(profiles),
        "flags": flags(metrics),
        "definitions": pd.DataFrame(describe(added_metrics(metrics["metric"].unique(), own))),
    }
    page = _template(captions_dir).render(
        study=", ".join(in_order(metrics["study"])),
        datasets=in_order(metrics["dataset"]),
        numbers=len(metrics),
        claims=summaries(read["claims"]),
        counts=counts(read["claims"]),
        verdicts=VERDICTS,
        small=_largest_if_small(metrics),
        pictures=[picture for picture in pictures if picture],
        links={name: _relative(tables_dir / f"{name}.csv", output.parent) for name in SHOWN},
        provenance={"versions": versions(), **provenance},
        **{name: table(frame) for name, frame in tables.items()},
    )
    with replaced_when_whole(output) as partial:
        partial.write_text(page, encoding="utf-8")


def _largest_if_small(metrics: pd.DataFrame) -> int:
    """Parameters of the largest model where it is smaller than any that the claims are about; else 0."""
    largest = int(metrics["parameters"].max()) if len(metrics) else 0
    return largest if largest < SMALLEST_CLAIMED else 0


def versions() -> dict[str, str]:
    """Give the versions of Python, lmshape and the libraries whose results the report shows."""
    libraries = ("torch", "transformers", "numpy", "scipy", "pandas", "matplotlib", "snakemake")
    installed = {name: version(name) for name in libraries}
    return {"python": platform.python_version(), "lmshape": __version__, **installed}


def _template(folder: Path) -> Template:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["arxiv"] = _arxiv
    return environment.get_template(TEMPLATE)


def _arxiv(text: str) -> Markup:
    return Markup(_linked(str(escape(text))))


def _linked(html: str) -> str:
    """Make each arXiv number a link: the one thing of the page that leads out of it."""
    return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">\g<0></a>', html)


# Figures


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure of the page: its picture as a data address, what it shows in words, and its files."""

    name: str
    title: str
    source: str
    caption: str
    alternative: str
    files: dict[str, str]


def _picture(name: str, figures_dir: Path, captions_dir: Path, page_dir: Path) -> Picture | None:
    files = {end: figures_dir / f"{name}.{end}" for end in ("png", "svg", "csv")}
    if not all(path.is_file() for path in files.values()):
        return None
    vector = files["svg"].stat().st_size <= LARGEST_VECTOR
    path, kind = (files["svg"], "image/svg+xml") if vector else (files["png"], "image/png")
    title = FIGURES[name].load().title
    text = (captions_dir / f"{name}.rst").read_text(encoding="utf-8")
    return Picture(
        name=name,
        title=title,
        source=f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}",
        caption=_linked(_html(text)),
        alternative=f"{title}. {' '.join(text.split('. ')[0].split())}.",
        files={end: _relative(path, page_dir) for end, path in files.items()},
    )


def _html(text: str) -> str:
    settings = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 2, "halt_level": 2}
    return publish_parts(text, writer="html5", settings_overrides=settings)["body"]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


# Tables: the study's own, cut down to what a reader looks for, numbers written shortly

MOST_ROWS = 2000  # of a table in the page; the whole is in its CSV file
MOST_DECIMALS = 4  # of a number that may be 0; one that is surely not has up to two more
FINEST = 8  # decimals that tell a bound from a threshold; what is nearer is rounding


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table: what is read, what it is sorted by, and why it is to be read with care."""

    text: str
    key: float | str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page; `total` counts its rows before it was cut to `MOST_ROWS`."""

    columns: list[str]
    rows: list[list[Cell]]
    total: int


def models(metrics: pd.DataFrame) -> pd.DataFrame:
    """Say of each model what it is, how much of its training was followed, and its last loss."""
    rows = []
    for model, of_model in metrics.groupby("model", sort=False):
        first, steps = of_model.iloc[0], of_model["step"]
        loss = first_dataset(final_checkpoints(of_model)).query("metric == 'loss'")
        rows.append(
            {
                "model": model,
                "kind": first["kind"],
                "architecture": first["family"],
                "parameters": first["parameters"],
                "blocks": of_model["layer"].max(),
                "width": of_model["d"].max(),
                "checkpoints": of_model["checkpoint"].nunique(),
                "steps": f"{steps.min()} to {steps.max()}" if steps.min() < steps.max() else f"{steps.max()}",
                "tokens seen": of_model["tokens_seen"].max(),
                "last loss, nats per token": interval(loss.iloc[0])
                if len(loss)
                else Cell("not measured", ""),
            }
        )
    return pd.DataFrame(rows)


def findings(metrics: pd.DataFrame, profiles: pd.DataFrame) -> pd.DataFrame:
    """Give a few numbers of each model and choice of rows on the first dataset: the dome, the dimension."""
    last = final_checkpoints(first_dataset(profiles)).set_index(["model", "rows"])
    found = []
    layers = first_dataset(metrics).query("site in ('embedding', 'block')")
    for (model, rows), of_rows in layers.groupby(["model", "rows"], sort=False):
        row = {"model": model, "kind": of_rows["kind"].iloc[0], "rows": rows}
        if (model, rows) in last.index:
            row |= _dome(last.loc[(model, rows)], int(of_rows["layer"].max()))
        found.append(row | _dimension(of_rows[of_rows["metric"] == "id_twonn"]))
    return pd.DataFrame(found)


def _dome(profile: pd.Series, blocks: int) -> dict[str, Cell]:
    peak = profile["peak_layer"]
    return {
        "peak of anisotropy": interval(profile, "height", "height_low", "height_high"),
        "at layer": Cell("–", "") if pd.isna(peak) else Cell(f"{peak:.0f} of {blocks}", float(peak)),
        "dome index": interval(profile, "dome_index", "dome_index_low", "dome_index_high"),
    }


def _dimension(of_model: pd.DataFrame) -> dict[str, Cell]:
    """Give the middle layer's dimension at the first step, where it is greatest, and at the last step."""
    steps = trajectories(of_model)
    steps = steps[steps["value"].notna()]
    if steps.empty:
        return {}
    middle = steps[steps["layer"] == middle_layer(int(steps["layer"].max()))]
    greatest = middle.loc[middle["value"].idxmax()]
    return {
        "middle layer's dimension, first": interval(middle.iloc[0]),
        "greatest": interval(greatest),
        "at step": Cell(f"{greatest['step']}", float(greatest["step"])),
        "last": interval(middle.iloc[-1]),
    }


def last_layers(metrics: pd.DataFrame) -> pd.DataFrame:
    """Give every metric of every layer of the last checkpoints, one row a layer, one column a metric."""
    last = final_checkpoints(metrics[metrics["site"] != "output"])
    present = list(dict.fromkeys(last["metric"]))
    names = [name for name in METRICS if name in present] + [name for name in present if name not in METRICS]
    keys = ["model", "dataset", "rows", "layer", "site"]
    rows = []
    for key, of_layer in last.groupby(keys, sort=False):
        cells = of_layer.set_index("metric")
        values = {name: interval(cells.loc[name]) if name in cells.index else Cell("–", "") for name in names}
        rows.append(dict(zip(keys, key, strict=True)) | {"site": key[-1].replace("_", " ")} | values)
    return pd.DataFrame(rows)


def checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each checkpoint's loss on each dataset, the beginning of its weights' fingerprint, and the hub's audit."""
    shown = frame[["model", "kind", "checkpoint", "step", "tokens_seen", "dataset"]].copy()
    shown["loss, nats per token"] = [
        interval(row, "loss", "loss_low", "loss_high") for _, row in frame.iterrows()
    ]
    shown["weights (sha256)"] = frame["weights_sha256"].str.slice(0, 12)
    audited = ["verdict", "note"] if frame["verdict"].fillna("").any() else []
    return shown.join(frame[["duplicate_of", *audited, "flag"]])


def domes(profiles: pd.DataFrame) -> pd.DataFrame:
    """Give the profile of anisotropy over the blocks of each cell."""
    shown = profiles[["model", "checkpoint", "step", "dataset", "rows", "peak_layer", "peak_depth"]].copy()
    for name in ("height", "dome_index"):
        bounds = (name, f"{name}_low", f"{name}_high")
        shown[name] = [interval(row, *bounds) for _, row in profiles.iterrows()]
    return shown.assign(edges=profiles["edges"], flag=profiles["flag"])


def flags(metrics: pd.DataFrame) -> pd.DataFrame:
    """Count the flagged numbers by model, dataset, metric and reason, with one flag in full."""
    flagged = metrics[has_flag(metrics)]
    flagged = flagged.assign(reason=flagged["flag"].map(reason), missing=flagged["value"].isna())
    groups = flagged.groupby(["model", "dataset", "metric", "reason"], sort=False)
    counts = groups.agg(
        numbers=("flag", "size"),
        without_value=("missing", "sum"),
        checkpoints=("checkpoint", "nunique"),
        layers=("layer", _listed),
        example=("flag", "first"),
    )
    return counts.reset_index()


def _listed(layers: pd.Series) -> str:
    return ", ".join(str(layer) for layer in sorted(set(layers)))


def table(frame: pd.DataFrame) -> Table:
    """Turn a frame into what the page shows: numbers shortly, NaN as a dash, at most `MOST_ROWS` rows."""
    rows = [[_cell(value) for value in row] for row in frame.head(MOST_ROWS).itertuples(index=False)]
    return Table([str(name).replace("_", " ") for name in frame.columns], rows, len(frame))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(value, value)
    if pd.isna(value):
        return Cell("–", "")
    return Cell(_short(float(value)), float(value))


def _short(number: float) -> str:
    """Write a number without interval: whole from 1000 on, else with three digits."""
    whole = abs(number) >= 1000 or number == round(number)
    return f"{number:,.0f}" if whole else f"{number:.3g}"


def interval(
    row: pd.Series,
    name: str = "value",
    low: str = "ci_low",
    high: str = "ci_high",
    flag: str = "flag",
    *,
    apart_from: float = nan,
) -> Cell:
    """Write a number with its interval, 0.230 [0.211, 0.249], with no more decimals than the interval supports.

    A bound that is not `apart_from`, the threshold of a rule, is not written as if it were.
    """
    value, why = float(row[name]), str(row[flag] or "")
    if isnan(value):
        return Cell("–", "", why)
    if isnan(row[low]):
        return Cell(_short(value), value, why)
    return Cell(_with_bounds(value, float(row[low]), float(row[high]), apart_from), value, why)


def _with_bounds(value: float, low: float, high: float, threshold: float) -> str:
    if high == low or all(number == round(number) for number in (value, low, high)):
        return f"{_short(value)} [{_short(low)}, {_short(high)}]"
    most = MOST_DECIMALS + 2 * (low * high > 0)
    # The particle data group's rule: an error of 0.011 to 0.035 has two digits, one of 0.036 to 0.099 has one.
    decimals = min(max(2 - ceil(log10((high - low) / 2 / 0.355)), 0), most)
    while decimals < FINEST and any(bound != threshold == round(bound, decimals) for bound in (low, high)):
        decimals += 1
    # + 0.0: what rounds to 0 from below has no sign.
    written = [f"{round(number, decimals) + 0.0:,.{decimals}f}" for number in (value, low, high)]
    return f"{written[0]} [{written[1]}, {written[2]}]"


# Claims

MOST_NUMBERS = 3  # beside a verdict; the table below has all
ROWS = {"all": "all rows", "no_sink": "without sinks", "one_per_type": "one row a token id"}


@dataclass(frozen=True, slots=True)
class Answer:
    """The verdict with one choice of rows, and on how many models it rests."""

    rows: str
    verdict: str
    why: str


@dataclass(frozen=True, slots=True)
class ClaimSummary:
    """One claim of the page."""

    slug: str
    sentence: str
    source: str
    statistic: str
    rule: str
    answers: list[Answer]
    numbers: Table

    @property
    def measured(self) -> bool:
        """Whether this study says anything about it."""
        return any(answer.verdict != "not measurable" for answer in self.answers)


def summaries(claims: pd.DataFrame) -> list[ClaimSummary]:
    """Sum up the table `claims`, one entry a claim, in its order."""
    return [_summary(of_claim) for _, of_claim in claims.groupby("slug", sort=False)]


def counts(claims: pd.DataFrame) -> dict[str, int]:
    """Count the claims by the verdict of the row that answers each."""
    answers = list(claims.loc[claims["part"] == "answer", "verdict"])
    return {verdict: answers.count(verdict) for verdict in VERDICTS}


def _summary(of_claim: pd.DataFrame) -> ClaimSummary:
    first = of_claim.iloc[0]
    said = {name: str(first[name]) for name in ("slug", "sentence", "source", "statistic", "rule")}
    return ClaimSummary(answers=list(_answers(of_claim)), numbers=_numbers(of_claim), **said)


def _answers(of_claim: pd.DataFrame) -> Iterator[Answer]:
    for rows, of_rows in of_claim.groupby("rows", sort=False):
        together = of_rows[of_rows["model"] == ALL_MODELS]
        single = of_rows[of_rows["model"] != ALL_MODELS]
        shown = together.iloc[0] if len(together) else _weakest(of_rows)
        told = list(_told(single[single["verdict"] != "not measurable"]))
        lone = [shown["why"]] if len(together) or not told else []
        why = ". ".join(filter(None, [*lone, *_corrected(single), "; ".join(told)]))
        yield Answer(ROWS.get(rows, rows), shown["verdict"], why)


def _told(measured: pd.DataFrame) -> Iterator[str]:
    for _, row in measured.head(MOST_NUMBERS).iterrows():
        yield _numbered(row)
    if (more := len(measured) - MOST_NUMBERS) > 0:
        yield f"{more} more below"


def _corrected(single: pd.DataFrame) -> list[str]:
    """Say which verdicts the correction for many tests took back."""
    lost = single[(single["verdict"] == "undecided") & (single["rule_says"] != "undecided")]
    if lost.empty:
        return []
    alone = ", ".join(
        f"{verdict} in {count}" for verdict, count in lost["rule_says"].value_counts(sort=False).items()
    )
    return [f"after correction for {single['p'].notna().sum()} tests undecided, each alone {alone}"]


def _weakest(of_rows: pd.DataFrame) -> pd.Series:
    """Of the places of a single model, one whose verdict is not the best: a claim holds where it holds everywhere."""
    order = ("contradicted", "undecided", "supported", "out of scope", "not measurable")
    ranks = of_rows["verdict"].map(order.index)
    return of_rows.loc[ranks.idxmin()]


def _numbered(row: pd.Series) -> str:
    """Spell a finding: its number, or its words where the rule has no threshold to hold a number against."""
    place = f", {row['place']}" if row["place"] else ""
    told = row["why"] if pd.isna(row["threshold"]) and row["why"] else _value(row).text
    return f"{row['model']}{place}: {told}"


def _numbers(of_claim: pd.DataFrame) -> Table:
    single = of_claim[of_claim["model"] != ALL_MODELS]
    rows = single["rows"].map(lambda name: ROWS.get(name, name))
    shown = single[["model", "dataset"]].assign(rows=rows, place=single["place"])
    shown["statistic"] = [_value(row) for _, row in single.iterrows()]
    shown = shown.assign(threshold=single["threshold"], verdict=single["verdict"])
    shown["the rule alone"] = single["rule_says"]
    if (single["published"] != "").any():
        shown["published"] = [
            Cell(text, text, source)
            for text, source in zip(single["published"], single["published_source"], strict=True)
        ]
    return table(shown.assign(why=single["why"]))


def _value(row: pd.Series) -> Cell:
    cell = interval(row, "number", "ci_low", "ci_high", "why", apart_from=row["threshold"])
    return Cell(cell.text, cell.key)
