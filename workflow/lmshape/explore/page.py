"""The page itself: template, style and programs of workflow/report/explore, and plotly.js, in one file.

What it may do stands in its Content-Security-Policy: run the two programs that it was written with, and nothing from
elsewhere. No browser will ask the network for anything on its behalf.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from lmshape import __version__
from lmshape.explore.contents import contents
from lmshape.metrics import describe, own_metrics
from lmshape.tables.files import read_table
from lmshape.writing.atomic import replaced_when_whole

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
