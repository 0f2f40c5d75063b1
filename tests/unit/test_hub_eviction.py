"""Weights that nobody will read make room, and so do downloads that nobody goes on with."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest
from disk_rooms import arrive, folder_of, read, refusal, take, wanted

from lmshape.hub import budget
from lmshape.hub.budget import clear_unneeded, mark, release, reserve
from lmshape.paths import partial_folder, staged_file


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no patience between looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.005)
    return tmp_path


def fail(name: str, *datasets: str) -> None:
    for dataset in datasets:
        mark(folder_of(name), "failed", dataset).touch()


def test_weights_that_could_not_be_read_make_room(caplog: pytest.LogCaptureFixture) -> None:
    take("step0", weights=200)
    arrive("step0")
    read("step0", "wiki")
    fail("step0", "random")
    with caplog.at_level(logging.WARNING):
        take("step1")
    assert caplog.messages == ["run/step0: deleted to make room, since reading it has failed"]
    assert not list(folder_of("step0").glob("*.safetensors"))
    assert not staged_file(folder_of("step0")).exists()  # so that the next run downloads it again


def test_weights_that_somebody_will_still_read_do_not() -> None:
    take("step0", weights=200)
    arrive("step0")
    fail("step0", "random")
    refusal(lambda: take("step1"))
    fail("step0", "wiki")
    message = refusal(lambda: reserve(wanted("step1"), budget=250, keeps=True))
    assert "`keep_weights` keeps the weights" in message
    read("step0", "wiki")
    release(folder_of("step0"), "random", of=["random", "wiki", "more"], keep=False)
    assert not list(folder_of("step0").glob(".failed-*"))
    assert list(folder_of("step0").glob("*.safetensors"))


def test_a_download_that_nobody_goes_on_with_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    reserve(wanted("step0", 200, process=gone.pid), budget=250, keeps=False)
    (partial_folder(folder_of("step0")) / "model.safetensors.partial").touch()
    with caplog.at_level(logging.WARNING):
        take("step1", weights=50)
        assert partial_folder(folder_of("step0")).exists()  # there was room for both
        take("step2")
    assert caplog.messages == ["run/step0: what came of its download was deleted to make room"]
    assert not partial_folder(folder_of("step0")).exists()


def test_what_a_study_no_longer_has_is_cleared(study: Path) -> None:
    for name in ("step0", "step1", "step2", "step3"):
        take(name, bytes=1000)
    for name in ("step0", "step1"):
        arrive(name)
    needed = {folder_of("step0"), folder_of("step2")}
    cleared = clear_unneeded(study, needed)
    assert sorted(path.relative_to(study) for path in cleared) == [
        partial_folder(folder_of("step3")),
        folder_of("step1"),
    ]
    there = {path.parent.name for path in study.rglob("*.safetensors")}
    assert there == {"step0"}
    assert (folder_of("step1") / "lmshape.json").exists()
    assert not staged_file(folder_of("step1")).exists() and staged_file(folder_of("step0")).exists()
    assert partial_folder(folder_of("step2")).exists()
    assert clear_unneeded(study, needed) == []
    assert clear_unneeded(study / "elsewhere", needed) == []
