"""The explorer's page: its numbers are the table's, it asks for nothing, and it says what it does not have."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lmshape.dynamics.profiles import PROFILE_COLUMNS
from lmshape.errors import InputError
from lmshape.metrics.registry import describe
from lmshape.pages.explore import (
    SCRIPTS,
    build_explorer,
    contents,
    in_words,
    numbers_of,
    reference,
)
from lmshape.tables.columns import COLUMNS
from lmshape.tables.study_tables import CHECKPOINT_COLUMNS

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).parents[2] / "workflow/report/explore"
PLACES = (("embedding", 0), ("block", 1), ("block", 2), ("final_norm", 2))


def rows_of(*triples: tuple[float, float, float], flags: Sequence[str | None] = ()) -> pd.DataFrame:
    return pd.DataFrame(triples, columns=["value", "ci_low", "ci_high"]).assign(flag=list(flags) or "")


def numbers_in(chunk: Mapping[str, Any]) -> pd.DataFrame:
    """What the page reads: three numbers, the place of the flag, and whether there is such a row."""
    numbers = {name: np.frombuffer(base64.b64decode(chunk[name]), "<f4") for name in ("value", "low", "high")}
    table = pd.DataFrame(numbers).assign(flag=0, absent=False)
    for place, flag in chunk["flags"].items():
        table.loc[int(place), "flag"] = flag
    table.loc[chunk["absent"], "absent"] = True
    return table


def test_what_there_is_of_a_number() -> None:
    nan = math.nan
    frame = rows_of(
        (1, 0, 2),
        (1, nan, nan),
        (nan, 0, 2),
        (math.inf, 0, 2),
        (1, -math.inf, 2),
        (-3, -5, 1 / 3),
        (1e39, 0, 2),
        flags=["", "a", "b", "", None, "", ""],
    )
    found = numbers_in(numbers_of(frame, np.array([0, 1, 2, 3, 5, 6, 7]), 8, {"": 0, "a": 1, "b": 2}))
    expected = [
        (1, 0, 2),
        (1, nan, nan),
        (nan,) * 3,
        (nan,) * 3,
        (nan,) * 3,
        (1, nan, nan),
        (-3, -5, 1 / 3),
        (nan,) * 3,
    ]
    np.testing.assert_array_equal(found[["value", "low", "high"]], np.float32(expected))
    assert list(found["flag"]) == [0, 1, 2, 0, 0, 0, 0, 0]
    assert list(found["absent"]) == [False, False, False, False, True, False, False, False]


def metrics_table(*, steps: tuple[int, ...] = (0, 8, 64), model: str = "decoder") -> pd.DataFrame:
    """Each number is told apart by its value: step, layer, rows and metric are in it."""
    rows = []
    for step in steps:
        for dataset in ("wiki", "wiki-random"):
            for number, (site, layer) in enumerate(PLACES):
                for variant, share in (("no_sink", 0.5), ("all", 0.0)):
                    for metric, size in (
                        ("id_twonn", 2),
                        ("anisotropy", 1),
                        ("anisotropy_null", 3),
                        ("mine", 4),
                    ):
                        value = 1000 * size + 100 * number + step + share + 0.25 * (dataset == "wiki")
                        rows.append({"step": step, "dataset": dataset, "site": site, "layer": layer, "rows": variant,
                                     "metric": metric, "value": value})  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(
        study="made up", model=model, kind="decoder", family="gpt_neox", parameters=10, verdict="", flag="",
        checkpoint=frame["step"].map(lambda step: "main" if step < 0 else f"step{step}"), seed=0, d=8, draws=5,
        tokens_seen=frame["step"].where(frame["step"] >= 0) * 10.0, ci_low=frame["value"] - 1,
        ci_high=frame["value"] + 1, depth=frame["layer"] / 2, n_rows=100, n_unique=90,
    ).reindex(columns=COLUMNS.names)  # fmt: skip


def tables(metrics: pd.DataFrame, note: str = "") -> dict[str, pd.DataFrame]:
    cells = metrics.drop_duplicates(["model", "checkpoint", "dataset"])
    return {
        "metrics": metrics,
        "checkpoints": cells.assign(note=note).reindex(columns=CHECKPOINT_COLUMNS.names),
        "profiles": pd.DataFrame(columns=PROFILE_COLUMNS.names),
    }


def lookup(head: dict, chunks: list[dict], **wanted: object) -> tuple[pd.DataFrame, dict]:
    """Find a series as the page does: (place, checkpoint) → its row of the chunk, and the model."""
    model = next(one for one in head["models"] if one["name"] == wanted["model"])
    at = [
        one["dataset"] == wanted["dataset"] and one["model"] == wanted["model"] for one in head["chunks"]
    ].index(True)
    table, first, width = numbers_in(chunks[at]), 0, len(model["checkpoints"])
    assert len(table) == head["chunks"][at]["count"]
    for rows, metric, places in head["chunks"][at]["series"]:
        if (rows, metric) == (wanted["rows"], wanted["metric"]):
            found = table.iloc[first : first + len(places) * width].reset_index(drop=True)
            return found.assign(place=np.repeat(places, width)), model
        first += len(places) * width
    raise KeyError(wanted)


@pytest.mark.parametrize("metric", ["anisotropy", "mine"])
def test_every_number_of_the_table_is_where_the_page_looks_for_it(metric: str) -> None:
    metrics = pd.concat([metrics_table(), metrics_table(steps=(-1, 5), model="other")], ignore_index=True)
    shuffled = metrics.sample(frac=1, random_state=0).sort_values("model", kind="stable")
    head, chunks = contents(tables(shuffled), describe())
    for model in ("decoder", "other"):
        wanted = {"model": model, "dataset": "wiki", "rows": "no_sink", "metric": metric}
        found, entry = lookup(head, chunks, **wanted)
        table = metrics.loc[(metrics[list(wanted)] == pd.Series(wanted)).all(axis=1)]
        table = table.set_index(["site", "layer", "checkpoint"])["value"]
        for number, row in found.iterrows():
            checkpoint = entry["checkpoints"][number % len(entry["checkpoints"])]["name"]
            assert row["value"] == np.float32(table[*entry["places"][row["place"]], checkpoint])


def test_names_stand_in_the_order_of_the_study() -> None:
    metrics = pd.concat([metrics_table(steps=(-1, 64, 0)), metrics_table(model="a")], ignore_index=True)
    head, _ = contents(tables(metrics), describe(), datasets=["wiki-random", "none", "wiki"])
    assert head["datasets"] == ["wiki-random", "wiki"]
    assert [model["name"] for model in head["models"]] == ["decoder", "a"]
    assert [one["step"] for one in head["models"][0]["checkpoints"]] == [0, 64, -1]
    assert list(head["rows"]) == ["all", "no_sink"]
    assert list(head["metrics"]) == ["anisotropy", "anisotropy_null", "id_twonn", "mine"]
    assert head["models"][0]["places"] == [list(place) for place in PLACES]
    assert head["models"][0]["blocks"] == 2


def test_cells_and_metrics_that_are_missing_are_marked_as_absent() -> None:
    metrics = metrics_table()
    gone = (metrics["dataset"] == "wiki") & (metrics["step"] == 8)
    unmeasured = (metrics["metric"] == "id_twonn") & (metrics["site"] != "block")
    head, chunks = contents(tables(metrics[~gone & ~unmeasured]), describe())
    found, _ = lookup(head, chunks, model="decoder", dataset="wiki", rows="all", metric="id_twonn")
    assert list(found["place"]) == [1, 1, 1, 2, 2, 2]
    assert list(found["absent"]) == [False, True, False] * 2
    assert list(found["low"].isna()) == [False, True, False] * 2
    assert [one["name"] for one in head["models"][0]["checkpoints"]] == ["step0", "step8", "step64"]


def test_the_page_tells_what_is_known_against_a_checkpoint() -> None:
    metrics = metrics_table()
    metrics.loc[metrics["step"] == 8, "verdict"] = "same_as_main"
    metrics.loc[metrics["step"] == 64, "verdict"] = "doubtful"
    head, _ = contents(tables(metrics, note="read it somewhere"), describe())
    checkpoints = head["models"][0]["checkpoints"]
    assert [one["distrusted"] for one in checkpoints] == [False, True, False]
    assert checkpoints[1]["note"] == "read it somewhere"
    assert head["verdicts"]["same_as_main"] == "the weights of main, under the name of an earlier step"


def test_dome_indices_are_those_of_the_table() -> None:
    dome = {"model": "decoder", "checkpoint": "step8", "dataset": "wiki", "rows": "all", "metric": "anisotropy",
            "peak_layer": 2, "dome_index": 0.012345, "dome_index_low": math.nan, "dome_index_high": 0.5}  # fmt: skip
    given_tables = tables(metrics_table()) | {"profiles": pd.DataFrame([dome])}
    head, _ = contents(given_tables, describe())
    assert head["domes"] == [["decoder", "step8", "wiki", "all", "anisotropy", 2.0, 0.0123, None, 0.5]]


def test_every_null_of_the_library_stands_beside_a_metric() -> None:
    by_name = {entry["name"]: entry for entry in describe()}
    found = {name: reference(name, by_name) for name in by_name}
    nulls = {name for name in by_name if name.endswith(("_null", "_surrogate"))}
    assert set(found.values()) - {""} == nulls
    assert found["anisotropy"] == found["anisotropy_standardized"] == "anisotropy_null"
    assert found["id_twonn"] == "id_twonn_surrogate"
    assert found["linearity_residual"] == "linearity_null"
    assert {found[null] for null in nulls} == {""}
    assert reference("id_twonn", {"id_twonn": by_name["id_twonn"]}) == ""


def write(folder: Path, metrics: pd.DataFrame) -> Path:
    folder.mkdir(exist_ok=True)
    for name, table in tables(metrics).items():
        table.to_parquet(folder / f"{name}.parquet")
    return folder


class Page(HTMLParser):
    """Scripts and styles of a page, its policy, and what else it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.programs: list[str] = []
        self.data: dict[str, str] = {}
        self.policy = ""
        self.addresses: list[str] = []
        self.labels: set[str] = set()
        self.controls: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        self.addresses += [names[key] or "" for key in ("src", "href", "action") if key in names]
        self._script = names if tag == "script" else None
        if names.get("http-equiv") == "Content-Security-Policy":
            self.policy = names["content"] or ""
        if tag == "label":
            self.labels.add(names["for"] or "")
        if tag in ("select", "input"):
            self.controls.append(names["id"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None and "type" in self._script:
            self.data[self._script["id"] or ""] = data
        elif self._script is not None:
            self.programs.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explorer")
    metrics = metrics_table()
    metrics.loc[0, "flag"] = "</script><script>alert(1)</script><!--"
    build_explorer(folder / "e.html", tables_dir=write(folder / "tables", metrics), sources_dir=SOURCES)
    return (folder / "e.html").read_text(encoding="utf-8")


def test_the_page_may_run_its_own_programs_and_fetch_nothing(page: str) -> None:
    parsed = Page(page)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in parsed.programs]
    assert len(hashes) == 2  # the page's own and plotly.js
    rules = dict(rule.strip().split(" ", 1) for rule in parsed.policy.split(";"))
    assert rules.pop("default-src") == "'none'"
    assert rules.pop("script-src").split() == [f"'sha256-{one}'" for one in hashes]
    assert rules == {
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert sorted(parsed.addresses) == ["#panels", "data:,", "index.html"]


def test_names_from_the_table_cannot_break_out_of_the_page(page: str) -> None:
    head = json.loads(Page(page).data["head"])
    assert "</script><script>alert(1)</script><!--" in head["flags"]
    assert page.count("alert(1)") == 1


def test_every_control_has_a_label(page: str) -> None:
    parsed = Page(page)
    assert set(parsed.controls) == parsed.labels == {
        "theme", "model", "dataset", "metric", "rows", "scale", "compare", "step", "place"
    }  # fmt: skip


def test_the_page_says_what_each_metric_means(page: str) -> None:
    metrics = json.loads(Page(page).data["head"])["metrics"]
    by_name = {entry["name"]: entry for entry in describe()}
    for name in ("anisotropy", "id_twonn"):
        assert metrics[name].items() >= by_name[name].items()
    nothing = dict.fromkeys(("definition", "range", "null", "source", "reference"), "")
    assert metrics["mine"] == {
        "name": "mine",
        "family": "other",
        "words": "mine",
        "scale": "linear",
        **nothing,
    }


def test_every_program_of_the_folder_is_in_the_page() -> None:
    assert sorted(SCRIPTS) == sorted(path.stem for path in SOURCES.glob("*.js"))


def test_the_same_tables_give_the_same_bytes_and_own_metrics_are_described(tmp_path: Path, page: str) -> None:
    folder = write(tmp_path / "tables", metrics_table())
    (tmp_path / "own.py").write_text('def mine(x):\n    """A number of mine."""\n    return 1\n')
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for path in pages:
        own = tmp_path / "own.py"
        size = build_explorer(path, tables_dir=folder, sources_dir=SOURCES, datasets=["wiki-random"], own=own)
        assert size == path.stat().st_size
    assert pages[0].read_bytes() == pages[1].read_bytes()
    head = json.loads(Page(pages[0].read_text(encoding="utf-8")).data["head"])
    assert head["metrics"]["mine"]["definition"] == "A number of mine."
    assert head["datasets"] == ["wiki-random", "wiki"]


def test_a_table_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics.parquet` does not exist"):
        build_explorer(tmp_path / "e.html", tables_dir=tmp_path, sources_dir=SOURCES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mean_cosine_centered", "mean cosine centered"),
        ("anisotropy_null", "anisotropy, null value"),
        ("id_twonn_surrogate", "dimension (TwoNN), Gaussian surrogate"),
        ("id_gride_16", "dimension (GRIDE), neighbor 16"),
        ("skdim.lPCA", "dimension, lPCA"),
        ("my_metric", "my metric"),
    ],
)
def test_metrics_have_names_in_words(name: str, words: str) -> None:
    assert in_words(name) == words


def test_names_in_words_differ() -> None:
    names = [entry["name"] for entry in describe()]
    assert len({in_words(name) for name in names}) == len(names)
