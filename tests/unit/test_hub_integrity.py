"""What names are worth: each verdict from what the hub lists, and from the list of known faults."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hub_locks import CONFIG, ENTRY, checkpoint, lock_of, sha, shards, whole

from lmshape.hub.integrity import (
    AUDIT_VERDICTS,
    DISTRUSTED,
    UNLOADABLE,
    Issue,
    cited_verdict,
    with_sound_weights,
)
from lmshape.hub.integrity import audited as audited_lock
from lmshape.hub.lock import LockedCheckpoint, LockedFile

FIRST_STEPS = Issue(("run*",), frozenset({0, 1, 2}), "expected_duplicate", "The rate is 0", "run#1")


def run_of(*steps: int, **files: tuple[LockedFile, ...]) -> list[LockedCheckpoint]:
    """Checkpoints of different weights, but for those that are given, as in step4=whole("x")."""
    return [checkpoint(step, files.get(f"step{step}")) for step in steps]


def audited(
    run: Sequence[LockedCheckpoint], *, main: Sequence[str], issues: Sequence[Issue]
) -> tuple[LockedCheckpoint, ...]:
    """The checkpoints of the run's lock with their verdicts."""
    return audited_lock(lock_of(run, main_sha256=tuple(main)), issues).checkpoints


def verdicts(found: tuple[LockedCheckpoint, ...]) -> dict[int, str]:
    return {one.step: one.verdict for one in found}


def audit(run: list[LockedCheckpoint], *issues: Issue, main: object = "") -> dict[int, LockedCheckpoint]:
    return {one.step: one for one in audited(run, main=[sha(main)] if main != "" else [], issues=issues)}


def issue(verdict: str, *steps: int, reason: str = "It was seen") -> Issue:
    return Issue(("run",), frozenset(steps), verdict, reason, "run#2")


def test_a_sound_run() -> None:
    found = audited(run_of(0, 1, 2), main=[sha(2)], issues=())
    assert found == tuple(run_of(0, 1, 2))  # verdict ok, no note


def test_no_checkpoints() -> None:
    assert audited([], main=(), issues=()) == ()


def test_the_last_checkpoint_may_equal_main_and_no_other() -> None:
    found = audit(run_of(0, 4, 8, step4=whole("end"), step8=whole("end")), main="end")
    assert {step: one.verdict for step, one in found.items()} == {0: "ok", 4: "same_as_main", 8: "ok"}
    assert found[4].same_weights_as == ("step8", "main")
    assert found[8].same_weights_as == ("step4",)


def test_an_end_that_is_not_main_is_still_trusted() -> None:
    found = audit(run_of(0, 4, 8, step4=whole("end"), step8=whole("end")), main="merged")
    assert {step: one.verdict for step, one in found.items()} == {0: "ok", 4: "duplicate", 8: "ok"}


def test_main_as_a_checkpoint_is_no_duplicate_of_itself() -> None:
    main = checkpoint(6, whole("end"), checkpoint="main", revision="main")
    found = audit([*run_of(0, 4, step4=whole("end")), main, *run_of(8)], main="end")
    assert (found[6].verdict, found[6].same_weights_as) == ("ok", ("step4",))
    assert (found[4].verdict, found[4].same_weights_as) == ("same_as_main", ("main",))


def test_of_three_equal_ones_none_is_trusted() -> None:
    equal = dict.fromkeys(("step1", "step4", "step8"), whole("x"))
    found = audit(run_of(0, 1, 4, 8, 16, **equal), main=16)
    assert {step for step, one in found.items() if one.verdict == "duplicate"} == {1, 4, 8}
    assert found[4].same_weights_as == ("step1", "step8")


