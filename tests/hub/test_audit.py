"""What stands behind every name: each planted fault is found, and no byte of a weight is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_models import Run, at_step, decoder, model_files, publish, publish_folders
from loopback_hub import LoopbackHub
from runs import ENTRY, EXPECTED, STEPS, lmshape, locked, published, verdicts, write_registry

from lmshape.errors import InputError
from lmshape.hub.lock import read_lock


def test_every_planted_fault_is_found(hub: LoopbackHub, tmp_path: Path) -> None:
    published(
        hub,
        steps=(0, 1, 2, 4, 8, 16, 32, 64, 128),
        same_as={1: 0, 8: 4, 64: 128},
        layout="sharded",
        weightless=(16,),
        missing_shard=(32,),
    )
    assert verdicts(locked(tmp_path, issues=(EXPECTED,))) == {
        0: "expected_duplicate",
        1: "expected_duplicate",
        2: "ok",
        4: "duplicate",
        8: "duplicate",
        16: "no_weights",
        32: "incomplete",
        64: "same_as_main",
        128: "ok",
    }


def test_a_shard_of_another_step_is_found(hub: LoopbackHub, tmp_path: Path) -> None:
    """As pythia-12b: the first shard of two steps was that of the last (EleutherAI/pythia#206)."""
    published(hub, layout="sharded")
    right, last = (model_files(at_step(decoder(), step), "sharded") for step in (4, 16))
    shard = sorted(name for name in last if name.endswith(".safetensors"))[0]
    hub.commit("tiny/run", {**right, shard: last[shard]}, "step4")
    lock = locked(tmp_path)
    assert lock.named("step4").verdict == "mixed_shards"
    assert lock.named("step4").note == "shares a shard with step16"
    assert lock.named("step16").verdict == "ok"


def test_no_weight_is_asked_for(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    locked(tmp_path)
    assert not hub.downloads(r"\.(safetensors|bin)")
    assert len(hub.asked("/refs")) == 1
    assert len(hub.asked("/tree/")) == len(STEPS) + 1  # a branch each, and main


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


def test_a_listing_in_pages_is_read_to_its_end(hub: LoopbackHub, tmp_path: Path) -> None:
    hub.set(page_size=2)
    published(hub, layout="sharded")
    assert all(len(one.weights) > 1 for one in locked(tmp_path).checkpoints)


def test_a_repository_a_step(hub: LoopbackHub, tmp_path: Path) -> None:
    for step in (0, 20_000, 40_000):
        hub.commit(f"tiny/run-step_{step // 1000}k", model_files(at_step(decoder(), step)))
    entry = {"kind": "decoder", "repository": "tiny/run-step_{kilo}k", "steps": [0, 20_000, 40_000, 60_000]}
    lock = locked(tmp_path, entry)
    assert [(one.checkpoint, one.step, one.revision) for one in lock.checkpoints] == [
        ("step0", 0, "main"),
        ("step20000", 20_000, "main"),
        ("step40000", 40_000, "main"),
    ]


def test_sub_directories(hub: LoopbackHub, tmp_path: Path) -> None:
    publish_folders(hub, "tiny/folders", (1, 2, 4))
    lock = locked(tmp_path, {"kind": "decoder", "repository": "tiny/folders", "subfolder": "step{step}"})
    assert [(one.checkpoint, one.subfolder) for one in lock.checkpoints] == [
        ("step1", "step1"),
        ("step2", "step2"),
        ("step4", "step4"),
    ]
    assert len({one.weights_sha256 for one in lock.checkpoints}) == 3


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


def test_the_shape_of_the_registry_is_held_against_the_hubs(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    with pytest.raises(InputError) as error:
        locked(tmp_path, {**ENTRY, "blocks": 12, "width": 16})
    assert str(error.value).startswith(
        "`tiny`: the registry and the hub's config.json differ: `blocks` is 12, config.json has 2. Correct"
    )


def test_the_missing_are_told_together_with_the_nearest_that_exist(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, weightless=(4,))
    with pytest.raises(InputError) as error:
        locked(tmp_path, wanted=["step0", "step3", "step4", "step5000"])
    assert (
        "`tiny`: 3 of its 4 checkpoints cannot be had from the hub: step3 (nearest: step1, step2, step8, step16); "
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


def test_the_audit_is_a_table_and_json_and_an_exit_code(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub, same_as={1: 0, 8: 4})
    write_registry(tmp_path, {"tiny": {**ENTRY, "steps": [0, 1, 2, 3, 4, 8, 16]}})
    table = lmshape("audit", "tiny", "--configfile", "config.yaml", cwd=tmp_path)
    assert table.returncode == 1, table.stderr
    assert "step8                            duplicate" in table.stdout
    assert "listed in the registry, not on the hub: step3" in table.stdout
    found = json.loads(lmshape("audit", "tiny", "--json", "--configfile", "config.yaml", cwd=tmp_path).stdout)
    assert found["counts"]["duplicate"] == 4
    assert found["missing"] == ["step3"]
    assert {one["checkpoint"]: one["same_weights_as"] for one in found["checkpoints"]}["step4"] == ["step8"]


def test_a_sound_run_ends_the_audit_with_0(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)  # of which steps 0 and 1 are equal, as Pythia's are
    expected = {"models": ["tiny"], "steps": [0, 1], "verdict": "expected_duplicate"}
    issues = [{**expected, "reason": "The first step has rate 0.", "source": "tiny#1"}]
    write_registry(tmp_path, {"tiny": ENTRY}, issues)
    audit = lmshape("audit", "--configfile", "config.yaml", cwd=tmp_path)
    assert audit.returncode == 0, audit.stdout + audit.stderr
    assert "4 ok: nothing is known against it" in audit.stdout
