"""Texts from rows: JSON Lines, Parquet, datasets of the hub; the registry and the job that brings them."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmshape.errors import InputError
from lmshape.jobs.machine import Machine
from lmshape.jobs.rule import Given, Wildcards
from lmshape.jobs.texts import FetchText
from lmshape.study.registry import read_registry
from lmshape.texts.fetch import write_hub_dataset, write_rows_of

TEXTS = ["One text.\nIts second line.", "", "Zwei: äöü"]
WHOLE = "One text.\nIts second line.\n\n\x1eZwei: äöü\n\n\x1e"


def file_of(folder: Path, suffix: str, column: str = "text") -> Path:
    path = folder / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table({"id": [1, 2, 3], column: TEXTS}), path)
    else:
        path.write_text("".join(json.dumps({"id": 1, column: text}) + "\n" for text in TEXTS))
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["text", "content"])
def test_rows_become_a_text(suffix: str, column: str, tmp_path: Path) -> None:
    write_rows_of(file_of(tmp_path, suffix, column), tmp_path / "out.txt", column=column)
    assert (tmp_path / "out.txt").read_text() == WHOLE


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        (".jsonl", "line 1, has no text under `column` = 'txt'; its columns: id, text"),
        (".parquet", "Nearest: text"),
    ],
)
def test_a_column_that_is_not_there_is_refused(suffix: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        write_rows_of(file_of(tmp_path, suffix), tmp_path / "out.txt", column="txt")
    assert not (tmp_path / "out.txt").exists()


def test_lines_in_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "caf\u00e9"}\n', encoding="latin-1")
    with pytest.raises(InputError, match="rows.jsonl` is not UTF-8"):
        write_rows_of(tmp_path / "rows.jsonl", tmp_path / "out.txt", column="text")


@pytest.mark.parametrize(
    ("name", "words"), [("bad.jsonl", "line 1, is not JSON"), ("bad.parquet", "cannot be read")]
)
def test_a_file_that_is_none_is_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{not json\n")
    with pytest.raises(InputError, match=words):
        write_rows_of(tmp_path / name, tmp_path / "out.txt", column="text")


def test_rows_that_are_packed_are_rows_too(tmp_path: Path) -> None:
    """As those of C4, c4-validation.00000-of-00008.json.gz."""
    packed = tmp_path / "c4.json.gz"
    packed.write_bytes(gzip.compress(file_of(tmp_path, ".jsonl").read_bytes()))
    texts = {"c4": {"path": str(packed)}}
    assert read_registry([], {"texts": texts, "datasets": {}}, root=tmp_path).texts["c4"].is_of_rows
    write_rows_of(packed, tmp_path / "out.txt", column="text")
    assert (tmp_path / "out.txt").read_text() == WHOLE
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(InputError, match="c4.json.gz` cannot be read: "):
        write_rows_of(packed, tmp_path / "other.txt", column="text")


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a \\ud800 b"}\n')
    write_rows_of(tmp_path / "rows.jsonl", tmp_path / "out.txt", column="text")
    assert (tmp_path / "out.txt").read_text() == "a ? b\n\n\x1e"


def test_a_table_that_is_damaged_behind_its_beginning_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["hello world " * 50] * 100}), tmp_path / "rows.parquet")
    content = bytearray((tmp_path / "rows.parquet").read_bytes())
    content[30:60] = b"\xff" * 30
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(InputError, match="rows.parquet` cannot be read: "):
        write_rows_of(tmp_path / "rows.parquet", tmp_path / "out.txt", column="text")


class Stub:
    """The package `datasets`, as far as it is used; keeps what it was asked and how many rows it gave."""

    def __init__(self, rows: list[dict]) -> None:
        self.rows, self.asked, self.given = rows, (), 0

    def load_dataset(self, *asked: object, **options: object):  # noqa: ANN201
        self.asked = (*asked, options)
        if asked[0] == "no/such":
            raise FileNotFoundError("no such dataset")
        for row in self.rows:
            self.given += 1
            yield row


def test_a_dataset_of_the_hub_is_read_as_far_as_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub([{"text": "x" * 998}] * 100)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    write_hub_dataset("a/b", tmp_path / "t", name="en", split="test", column="text", megabytes=0.01)
    assert (tmp_path / "t").read_text() == ("x" * 998 + "\n\n\x1e") * 10
    assert stub.given == 10
    assert stub.asked == ("a/b", "en", {"split": "test", "streaming": True})


@pytest.mark.parametrize(
    "error", [FileNotFoundError("x"), RuntimeError("x"), ConnectionError("x"), httpx2.ReadTimeout("x")]
)
@pytest.mark.parametrize("rows", [0, 1])
def test_a_dataset_that_is_refused_or_breaks_off_is_named(
    error: Exception, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: object, **__: object):  # noqa: ANN202
        yield from [{"text": "a"}] * rows
        raise error

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match="the dataset `a/b` cannot be read: x. Correct its name"):
        write_hub_dataset("a/b", tmp_path / "t", name=None, split="test", column="text", megabytes=1)
    assert not (tmp_path / "t").exists()


def test_without_the_package_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match="`datasets` is not installed: pip install datasets"):
        write_hub_dataset("a/b", tmp_path / "t", name=None, split="test", column="text", megabytes=1)


def test_the_job_brings_each_kind_of_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stub([{"content": text} for text in TEXTS])
    monkeypatch.setitem(sys.modules, "datasets", stub)
    monkeypatch.chdir(tmp_path)
    entries = {
        "lines": {"path": str(file_of(tmp_path, ".jsonl"))},
        "table": {"path": str(file_of(tmp_path, ".parquet", "content")), "column": "content"},
        "hub": {"hf": {"path": "a/b", "column": "content"}},
    }
    registry = read_registry([], {"texts": entries, "datasets": {}}, root=tmp_path)
    job = FetchText(SimpleNamespace(texts=registry.texts), Machine())  # all that it asks of a study
    digests = set()
    for name in entries:
        job.run(Wildcards(text=name), Given())
        assert (tmp_path / f"results/texts/{name}.txt").read_text() == WHOLE
        digests.add(job.digest(Wildcards(text=name)))
    assert len(digests) == 3


def test_common_texts_are_known_by_name() -> None:
    registry = read_registry([], [], root=Path.cwd())
    assert registry.datasets["wikitext-103"].text == "wikitext-103"
    assert registry.texts["c4"].hf == {
        "path": "allenai/c4",
        "name": "en",
        "split": "validation",
        "column": "text",
        "megabytes": 20,
    }
