"""The audit as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import math

from hub_locks import checkpoint, lock_of, sha, shards, whole

from lmshape.hub.integrity import AUDIT_VERDICTS, as_json, as_table, audited, has_fault, summary
from lmshape.hub.lock import Lock


def lock_with(*faulty: int, steps: int = 4, equal: object = 0) -> Lock:
    run = [checkpoint(step, whole(equal) if step in faulty else None) for step in range(steps)]
    return audited(lock_of(run, main_sha256=(sha(steps - 1),)), ())


def test_the_table_has_what_is_wrong_first() -> None:
    assert as_table(lock_with(1, 2, equal="x")).splitlines() == [
        "checkpoint                       verdict                 size  same weights as              note",
        "step1                            duplicate            1.00 kB  step2",
        "step2                            duplicate            1.00 kB  step1",
        "step0                            ok                   1.00 kB",
        "step3                            ok                   1.00 kB",
        "",
        "run: 4 checkpoints, 4.00 kB of weights; asked 2026-10-01T12:00:00+00:00",
        "      2 duplicate: the weights of another step, too: at most one of the names is right",
        "      2 ok: nothing is known against it",
    ]


def test_many_sound_checkpoints_are_counted_and_many_equal_ones_cut_short() -> None:
    lines = as_table(lock_with(*range(1, 6), steps=50)).splitlines()
    assert len(lines) == 1 + 6 + 40 + 1 + 1 + 3
    assert lines[1].split() == ["step0", "duplicate", "1.00", "kB", "step1,", "step2,", "step3,", "…"]
    assert lines[6].split()[-4:] == ["step0,", "step1,", "step2,", "…"]
    assert lines[47] == "… and 4 more with the verdict ok"


def test_notes_stand_at_the_end_of_their_line() -> None:
    run = [checkpoint(0), checkpoint(1, shards("a")), checkpoint(2)]
    run[1] = checkpoint(1, [file for file in run[1].files if not file.path.endswith("index.json")])
    lock = audited(lock_of(run), ())
    [line] = [line for line in as_table(lock).splitlines() if line.startswith("step1")]
    assert (
        line
        == f"step1{' ' * 28}incomplete           1.00 kB  {' ' * 28} missing: model.safetensors.index.json"
    )


def test_what_has_changed_on_the_hub_is_told_below() -> None:
    *_, missing, moved = as_table(lock_with(), moved=["step1", "step2"], missing=["step7"]).splitlines()
    assert missing == "listed in the registry, not on the hub: step7"
    assert moved == "another commit than in the study's lock: step1, step2"


def test_the_summary_has_every_verdict_that_there_is_worst_first() -> None:
    run = [checkpoint(step, verdict=verdict) for step, verdict in enumerate(AUDIT_VERDICTS)]
    _, *lines = summary(lock_of(run)).splitlines()
    assert lines == [f"      1 {verdict}: {meaning}" for verdict, meaning in AUDIT_VERDICTS.items()]


def test_json() -> None:
    run = [
        checkpoint(
            8, verdict="doubtful", note="n", same_weights_as=("step9", "main"), subfolder="hf", ref="tag"
        ),
        checkpoint(-1, (), verdict="no_weights", checkpoint="main", tokens_seen=math.nan),
    ]
    found = json.loads(as_json(lock_of(run), moved=["step8"], missing=["step5"]))
    assert list(found) == ["model", "asked", "counts", "missing", "moved", "checkpoints"]
    assert (found["model"], found["asked"]) == ("run", "2026-10-01T12:00:00+00:00")
    assert found["counts"] == {**dict.fromkeys(AUDIT_VERDICTS, 0), "doubtful": 1, "no_weights": 1}
    assert (found["missing"], found["moved"]) == (["step5"], ["step8"])
    assert found["checkpoints"][0] == {
        "checkpoint": "step8",
        "step": 8,
        "verdict": "doubtful",
        "note": "n",
        "repository": "some/run",
        "revision": "step8",
        "ref": "tag",
        "commit": sha(8)[:40],
        "subfolder": "hf",
        "tokens_seen": 8 * 2_097_152,
        "weights_sha256": sha(8),
        "weights_bytes": 1000,
        "same_weights_as": ["step9", "main"],
    }
    assert found["checkpoints"][1]["tokens_seen"] is None


def test_a_fault_is_what_makes_a_checkpoint_another_one() -> None:
    faulty = {verdict for verdict in AUDIT_VERDICTS if has_fault(lock_of([checkpoint(0, verdict=verdict)]))}
    assert faulty == set(AUDIT_VERDICTS) - {"doubtful", "expected_duplicate", "not_asked", "ok"}
    assert not has_fault(lock_of([]))
