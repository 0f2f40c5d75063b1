"""The page of a study: what it shows, the claims with their verdicts, figures and provenance; it needs no network.

Text, style and layout are in `workflow/report/index.html.j2`; here is what it shows.
"""

from __future__ import annotations

import base64
import os
import platform
import re
from collections.abc import Collection, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from docutils.core import publish_parts
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from lmshape import __version__
from lmshape.claims.claim import ALL_MODELS, VERDICTS
from lmshape.figures import FIGURES
from lmshape.figures.selection import VARIANT_NAMES
from lmshape.metrics.registry import added_metrics, describe
from lmshape.pages.glance import EXPLORER, HEIGHT, WIDTH, glances
from lmshape.pages.numbers import Entry, Table, interval, table
from lmshape.tables.columns import read_table
from lmshape.tables.rows import final_checkpoints, first_dataset, has_flag, in_order, reason
from lmshape.writing import replaced_when_whole

TEMPLATE = "index.html.j2"
SHOWN = ("metrics", "checkpoints", "profiles", "claims", "warnings", "before_spikes")
ARXIV = re.compile(r"arXiv\s(\d{4}\.\d{4,5}|[a-z-]+/\d{7})")
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LARGEST_VECTOR = 700_000  # bytes; a picture of more paths loads slower than its pixels


# The page


def build_index(
    output: Path,
    *,
    tables_dir: Path,
    figures_dir: Path,
    captions_dir: Path,
    provenance: Mapping[str, Any],
    unstable: Collection[str] = (),
    own: Path | None = None,
) -> None:
    """Write the page of a study as one file; links to figures and tables beside it are relative.

    Parameters
    ----------
    output : HTML file to write
    tables_dir : folder of the tables `SHOWN`, each as .parquet and .csv
    figures_dir : folder of {name}.png, .svg and .csv; a figure that is not there is left out
    captions_dir : folder of {name}.rst for each figure and of the page's template
    provenance : what the tables do not say, shown as it is, nested as it is; of its keys `runs` (pretraining run →
        its summary) is a table
    unstable : models that were trained to fail: the first screen leaves them out
    own : file of the user's own metrics, which is run for what they mean
    """
    output, tables_dir, captions_dir = Path(output), Path(tables_dir), Path(captions_dir)
    read = {name: read_table(tables_dir / f"{name}.parquet") for name in SHOWN}
    metrics = read["metrics"]
    files = {
        name: {end: Path(figures_dir) / f"{name}.{end}" for end in ("png", "svg", "csv")} for name in FIGURES
    }
    drawn = [name for name in FIGURES if all(path.is_file() for path in files[name].values())]
    claims = claim_rows(read["claims"], figures=drawn)
    before_spikes = FIGURES["warnings"].load().data(read) if "warnings" in drawn else None
    runs = provenance.get("runs") or {}
    tables = {
        "models": models(metrics),
        "runs": pd.DataFrame([{"run": run, **summary} for run, summary in runs.items()]),
        "checkpoints": checkpoints(read["checkpoints"]),
        "flags": flags(metrics),
        "definitions": pd.DataFrame(describe(added_metrics(metrics["metric"].unique(), own))),
    }
    told = {name: value for name, value in provenance.items() if name != "runs"}
    page = _template(captions_dir).render(
        study=", ".join(in_order(metrics["study"])),
        datasets=in_order(metrics["dataset"]),
        numbers=len(metrics),
        glances=glances(metrics, read["profiles"], before_spikes, unstable=unstable),
        field=(WIDTH, HEIGHT),
        explorer=EXPLORER,
        claims=list(claims.itertuples()),
        counts=counted(claims),
        sources=SOURCES,
        verdicts=VERDICTS,
        pictures=[_picture(name, files[name], captions_dir, output.parent) for name in drawn],
        links={name: _relative(tables_dir / f"{name}.csv", output.parent) for name in SHOWN},
        provenance={"versions": versions(), **told},
        **{name: table(frame) for name, frame in tables.items()},
    )
    with replaced_when_whole(output) as partial:
        partial.write_text(page, encoding="utf-8")


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
    environment.filters["prose"] = _prose
    return environment.get_template(TEMPLATE)


