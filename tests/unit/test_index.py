"""The page of a study: self-contained, readable by machines and people, plain about what is missing."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs

import numpy as np
import pandas as pd
import pytest
from claim_studies import rows_of, study_of
from figure_studies import NO_SPIKES, spike_tables

from lmshape.claims import CLAIMS, decide
from lmshape.dynamics.profiles import profiles
from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.pages import index, numbers
from lmshape.pages.glance import HEIGHT, WIDTH, glances
from lmshape.pages.index import LARGEST_VECTOR, PICTURES, SHOWN, build_index, claim_rows, counted
from lmshape.pages.numbers import Entry
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import checkpoint_rows

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
    checkpoint_rows(metrics, weights(metrics)).to_parquet(folder / "checkpoints.parquet")
    profiles(metrics).to_parquet(folder / "profiles.parquet")
    rng = np.random.default_rng(0)
    made_up = study_of(
        *(
            rows_of(LEVEL, rng, model=model, noise=0.002, steps=[20000])
            for model in ("wiki-decoder", "another")
        )
    )
    decide(made_up).to_parquet(folder / "claims.parquet")
    for name in ("warnings", "before_spikes"):
        NO_SPIKES[name].to_parquet(folder / f"{name}.parquet")


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
    return (study / "index.html").read_text(encoding="utf-8")


def build(
    folder: Path, provenance: dict[str, object], captions: Path = CAPTIONS, own: Path | None = None
) -> None:
    build_index(
        folder / "index.html",
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
        assert reference.startswith(("#", "data:", "figures/", "tables/", "explore.html", followed)), (
            reference
        )
    rest = page.replace(f'<a href="{followed}', "")
    assert not re.search(r"@import|url\(|<iframe|fetch\(|XMLHttpRequest|https?://", rest)


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
    assert "<p>The intrinsic dimension (TwoNN) of each model" in page


def test_how_to_read_it_says_what_lowers_the_dimension_and_what_a_dome_is(page):
    guide = words_of(page[page.index('<section id="guide"') :])
    assert "The nearest neighbor of a token is mostly the same token elsewhere in the text" in guide
    assert "above the higher of the first and the last block" in guide


def words_of(html: str) -> str:
    """Text of a part of the page."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).split()).replace("&#39;", "'")


def test_every_claim_has_an_address_a_verdict_a_rule_and_its_numbers(page):
    text = words_of(page)
    for claim in CLAIMS:
        assert f'id="claim-{claim.slug}"' in page
        assert claim.sentence in text
    dome = words_of(page[page.index('id="claim-dome"') : page.index("</tbody>\n</table>\n</div>")])
    assert "contradicted 2 models" in dome
    assert "How it was tested" in dome and "supported if" in dome
    assert "wiki-decoder" in dome and "another" in dome


def test_claims_that_the_study_cannot_speak_about_stand_apart(page, study):
    table = pd.read_parquet(study / "tables/claims.parquet")
    outside = page.index('id="outside"')
    for claim in claim_rows(table, figures=()).itertuples():
        assert (page.index(f'id="claim-{claim.slug}"') < outside) == claim.decided, claim.slug
    assert sum(sum(of_kind.values()) for _, of_kind in counted(claim_rows(table, figures=()))) == len(CLAIMS)


def test_every_claim_with_a_picture_is_one_and_every_picture_is_a_figure():
    assert {slug for slugs in PICTURES.values() for slug in slugs.split()} <= {claim.slug for claim in CLAIMS}
    assert set(PICTURES) <= set(FIGURES)


def test_a_claim_links_to_the_figure_that_the_page_holds(study):
    table = pd.read_parquet(study / "tables/claims.parquet")
    drawn = claim_rows(table, figures=("anisotropy_by_layer",)).set_index("slug")["figure"]
    assert drawn["dome"] == "anisotropy_by_layer"
    assert not claim_rows(table, figures=())["figure"].any()


def test_runs_that_are_no_model_are_listed_too(page):
    runs = page[page.index("<summary>Pretraining runs") :]
    assert ">spiking</th>" in runs[: runs.index("</table>")]


def test_table_headings_say_what_they_head(page):
    headings = Page(page).headings
    assert headings
    assert {heading.get("scope") for heading in headings} == {"col", "row"}