def test_repositories_and_folders_of_their_own_are_compared_though_all_are_on_main() -> None:
    run = [
        checkpoint(step, whole(step // 2), revision="main", repository=f"some/{step}") for step in range(5)
    ]
    assert verdicts(audited(run, main=(), issues=())) == {
        0: "duplicate",
        1: "duplicate",
        2: "duplicate",
        3: "duplicate",
        4: "ok",
    }


def test_equal_weights_in_other_shards_are_not_seen_and_equal_shards_are() -> None:
    run = run_of(0, 1, 2, step0=shards("a", "b"), step1=shards("a", "b"), step2=shards("b", "a"))
    found = audit(run, main="m")
    assert [one.verdict for one in found.values()] == ["duplicate", "duplicate", "ok"]
    assert found[2].same_weights_as == ()


def test_a_shard_of_another_step() -> None:
    run = run_of(
        0, 4, 8, 16, step4=shards("end 1", "4"), step8=shards("8", "8b"), step16=shards("end 1", "end 2")
    )
    found = audit(run, main="x")
    assert (found[4].verdict, found[4].note) == ("mixed_shards", "shares a shard with step16")
    assert [found[step].verdict for step in (0, 8, 16)] == ["ok"] * 3
    assert found[4].same_weights_as == ()


def test_weights_that_are_missing() -> None:
    found = audit(run_of(0, 1, 2, step1=(CONFIG,), step0=()), main=2)
    assert [one.verdict for one in found.values()] == ["no_weights", "no_weights", "ok"]
    assert found[0].same_weights_as == () and found[0].note == ""


def test_shards_that_are_missing() -> None:
    files = {file.path: file for file in shards("a", "b", "c")}
    del files["model-00002-of-00003.safetensors"]
    found = audit(run_of(0, 1, 2, step1=tuple(files.values())), main=2)
    assert (found[1].verdict, found[1].note.split(";")[0]) == (
        "incomplete",
        "missing: model-00002-of-00003.safetensors",
    )
    files = [
        file
        for file in shards("a", "b", "c", size=500)
        if file.path.endswith(("config.json", "3-of-00003.safetensors"))
    ]
    assert audit(run_of(0, 1, step0=tuple(files)))[0].note == (
        "missing: model-00001-of-00003.safetensors, model-00002-of-00003.safetensors, model.safetensors.index.json"
    )


def test_shards_of_pytorch_in_a_folder() -> None:
    names = ["config.json", "hf/pytorch_model-00001-of-00002.bin", "hf/pytorch_model.bin.index.json"]
    files = tuple(LockedFile(name, 1000, sha(name)) for name in names)
    found = audit(run_of(0, 1, 2, step0=files))[0]
    assert found.verdict == "incomplete"
    assert found.note == (
        "missing: hf/pytorch_model-00002-of-00002.bin; PyTorch's .bin, loaded with weights only"
    )


def test_odd_sizes_are_noted_where_there_is_a_usual_one() -> None:
    run = run_of(0, 1, 2, 3, step1=whole("x", size=900))
    assert [one.note for one in audit(run).values()] == ["", "900 bytes of weights, most have 1000", "", ""]
    assert [one.verdict for one in audit(run).values()] == ["ok"] * 4
    assert [one.note for one in audit(run[:2]).values()] == ["", ""]  # of two sizes neither is the usual one


def test_expected_duplicates() -> None:
    equal = dict.fromkeys(("step0", "step1"), whole("initial"))
    found = audit(run_of(0, 1, 2, 4, **equal), FIRST_STEPS, main=4)
    assert [one.verdict for one in found.values()] == ["expected_duplicate", "expected_duplicate", "ok", "ok"]
    assert found[0].note == "The rate is 0 (run#1)"
    assert found[0].same_weights_as == ("step1",)
    assert found[2].note == ""  # not equal to the first ones, as was expected of it: nothing to say


def test_expected_duplicates_that_are_no_longer_equal() -> None:
    assert audited(run_of(0, 1, 2, 4), main=[sha(4)], issues=[FIRST_STEPS]) == tuple(run_of(0, 1, 2, 4))


def test_an_expectation_excuses_no_other_equality() -> None:
    equal = dict.fromkeys(("step0", "step1", "step4"), whole("x"))
    found = audit(run_of(0, 1, 4, 8, **equal), FIRST_STEPS, main=8)
    assert [one.verdict for one in found.values()] == ["duplicate", "duplicate", "duplicate", "ok"]
    of_main = audit(run_of(0, 1, 8, step0=whole(8), step1=whole(8)), FIRST_STEPS, main=8)
    assert [one.verdict for one in of_main.values()] == ["same_as_main", "same_as_main", "ok"]


@pytest.mark.parametrize("verdict", ["wrong_weights", "doubtful"])
def test_known_faults_are_taken_at_their_word(verdict: str) -> None:
    found = audit(run_of(0, 1, 2), issue(verdict, 1, 7), main=2)
    assert [one.verdict for one in found.values()] == ["ok", verdict, "ok"]
    assert found[1].note == "It was seen (run#2)"


def test_weights_that_were_known_to_be_missing_may_have_come_since() -> None:
    missing = issue("no_weights", 0, 1)
    found = audit(run_of(0, 1, 2, step0=()), missing)
    assert (found[0].verdict, found[0].note) == ("no_weights", "It was seen (run#2)")
    assert (found[1].verdict, found[1].note) == ("ok", "")


@pytest.mark.parametrize(
    ("steps", "size", "verdict"),
    [((0, 1, 2), 900, "incomplete"), ((0, 1, 2), 1000, "ok"), ((1,), 900, "incomplete")],
)
def test_weights_that_were_known_to_be_cut_short_may_be_whole_since(
    steps: tuple[int, ...], size: int, verdict: str
) -> None:
    run = run_of(*steps, step1=whole(1, size=size))
    assert audit(run, issue("incomplete", 1))[1].verdict == verdict


def test_the_worst_verdict_counts_and_all_notes_stay() -> None:
    issues = (issue("doubtful", 1, 8), issue("wrong_weights", 1, reason="It is the end"))
    found = audit(run_of(0, 1, 8, 9, step1=whole(8, size=5), step8=whole(8)), *issues, main=8)
    assert found[1].verdict == "wrong_weights"
    assert found[1].note == ("It was seen (run#2); It is the end (run#2); 5 bytes of weights, most have 1000")
    assert found[8].verdict == "same_as_main"  # worse than doubtful


def test_the_order_of_verdicts() -> None:
    assert list(AUDIT_VERDICTS) == [
        "no_weights",
        "incomplete",
        "wrong_weights",
        "same_as_main",
        "duplicate",
        "mixed_shards",
        "doubtful",
        "expected_duplicate",
        "not_asked",
        "ok",
    ]
    assert UNLOADABLE == ("no_weights", "incomplete")
    assert list(AUDIT_VERDICTS)[:6] == list(DISTRUSTED)


def test_an_audit_of_an_audit_changes_nothing() -> None:
    run = run_of(0, 1, 2, 4, step1=whole(0), step2=())
    once = audited(run, main=[sha(4)], issues=[FIRST_STEPS])
    assert audited(once, main=[sha(4)], issues=[FIRST_STEPS]) == once


def both(
    safetensors: object, pickled: object, *, size: int = 1000, bin_size: int = 1100
) -> dict[str, object]:
    """Weights in both formats, as a checkpoint takes them that knows no better."""
    return {
        "files": whole(safetensors, size),
        "other_files": (LockedFile("pytorch_model.bin", bin_size, sha(f"bin {pickled}")),),
    }


def sound(
    *checkpoints: LockedCheckpoint, main: Sequence[str] = (), issues: Sequence[Issue] = ()
) -> dict[int, str]:
    """The note of each checkpoint with the format that is taken and its verdict, by step."""
    taken = with_sound_weights(lock_of(checkpoints, main_sha256=tuple(main)), issues)
    return {
        one.step: f"{one.weights_format} {one.verdict}: {one.note}"
        for one in audited_lock(taken, issues).checkpoints
    }


OF_MAIN = "bin ok: PyTorch's .bin, loaded with weights only; not taken: safetensors (same_as_main: "


def test_the_note_says_where_the_hub_lacks_the_format_that_the_registry_names() -> None:
    pickled = (LockedFile("pytorch_model.bin", 1100, sha("bin")),)
    run = [checkpoint(0, whole(0)), checkpoint(1, ()), checkpoint(2, pickled)]
    for preferred, lacking in (("bin", [0]), ("safetensors", [])):
        found = audited_lock(lock_of(run, {**ENTRY, "weights": preferred}), ()).checkpoints
        assert [one.step for one in found if "no bin on the hub, which `weights`" in one.note] == lacking


def test_another_format_is_taken_where_the_preferred_one_is_that_of_main() -> None:
    """As of pythia-2.8b: early branches serve main's safetensors, and a .bin each (EleutherAI/pythia#205)."""
    run = [checkpoint(step, **both("end" if step < 8 else step, step)) for step in (0, 1, 2, 4, 8, 16)]
    run[1] = checkpoint(1, **both("end", 0))  # the first two rightly have the same weights
    found = sound(*run, main=(sha("end"), sha("bin end")), issues=[FIRST_STEPS])
    assert found[2].startswith(OF_MAIN) and found[4].startswith(OF_MAIN)
    assert found[0].startswith("bin expected_duplicate: The rate is 0 (run#1); PyTorch's .bin")
    assert found[8] == found[16] == "safetensors ok: "


def test_a_format_is_no_better_that_is_another_steps_too_or_has_another_size_or_known_faults() -> None:
    run = [checkpoint(step, **both(step, step)) for step in range(8)]
    run[1] = checkpoint(1, **both("end", "end"))  # both formats of main
    run[2] = checkpoint(2, **both("end", 2, bin_size=900))  # cut short
    run[3] = checkpoint(3, **both("end", 3))  # known to be wrong
    run[4] = checkpoint(4, **both("end", 4))
    known = Issue(("run",), frozenset({3}), "wrong_weights", "It was seen", "run#2", ("*.bin",))
    found = sound(*run, main=(sha("end"), sha("bin end")), issues=[known])
    assert {step: text.partition(":")[0] for step, text in found.items()} == {
        **dict.fromkeys((0, 5, 6, 7), "safetensors ok"),
        **dict.fromkeys((1, 2, 3), "safetensors same_as_main"),
        4: "bin ok",
    }


def test_another_format_is_taken_whose_container_differs_by_some_names() -> None:
    usual = [checkpoint(step, **both(step, step, bin_size=1_000_000)) for step in range(1, 5)]
    found = sound(checkpoint(0, **both("end", 0, bin_size=999_900)), *usual, main=[sha("end")])
    assert found[0].startswith(OF_MAIN)


def test_missing_shards_are_had_in_another_format() -> None:
    files = tuple(file for file in shards("a", "b") if "00002-of" not in file.path)
    whole_bin = (LockedFile("pytorch_model.bin", 2000, sha("bin")),)
    found = sound(checkpoint(0, files, other_files=whole_bin), checkpoint(1, shards("c", "d")))
    assert found[0].startswith(
        "bin ok: PyTorch's .bin, loaded with weights only; not taken: safetensors (incomplete"
    )


def test_who_has_another_steps_weights_alone_is_distrusted_though_the_other_has_a_better_format() -> None:
    """Of two equal ones at most one is right, and that one of them has weights of its own does not say which."""
    found = sound(checkpoint(0, **both("x", 0)), checkpoint(4, whole("x")), checkpoint(8), checkpoint(16))
    assert found[0].startswith("bin ok")
    assert found[4] == "safetensors duplicate: "


@pytest.mark.parametrize(
    ("files", "verdict"), [(("model.safetensors",), "wrong_weights"), (("*.bin",), "ok")]
)
def test_a_known_fault_of_some_files_is_none_of_others(files: tuple[str, ...], verdict: str) -> None:
    known = Issue(("run",), frozenset({1}), "wrong_weights", "It was seen", "run#2", files)
    assert audit(run_of(0, 1, 2), known, main=2)[1].verdict == verdict


@pytest.mark.parametrize(
    ("weights", "step", "verdict"),
    [("", 1, "wrong_weights"), ("safetensors", 1, "wrong_weights"), ("bin", 1, ""), ("", 2, "")],
)
def test_before_the_hub_is_asked_a_fault_counts_that_the_format_of_the_entry_may_have(
    weights: str, step: int, verdict: str
) -> None:
    of_files = Issue(
        ("run",), frozenset({1}), "wrong_weights", "It was seen", "run#2", ("model*.safetensors",)
    )
    assert cited_verdict([of_files], step, weights=weights) == verdict
    assert cited_verdict([issue("doubtful", 1), of_files], 1, weights="bin") == "doubtful"