def _prose(text: object) -> Markup:
    """Escape a text, and set its code between backticks as code and its arXiv numbers as links."""
    return Markup(_linked(CODE.sub(r"<code>\1</code>", str(escape(text)))))


def _linked(html: str) -> str:
    """Make each arXiv number a link: the one thing of the page that leads out of it."""
    return ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">\g<0></a>', html)


# Figures


def _picture(name: str, files: Mapping[str, Path], captions_dir: Path, page_dir: Path) -> dict[str, Any]:
    """Return what the page says of a figure: its picture as a data address, what it shows in words, and its files."""
    vector = files["svg"].stat().st_size <= LARGEST_VECTOR
    path, kind = (files["svg"], "image/svg+xml") if vector else (files["png"], "image/png")
    title = FIGURES[name].load().title
    text = (captions_dir / f"{name}.rst").read_text(encoding="utf-8")
    return {
        "name": name,
        "title": title,
        "source": f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}",
        "caption": _linked(_html(text)),
        "alternative": f"{title}. {' '.join(text.split('. ')[0].replace('`', '').split())}.",
        "files": {end: _relative(path, page_dir) for end, path in files.items()},
    }


def _html(text: str) -> str:
    settings = {"raw_enabled": False, "file_insertion_enabled": False, "report_level": 2, "halt_level": 2}
    text = CODE.sub(r"``\1``", text)  # in reStructuredText one backtick is a title
    return publish_parts(text, writer="html5", settings_overrides=settings)["body"]


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


# Tables: the study's own, cut down to what a reader looks for


def models(metrics: pd.DataFrame) -> pd.DataFrame:
    """List the facts, the measured steps and the last loss of each model."""
    facts = metrics.groupby("model", sort=False).agg(
        kind=("kind", "first"),
        architecture=("family", "first"),
        parameters=("parameters", "first"),
        blocks=("layer", "max"),
        width=("d", "max"),
        checkpoints=("checkpoint", "nunique"),
        steps=("step", _range),
        tokens_seen=("tokens_seen", "max"),
    )
    losses = first_dataset(final_checkpoints(metrics)).query("metric == 'loss'")
    known = {row["model"]: interval(row) for _, row in losses.iterrows()}
    last = [known.get(model, Entry("not measured", "")) for model in facts.index]
    return facts.assign(**{"last loss, nats per token": last}).reset_index()


def _range(steps: pd.Series) -> str:
    return f"{steps.min()} to {steps.max()}" if steps.min() < steps.max() else f"{steps.max()}"


def checkpoints(frame: pd.DataFrame) -> pd.DataFrame:
    """Give each checkpoint's loss on each dataset, the beginning of its weights' fingerprint, and the hub's audit."""
    shown = frame[["model", "kind", "checkpoint", "step", "tokens_seen", "dataset"]].copy()
    shown["loss, nats per token"] = [interval(row, "loss") for _, row in frame.iterrows()]
    shown["weights (sha256)"] = frame["weights_sha256"].str.slice(0, 12)
    audited = ["verdict", "note"] if frame["verdict"].fillna("").any() else []
    return shown.join(frame[["duplicate_of", *audited, "flag"]])


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


# The claims: sentence, verdict, number and picture; those that the study cannot test apart

