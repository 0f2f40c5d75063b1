"""The checkpoints of a training run: those that pretraining writes, and those that a study takes."""

from __future__ import annotations

import math
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from lmshape.errors import InputError, suggest

FINAL, NO_STEP = "final", -1  # the checkpoint of a folder that is one itself, and its step, which is unknown
Choice = str | list[str | int] | dict[str, int]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights as they were after a training step.

    Attributes
    ----------
    name : name of its folder, with dashes for characters that a path cannot hold
    step : training steps done; -1 where it is not known
    folder : where weights and config.json lie, as the registry writes it: from the working directory
    tokens_seen : training tokens up to the step, NaN when the registry does not know them
    revision : what the hub calls it, as far as known; "" for a local run
    revised : how often a renewed lock has found other weights under this name, on the hub
    gone : whether its folder was deleted, as Trainer's rotation does; what was measured of it stays
    truncated : of one that is gone, the datasets on which it was truncated
    verdict : of the audit, on the hub; before there is a lock of the list of known faults; "" where nothing is known
    content : equal for checkpoints on the hub whose weights and config.json are equal; "" where nothing is known
    same_as : the checkpoint of a study that is measured in the place of this one, whose content it has; "" for none
    """

    name: str
    step: int
    folder: Path
    tokens_seen: float = math.nan
    revision: str = ""
    revised: int = 0
    gone: bool = False
    truncated: tuple[str, ...] = ()
    verdict: str = ""
    content: str = ""
    same_as: str = ""


def checkpoint_steps(steps: int, linear_every: int) -> tuple[int, ...]:
    """Steps at which a pretraining saves its weights, spaced as Pythia's.

    Step 0, the powers of two below `linear_every`, every `linear_every` steps from there, and the last step.

    Examples
    --------
    >>> checkpoint_steps(steps=20, linear_every=6)
    (0, 1, 2, 4, 6, 12, 18, 20)
    """
    powers = (2**exponent for exponent in range((linear_every - 1).bit_length()))
    candidates = {0, *powers, *range(linear_every, steps + 1, linear_every), steps}
    return tuple(sorted(step for step in candidates if step <= steps))


def expand_steps(steps: Sequence[int | dict[str, int]], *, where: str) -> tuple[int, ...]:
    """Write out `[0, 1, {from: 1000, to: 3000, every: 1000}]` as (0, 1, 1000, 2000, 3000).

    Raises
    ------
    InputError
        When the steps do not ascend, or a range ends before it begins.
    """
    expanded: list[int] = []
    for entry in steps:
        if isinstance(entry, int):
            expanded.append(entry)
            continue
        first, last = entry["from"], entry["to"]
        if last < first:
            raise InputError(f"`{where}`: from {first} to {last} there is no step. Swap the two.")
        expanded += range(first, last + 1, entry["every"])
    for before, after in pairwise(expanded):
        if after <= before:
            raise InputError(f"`{where}`: {after} follows {before}. List the steps in ascending order, once.")
    return tuple(expanded)


def select_checkpoints(
    available: Sequence[Checkpoint], choice: Choice, *, model: str
) -> tuple[Checkpoint, ...]:
    """Take the checkpoints that a study asks for, in the order of their steps.

    Parameters
    ----------
    available : those that exist, in the order of their steps, at least one
    choice : `all`, `last`, a list of names or steps, `{"every": n}` or `{"log": n}`
    model : name for the error message

    Raises
    ------
    InputError
        When the list has a checkpoint that does not exist (the message names the nearest), or has one twice.
    """
    if isinstance(choice, str):
        return tuple(available) if choice == "all" else (available[-1],)
    if isinstance(choice, list):
        return _listed(available, choice, model=model)
    if "every" in choice:
        return (*available[: -1 : choice["every"]], available[-1])
    return tuple(available[i] for i in log_spaced([one.step for one in available], choice["log"]))


def under_each_name(
    told: Mapping[str, Any], same: Mapping[str, Sequence[Checkpoint]]
) -> Iterator[dict[str, Any]]:
    """Yield what a file says of its checkpoint, then what it would say under each other name of these weights.

    Parameters
    ----------
    told : attributes of the file, or columns of a row
    same : measured checkpoint → those whose weights equal its
    """
    yield dict(told)
    for one in same.get(str(told["checkpoint"]), ()):
        yield {**told, "checkpoint": one.name, "step": one.step, "tokens_seen": one.tokens_seen}


def log_spaced(steps: Sequence[int], count: int) -> list[int]:
    """Indices of `count` of the ascending steps, as evenly spaced in ln(1 + step) as they allow.

    First and last are among them; all indices when there are no more than `count`. Greedy from the first
    on: to each evenly spaced target the nearest step that leaves enough steps for the targets behind it.
    """
    if len(steps) <= count:
        return list(range(len(steps)))
    places = [math.log1p(step) for step in steps]
    spacing = (places[-1] - places[0]) / (count - 1)
    chosen = [0]
    for number in range(1, count):
        target = places[0] + number * spacing
        possible = range(chosen[-1] + 1, len(steps) - (count - 1 - number))
        chosen.append(min(possible, key=lambda index: abs(places[index] - target)))
    return chosen


def by_key(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Name, step and, where no other has it, revision → checkpoint: what a list may call it."""
    every = list(checkpoints)
    counts = Counter(one.revision for one in every)
    revisions = {one.revision: one for one in every if one.revision and counts[one.revision] == 1}
    return revisions | {key: one for one in every for key in (one.name, str(one.step))}


def _listed(
    available: Sequence[Checkpoint], wanted: list[str | int], *, model: str
) -> tuple[Checkpoint, ...]:
    named = by_key(available)
    absent = [key for key in wanted if str(key) not in named]
    if absent:
        raise InputError(" ".join(_absent(key, available, model=model) for key in absent))
    found = [named[str(key)] for key in wanted]
    for checkpoint in found:
        if found.count(checkpoint) > 1:
            raise InputError(f"`checkpoints` of `{model}` lists {checkpoint.name} more than once. Keep one.")
    return tuple(sorted(found, key=lambda checkpoint: checkpoint.step))


def _absent(key: str | int, available: Sequence[Checkpoint], *, model: str) -> str:
    message = f"`{model}` has no checkpoint `{key}`."
    near = nearest(key, available)
    if near:
        steps = (one.name if one.step == NO_STEP else str(one.step) for one in near)
        return f"{message} Nearest steps that exist: {', '.join(steps)}."
    return message + suggest(key, [checkpoint.name for checkpoint in available])


def nearest(key: str | int, available: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
    """Find the checkpoints around the step that a name tells; none for a name without a number."""
    digits = re.search(r"step[-_]?(\d+)", str(key)) or re.search(r"(\d+)\D*$", str(key))
    if digits is None:
        return []
    place = bisect([checkpoint.step for checkpoint in available], int(digits[1]))
    return available[max(0, place - 2) : place + 2]
