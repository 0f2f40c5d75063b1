"""The report: complete, self-contained, readable by machines and people, honest about what is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from claim_studies import rows_of, study_of

from lmshape.claims import CLAIMS, decide
from lmshape.dynamics.profiles import profiles
from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.pages import findings
from lmshape.pages.findings import LARGEST_VECTOR, SHOWN, Cell, build_findings
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import checkpoints

pytestmark = pytest.mark.slow

CAPTIONS = Path(__file__).parents[2] / "workflow" / "report"
STEPS = (0, 1, 64)
LEVEL = np.full(4, 0.3)
SITES = (("embedding", 0), ("block", 1), ("block", 2), ("block", 3), ("block", 4), ("final_norm", 4))
PROVENANCE = {
    "datasets": {"wiki": "tokens of enwik8-excerpt", "wiki-random": "tokens drawn at random"},
    "sampling": {"window": 128, "draws": 5, "seed": 0},
    "runs": {
        "wiki-decoder": {"architecture": "gpt_neox", "unigram_entropy_nats": 6.51},
        "spiking": {"architecture": "gpt_neox", "unigram_entropy_nats": 6.51},
    },
    "config": ["config/config.yaml", "config/<local>.yaml"],
}


def metrics_table() -> pd.DataFrame:
    """Metrics of a decoder with a dome and of a flat encoder; the embedding's dimension is flagged."""
    rows = []
    for model, kind in (("wiki-decoder", "decoder"), ("wiki-encoder", "encoder")):
        for step in STEPS:
            for dataset in ("wiki", "wiki-random"):
                cell = {
                    "study": "synthetic", "model": model, "family": "gpt_neox", "kind": kind,
                    "parameters": 1_234_567, "checkpoint": f"checkpoint-{step}", "step": step,
                    "tokens_seen": 1024.0 * step, "dataset": dataset, "rows": "all", "draws": 5,
                    "n_rows": 5120, "n_unique": 4800, "d": 128, "seed": 0, "flag": "", "verdict": "",
                }  # fmt: skip
                for site, layer in SITES:
                    place = {"site": site, "layer": layer, "depth": layer / 4}
                    dome = 0.1 + 0.2 * layer * (4 - layer) * (step > 0) * (kind == "decoder")
                    flag = "fewer unique rows: 412 of 1024 per draw" if layer == 0 else ""
                    for variant in ("all", "no_sink"):
                        rows.append(cell | place | number("anisotropy", dome) | {"rows": variant})
                        rows.append(
                            cell | place | number("id_twonn", 10 + layer) | {"rows": variant, "flag": flag}
                        )
                output = {"site": "output", "layer": 4, "depth": 1.0}
                rows.append(cell | output | number("loss", 7.6 - step / 20))
    return pd.DataFrame(rows).reindex(columns=COLUMNS.names)


def number(metric: str, value: float) -> dict[str, object]:
    return {"metric": metric, "value": value, "ci_low": 0.9 * value, "ci_high": 1.1 * value}


def weights(metrics: pd.DataFrame) -> pd.DataFrame:
    cells = metrics[["model", "checkpoint"]].drop_duplicates()
    unknown = dict.fromkeys(("commit", "verdict", "note"), "")
    return cells.assign(**unknown, weights_sha256=[f"{i:064x}" for i in range(len(cells))])


def write_tables(folder: Path, metrics: pd.DataFrame) -> None:
    folder.mkdir()
    metrics.to_parquet(folder / "metrics.parquet")
    checkpoints(metrics, weights(metrics)).to_parquet(folder / "checkpoints.parquet")
    profiles(metrics).to_parquet(folder / "profiles.parquet")
    rng = np.random.default_rng(0)
    made_up = study_of(
        *(rows_of(LEVEL, rng, model=model, noise=0.002) for model in ("wiki-decoder", "another"))
    )
    decide(made_up).to_parquet(folder / "claims.parquet")


