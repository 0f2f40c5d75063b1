"""Where a published run's checkpoints lie, as far as the registry knows."""

from __future__ import annotations

import pytest
from hub_locks import ENTRY

from lmshape.errors import InputError
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.published import Source, listed_places, read_sources
from lmshape.schema import Yaml

TOKENS_PER_STEP = 2_097_152


def place(
    name: str, step: int, repository: str, revision: str = "main", subfolder: str = "", **told: float
) -> LockedCheckpoint:
    """A checkpoint before the hub was asked."""
    where = {"repository": repository, "revision": revision, "subfolder": subfolder}
    return LockedCheckpoint(checkpoint=name, step=step, other_files=None, **where, **told)


def places(**entry: Yaml) -> list[LockedCheckpoint] | None:
    found = listed_places("m", {"repository": "some/run"} | entry)
    return None if found is None else list(found)


def refusal(**entry: Yaml) -> str:
    with pytest.raises(InputError) as error:
        places(**entry)
    return str(error.value)


def test_branches() -> None:
    assert places(revision="step{step}", steps=[0, 2]) == [
        place("step0", 0, "some/run", "step0", ""),
        place("step2", 2, "some/run", "step2", ""),
    ]


def test_pythia() -> None:
    found = places(**ENTRY)
    assert len(found) == 154
    assert found[-1] == place(
        "step143000", 143_000, "some/run", "step143000", tokens_seen=143_000.0 * TOKENS_PER_STEP
    )  # not `main`, its other name


def test_branches_whose_names_no_path_can_hold() -> None:
    assert places(revision="runs/a step {step}", steps=[3]) == [
        place("runs-a-step-3", 3, "some/run", "runs/a step 3")
    ]


def test_a_repository_for_each_checkpoint() -> None:
    assert places(repository="some/run-step_{kilo}k", steps=[0, 20_000]) == [
        place("step0", 0, "some/run-step_0k", "main"),
        place("step20000", 20_000, "some/run-step_20k", "main"),
    ]
    assert places(repository="some/{step}", steps=[1], revision="v2") == [place("step1", 1, "some/1", "v2")]


def test_folders_of_a_repository() -> None:
    assert places(subfolder="ckpt/{step:04d}/", steps=[7], revision="all") == [
        place("ckpt-0007", 7, "some/run", "all", "ckpt/0007")
    ]
    assert places(subfolder="s{step}", steps=[7])[0].revision == "main"
    assert places(revision="s{step}", steps=[7], subfolder="hf") == [place("s7", 7, "some/run", "s7", "hf")]


def test_one_checkpoint() -> None:
    assert places() == [place("main", -1, "some/run", "main")]
    assert places(main_step=500) == [place("main", 500, "some/run", "main")]
    assert places(revision="v1.0/x", subfolder="hf") == [place("v1.0-x", -1, "some/run", "v1.0/x", "hf")]
    assert places(steps=[1431]) == [place("step1431", 1431, "some/run", "main")]


def test_main_is_one_more_where_no_branch_has_its_step() -> None:
    found = places(revision="ckpt_{step:03d}", steps=[{"from": 0, "to": 358, "every": 1}], main_step=359)
    assert len(found) == 360
    assert found[-2:] == [
        place("ckpt_358", 358, "some/run", "ckpt_358"),
        place("main", 359, "some/run", "main"),
    ]
    assert [one.checkpoint for one in places(revision="s{step}", steps=[0, 9], main_step=5)] == [
        "s0",
        "main",
        "s9",
    ]


def test_further_repositories_give_the_steps_that_the_first_has_not() -> None:
    also = [
        {"repository": "some/early", "revision": "early-{step}", "steps": [0, 1, 8]},
        {"repository": "some/last", "steps": [99]},
    ]
    found = places(revision="step{step}", steps=[0, 8, 16], also=also)
    assert [(one.step, one.repository, one.checkpoint) for one in found] == [
        (0, "some/run", "step0"),
        (1, "some/early", "early-1"),
        (8, "some/run", "step8"),
        (16, "some/run", "step16"),
        (99, "some/last", "step99"),
    ]


