"""The audit finds each planted fault without asking for a byte of a weight."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hub_models import Run, at_step, decoder, model_files, publish, publish_folders
from loopback_hub import LoopbackHub
from runs import ENTRY, FACTS, lmshape, locked, published, verdicts, write_registry

from lmshape.errors import InputError
from lmshape.hub.integrity import summary
from lmshape.hub.lock import read_lock
from lmshape.hub.published import choose, known_checkpoints

PLANTED = {
    0: "expected_duplicate",
    1: "expected_duplicate",
    2: "ok",
    4: "duplicate",
    8: "duplicate",
    16: "no_weights",
    32: "incomplete",
    64: "same_as_main",
    128: "mixed_shards",
    256: "incomplete",
    512: "wrong_weights",
    1000: "doubtful",
    2000: "ok",
}
ISSUES = [
    {"steps": [0, 1], "verdict": "expected_duplicate", "reason": "The first step has rate 0"},
    {"steps": [512], "verdict": "wrong_weights", "reason": "Its author says so"},
    {"steps": [1000], "verdict": "doubtful", "reason": "Its loss jumps"},
    {"steps": [2, 2000], "verdict": "expected_duplicate", "reason": "They were, and are no more"},
]


def plant(hub: LoopbackHub) -> None:
    """Publish a run with every fault there is.

    The mixed shards are as those of pythia-12b: the first shard of two steps was that of the last
    (EleutherAI/pythia#206).
    """
    same = {1: 0, 8: 4, 64: 2000}
    faults = {"layout": "sharded", "weightless": (16,), "missing_shard": (32,), "tags": (4, 16)}
    published(hub, steps=tuple(PLANTED), same_as=same, **faults)
    right, last = (model_files(at_step(decoder(), step), "sharded") for step in (128, 2000))
    shard = sorted(name for name in last if name.endswith(".safetensors"))[0]
    hub.commit("tiny/run", {**right, shard: last[shard]}, "step128")
    hub.delete_file("tiny/run", "model.safetensors.index.json", "step256")


def issues(*entries: dict[str, object]) -> list[dict[str, object]]:
    return [{"models": ["tiny"], **entry, "source": "tiny#1"} for entry in entries]


def test_every_planted_fault_is_found_and_told_as_a_table_as_json_and_by_the_exit_code(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    plant(hub)
    steps = sorted([*PLANTED, 3, 5000])
    write_registry(tmp_path, {"tiny": {**ENTRY, "steps": steps}}, issues(*ISSUES))
    audit = ("audit", "tiny", "--configfile", "config.yaml")
    table, document = lmshape(*audit, cwd=tmp_path), lmshape(*audit, "--json", cwd=tmp_path)
    assert (table.returncode, document.returncode) == (1, 1), table.stderr + document.stderr
    found = json.loads(document.stdout)
    assert {one["step"]: one["verdict"] for one in found["checkpoints"]} == PLANTED
    assert {name: count for name, count in found["counts"].items() if count} == Counter(PLANTED.values())
    assert found["missing"] == ["step3", "step5000"]
    for step, verdict in PLANTED.items():
        assert re.search(rf"^step{step} +{verdict} ", table.stdout, re.MULTILINE)
    assert "listed in the registry, not on the hub: step3, step5000" in table.stdout
    notes = {one["checkpoint"]: (one["same_weights_as"], one["note"]) for one in found["checkpoints"]}
    assert notes["step4"] == (["step8"], "")
    assert notes["step64"] == (["step2000", "main"], "")
    assert notes["step128"] == ([], "shares a shard with step2000, step64")
    assert notes["step512"] == ([], "Its author says so (tiny#1)")
    assert notes["step256"] == ([], "missing: model.safetensors.index.json")


def test_nothing_but_listings_and_one_configuration_is_asked_for(hub: LoopbackHub, tmp_path: Path) -> None:
    plant(hub)
    locked(tmp_path)
    allowed = r"/api/models/tiny/run/(refs|tree/[0-9a-f]{40}\?.*)|/tiny/run/resolve/[0-9a-f]{40}/config\.json"
    of_the_run = [request.path for request in hub.requests if "tiny/run" in request.path]
    assert of_the_run and not [path for path in of_the_run if not re.fullmatch(allowed, path)]
    assert len(hub.asked("/refs")) == 1
    assert len(hub.asked("/tree/")) == len(PLANTED) + 1  # a branch each, and main
    assert len(hub.asked("config")) == 1


def test_tags_are_revisions_too(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, tags=(2, 8))
    assert {one.step: one.ref for one in locked(tmp_path).checkpoints} == {
        0: "branch",
        1: "branch",
        2: "tag",
        4: "branch",
        8: "tag",
        16: "branch",
    }


def test_a_branch_counts_before_a_tag_of_its_name_and_other_names_not_at_all(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    published(hub)
    for branch, tag in ((None, "step2"), ("step2-old", None), ("dev", "v1"), ("wip/step4", None)):
        hub.commit("tiny/run", model_files(at_step(decoder(), 99)), branch, tag)
    lock = locked(tmp_path)
    assert len(lock.checkpoints) == 6
    found = lock.named("step2")
    assert (found.ref, found.commit) == ("branch", hub.refs("tiny/run")["branches"]["step2"])


def test_a_listing_in_pages_is_read_to_its_end(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.set(page_size=2)
    published(hub, layout="sharded")
    assert all(len(one.weights) > 1 for one in locked(tmp_path).checkpoints)


def test_a_repository_a_step(hub: LoopbackHub, tmp_path: Path) -> None:
    for step in (0, 20_000, 40_000):
        files = model_files(at_step(decoder(), min(step, 20_000)))
        hub.commit(f"tiny/run-step_{step // 1000}k", files)
    entry = {"kind": "decoder", "repository": "tiny/run-step_{kilo}k", "steps": [0, 20_000, 40_000, 60_000]}
    lock = locked(tmp_path, entry)
    assert [(one.checkpoint, one.step, one.revision) for one in lock.checkpoints] == [
        ("step0", 0, "main"),
        ("step20000", 20_000, "main"),
        ("step40000", 40_000, "main"),
    ]
    assert verdicts(lock) == {0: "ok", 20_000: "duplicate", 40_000: "ok"}


def test_sub_directories(hub: LoopbackHub, tmp_path: Path) -> None:
    publish_folders(hub, "tiny/folders", (0, 1, 2, 4))
    lock = locked(tmp_path, {"kind": "decoder", "repository": "tiny/folders", "subfolder": "step{step}"})
    assert [one.subfolder for one in lock.checkpoints] == ["step0", "step1", "step2", "step4"]
    assert verdicts(lock) == {0: "duplicate", 1: "duplicate", 2: "ok", 4: "ok"}
    assert len(hub.asked("/tree/")) == 1


def test_a_second_repository_gives_the_early_steps(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, steps=(0, 8, 16))
    publish(hub, "tiny/early", Run(steps=(0, 1, 2, 4), seed=1))
    lock = locked(tmp_path, {**ENTRY, "also": [{"repository": "tiny/early", "revision": "step{step}"}]})
    assert {one.step: one.repository for one in lock.checkpoints} == {
        0: "tiny/run",
        1: "tiny/early",
        2: "tiny/early",
        4: "tiny/early",
        8: "tiny/run",
        16: "tiny/run",
    }


def test_main_is_a_checkpoint_where_its_step_has_no_other_name(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, steps=(0, 1, 2), main=-1)
    lock = locked(tmp_path, {**ENTRY, "main_step": 3})
    assert [(one.checkpoint, one.step) for one in lock.checkpoints][-1] == ("main", 3)


def test_a_branch_of_the_step_that_main_stands_for_is_taken_under_the_registrys_name(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    published(hub, steps=(0, 1, 2))
    entry = {**ENTRY, "steps": [0, 1], "main_step": 2}
    last = locked(tmp_path, entry, choice=["step0", "main"]).checkpoints[-1]
    assert (last.checkpoint, last.step, last.revision) == ("main", 2, "step2")


def test_main_is_taken_for_a_step_whose_branch_is_not_there(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, steps=(0, 1, 2), main=-1)
    entry = {**ENTRY, "steps": [0, 1, 2, 3], "main_step": 3}
    last = locked(tmp_path, entry, choice=["step0", "step3"]).checkpoints[-1]
    assert (last.checkpoint, last.step, last.revision) == ("step3", 3, "main")


def test_names_that_round_tokens_otherwise_are_found_by_their_step(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, steps=(1, 2), name="step{}-tokens7B")
    entry = {**ENTRY, "revision": "step{step}-tokens{billions}B", "steps": [1, 2]}
    lock = locked(tmp_path, entry, choice=["step1-tokens1B", "step2-tokens1B"])
    assert [one.revision for one in lock.checkpoints] == ["step1-tokens7B", "step2-tokens7B"]
    known, unlisted = known_checkpoints("tiny", entry, lock, ())
    for key in ("step2-tokens7B", lock.checkpoints[1].checkpoint, 2):
        assert [one.step for one in choose(known, unlisted, [key], model="tiny")[0]] == [2]


def test_an_unverified_key_is_corrected_and_the_correction_is_recorded(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(hub)
    lock = locked(tmp_path, {**ENTRY, **FACTS, "blocks": 12, "unverified": ["blocks"]})
    words = "`blocks` of the registry is 12 and unverified; taken from config.json: 2"
    assert words in caplog.text and words in summary(lock)
    assert read_lock(tmp_path / "tiny.tsv").corrected == {"blocks": 12}


def test_a_lock_that_is_kept_follows_the_registry_in_what_it_corrects(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published(hub)
    assert locked(tmp_path, {**ENTRY, **FACTS}).corrected == {}
    wrong = {**ENTRY, **FACTS, "width": 17, "unverified": ["width"]}
    assert locked(tmp_path, wrong).corrected == {"width": 17}
    assert "`width` of the registry is 17 and unverified; taken from config.json: 16" in caplog.text
    assert locked(tmp_path, {**ENTRY, **FACTS}).corrected == {}


@pytest.mark.parametrize(
    ("key", "told", "true"),
    [
        ("blocks", 12, 2),
        ("width", 32, 16),
        ("vocabulary", 50_304, 304),
        ("architecture", "llama", "gpt_neox"),
    ],
)
def test_the_shape_of_the_registry_is_held_against_the_hubs(
    hub: LoopbackHub, tmp_path: Path, key: str, told: object, true: object
) -> None:
    published(hub)
    with pytest.raises(InputError) as error:
        locked(tmp_path, {**ENTRY, **FACTS, key: told})
    assert str(error.value).startswith(
        f"`tiny`: the registry and the hub's config.json differ: `{key}` is {told}, config.json has {true}. Correct"
    )


def test_the_missing_are_told_together_with_the_nearest_that_exist(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, weightless=(4,))
    with pytest.raises(InputError) as error:
        locked(tmp_path, choice=["step0", "step3", "step4", "step5000"])
    assert (
        "`tiny`: 3 of its 4 checkpoints are not on the hub: step3 (nearest: step1, step2, step8, step16); "
        "step4 (nearest: step1, step2, step8, step16); step5000 (nearest: step8, step16). Leave them out"
    ) in str(error.value)
    assert read_lock(tmp_path / "tiny.tsv") is not None  # what the hub has is known now


def test_names_that_nothing_matches_are_listed(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    with pytest.raises(
        InputError, match="has no checkpoint of `tiny/run` that is spelt `global_step"
    ) as error:
        locked(tmp_path, {**ENTRY, "revision": "global_step{step}"})
    assert "Its branches and tags: step0, step1, step2" in str(error.value)


def test_a_sound_run_ends_the_audit_with_0(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)  # of which steps 0 and 1 are equal, as Pythia's are
    write_registry(tmp_path, {"tiny": ENTRY}, issues(ISSUES[0]))
    audit = lmshape("audit", "--configfile", "config.yaml", cwd=tmp_path)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "4 ok: nothing is known against it" in audit.stdout


def test_a_commit_and_a_pull_request_are_revisions_too(hub: LoopbackHub, tmp_path: Path) -> None:
    sha = hub.commit("tiny/run", model_files(at_step(decoder(), 5)), "refs/pr/3")
    hub.commit("tiny/run", model_files(decoder()))
    for revision, kind in ((sha, "commit"), ("refs/pr/3", "pull request")):
        entry = {"kind": "decoder", "repository": "tiny/run", "revision": revision}
        [one] = locked(tmp_path, entry).checkpoints
        assert (one.commit, one.ref, one.revision) == (sha, kind, revision)
    with pytest.raises(InputError, match=f"the revision {'0' * 40} of `tiny/run`: not on the hub"):
        locked(tmp_path, {"kind": "decoder", "repository": "tiny/run", "revision": "0" * 40})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.TheirConfig"}},
            "`tiny`: transformers does not know theirs; what reads it is Python code, .* `remote_code: true`",
        ),
        ({"model_type": "t5", "is_encoder_decoder": True}, "`tiny`: it holds t5, an encoder with a decoder"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_is_downloaded(
    hub: LoopbackHub, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    """FuxiTranyu's branches are named by tokens, and only its own code reads them."""
    files = model_files(decoder())
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), **changes}).encode()
    hub.commit("tiny/run", {**files, "theirs.py": b"1 / 0"}, "20B")
    hub.commit("tiny/run", files)
    entry = {"kind": "decoder", "repository": "tiny/run", "step_pattern": r"(\d+)B"}
    with pytest.raises(InputError, match=words):
        locked(tmp_path, entry)
    lock = locked(tmp_path, {**entry, "remote_code": True, "tokens_per_step": 10**9})
    [one] = lock.checkpoints
    assert (one.step, one.tokens_seen, lock.facts["architecture"]) == (20, 2e10, changes["model_type"])
    assert "theirs.py" in [file.path for file in one.files]


def test_all_entries_have_their_turn_whatever_fails(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    publish(hub, "tiny/sound", Run(steps=(1, 2), seed=1))
    entries = {
        "gone": {**ENTRY, "repository": "tiny/gone"},
        "twice": ENTRY,  # its steps 0 and 1 are equal
        "sound": {**ENTRY, "repository": "tiny/sound"},
        "local": {"kind": "decoder", "folder": "somewhere"},
    }
    write_registry(tmp_path, entries)
    audit = lmshape("audit", "--all", "--configfile", "config.yaml", cwd=tmp_path)
    told = audit.stderr.splitlines()[-1]  # lmshape's own entries, none of which this hub has, come first
    assert (audit.returncode, told.endswith(", gone, twice"), "sound" in told) == (1, True, False)
    assert "error: the revisions of `tiny/gone`: the hub shows no such repository" in audit.stderr
    lock = lmshape("lock", "--all", "--configfile", "config.yaml", cwd=tmp_path)
    assert (lock.returncode, lock.stderr.splitlines()[-1].endswith(", gone")) == (1, True)
    assert read_lock(tmp_path / "results/revisions/sound.tsv") is not None
