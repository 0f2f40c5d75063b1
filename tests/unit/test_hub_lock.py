"""The lock of a model as a file: what is written is read back, people and pandas can read it, and the bytes stay."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from hub_locks import CONFIG, ENTRY, checkpoint, lock_of, sha, shards, whole
from hypothesis import given
from hypothesis import strategies as st

from lmshape.errors import InputError
from lmshape.hub.lock import LOCK_COLUMNS, Lock, LockedFile, identity_of, read_lock, write_lock
from lmshape.store.weights import weights_sha256

NOTE = "The branch serves the weights of main, “the end” (EleutherAI/pythia#205)\n# \u2028 a\tsecond line"


@pytest.fixture
def lock() -> Lock:
    """One of everything."""
    small = LockedFile("model.safetensors", 99, "git:" + "a" * 40)
    return lock_of(
        [
            checkpoint(0, shards("a", "b")),
            checkpoint(8, (CONFIG, small), verdict="doubtful", note=NOTE, revised=2),
            checkpoint(16, (), same_weights_as=("step0", "main"), ref="tag", subfolder="hf/x"),
            checkpoint(-1, whole("m"), checkpoint="main", tokens_seen=math.nan),
        ],
        main_sha256=(sha("m"),),
    )


def rewritten(lock: Lock, folder: Path) -> Lock:
    write_lock(folder / "run.tsv", lock)
    return read_lock(folder / "run.tsv")


def test_what_is_written_is_read_back(lock: Lock, tmp_path: Path) -> None:
    found = rewritten(lock, tmp_path)
    assert math.isnan(found.checkpoints[-1].tokens_seen)  # NaN equals nothing, itself included
    assert repr(found) == repr(lock)


def test_a_model_without_tokenizer_facts_and_checkpoints(tmp_path: Path) -> None:
    bare = lock_of([], tokenizer=None, facts={})
    assert rewritten(bare, tmp_path) == bare


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_note_survives(tmp_path_factory: pytest.TempPathFactory, note: str) -> None:
    lock = lock_of([checkpoint(0, note=note), checkpoint(1)])
    assert rewritten(lock, tmp_path_factory.mktemp("lock")) == lock


def test_the_file_as_it_is(tmp_path: Path) -> None:
    write_lock(tmp_path / "run.tsv", lock_of([checkpoint(3, whole("x"), note="a#1")], facts={"blocks": 6}))
    *head, columns, row = (tmp_path / "run.tsv").read_text().splitlines()
    below = "".join(f"{line}\n" for line in (*head[2:], columns, row))
    assert head == [
        "# lmshape-lock 3: made by lmshape; `lmshape lock --update run` renews it",
        f"# sha256: {hashlib.sha256(below.encode()).hexdigest()}",
        '# model: "run"',
        '# asked: "2026-10-01T12:00:00+00:00"',
        f"# identity: {json.dumps(identity_of(ENTRY))}",
        '# facts: {"blocks": 6}',
        "# corrected: {}",
        "# main_sha256: []",
        f'# tokenizer: {{"repository": "some/run", "commit": "{"d" * 40}", "files": [["tokenizer.json", 2000, '
        f'"{sha("words")}"], ["config.json", 570, "git:{"c" * 40}"]]}}',
    ]
    assert columns == (
        "checkpoint\tstep\ttokens_seen\tverdict\tsame_weights_as\tnote\trepository\trevision\tref\tcommit\tsubfolder\t"
        "weights_format\tweights_bytes\tweights_sha256\trevised\tfiles\tother_files"
    )
    assert row == (
        f'"step3"\t3\t6291456\t"ok"\t""\t"a#1"\t"some/run"\t"step3"\t"branch"\t"{sha(3)[:40]}"\t""\t"safetensors"\t1000\t'
        f'"{sha("x")}"\t0\t"[[""config.json"",570,""git:{"c" * 40}""],[""model.safetensors"",1000,""{sha("x")}""]]"'
        '\t"[]"'
    )


def test_a_lock_of_version_1_is_read_and_does_not_say_what_other_formats_there_are(
    lock: Lock, tmp_path: Path
) -> None:
    write_lock(tmp_path / "run.tsv", lock)
    head, columns, *rows = (tmp_path / "run.tsv").read_text().partition("checkpoint\t")
    head = (
        re.sub(r"# sha256: .*\n", "", head)
        .replace("lmshape-lock 3", "lmshape-lock 1")
        .replace(f'["{sha("m")}"]', f'"{sha("m")}"')
    )
    body = "".join(columns + rows[0]).replace("\tother_files", "").replace('\t"[]"\n', "\n")
    (tmp_path / "run.tsv").write_text(head + body)
    found = read_lock(tmp_path / "run.tsv")
    assert found.main_sha256 == (sha("m"),)
    assert {one.other_files for one in found.checkpoints} == {None}
    assert [one.files for one in found.checkpoints] == [one.files for one in lock.checkpoints]


def test_pandas_reads_it_as_a_table(lock: Lock, tmp_path: Path) -> None:
    write_lock(tmp_path / "run.tsv", lock)
    table = pd.read_csv(
        tmp_path / "run.tsv", sep="\t", comment="#", keep_default_na=False, na_values={"step": ""}
    )
    assert tuple(table.columns) == LOCK_COLUMNS
    assert list(table["step"]) == [0, 8, 16, -1]
    assert list(table["weights_bytes"]) == [2000, 99, 0, 1000]
    assert list(table["note"]) == ["", NOTE, "", ""]
    assert list(table["tokens_seen"]) == ["0", str(8 * 2_097_152), str(16 * 2_097_152), ""]
    assert list(table["weights_format"]) == ["safetensors", "safetensors", "", "safetensors"]
    assert json.loads(table["files"][1]) == [
        ["config.json", 570, "git:" + "c" * 40],
        ["model.safetensors", 99, "git:" + "a" * 40],
    ]


def test_no_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "run.tsv") is None


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("", "it is empty"),
        ("checkpoint\tstep\n", "it begins with 'checkpoint\\tstep\\n'"),
        (
            "# lmshape-lock 4: made by a later lmshape\n",
            "it begins with '# lmshape-lock 4: made by a later lmshap'",
        ),
        ("# lmshape-lock 1:\n# model: run\n", "Expecting value: line 1 column 1 (char 0)"),
        ("# lmshape-lock 1:\n# model\n", "not enough values to unpack (expected 2, got 1)"),
        ('# lmshape-lock 1:\n# model: "run"\n', "'tokenizer'"),
        (
            '# lmshape-lock 1:\n# tokenizer: null\n# main_sha256: ""\n# color: "red"\n',
            "got an unexpected keyword argument 'color'",
        ),
        ("# lmshape-lock 1:\n# tokenizer: null\n", "'main_sha256'"),
        (
            '# lmshape-lock 1:\n# tokenizer: null\n# main_sha256: ""\n',
            "missing 4 required keyword-only arguments",
        ),
    ],
)
def test_a_file_that_is_no_lock(tmp_path: Path, broken: str, why: str) -> None:
    path = tmp_path / "run.tsv"
    path.write_text(broken)
    with pytest.raises(InputError) as error:
        read_lock(path)
    message = str(error.value)
    assert message.startswith(f"`{path}` is not a lock that this lmshape can read (") and why in message
    assert message.endswith(
        "). Delete it, and the hub is asked again; results of another commit are then refused by name."
    )


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "run.tsv").write_bytes(b"# \xff\xfe")
    with pytest.raises(InputError, match="is not a lock that this lmshape can read .*can't decode byte 0xff"):
        read_lock(tmp_path / "run.tsv")


def test_a_lock_that_was_cut_short_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    write_lock(tmp_path / "run.tsv", lock_of([checkpoint(0)]))
    text = (tmp_path / "run.tsv").read_text()
    row = text.index('\n"step0"')
    for end in range(row + 2, len(text) - 2):
        (tmp_path / "run.tsv").write_text(text[:end])
        with pytest.raises(InputError, match="is not a lock that this lmshape can read"):
            read_lock(tmp_path / "run.tsv")


def test_a_lock_is_replaced_when_the_new_one_is_whole(
    lock: Lock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lock(tmp_path / "run.tsv", lock)
    before = (tmp_path / "run.tsv").read_bytes()

    def half(path: Path, text: str, **options: str) -> None:
        path.write_bytes(text[:20].encode())
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space left"):
        write_lock(tmp_path / "run.tsv", lock_of([]))
    assert [path.name for path in tmp_path.iterdir()] == ["run.tsv"]
    assert (tmp_path / "run.tsv").read_bytes() == before


def saved(folder: Path, files: dict[str, bytes]) -> tuple[LockedFile, ...]:
    """Write files, and list them as the hub does."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
    names = sorted(files, reverse=True)  # the hub's order is its own
    return tuple(LockedFile(name, len(files[name]), sha(files[name].decode("latin-1"))) for name in names)


