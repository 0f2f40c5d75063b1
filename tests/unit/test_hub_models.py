"""A published run as a study plans it: from the registry, from its lock, or by asking."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hub_locks import ENTRY, FACTS, checkpoint, lock_of, sha, shards, whole

from lmshape.checkpoints import expand_steps
from lmshape.errors import InputError
from lmshape.hub.integrity import audited
from lmshape.hub.lock import Lock, LockedFile, write_lock
from lmshape.hub.published import HubRun, contradicted_facts, read_run
from lmshape.jobs.plan import describe_verdicts, plan_of
from lmshape.schema import Yaml
from lmshape.study.models import Model, read_model
from lmshape.study.study import Study, load_study

SHORT = {**ENTRY, "steps": [0, 8, 16]}
del SHORT["main_step"]


def without(*keys: str, entry: dict[str, Yaml] = SHORT) -> dict[str, Yaml]:
    return {key: value for key, value in entry.items() if key not in keys}


def save(root: Path, lock: Lock) -> None:
    write_lock(root / "results/revisions/run.tsv", lock)


def run_of(root: Path, entry: dict[str, Yaml] = SHORT) -> HubRun:
    def ask(*asked: object, **options: object) -> Lock:
        raise AssertionError("must not ask")

    return read_run("run", entry, root=root, ask=ask)


def refusal_of(root: Path, entry: dict[str, Yaml]) -> str:
    with pytest.raises(InputError) as error:
        read_run("run", entry, root=root, ask=None)
    return str(error.value)


def names(run: HubRun) -> tuple[list[str], list[str]]:
    return [one.name for one in run.checkpoints], [one.name for one in run.unlisted]


def test_without_a_lock_the_registry_tells_all(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    assert names(run) == (["step0", "step8", "step16"], [])
    last = run.checkpoints[-1]
    assert (last.step, last.tokens_seen, last.revised) == (16, 16 * 2_097_152.0, 0)
    assert last.folder == Path("results/weights/run/step16")
    assert (run.facts, run.lock) == (FACTS, None)


def test_tokens_are_unknown_where_the_step_or_its_tokens_are(tmp_path: Path) -> None:
    run = run_of(tmp_path, without("tokens_per_step"))
    assert all(math.isnan(one.tokens_seen) for one in run.checkpoints)
    [only] = run_of(tmp_path, without("revision", "steps")).checkpoints
    assert (only.name, only.step) == ("main", -1) and math.isnan(only.tokens_seen)


def test_of_the_list_stays_what_the_lock_has(tmp_path: Path) -> None:
    lock = lock_of([checkpoint(0, revised=3), checkpoint(1), checkpoint(16, ()), checkpoint(32)], SHORT)
    save(tmp_path, lock)
    run = run_of(tmp_path)
    assert names(run) == (["step0"], ["step1", "step32"])
    assert run.checkpoints[0].revised == 3
    assert run.lock == audited(lock, ())


def test_what_cannot_be_loaded_is_not_there(tmp_path: Path) -> None:
    half = [file for file in shards("a", "b") if "00002-of" not in file.path]
    save(tmp_path, lock_of([checkpoint(0), checkpoint(8, half), checkpoint(16)], SHORT))
    assert names(run_of(tmp_path)) == (["step0", "step16"], [])


def test_a_lock_of_other_checkpoints_is_as_none(tmp_path: Path) -> None:
    save(tmp_path, lock_of([checkpoint(99)], {**SHORT, "repository": "another/run"}))
    run = run_of(tmp_path)
    assert names(run) == (["step0", "step8", "step16"], [])
    assert run.lock is None


def test_the_lock_tells_what_the_registry_does_not(tmp_path: Path) -> None:
    entry = without("steps", "blocks", "context")
    save(
        tmp_path, lock_of([checkpoint(0), checkpoint(3)], entry, facts={**FACTS, "blocks": 7, "context": 64})
    )
    run = run_of(tmp_path, entry)
    assert names(run) == (["step0", "step3"], [])
    assert (run.facts["blocks"], run.facts["context"], run.facts["width"]) == (7, 64, 128)


@pytest.mark.parametrize("missing", ["steps", "architecture", "blocks", "width", "vocabulary"])
def test_the_hub_is_asked_for_what_nobody_has_written_down(tmp_path: Path, missing: str) -> None:
    asked, entry = [], without(missing)

    def ask(path: Path, name: str, entry: dict[str, Yaml], **options: object) -> Lock:
        asked.append((path, name, entry, options))
        return lock_of([checkpoint(0), checkpoint(8)], entry)

    run = read_run("run", entry, root=tmp_path, ask=ask, choice="last")
    path = tmp_path / "results/revisions/run.tsv"
    assert asked == [(path, "run", entry, {"issues": (), "choice": "last"})]
    assert [one.name for one in run.checkpoints] == ["step0", "step8"]
    assert run.facts == FACTS


def test_nothing_is_asked_for_a_longest_sequence(tmp_path: Path) -> None:
    assert run_of(tmp_path, without("context")).facts["context"] is None


def test_where_asking_is_not_allowed_the_command_is_named(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, without("steps", "width")) == (
        "`run`: width, steps are not in the registry; only the hub knows them. Ask it once with `lmshape lock run`; "
        "that takes seconds and downloads no weights."
    )


def test_a_closed_repository_shows_no_configuration(tmp_path: Path) -> None:
    entry = without("blocks", "width")
    save(tmp_path, lock_of([checkpoint(0)], entry, facts={}))
    assert refusal_of(tmp_path, entry) == (
        "`run`: blocks, width are not in the registry, and the hub has not shown its config.json. Log in (`hf auth "
        "login`, or HF_TOKEN) and ask again, `lmshape lock --update run`, or give them in the registry of models."
    )


def test_a_shape_that_the_hub_contradicts(tmp_path: Path) -> None:
    save(tmp_path, lock_of([checkpoint(0)], SHORT, facts={**FACTS, "blocks": 12, "context": None}))
    assert refusal_of(tmp_path, SHORT) == (
        "`run`: the registry and the hub's config.json differ: `blocks` is 6, config.json has 12. Correct the "
        "registry of models, name these keys under `unverified`, or take them out of the entry."
    )


def test_of_an_unverified_key_the_hub_knows_better(tmp_path: Path) -> None:
    doubted = {**SHORT, "unverified": ["blocks", "gigabytes"]}
    lock = lock_of([checkpoint(0)], doubted, facts={**FACTS, "blocks": 12})
    save(tmp_path, lock)
    assert run_of(tmp_path, doubted).facts == {**FACTS, "blocks": 12}
    assert contradicted_facts(doubted, lock.facts, unverified=True) == {"blocks": 6}
    save(tmp_path, lock_of([checkpoint(0)], doubted, facts={**FACTS, "blocks": 12, "width": 64}))
    assert "differ: `width` is 128, config.json has 64. Correct" in refusal_of(tmp_path, doubted)


def test_checkpoints_are_matched_by_their_step(tmp_path: Path) -> None:
    save(tmp_path, lock_of([checkpoint(0), checkpoint(8, checkpoint="main"), checkpoint(9)], SHORT))
    assert names(run_of(tmp_path)) == (["step0", "main"], ["step9"])


def test_a_run_without_any_weights(tmp_path: Path) -> None:
    save(tmp_path, lock_of([checkpoint(0, ()), checkpoint(32)], SHORT))
    assert refusal_of(tmp_path, SHORT) == (
        "`run`: the hub has weights of none of its checkpoints, by results/revisions/run.tsv. Look at them with "
        "`lmshape audit run`, and correct the registry of models."
    )


def test_the_model_of_a_run(tmp_path: Path) -> None:
    model = read_model("run", {**SHORT, "remote_code": True}, root=tmp_path, pretraining=None)
    assert isinstance(model, Model) and model.on_hub and model.remote_code
    assert (model.folder, model.tokenizer) == (Path("results/weights/run"), Path("results/tokenizers/run"))
    assert (model.kind, model.architecture, model.blocks, model.context) == ("decoder", "gpt_neox", 6, 2048)
    assert list(model.checkpoints) == ["step0", "step8", "step16"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(json.dumps({"run": ENTRY}))
    (tmp_path / "data.yaml").write_text('{"texts": {}, "datasets": {"random": {"order": "random"}}}')
    return tmp_path


def study_of(root: Path, checkpoints: Yaml, *issues: Yaml, **more: Yaml) -> Study:
    (root / "issues.yaml").write_text(json.dumps(issues))
    registry = {"models": "models.yaml", "datasets": "data.yaml", "known_issues": "issues.yaml"}
    config = {"models": ["run"], "datasets": ["random"], "checkpoints": checkpoints, "registry": registry}
    return load_study({**config, **more}, root)


@pytest.mark.parametrize("choice", [{"log": 5}, {"log": 20}, {"every": 7}, "last", "all", [0, "step512"]])
def test_the_plan_is_the_same_before_and_after_the_hub_was_asked(root: Path, choice: Yaml) -> None:
    before = study_of(root, choice).models["run"].checkpoints
    complete = [checkpoint(step) for step in expand_steps(ENTRY["steps"], where="")]
    extra = [checkpoint(143_001), checkpoint(200_000)]
    save(root, lock_of([*complete, *extra]))
    after = study_of(root, choice).models["run"].checkpoints
    assert {one.verdict for one in before.values()} == {""}
    assert {one.verdict for one in after.values()} == {"ok"}
    assert {name: replace(one, verdict="", content="") for name, one in after.items()} == before
    assert list(before) == list(after)


EARLY = {
    "models": ["run"],
    "steps": [0, {"from": 1000, "to": 65_000, "every": 1000}],
    "verdict": "wrong_weights",
    "files": ["*.safetensors"],
    "reason": "It was seen.",
    "source": "run#1",
}


@pytest.mark.parametrize("choice", [{"log": 9}, {"every": 10}])
def test_what_is_known_to_be_wrong_is_passed_over_and_named(root: Path, choice: Yaml) -> None:
    model = study_of(root, choice, EARLY).models["run"]
    assert [one.step for one in model.passed_over] == [0, *range(1000, 65_001, 1000)]
    assert not {one.step for one in model.checkpoints.values()} & {one.step for one in model.passed_over}
    told = describe_verdicts(study_of(root, choice, EARLY), "--configfile", "x.yaml")
    assert "skipped    run: 66 wrong_weights (step0, step1000, step2000" in told
    assert "`lmshape lock --configfile x.yaml` asks the hub" in told


@pytest.mark.parametrize("choice", ["all", [0, 1000]])
def test_who_asks_for_all_or_by_name_gets_them(root: Path, choice: Yaml) -> None:
    model = study_of(root, choice, EARLY).models["run"]
    assert model.passed_over == () and model.checkpoints["step1000"].verdict == "wrong_weights"


def test_once_there_is_a_lock_its_verdicts_choose(root: Path) -> None:
    steps = expand_steps(ENTRY["steps"], where="")
    run = [checkpoint(step, whole("x") if step in (8, 16) else None) for step in steps]
    run[0] = checkpoint(0, [LockedFile("pytorch_model.bin", 9, sha("bin"))])  # not the file of the list
    save(root, lock_of(run))
    study = study_of(root, {"log": 154}, {**EARLY, "steps": [0]})
    model = study.models["run"]
    assert [one.step for one in model.passed_over] == [8, 16]
    assert len(model.checkpoints) == 152
    told = describe_verdicts(study)
    assert "skipped    run: 2 duplicate (step8, step16)" in told and "unverified" not in told


SAME = {**EARLY, "steps": [0, 1, 2], "verdict": "expected_duplicate"}
del SAME["files"]


def test_equal_checkpoints_are_measured_once_before_and_after_the_hub_was_asked(root: Path) -> None:
    model = study_of(root, [0, 1, 4], SAME).models["run"]
    assert (list(model.measured), [one.name for one in model.same["step0"]]) == (
        ["step0", "step4"],
        ["step1"],
    )
    save(root, lock_of([checkpoint(0, whole("x")), checkpoint(1, whole("x")), checkpoint(4)]))
    study = study_of(root, [0, 1, 4], SAME)
    model = study.models["run"]
    assert {name: one.same_as for name, one in model.checkpoints.items()} == {
        "step0": "",
        "step1": "step0",
        "step4": "",
    }
    assert [cell.checkpoint for cell in study.cells()] == ["step0", "step4"]
    assert plan_of(study)[0].download_bytes == 2000
    told = describe_verdicts(study)
    assert "verdicts   run: of the 3 chosen 2 expected_duplicate, 1 ok" in told
    once = "(equal weights are downloaded and measured once)"
    assert f"equal      run: step1 as step0 {once}" in told


def test_code_that_comes_with_weights_is_told_before_it_runs(root: Path) -> None:
    (root / "models.yaml").write_text(json.dumps({"run": {**ENTRY, "remote_code": True}, "walk": ENTRY}))
    told = describe_verdicts(study_of(root, [0], models=["run", "walk"]))
    assert f"code       run: Python code of {ENTRY['repository']} runs with your rights" in told


def test_what_holds_of_several_runs_is_told_in_one_line(root: Path) -> None:
    (root / "models.yaml").write_text(json.dumps({"run": ENTRY, "walk": ENTRY}))
    faults = [{**SAME, "models": ["*"]}, {**EARLY, "steps": [16]}]
    told = describe_verdicts(study_of(root, {"log": 9}, *faults, models=["run", "walk"]))
    assert "verdicts   run, walk: of the 9 chosen 1 expected_duplicate, 8 not verified" in told
    assert "skipped    run: 1 wrong_weights (step16)" in told and "skipped    walk" not in told


def test_of_equal_checkpoints_the_trusted_one_is_measured(root: Path) -> None:
    files = {step: whole("x") for step in (4, 143_000)}
    save(
        root,
        lock_of([checkpoint(step, files.get(step)) for step in (0, 4, 143_000)], main_sha256=(sha("x"),)),
    )
    study = study_of(root, "all")
    assert study.models["run"].checkpoints["step4"].verdict == "same_as_main"
    assert list(study.models["run"].measured) == ["step0", "step143000"]


def test_equal_weights_of_another_configuration_are_measured_too(root: Path) -> None:
    other = LockedFile("config.json", 570, "git:" + "d" * 40)
    save(root, lock_of([checkpoint(0, whole("x")), checkpoint(1, [other, whole("x")[1]])]))
    assert list(study_of(root, "all").models["run"].measured) == ["step0", "step1"]


def test_a_truncation_of_equal_checkpoints_is_made_once(root: Path) -> None:
    save(root, lock_of([checkpoint(0), checkpoint(2, whole("x")), checkpoint(4, whole("x"))]))
    study = study_of(root, "all", truncation={"checkpoints": [2, 4]})
    [(cell, those)] = study.truncated("run").items()
    assert cell.checkpoint == "step4"  # the last, and so trusted
    assert [one.name for one in those] == ["step2", "step4"]  # both have rows
    assert [len(study.readers("run", name)) for name in study.models["run"].measured] == [1, 2]


def test_what_was_not_asked_for_may_be_chosen_and_is_told_as_unverified(root: Path) -> None:
    unknown = checkpoint(8, (), other_files=None, verdict="not_asked")
    save(root, lock_of([checkpoint(0), unknown, checkpoint(16)]))
    study = study_of(root, {"log": 3})
    assert [one.verdict for one in study.models["run"].checkpoints.values()] == ["ok", "", "ok"]
    assert (
        "1 not verified" in (told := describe_verdicts(study))
        and "unverified  the checkpoints of run" in told
    )
    study = study_of(root, [0, 16])
    assert "unverified" not in describe_verdicts(study)


def test_nothing_that_can_be_trusted_is_nothing_to_choose_from(root: Path) -> None:
    everything = {**EARLY, "steps": ENTRY["steps"]}
    with pytest.raises(InputError, match="none of its 154 checkpoints is known to match its name"):
        study_of(root, {"log": 5}, everything)


def test_log_spaced_steps_of_pythia(root: Path) -> None:
    assert list(study_of(root, {"log": 5}).models["run"].checkpoints) == [
        "step0",
        "step16",
        "step512",
        "step7000",
        "step143000",
    ]


def test_what_the_registry_does_not_list_is_taken_by_name_alone(root: Path) -> None:
    save(root, lock_of([checkpoint(0), checkpoint(3), checkpoint(1000)]))
    assert list(study_of(root, "all").models["run"].checkpoints) == ["step0", "step1000"]
    assert list(study_of(root, [3, 0]).models["run"].checkpoints) == ["step0", "step3"]
    with pytest.raises(InputError) as error:
        study_of(root, [2])
    assert str(error.value) == "`run` has no checkpoint `2`. Nearest steps that exist: 0, 3, 1000."