def test_it_says_what_was_run(page):
    text = words_of(page)
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


def test_code_in_prose_is_set_as_code(page):
    assert "`" not in page[: page.index("<script>")]


def test_it_is_small_and_written_whole(study, page):
    assert len(page) < 500_000
    assert sorted(path.name for path in study.iterdir()) == ["figures", "index.html", "tables"]


def test_the_same_study_gives_the_same_page(study, page):
    build(study, PROVENANCE)
    assert (study / "index.html").read_text(encoding="utf-8") == page


def test_the_users_own_metrics_are_described(study, tmp_path):
    (tmp_path / "own.py").write_text('def mine(x):\n    """A number of mine."""\n    return 1\n')
    (tmp_path / "tables").symlink_to(study / "tables")
    (tmp_path / "figures").symlink_to(study / "figures")
    build(tmp_path, PROVENANCE, own=tmp_path / "own.py")
    described = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "A number of mine" in described[described.index("<summary>What each metric is") :]


def test_names_from_the_study_are_text_not_markup(tmp_path):
    metrics = metrics_table().replace({"model": {"wiki-decoder": "<script>alert(1)</script>"}})
    write_tables(tmp_path / "tables", metrics)
    build(tmp_path, {"note": "<b>"})
    page = (tmp_path / "index.html").read_text()
    assert "<script>alert" not in page and "<b>" not in page


def test_a_study_without_figures_and_numbers_has_a_report(tmp_path):
    write_tables(tmp_path / "tables", metrics_table())
    for name in SHOWN:
        table = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        table.iloc[:0].to_parquet(tmp_path / "tables" / f"{name}.parquet")
    build(tmp_path, {})
    page = (tmp_path / "index.html").read_text()
    assert "No figure was drawn." in page and "The sentences are about larger models" in page
    assert Page(page).open == []


def test_a_picture_of_many_paths_is_taken_as_pixels(tmp_path):
    write_tables(tmp_path / "tables", metrics_table())
    write_figures(tmp_path / "figures")
    (tmp_path / "figures" / "controls.svg").write_text(" " * (LARGEST_VECTOR + 1))
    build(tmp_path, {})
    kinds = [image["src"][:15] for image in Page((tmp_path / "index.html").read_text()).images]
    assert kinds.count("data:image/png;") == 1


def test_missing_tables_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"metrics.parquet` does not exist"):
        build(tmp_path, {})


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption_of_plain_paragraphs(name):
    caption = (CAPTIONS / f"{name}.rst").read_text()
    assert len(caption.split("\n\n")) >= 2
    assert "{" not in caption  # Snakemake's report reads captions as templates


# Its first screen


@pytest.fixture(scope="module")
def seen() -> dict[str, object]:
    metrics = metrics_table()
    return {glance.title: glance for glance in glances(metrics, profiles(metrics))}


def test_the_first_screen_has_four_sentences_with_numbers(page, seen):
    assert list(seen) == [
        "Anisotropy by layer",
        "Without attention sinks",
        "Anisotropy over training",
        "Intrinsic dimension",
    ]
    top = words_of(page[: page.index('<section id="claims"')])
    for glance in seen.values():
        for sentence in glance.sentences:
            assert sentence in top
            assert re.search(r"\d \[\d", " ".join(glance.sentences)), glance.title


def test_its_numbers_are_those_of_the_tables(seen):
    """The dome of `metrics_table`: 0.1 + 0.2 · 2 · 2 in block 2 of 4, with 10 % to either side."""
    assert seen["Anisotropy by layer"].sentences[0] == (
        "In wiki-decoder, anisotropy is highest after block 2 of 4: 0.90 [0.81, 0.99]."
    )
    training = " ".join(seen["Anisotropy over training"].sentences)
    assert "is 0.90 [0.81, 0.99] at step 64, the last." in training and "At step 0 it was 0.100" in training
    assert "In block 2 of wiki-decoder the intrinsic dimension (TwoNN) is 12.0 [10.8, 13.2]." in (
        seen["Intrinsic dimension"].sentences
    )


