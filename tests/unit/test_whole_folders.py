"""A folder gets its name when all that it holds is on the disk, and not before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lmshape.receipt import write_receipt
from lmshape.writing import folder_when_whole, name_whole_folder


def filled(folder: Path) -> Path:
    (folder / "inner").mkdir(parents=True)
    for name in ("weights", "inner/config"):
        (folder / name).write_text("new")
    return folder


def test_files_are_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = filled(tmp_path / "run.partial")
    flush, rename, done = os.fsync, os.replace, []
    (partial / "lmshape.json").touch()  # the receipt, which is written anew
    names = {os.stat(path).st_ino: path.name for path in (tmp_path, partial, *partial.rglob("*"))}

    def flushed(descriptor: int) -> None:
        done.append(names[os.fstat(descriptor).st_ino])
        flush(descriptor)

    def renamed(one: Path, other: Path) -> None:
        done.append("rename")
        rename(one, other)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    name_whole_folder(partial, tmp_path / "run")
    assert sorted(done[:5]) == ["config", "inner", "lmshape.json", "run.partial", "weights"]
    assert done[5:] == ["rename", tmp_path.name]
    written = ["config", "inner", "lmshape.json", "weights"]
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == written


def test_what_had_the_name_goes(tmp_path: Path) -> None:
    write_receipt(filled(tmp_path / "run" / "older").parent)
    name_whole_folder(filled(tmp_path / "run.partial"), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["inner", "lmshape.json", "weights"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    filled(tmp_path / "new" / "run")
    with pytest.raises(RuntimeError, match="disk"), folder_when_whole(tmp_path / "new" / "run") as partial:
        (partial / "half").write_text("")
        raise RuntimeError("disk")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run"]
    assert (tmp_path / "new" / "run" / "weights").read_text() == "new"


def test_a_folder_appears_with_what_was_written_into_it(tmp_path: Path) -> None:
    with folder_when_whole(tmp_path / "new" / "run") as partial:
        assert list(partial.iterdir()) == []
        (partial / "one").write_text("1")
        assert not (tmp_path / "new" / "run").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["run"]
    assert (tmp_path / "new" / "run" / "one").read_text() == "1"