def test_billions_are_those_of_the_whole_run() -> None:
    also = [{"repository": "some/early", "revision": "s{step}-{billions}B", "steps": [1000]}]
    assert places(steps=[5000], tokens_per_step=2_000_000, also=also)[0].revision == "s1000-2B"


@pytest.mark.parametrize(
    "entry",
    [
        {"revision": "step{step}"},
        {"revision": "step{step}", "main_step": 5},
        {"subfolder": "step{step}"},
        {"step_pattern": r"step(\d+)-.*"},
        {"revision": "s{step}", "steps": [1], "also": [{"repository": "a/b", "revision": "s{step}"}]},
        {"also": [{"repository": "a/b", "step_pattern": r"(\d+)"}]},
    ],
)
def test_none_where_only_the_hub_knows(entry: dict[str, Yaml]) -> None:
    assert places(**entry) is None


def test_a_pattern_names_no_branch() -> None:
    [source] = read_sources("m", {"repository": "some/run", "step_pattern": r"step(\d+)-.*"})
    assert (source.varying, source.revision, source.naming.step("step5-x")) == ("revision", "", 5)
    assert source.single() == place("main", -1, "some/run", "main")


def test_keys_of_one_repository() -> None:
    entry = {"repository": "a/b", "revision": "v1", "main_step": 3}
    assert Source.of(entry, where="m") == Source(
        repository="a/b",
        revision="v1",
        subfolder="",
        naming=None,
        varying="",
        steps=None,
        main_step=3,
        tokens_per_step=None,
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"repository": "some/{step}", "revision": "step{step}"},
            "`m`: repository, revision all give the step. Keep one of them.",
        ),
        (
            {"subfolder": "{step}", "step_pattern": "(.*)"},
            "`m`: subfolder, step_pattern all give the step. Keep one of them.",
        ),
        (
            {"revision": "v1", "step_pattern": "(.*)"},
            "`m`: revision, step_pattern all give the step. Keep one of them.",
        ),
        (
            {"repository": "some/run-{step}"},
            "`m`: the hub cannot list the repositories of `some/run-{step}`. Give their `steps`.",
        ),
        (
            {"step_pattern": r"step(\d+)", "steps": [1]},
            "`m`: `step_pattern` reads steps off the hub's names and cannot spell `steps`. Keep one of them, or give "
            "`revision` as a template.",
        ),
        (
            {"steps": [1, 2]},
            "`m.steps`: nothing distinguishes the 2 steps. Give `revision` as a template, such as step{step}.",
        ),
        (
            {"repository": "some/run-{kilo}k", "steps": [0, 500]},
            "`m.steps`: 500 is not a multiple of 1000, and `some/run-{kilo}k` counts in these.",
        ),
        (
            {"revision": "s{step}", "steps": [2, 1]},
            "`m.steps`: 1 follows 2. List the steps in ascending order, once.",
        ),
        (
            {"revision": "step{step}-{billions}B"},
            "`m`: `step{step}-{billions}B`: {billions} needs `tokens_per_step` beside it.",
        ),
        (
            {"step_pattern": "step"},
            r"`m`: `step_pattern` = 'step': needs a group around the step, as in `step(\d+)`.",
        ),
        (
            {"also": [{"repository": "a/b"}, {"repository": "a/{step}"}]},
            "`m.also[1]`: the hub cannot list the repositories of `a/{step}`. Give their `steps`.",
        ),
        (
            {"main_step": 100, "also": [{"repository": "a/b", "main_step": 200}]},
            "`some/run` and `a/b`: steps 100 and 200 would both have the name main. Give one of them as "
            "`steps: [200]`, without `main_step`.",
        ),
    ],
)
def test_entries_that_cannot_be_read(entry: dict[str, Yaml], message: str) -> None:
    assert refusal(**entry) == message