SOURCES = {
    "article": "The article and its authors",
    "later paper": "Later papers",
    "our addition": "Our additions",
}
OUTSIDE = ("out of scope", "not measurable")
# The claims beside a figure; a claim has the first of its figures that the study draws.
PICTURES = {
    "sinks": "sinks",
    "cone": "high_raw_cosines isotropic_encoders",
    "warnings": "rises_before_a_spike warns warns_better",
    "losses": "rises_before_a_spike warns warns_better",
    "phases": "transition_near_1000 early_collapse three_phases peak_of_rankme",
    "controls": "random_tokens random_trajectory random_dimension",
    "anisotropy_by_layer": (
        "dome isotropic_ends nearly_a_line plateau_onset sinks uniform_encoders isotropic_encoders "
        "decoders_over_encoders one_profile no_plateau_in_olmo_2 isotropic_output"
    ),
    "anisotropy_over_training": "converge grows grows_after_2000 none_before_1000",
    "dimension_by_layer": "low_dimension under_its_gaussian",
    "dimension_over_training": "rise_then_fall one_course transition_near_1000 random_trajectory",
    "linearity_by_layer": "linear_blocks",
    "truncation": "few_directions",
}


def claim_rows(claims: pd.DataFrame, *, figures: Collection[str]) -> pd.DataFrame:
    """Take the row of the table `claims` that answers each claim, in its order, with what the page shows beside it.

    Parameters
    ----------
    claims : table `claims` of the study
    figures : names of the figures that the page holds

    Returns
    -------
    The columns of the table; `number` in words: with its interval and model, of several models the range of theirs.
    `decided` says whether the study can test the claim, `figure` which is beside it, "" where the study draws none, and
    `details` has the numbers of all models, rows and places.
    """
    answers, single = claims[claims["part"] == "answer"], claims[claims["model"] != ALL_MODELS]
    behind = [single[single["slug"] == slug] for slug in answers["slug"]]
    beside = {slug: name for name in reversed(PICTURES) if name in figures for slug in PICTURES[name].split()}
    return answers.assign(
        number=[
            _number(row, of_claim) for (_, row), of_claim in zip(answers.iterrows(), behind, strict=True)
        ],
        decided=~answers["verdict"].isin(OUTSIDE),
        figure=[beside.get(slug, "") for slug in answers["slug"]],
        details=[_details(of_claim) for of_claim in behind],
    )


def counted(claims: pd.DataFrame) -> list[tuple[str, dict[str, int]]]:
    """Count the verdicts of the claims of each kind of source, in the order of `SOURCES`."""
    counts: list[tuple[str, dict[str, int]]] = []
    for kind, source in SOURCES.items():
        said = claims.loc[claims["source_kind"] == kind, "verdict"].value_counts()
        if len(said):
            counts.append((source, {str(verdict): said[verdict] for verdict in VERDICTS if verdict in said}))
    return counts


def _number(answer: pd.Series, of_claim: pd.DataFrame) -> str:
    if pd.notna(answer["number"]):
        place = f", {answer['place']}" if answer["place"] else ""
        return f"{answer['model']}{place}: {_value(answer).text}"
    single = of_claim[of_claim["rows"] == answer["rows"]]
    numbers = single["number"].dropna()
    if numbers.empty:
        return ""
    low, high = (_value(single.loc[end]).text.split(" [")[0] for end in (numbers.idxmin(), numbers.idxmax()))
    models = single["model"].nunique()
    return f"{f'{models} models' if models > 1 else single['model'].iloc[0]}: {low} to {high}"


def _details(of_claim: pd.DataFrame) -> Table:
    """Lay out the numbers of a claim; columns that say nothing here are left out."""
    shown = of_claim.assign(
        rows=of_claim["rows"].replace(VARIANT_NAMES),
        number=[_value(row) for _, row in of_claim.iterrows()],
        published=[
            Entry(text, text, source)
            for text, source in zip(of_claim["published"], of_claim["published_source"], strict=True)
        ],
    )
    columns = ["model", "dataset", "rows", "place", "number", "threshold", "rule_says", "published", "why"]
    told = [
        name for name in columns if any(cell.text not in ("", "–") for [cell] in table(shown[[name]]).rows)
    ]
    heads = {"threshold": "compared with", "rule_says": "the rule says"}
    return table(shown[told].rename(columns=heads))


def _value(row: pd.Series) -> Entry:
    return interval(row, "number", flag="", apart_from=row["threshold"])
