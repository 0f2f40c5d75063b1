"""The disk quota: taken before a download, waited for, given back when the last reader has read."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disk_quota import arrive, begin, folder_of, in_background, read, refusal, take, wanted

from lmshape.hub import budget
from lmshape.hub.budget import clear_unneeded, release, reserve
from lmshape.paths import partial_folder, staged_file


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no patience between looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.005)
    return tmp_path


def test_the_quota_is_taken_before_the_download_begins() -> None:
    one = take("step0")
    assert partial_folder(folder_of("step0")).is_dir()
    assert one.held() == 100
    take("step1")
    assert (
        "`run/step2` needs 100 B; of the 250 B of `disk_budget_gb` are held: run/step0 100 B, run/step1 100 B. "
        in (refusal(lambda: take("step2")))
    )


def test_the_same_checkpoint_takes_its_own_place() -> None:
    for _ in range(3):
        take("step0", weights=200)
    arrive("step0")
    take("step0", weights=200)


def test_what_arrives_and_what_has_arrived_is_held_and_what_is_deleted_is_not() -> None:
    one = take("step0")
    assert one.held() == 100
    folder = arrive("step0")
    assert one.held() == 100
    read("step0", "wiki")
    assert one.held() == 100
    read("step0", "random")
    assert one.held() == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        ".read-random",
        ".read-wiki",
        "config.json",
        "lmshape.json",
    ]
    take("step1", weights=250)


def test_weights_that_lie_in_the_cache_take_nothing_of_the_quota() -> None:
    take("step0", weights=250)
    take("step1", weights=0)
    arrive("step1")


def test_marks_of_an_earlier_visit_say_nothing_while_the_weights_come_again() -> None:
    take("step0")
    arrive("step0")
    read("step0")
    one = take("step0")
    assert (one.held(), one.unread()) == (100, ["wiki", "random"])
    arrive("step0")
    assert (one.held(), one.unread()) == (100, ["wiki", "random"])
    read("step0", "wiki")
    assert (one.held(), one.unread()) == (100, ["random"])


def test_a_folder_that_is_about_to_be_replaced_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    one = take("step0")
    monkeypatch.setattr(budget, "holds_weights", lambda folder: pytest.fail("it may go at any moment"))
    assert one.held() == 100


def test_the_quota_is_waited_for() -> None:
    take("step0", weights=200)
    arrive("step0")
    thread = in_background(lambda: reserve(wanted("step1"), budget=250, keeps=False))
    assert thread.is_alive()
    read("step0", "random")
    thread.join(0.05)
    assert thread.is_alive()
    read("step0", "wiki")
    thread.join(5)
    assert not thread.is_alive()
    assert partial_folder(folder_of("step1")).is_dir()


def test_kept_weights_stay_when_they_have_been_read() -> None:
    one = take("step0")
    arrive("step0")
    read("step0", keep=True)
    assert one.held() == 100
    message = refusal(lambda: reserve(wanted("step1", 200), budget=250, keeps=True))
    assert message == (
        "`run/step1` needs 200 B; of the 250 B of `disk_budget_gb` are held: run/step0 100 B. `keep_weights` keeps the "
        "weights. Raise the budget, or let read weights be deleted."
    )


def test_more_than_the_budget_is_refused_at_once_with_a_bound_that_would_do() -> None:
    one = wanted("step0", 6_301_000_000)
    assert refusal(lambda: reserve(one, budget=6_300_000_000, keeps=False)) == (
        "`run/step0` needs 6.30 GB of disk, `disk_budget_gb` allows 6.30 GB. Raise it to at least 6.31, or leave "
        "the checkpoint out."
    )
    reserve(one, budget=6_310_000_000, keeps=False)


def test_nobody_waits_for_ever_and_is_told_what_frees_the_disk() -> None:
    take("step0", weights=200)
    arrive("step0")
    read("step0", "wiki")
    assert refusal(lambda: take("step1")) == (
        "`run/step1` needs 100 B; of the 250 B of `disk_budget_gb` are held: run/step0 200 B. Nothing has moved for "
        "hours. Not read yet: run/step0 by random. Look at the logs of their extraction, and leave a checkpoint that "
        "cannot be read out under `checkpoints`. This frees the disk: `rm -r results/weights/run/step0`."
    )
    shutil.rmtree("results/weights/run/step0")
    take("step1")


def test_who_waits_says_why(caplog: pytest.LogCaptureFixture) -> None:
    take("step0", weights=200)
    with caplog.at_level(logging.WARNING):
        refusal(lambda: take("step1"))
    assert caplog.messages == [  # once a minute, not at each look
        "`run/step1` needs 100 B; of the 250 B of `disk_budget_gb` are held: run/step0 200 B. Waiting until they have "
        "been read."
    ]


@pytest.mark.parametrize(("silence", "given_up"), [(0.9, False), (1.1, True)])
def test_a_download_of_another_host_is_given_up_when_nothing_of_it_comes(
    silence: float, given_up: bool
) -> None:
    take("step0", weights=200, process=1, host="login-2")
    partial = begin("step0")
    for path in (*partial.iterdir(), partial):
        os.utime(path, (path.stat().st_mtime - silence * budget.LONGEST_SILENCE_SECONDS,) * 2)
    if given_up:
        take("step1")
        assert not partial.exists()
    else:
        assert "are held: run/step0 200 B" in refusal(lambda: take("step1"))
        assert partial.exists()


def test_a_download_that_nobody_goes_on_with_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    reserve(wanted("step0", 200, process=gone.pid), budget=250, keeps=False)
    begin("step0")
    with caplog.at_level(logging.WARNING):
        take("step1", weights=50)
        assert partial_folder(folder_of("step0")).exists()  # there was room for both
        take("step2")
    assert caplog.messages == [
        "run/step0: its partial download was deleted to free its share of the disk quota"
    ]
    assert not partial_folder(folder_of("step0")).exists()


def test_a_file_system_without_locks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(budget.fcntl, "flock", refuse)
    assert refusal(lambda: take("step0")) == (
        "`disk_budget_gb` needs file locks, and the file system of `results/weights/.budget` has none (No locks "
        "available). Mount it with locks, run the study in another folder (`--directory`), or leave the key out."
    )


def test_what_a_study_no_longer_has_is_cleared(study: Path) -> None:
    for name in ("step0", "step1", "step2", "step3"):
        take(name, bytes=1000)
    for name in ("step0", "step1"):
        arrive(name)
    begin("step3")
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


READERS = ["wiki", "wiki-random", "wiki@truncation"]


@pytest.mark.parametrize("last", READERS)
def test_the_last_reader_deletes_them_whichever_it_is(last: str) -> None:
    """A truncation reads the weights of a published run as well."""
    take("step0", readers=READERS)
    folder = arrive("step0")
    for reader in [name for name in READERS if name != last]:
        release(folder, reader, of=READERS, keep=False)
        assert list(folder.glob("*.safetensors"))
    release(folder, last, of=READERS, keep=False)
    assert not list(folder.glob("*.safetensors"))
