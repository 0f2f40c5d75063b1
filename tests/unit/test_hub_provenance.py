"""What the tables say of the weights behind a checkpoint, and the receipt beside them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_locks import ENTRY, checkpoint, lock_of, sha, whole

from lmshape.errors import InputError
from lmshape.hub.integrity import Issue, audited, check_weights, doubts, read_issues
from lmshape.hub.lock import Lock, holds_weights, read_receipt, write_lock
from lmshape.hub.published import read_run
from lmshape.paths import LOCK
from lmshape.receipt import write_receipt

ISSUE = """
- models: ["ru*"]
  steps: [4]
  verdict: doubtful
  reason: Somebody doubts it.
  source: run#1
"""
OF_4 = {"model": "run", "checkpoint": "step4", "commit": "older", "weights_sha256": sha(4)}


def lock(*issues: Issue) -> Lock:
    """Three steps of which the first two are equal."""
    run = [checkpoint(0), checkpoint(1, whole(0)), checkpoint(4), checkpoint(5)]
    return audited(lock_of(run), issues)


def test_a_local_run_has_no_lock() -> None:
    assert doubts(None) == {"verdict": "", "same_weights_as": "", "note": ""}
    check_weights(Path("x.h5"), {"checkpoint": "step0"}, None)


def test_verdicts_are_those_of_today(tmp_path: Path) -> None:
    """The file of a lock has those of the day on which it was written."""
    (tmp_path / "issues.yaml").write_text(ISSUE)
    write_lock(tmp_path / LOCK.format(model="run"), lock())
    issues = read_issues(tmp_path / "issues.yaml")
    found = read_run("run", ENTRY, root=tmp_path, ask=None, issues=issues).lock
    verdicts = [doubts(found.named(name))["verdict"] for name in ("step0", "step1", "step4", "step5")]
    assert verdicts == ["duplicate", "duplicate", "doubtful", "ok"]
    assert doubts(found.named("step0")) == {"verdict": "duplicate", "same_weights_as": "step1", "note": ""}
    assert doubts(found.named("step4"))["note"] == "Somebody doubts it (run#1)"
    assert doubts(lock().named("step4"))["verdict"] == "ok"


def test_what_was_measured_in_the_place_of_another_says_where_that_lies() -> None:
    told = doubts(lock().named("step1"), "step0")
    assert (told["note"], told["revision"], told["commit"]) == ("measured as step0", "step1", sha(1)[:40])


def test_a_result_of_other_weights_is_refused() -> None:
    check_weights(Path("a.h5"), OF_4, lock().named("step4"))
    with pytest.raises(InputError) as error:
        check_weights(Path("a.h5"), {**OF_4, "weights_sha256": "abc"}, lock().named("step4"))
    assert str(error.value) == (
        f"`a.h5` was made from the weights abc (commit older), the lock of `run` names {sha(4)} (commit "
        f"{sha(4)[:40]}). Delete the results of checkpoint `step4` and run again."
    )


def test_the_receipt_of_weights_that_are_there(tmp_path: Path) -> None:
    assert read_receipt(tmp_path) == {}
    (tmp_path / "lmshape.json").write_text(json.dumps(OF_4))
    (tmp_path / "model.safetensors").touch()
    assert read_receipt(tmp_path) == OF_4
    write_receipt(tmp_path, place="run/step4")
    assert read_receipt(tmp_path) == {}  # a copy, which may have been trained further
    (tmp_path / "lmshape.json").write_text('{"commit": "')
    with pytest.raises(InputError, match=r"lmshape.json` is damaged. Delete"):
        read_receipt(tmp_path)


def test_weights_that_have_been_deleted(tmp_path: Path) -> None:
    (tmp_path / "lmshape.json").write_text("{}")
    (tmp_path / "config.json").touch()
    with pytest.raises(InputError) as error:
        read_receipt(tmp_path)
    assert str(error.value) == (
        f"`{tmp_path}`: the weights were deleted when the last dataset had been read. Download them again with "
        "`snakemake --forcerun download`, or run the whole study, which knows when they are needed."
    )


@pytest.mark.parametrize("name", ["a.safetensors", "pytorch_model.bin", "q4.gguf"])
def test_what_weights_are(tmp_path: Path, name: str) -> None:
    assert not holds_weights(tmp_path) and not holds_weights(tmp_path / "absent")
    (tmp_path / "sub.bin.part").touch()
    assert not holds_weights(tmp_path)
    (tmp_path / name).touch()
    assert holds_weights(tmp_path)