SHARDS = {f"model-0000{number}-of-00003.safetensors": f"shard {number}".encode() for number in (1, 2, 3)}
INDEX = {
    "model.safetensors.index.json": json.dumps({"weight_map": dict(zip("abc", SHARDS, strict=True))}).encode()
}


@pytest.mark.parametrize(
    "files",
    [
        {"model.safetensors": b"all", "config.json": b"{}"},
        {**SHARDS, **INDEX},
        {"pytorch_model.bin": b"pickle"},
        {"model-q4.gguf": b"quantized"},
    ],
)
def test_the_fingerprint_is_that_of_the_files(tmp_path: Path, files: dict[str, bytes]) -> None:
    listed = saved(tmp_path, files)
    assert checkpoint(0, listed).weights_sha256 == weights_sha256(tmp_path)


def test_weights_are_the_files_of_tensors() -> None:
    one = checkpoint(0, shards("a", "b", size=7))
    assert [file.path for file in one.weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert one.weights_bytes == 14
    assert (checkpoint(0, ()).weights_sha256, checkpoint(0, ()).weights_bytes) == ("", 0)
    assert checkpoint(0, [LockedFile("model.safetensors", 1, "git:e")]).weights_sha256 == "git:e"


def test_a_checkpoint_by_its_name(lock: Lock) -> None:
    assert lock.named("step8").revised == 2
    assert lock.named("step9") is None


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"steps": [0, 1]}, True),
        ({"blocks": 7, "kind": "encoder", "license": "", "gigabytes": 3}, True),
        ({"remote_code": False}, True),
        ({"remote_code": True}, False),
        ({"repository": "another/run"}, False),
        ({"revision": "step-{step}"}, False),
        ({"main_step": 5}, False),
        ({"tokens_per_step": 5}, False),
        ({"tokenizer": "another/tokenizer"}, False),
        ({"also": [{"repository": "more/of-it"}]}, False),
    ],
)
def test_what_makes_a_lock_void(changes: dict, same: bool) -> None:
    assert (identity_of({**ENTRY, **changes}) == identity_of(ENTRY)) == same


def test_steps_count_where_the_hub_is_asked_for_them_one_by_one() -> None:
    entry = {"repository": "some/run-{step}", "steps": [0, 1]}
    assert identity_of(entry) != identity_of({**entry, "steps": [0, 1, 2]})