def test_a_small_curve_is_drawn_to_scale(seen):
    line = seen["Anisotropy by layer"].curves[0].line
    points = [tuple(map(float, point.split(","))) for point in line.split()]
    values = np.array([0.7, 0.9, 0.7, 0.1])
    assert [across for across, _ in points] == pytest.approx(np.linspace(0, WIDTH, 4), abs=0.1)
    assert [down for _, down in points] == pytest.approx(HEIGHT * (1 - values / 0.99), abs=0.1)


def test_a_view_names_what_the_sentence_is_about(seen):
    page, fragment = seen["Anisotropy by layer"].address.split("#")
    assert page == "explore.html"
    view = {name: values[0] for name, values in parse_qs(fragment).items()}
    assert view == {
        "model": "wiki-decoder", "dataset": "wiki", "metric": "anisotropy", "rows": "all",
        "checkpoint": "checkpoint-64", "place": "block-2", "compare": "model", "beside": "wiki-encoder",
    }  # fmt: skip


def test_models_that_were_trained_to_fail_are_not_spoken_of():
    metrics = metrics_table()
    said = glances(metrics, profiles(metrics), unstable=["wiki-decoder"])
    assert said and not any("wiki-decoder" in " ".join(glance.sentences) for glance in said)


def test_a_study_of_loss_spikes_says_what_moves_before_them(tmp_path):
    """The planted dimension rises before each spike; the models, trained to fail, have no sentence."""
    tables = spike_tables(tmp_path, {"a": 3, "b": 3, "c": 3, "calm": 0})
    metrics = metrics_table()
    before = FIGURES["warnings"].load().data(tables)
    (said,) = glances(metrics, profiles(metrics), before, unstable=["wiki-decoder", "wiki-encoder"])
    row = tables["warnings"].query("metric == 'id_twonn' and layer == 1").iloc[0]
    move = numbers.interval(row, "move_before").text
    area = numbers.interval(row, "auc").text
    assert row["move_before_low"] > 1
    assert said.sentences == [
        "Before 9 loss spikes in 3 runs, the dimension (TwoNN) of block 1 moves by "
        f"{move} standard deviations of quiet moves.",
        f"As an alarm it has an area under the ROC curve of {area}; chance has 0.5.",
        "Both intervals are over runs.",
    ]
    assert said.address == "#warnings" and said.x[1] == "onset"
    assert [curve.name for curve in said.curves] == ["before spikes", "quiet windows"]
    assert not any("nan" in curve.line + curve.band for curve in said.curves)
    assert glances(metrics, profiles(metrics), before.iloc[:0])[0].title == "Anisotropy by layer"


def test_of_a_single_checkpoint_the_encoder_takes_the_place_of_training():
    metrics = metrics_table()
    metrics = metrics[metrics["step"] == 64].assign(step=-1)
    titles = [glance.title for glance in glances(metrics, profiles(metrics))]
    assert titles == ["Anisotropy by layer", "Without attention sinks", "Intrinsic dimension", "An encoder"]


# Its tables


def test_flags_are_counted_by_reason():
    metrics = metrics_table()
    lost = (
        (metrics["model"] == "wiki-decoder") & (metrics["step"] == 64) & (metrics["metric"] == "anisotropy")
    )
    metrics.loc[lost, ["value", "flag"]] = [np.nan, "not finite: 3 of 640 rows"]
    counts = index.flags(metrics).set_index(["model", "dataset", "reason"])
    few = counts.loc[("wiki-encoder", "wiki", "fewer unique rows")]
    assert (few["numbers"], few["without_value"], few["checkpoints"], few["layers"]) == (6, 0, 3, "0")
    none = counts.loc[("wiki-decoder", "wiki", "not finite")]
    assert (none["numbers"], none["without_value"], none["layers"]) == (12, 12, "0, 1, 2, 3, 4")


def test_numbers_are_written_shortly_and_absent_ones_as_a_dash():
    row = numbers.table(pd.DataFrame([{"a_b": 1_234_567, "c": 0.123456, "d": np.nan, "e": "x"}]))
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
    assert numbers.interval(row, apart_from=threshold) == Entry(text, value)


def test_long_tables_are_cut_and_counted():
    cut = numbers.table(pd.DataFrame({"a": range(numbers.MOST_ROWS + 5)}))
    assert (len(cut.rows), cut.total) == (numbers.MOST_ROWS, numbers.MOST_ROWS + 5)
