"""Locks: whatever the names on the hub come to point at, a study's commits stay until somebody asks for new ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from downloads import Bring, assert_right
from hub_models import at_step, decoder, model_files
from loopback_hub import LoopbackHub
from runs import ENTRY, EXPECTED, STEPS, lmshape, locked, published, verdicts, write_registry
from studies import configure

from lmshape.errors import InputError
from lmshape.hub.lock import Lock, read_lock
from lmshape.paths import LOCK


@pytest.fixture
def before(hub: LoopbackHub, tmp_path: Path) -> Lock:
    """The lock of a run of which two branches have moved since: step 4 to other weights, step 2 to other words."""
    published(hub)
    lock = locked(tmp_path)
    hub.commit("tiny/run", model_files(at_step(decoder(), 77)), "step4")
    hub.commit("tiny/run", {"README.md": b"Other words"}, "step2", keep=True)
    hub.clear_log()
    return lock


def test_a_branch_that_moves_moves_no_lock(hub: LoopbackHub, tmp_path: Path, before: Lock) -> None:
    assert locked(tmp_path, choice=["step4"]) == before
    assert not hub.requests


def test_what_the_lock_names_is_what_comes(hub: LoopbackHub, before: Lock, bring: Bring) -> None:
    assert_right(bring(before.named("step4")), before.named("step4"))
    assert before.named("step4").commit != hub.refs("tiny/run")["branches"]["step4"]


def test_an_update_takes_the_new_commits_and_counts_those_with_other_weights(
    hub: LoopbackHub, tmp_path: Path, before: Lock
) -> None:
    after = locked(tmp_path, update=True)
    moved = [one.step for one in after.checkpoints if one.commit != before.named(one.checkpoint).commit]
    assert moved == [2, 4]
    assert {one.step: one.revised for one in after.checkpoints} == {step: int(step == 4) for step in STEPS}
    assert len(hub.asked("/tree/")) == 3  # the two, and main: a commit that is known never changes
    assert read_lock(tmp_path / "tiny.tsv") == after


def test_a_second_update_counts_what_has_changed_since_the_first(
    hub: LoopbackHub, tmp_path: Path, before: Lock
) -> None:
    locked(tmp_path, update=True)
    assert locked(tmp_path, update=True).named("step4").revised == 1
    hub.commit("tiny/run", model_files(at_step(decoder(), 4)), "step4")  # back to where it was
    again = locked(tmp_path, update=True).named("step4")
    assert (again.revised, again.weights_sha256) == (2, before.named("step4").weights_sha256)


def test_an_update_compares_anew(hub: LoopbackHub, tmp_path: Path, before: Lock) -> None:
    hub.commit("tiny/run", model_files(at_step(decoder(), 16)), "step8")
    assert verdicts(locked(tmp_path))[8] == "ok"
    assert verdicts(locked(tmp_path, update=True))[8] == "same_as_main"


def test_weights_that_come_late_are_found_by_an_update(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, weightless=(8,))
    assert verdicts(locked(tmp_path))[8] == "no_weights"
    hub.commit("tiny/run", model_files(at_step(decoder(), 8)), "step8")
    assert verdicts(locked(tmp_path))[8] == "no_weights"
    assert verdicts(locked(tmp_path, update=True, choice=["step8"]))[8] == "ok"


def test_a_branch_that_is_deleted_is_there_until_the_update(
    hub: LoopbackHub, tmp_path: Path, before: Lock, bring: Bring
) -> None:
    hub.delete_ref("tiny/run", "step8")
    kept = locked(tmp_path, choice=["step8"]).named("step8")
    assert_right(bring(kept), kept)
    with pytest.raises(InputError, match=r"step8 \(nearest: step2, step4, step16\)"):
        locked(tmp_path, update=True, choice=["step8"])


def test_a_lock_of_another_repository_is_made_anew(hub: LoopbackHub, tmp_path: Path, before: Lock) -> None:
    hub.commit("tiny/other", model_files(at_step(decoder(), 5)), "step5")
    other = locked(tmp_path, {**ENTRY, "repository": "tiny/other"})
    assert [(one.repository, one.revised) for one in other.checkpoints] == [("tiny/other", 0)]


def unknown(lock: Lock) -> list[int]:
    return [one.step for one in lock.checkpoints if one.verdict == "not_asked"]


def test_only_what_a_study_takes_is_asked_for_in_detail(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    lock = locked(tmp_path, choice={"log": 3})
    assert (unknown(lock), len(hub.asked("/tree/"))) == ([1, 2, 8], 3 + 1)  # and main
    assert lock.facts["blocks"] == 2 and lock.tokenizer is not None
    hub.commit("tiny/run", model_files(at_step(decoder(), 77)), "step2")
    hub.clear_log()
    assert locked(tmp_path, choice={"log": 3}) == lock == read_lock(tmp_path / "tiny.tsv")
    assert not hub.requests
    more = locked(tmp_path, choice=[2, "step16"])
    assert (unknown(more), len(hub.requests)) == ([1, 8], 1)
    assert more.named("step2").commit == lock.named("step2").commit in hub.requests[0].path
    assert {one.revised for one in more.checkpoints} == {0}
    assert unknown(locked(tmp_path, choice="last")) == [1, 8]
    assert verdicts(locked(tmp_path)) == {**dict.fromkeys(STEPS, "ok"), 0: "duplicate", 1: "duplicate"}


def test_another_is_asked_for_in_the_place_of_one_that_is_not_sound(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, same_as={4: 16}, weightless=(2,))
    lock = locked(tmp_path, choice={"log": 3}, issues=[EXPECTED])
    same = dict.fromkeys((0, 1), "expected_duplicate")
    assert verdicts(lock) == {**same, 2: "no_weights", 4: "same_as_main", 8: "not_asked", 16: "ok"}
    assert len(hub.asked("/tree/")) == 5 + 1


def test_the_command_line_keeps_renews_and_tells_what_has_moved(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    write_registry(tmp_path, {"tiny": ENTRY})
    path, where = tmp_path / LOCK.format(model="tiny"), ("--configfile", "config.yaml")
    first = lmshape("lock", "tiny", *where, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "tiny: 6 checkpoints, 358 kB of weights" in first.stdout
    before = path.read_bytes()
    hub.commit("tiny/run", model_files(at_step(decoder(), 77)), "step4")
    kept = lmshape("lock", *where, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert (kept.returncode, path.read_bytes()) == (0, before)
    audit = lmshape("audit", *where, cwd=tmp_path)
    assert "another commit than in the study's lock: step4" in audit.stdout
    offline = lmshape("lock", "--update", *where, cwd=tmp_path, HF_HUB_OFFLINE="1")
    assert (offline.returncode != 0, path.read_bytes()) == (True, before)
    assert "HF_HUB_OFFLINE is set, so the hub is not asked" in offline.stderr
    renewed = lmshape("lock", "--update", *where, cwd=tmp_path)
    assert (renewed.returncode, read_lock(path).named("step4").revised) == (0, 1)


def test_the_command_line_asks_for_what_the_study_takes_and_for_all_of_a_model_that_is_named(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    published(hub)
    write_registry(tmp_path, {"tiny": ENTRY})
    configure(tmp_path, checkpoints={"log": 3})
    where = ("--configfile", "config.yaml")
    of_study, of_model = (lmshape("lock", *named, *where, cwd=tmp_path) for named in ((), ("tiny",)))
    assert "3 not_asked: no study chooses it" in of_study.stdout, of_study.stderr
    assert "tiny: 6 checkpoints" in of_model.stdout and "not_asked" not in of_model.stdout
