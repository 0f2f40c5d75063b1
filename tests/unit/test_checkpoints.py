"""Planned checkpoints, and the choices among those that exist."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmshape.checkpoints import Checkpoint, by_key, checkpoint_steps, log_spaced, select_checkpoints
from lmshape.errors import InputError

PYTHIA = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 143_001, 1000)]


def run_of(*steps: int) -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint(f"checkpoint-{step}", step, Path(f"run/checkpoint-{step}")) for step in steps)


def steps_of(checkpoints: tuple[Checkpoint, ...]) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints]


@pytest.mark.parametrize(
    ("revisions", "keys"),
    [(["", ""], []), (["main", "main"], []), (["old", "main"], ["old", "main"]), (["b", "2"], ["b"])],
)
def test_a_revision_is_a_name_where_it_is_of_one_checkpoint_alone(
    revisions: list[str], keys: list[str]
) -> None:
    run = [replace(one, revision=revision) for one, revision in zip(run_of(2, 4), revisions, strict=True)]
    named = by_key(run)
    assert named.keys() == {"checkpoint-2", "checkpoint-4", "2", "4", *keys}
    assert named["2"] is run[0]


@pytest.mark.parametrize(
    ("steps", "linear_every", "planned"),
    [
        (1280, 128, [0, 1, 2, 4, 8, 16, 32, 64, *range(128, 1281, 128)]),
        (10, 4, [0, 1, 2, 4, 8, 10]),
        (3, 128, [0, 1, 2, 3]),
        (3, 1, [0, 1, 2, 3]),
        (1, 128, [0, 1]),
    ],
)
def test_planned_steps(steps: int, linear_every: int, planned: list[int]) -> None:
    assert list(checkpoint_steps(steps, linear_every)) == planned


@given(st.integers(1, 5000), st.integers(1, 600))
def test_planned_steps_begin_with_the_initial_weights_and_end_with_the_last(steps: int, every: int) -> None:
    planned = checkpoint_steps(steps, every)
    assert planned[0] == 0 and planned[-1] == steps
    assert list(planned) == sorted(set(planned))


def test_pythia_is_planned_as_it_was_published_but_for_the_powers_above_the_interval() -> None:
    assert list(checkpoint_steps(143_000, 1000)) == PYTHIA


def test_all_and_last() -> None:
    run = run_of(0, 1, 2)
    assert select_checkpoints(run, "all", model="m") == run
    assert select_checkpoints(run, "last", model="m") == run[-1:]


def test_a_list_takes_names_and_steps_and_is_put_in_order() -> None:
    run = run_of(0, 10, 200, 3000)
    assert steps_of(select_checkpoints(run, [3000, "checkpoint-10", "0"], model="m")) == [0, 10, 3000]


def test_every_keeps_first_and_last() -> None:
    run = run_of(*range(8))
    assert steps_of(select_checkpoints(run, {"every": 3}, model="m")) == [0, 3, 6, 7]
    assert steps_of(select_checkpoints(run, {"every": 100}, model="m")) == [0, 7]
    assert steps_of(select_checkpoints(run, {"every": 1}, model="m")) == list(range(8))


def test_log_spaced_on_pythia() -> None:
    chosen = select_checkpoints(run_of(*PYTHIA), {"log": 8}, model="m")
    assert steps_of(chosen) == [0, 4, 32, 128, 1000, 5000, 26000, 143_000]


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=60), st.integers(2, 40))
def test_log_spaced_takes_as_many_as_asked_first_and_last_included(steps: set[int], count: int) -> None:
    ascending = sorted(steps)
    chosen = log_spaced(ascending, count)
    assert len(chosen) == min(count, len(ascending))
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0 and chosen[-1] == len(ascending) - 1


@given(st.integers(2, 12))
def test_log_spaced_hits_exact_powers(count: int) -> None:
    steps = [2**exponent - 1 for exponent in range(23)]  # evenly spaced in log(1 + step)
    places = [math.log2(1 + steps[index]) for index in log_spaced(steps, count)]
    targets = [22 * number / (count - 1) for number in range(count)]
    assert all(abs(place - target) <= 1 for place, target in zip(places, targets, strict=True))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ([500], "`m` has no checkpoint `500`. Nearest steps that exist: 128, 256, 1000."),
        (["checkpoint-3"], "`m` has no checkpoint `checkpoint-3`. Nearest steps that exist: 0, 1, 128, 256."),
        (
            [500, "step7"],
            "`m` has no checkpoint `500`. Nearest steps that exist: 128, 256, 1000. "
            "`m` has no checkpoint `step7`. Nearest steps that exist: 0, 1, 128, 256.",
        ),
        (
            ["checkpoint-"],
            "`m` has no checkpoint `checkpoint-`. Nearest: checkpoint-1, checkpoint-0, checkpoint-256.",
        ),
        ([128, "checkpoint-128"], "`checkpoints` of `m` lists checkpoint-128 more than once. Keep one."),
    ],
)
def test_what_does_not_exist_is_named_with_what_is_near(choice: list[str | int], message: str) -> None:
    with pytest.raises(InputError) as error:
        select_checkpoints(run_of(0, 1, 128, 256, 1000), choice, model="m")
    assert str(error.value) == message


def test_a_checkpoint_of_unknown_step_is_told_by_its_name() -> None:
    single = [Checkpoint("final", -1, Path())]
    with pytest.raises(InputError, match="has no checkpoint `100`. Nearest steps that exist: final."):
        select_checkpoints(single, [100], model="m")