def write_figures(folder: Path) -> None:
    folder.mkdir()
    for name in FIGURES:
        (folder / f"{name}.svg").write_text(f"<svg xmlns='http://www.w3.org/2000/svg'><!-- {name} --></svg>")
        (folder / f"{name}.png").write_bytes(b"\x89PNG " + name.encode())
        (folder / f"{name}.csv").write_text("value\n")


class Page(HTMLParser):
    """What a page refers to, its identifiers, its pictures, and whether its tags are closed in order."""

    VOID = ("meta", "img", "br", "link", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.headings: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.references += [
            given[key] for key in ("src", "href", "srcset", "action", "poster") if given.get(key)
        ]
        self.ids += [given["id"]] if "id" in given else []
        self.images += [given] if tag == "img" else []
        self.headings += [given] if tag == "th" else []
        self.open += [tag] if tag not in self.VOID else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Folder with tables, figures and the report of a small study."""
    folder = tmp_path_factory.mktemp("results")
    write_tables(folder / "tables", metrics_table())
    write_figures(folder / "figures")
    build(folder, PROVENANCE)
    return folder


@pytest.fixture(scope="module")
def page(study) -> str:
    return (study / "findings.html").read_text(encoding="utf-8")


def build(
    folder: Path, provenance: dict[str, object], captions: Path = CAPTIONS, own: Path | None = None
) -> None:
    build_findings(
        folder / "findings.html",
        tables_dir=folder / "tables",
        figures_dir=folder / "figures",
        captions_dir=captions,
        provenance=provenance,
        own=own,
    )


# The page


def test_nothing_is_loaded_from_a_network(page):
    followed = "https://arxiv.org/abs/"  # by a click alone
    for reference in Page(page).references:
        assert reference.startswith(("#", "data:image/", "figures/", "tables/", followed)), reference
    rest = page.replace(f'<a href="{followed}', "")
    assert not re.search(r"@import|url\(|<link|<iframe|fetch\(|XMLHttpRequest|https?://", rest)


def test_arxiv_numbers_are_links_wherever_they_can_be_read(page):
    read = re.findall(r"arXiv\s(\d{4}\.\d{4,5})", re.sub(r"<[^>]+>", " ", page))
    assert {"2311.05928", "2405.12250"} <= set(read)
    assert re.findall(r'<a href="https://arxiv\.org/abs/([\d.]+)">arXiv\s\1</a>', page) == read


def test_tags_are_balanced_and_links_within_the_page_arrive(page):
    parsed = Page(page)
    assert parsed.open == []
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert {link[1:] for link in parsed.references if link.startswith("#")} <= set(parsed.ids)


def test_links_to_files_are_relative_to_the_page(page):
    files = [link for link in Page(page).references if link.startswith(("figures/", "tables/"))]
    assert {f"figures/{name}.{end}" for name in FIGURES for end in ("png", "svg", "csv")} <= set(files)
    assert {f"tables/{name}.csv" for name in SHOWN} <= set(files)


def test_every_figure_is_inside_with_words_for_those_who_cannot_see_it(page):
    images = Page(page).images
    assert len(images) == len(FIGURES)
    for image, name in zip(images, FIGURES, strict=True):
        kind, _, content = image["src"].partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert f"<!-- {name} -->" in base64.b64decode(content).decode()
        assert image["alt"].startswith(FIGURES[name].load().title)


def test_captions_are_set_as_html(page):
    assert "<p>Intrinsic dimension at a few blocks over training steps" in page


def test_what_lowers_the_dimension_and_what_a_dome_is_are_said_where_they_are_shown(page):
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert (
        "its nearest neighbor is mostly the same token elsewhere in the text" in text[text.index("Figures") :]
    )
    assert "over the larger of the first and the last block" in text
    assert "over the embedding and the blocks" not in text


def test_every_claim_stands_with_its_verdict_rule_and_numbers(page):
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for claim in CLAIMS:
        assert f'id="claim-{claim.slug}"' in page
        assert claim.sentence in text.replace("&#39;", "'")
    shape = text[text.index("In decoders anisotropy over the layers") :]
    assert "out of scope all rows: contradicted in 2 of 2 models" in shape[:400]
    assert "Claims that the cells of this study cannot decide" in text
    assert "The largest model here has 1,234,567 parameters." in text


def test_runs_that_are_no_model_are_listed_too(page):
    runs = page[page.index("<summary>Pretraining runs") :]
    assert 'data-key="spiking"' in runs[: runs.index("</table>")]


def test_table_headings_say_what_they_head(page):
    headings = Page(page).headings
    assert headings
    assert {heading.get("scope") for heading in headings} == {"col", "row"}


def test_it_says_what_was_run(page):
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for words in (
        "The shape of learning: study “synthetic”",
        "2 models",
        "2 datasets (wiki, wiki-random)",
        "1,234,567",
        "0 to 64",
        "4.4 [4.0, 4.8]",
        "6.51",
        "tokens drawn at random",
        "config/config.yaml, config/&lt;local&gt;.yaml",
        "torch",
    ):
        assert words in text, words


def test_it_is_small_and_written_whole(study, page):
    assert len(page) < 500_000
    assert sorted(path.name for path in study.iterdir()) == ["figures", "findings.html", "tables"]


def test_the_same_study_gives_the_same_page(study, page):
    build(study, PROVENANCE)
    assert (study / "findings.html").read_text(encoding="utf-8") == page


def test_the_users_own_metrics_are_described(study, tmp_path):
    (tmp_path / "own.py").write_text('def mine(x):\n    """A number of mine."""\n    return 1\n')
    (tmp_path / "tables").symlink_to(study / "tables")
    (tmp_path / "figures").symlink_to(study / "figures")
    build(tmp_path, PROVENANCE, own=tmp_path / "own.py")
    described = (tmp_path / "findings.html").read_text(encoding="utf-8")
    assert "A number of mine" in described[described.index('<section id="definitions"') :]


def test_names_from_the_study_are_text_not_markup(tmp_path):
    metrics = metrics_table().replace({"model": {"wiki-decoder": "<script>alert(1)</script>"}})
    write_tables(tmp_path / "tables", metrics)
    build(tmp_path, {"note": "<b>"})
    page = (tmp_path / "findings.html").read_text()
    assert "<script>alert" not in page and "<b>" not in page


def test_a_study_without_figures_and_numbers_has_a_report(tmp_path):
    write_tables(tmp_path / "tables", metrics_table())
    for name in SHOWN:
        table = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        table.iloc[:0].to_parquet(tmp_path / "tables" / f"{name}.parquet")
    build(tmp_path, {})
    page = (tmp_path / "findings.html").read_text()
    assert "No figure was drawn." in page and "Checkpoints and their loss: none." in page
    assert Page(page).open == []


def test_a_picture_of_many_paths_is_taken_as_pixels(tmp_path):
    write_tables(tmp_path / "tables", metrics_table())
    write_figures(tmp_path / "figures")
    (tmp_path / "figures" / "controls.svg").write_text(" " * (LARGEST_VECTOR + 1))
    build(tmp_path, {})
    kinds = [image["src"][:15] for image in Page((tmp_path / "findings.html").read_text()).images]
    assert kinds.count("data:image/png;") == 1


def test_missing_tables_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"metrics.parquet` does not exist"):
        build(tmp_path, {})


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption_of_plain_paragraphs(name):
    caption = (CAPTIONS / f"{name}.rst").read_text()
    assert len(caption.split("\n\n")) >= 2
    assert "{" not in caption  # Snakemake's report reads captions as templates


# Its tables


def test_the_dome_is_found_where_it_is():
    metrics = metrics_table()
    found = findings.findings(metrics, profiles(metrics)).set_index(["model", "rows"])
    decoder, encoder = found.loc[("wiki-decoder", "all")], found.loc[("wiki-encoder", "no_sink")]
    assert decoder["at layer"] == Cell("2 of 4", 2.0)
    assert decoder["peak of anisotropy"].text == "0.90 [0.81, 0.99]"
    assert decoder["middle layer's dimension, first"].text == "12.0 [10.8, 13.2]"
    assert decoder["dome index"].key == pytest.approx(0.2)
    # the table of the study has no replicates, which is a reason of its own
    assert (encoder["dome index"].key, encoder["dome index"].flag.split("; ")[0]) == (0, "monotone")


def test_layers_of_the_last_checkpoint_have_a_row_each():
    layers = findings.last_layers(metrics_table())
    assert len(layers) == 2 * 2 * 2 * len(SITES)
    first = layers.iloc[0]
    assert first["anisotropy"] == Cell("0.100 [0.090, 0.110]", 0.1)
    assert first["id_twonn"].flag.startswith("fewer unique rows")


def test_metrics_that_are_not_ours_come_after_ours():
    metrics = metrics_table()
    mine = metrics[metrics["metric"] == "anisotropy"].assign(metric="mine")
    layers = findings.last_layers(pd.concat([mine, metrics], ignore_index=True))
    assert list(layers.columns)[-3:] == ["anisotropy", "id_twonn", "mine"]


def test_flags_are_counted_by_reason():
    metrics = metrics_table()
    lost = (
        (metrics["model"] == "wiki-decoder") & (metrics["step"] == 64) & (metrics["metric"] == "anisotropy")
    )
    metrics.loc[lost, ["value", "flag"]] = [np.nan, "not finite: 3 of 640 rows"]
    counts = findings.flags(metrics).set_index(["model", "dataset", "reason"])
    few = counts.loc[("wiki-encoder", "wiki", "fewer unique rows")]
    assert (few["numbers"], few["without_value"], few["checkpoints"], few["layers"]) == (6, 0, 3, "0")
    none = counts.loc[("wiki-decoder", "wiki", "not finite")]
    assert (none["numbers"], none["without_value"], none["layers"]) == (12, 12, "0, 1, 2, 3, 4")


def test_numbers_are_written_shortly_and_absent_ones_as_a_dash():
    row = findings.table(pd.DataFrame([{"a_b": 1_234_567, "c": 0.123456, "d": np.nan, "e": "x"}]))
    assert row.columns == ["a b", "c", "d", "e"]
    assert [cell.text for cell in row.rows[0]] == ["1,234,567", "0.123", "–", "x"]


@pytest.mark.parametrize(
    ("value", "low", "high", "threshold", "text"),
    [
        (1024, 128, 1024, np.nan, "1,024 [128, 1,024]"),
        (4.774, 4.619, 4.929, np.nan, "4.77 [4.62, 4.93]"),
        (0.001248, -2.06e-05, 0.002517, 0.05, "0.0012 [0.0000, 0.0025]"),
        (0.0002, 6.3e-5, 3.3e-4, np.nan, "0.00020 [0.00006, 0.00033]"),
        (1.11, 1.0034, 1.2066, np.nan, "1.11 [1.00, 1.21]"),
        (1.11, 1.0034, 1.2066, 1, "1.110 [1.003, 1.207]"),
        (1.11, 1.0, 1.2066, 1, "1.11 [1.00, 1.21]"),
        (0.1, -1e-17, 0.2, 0, "0.10000000 [0.00000000, 0.20000000]"),
        (1, 1, 1, np.nan, "1 [1, 1]"),
        (14, 13, 16, 2.5, "14 [13, 16]"),
        (1234.5, np.nan, np.nan, np.nan, "1,234"),
        (0.12345, np.nan, np.nan, np.nan, "0.123"),
    ],
)
def test_an_interval_has_the_decimals_that_it_supports(value, low, high, threshold, text):
    row = pd.Series({"value": value, "ci_low": low, "ci_high": high, "flag": ""})
    assert findings.interval(row, apart_from=threshold) == Cell(text, value)


def test_long_tables_are_cut_and_counted():
    cut = findings.table(pd.DataFrame({"a": range(findings.MOST_ROWS + 5)}))
    assert (len(cut.rows), cut.total) == (findings.MOST_ROWS, findings.MOST_ROWS + 5)
