"""Room on the disk: taken before a download, waited for, given back when the last dataset has been read."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from disk_rooms import arrive, folder_of, in_background, read, refusal, take, wanted

from lmshape.hub import budget
from lmshape.hub.budget import reserve
from lmshape.paths import partial_folder


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and no patience between looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.005)


def test_room_is_taken_before_the_download_begins() -> None:
    one = take("step0")
    assert partial_folder(folder_of("step0")).is_dir()
    assert one.held() == one.total == 100
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


def test_activations_are_held_until_they_are_deleted() -> None:
    one = take("step0", weights=100, activations=50)
    assert one.held() == one.total == 200
    arrive("step0")
    files = [Path(file) for file in one.activations.values()]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert one.held() == 200
    read("step0")
    assert one.held() == 100  # no weights, two files
    files[0].unlink()
    assert one.held() == 50


def test_a_dataset_that_was_read_and_measured_needs_no_more_room() -> None:
    one = take("step0", weights=100, activations=50)
    arrive("step0")
    read("step0", "wiki")
    assert one.held() == 150


def test_weights_that_lie_in_the_cache_take_no_room_and_their_activations_do() -> None:
    one = take("step0", weights=0, activations=100)
    assert one.held() == 200
    arrive("step0")
    assert one.held() == 200
    assert "are held: run/step0 200 B" in refusal(lambda: take("step1"))


def test_marks_of_an_earlier_visit_say_nothing_while_the_weights_come_again() -> None:
    take("step0", weights=100, activations=50)
    arrive("step0")
    read("step0")
    assert take("step0", weights=100, activations=50).held() == 200
    arrive("step0")
    assert wanted("step0", activations=50).held() == 200


def test_a_folder_that_is_about_to_be_replaced_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    one = take("step0", activations=20)
    monkeypatch.setattr(budget, "has_weights", lambda folder: pytest.fail("it may go at any moment"))
    assert one.held() == 140


def test_room_is_waited_for() -> None:
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
        "weights. Raise the budget, or let weights be deleted once read."
    )


def test_activations_pass_even_where_weights_are_kept() -> None:
    take("step0", weights=50, activations=100)
    arrive("step0")
    thread = in_background(lambda: reserve(wanted("step1", 100), budget=250, keeps=True))
    assert thread.is_alive()
    read("step0", keep=True)
    thread.join(5)
    assert not thread.is_alive()


def test_more_than_the_budget_is_refused_at_once_with_a_bound_that_would_do() -> None:
    one = wanted("step0", 6_000_000_000, activations=150_500_000)
    assert refusal(lambda: reserve(one, budget=6_300_000_000, keeps=False)) == (
        "`run/step0` needs 6.30 GB of disk, `disk_budget_gb` allows 6.30 GB. Raise it to at least 6.31, or take fewer "
        "tokens or datasets."
    )
    reserve(one, budget=6_310_000_000, keeps=False)


def test_nobody_waits_for_ever() -> None:
    take("step0", weights=200)
    assert refusal(lambda: take("step1")) == (
        "`run/step1` needs 100 B; of the 250 B of `disk_budget_gb` are held: run/step0 200 B. Nothing has moved for "
        "hours. Look at the logs of their extraction, or delete their weights."
    )


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
    partial = partial_folder(folder_of("step0"))
    (partial / "model.safetensors.partial").touch()
    for path in (partial / "model.safetensors.partial", partial):
        os.utime(path, (path.stat().st_mtime - silence * budget.LONGEST_SILENCE_SECONDS,) * 2)
    if given_up:
        take("step1")
        assert not partial.exists()
    else:
        assert "are held: run/step0 200 B" in refusal(lambda: take("step1"))
        assert partial.exists()


def test_a_download_of_this_host_is_given_up_when_its_process_is_dead() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    take("step0", weights=200, process=ended.pid)
    take("step1")
    assert not partial_folder(folder_of("step0")).exists()


def test_a_book_of_the_time_before_hosts_were_written_is_read() -> None:
    take("step0", weights=200)
    (page,) = Path("results/weights/run").parent.glob(".budget/*.json")
    content = json.loads(page.read_text())
    assert content.pop("host")
    page.write_text(json.dumps(content))
    assert "are held: run/step0 200 B" in refusal(lambda: take("step1"))


def test_a_file_system_without_locks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(budget.fcntl, "flock", refuse)
    assert refusal(lambda: take("step0")) == (
        "`disk_budget_gb` needs file locks, and the file system of `results/weights/.budget` has none (No locks "
        "available). Mount it with locks, run the study in another folder (`--directory`), or leave the key out."
    )
