"""Hub models of a study, planned from the lock or else from the registry, and the checkpoints that the study takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmshape.checkpoints import Checkpoint, Choice, select_checkpoints
from lmshape.errors import InputError
from lmshape.hub.integrity import DISTRUSTED, Issue, audited, cited_verdict, issues_of
from lmshape.hub.lock import NOT_ASKED, Lock, identity_of, read_lock
from lmshape.hub.published import Place, listed_places, tokens_seen
from lmshape.paths import LOCK, LOSSES_FOLDER, WEIGHTS
from lmshape.schema import Yaml

FACTS = ("kind", "architecture", "blocks", "width", "vocabulary")  # without them no job can be planned

Ask = Callable[..., Lock]  # `lmshape.hub.resolve.make_lock`


@dataclass(frozen=True, slots=True)
class HubRun:
    """The known facts of a published run before any download.

    Attributes
    ----------
    checkpoints, unlisted : by step; those that the registry lists, or all where it has no list, and the others
    facts : kind, architecture, blocks, width, vocabulary, context; the registry's before the hub's
    lock : what the hub said, if it was asked
    """

    checkpoints: tuple[Checkpoint, ...]
    unlisted: tuple[Checkpoint, ...]
    facts: Mapping[str, Any]
    lock: Lock | None


def read_run(
    name: str,
    entry: Mapping[str, Yaml],
    *,
    root: Path,
    ask: Ask | None,
    issues: Sequence[Issue] = (),
    choice: Choice = "all",
) -> HubRun:
    """Look up the checkpoints of a published run.

    The registry's list counts as far as the lock, if there is one, has checkpoints of these steps, so that the plan
    is the same before and after the hub was asked. Where the registry has no list, or lacks the shape of the model,
    the lock tells; and where there is no lock, the hub is asked now.

    Parameters
    ----------
    name, entry : of the registry
    root : the working directory
    ask : makes the lock, and writes it; None refuses instead
    issues : known faults of any model
    choice : the checkpoints that a new lock must know

    Raises
    ------
    InputError
        When the entry cannot be read, or only the hub could tell and must not be asked.
    """
    places = listed_places(name, entry)
    path = root / LOCK.format(model=name)
    lock = read_lock(path)
    if lock is None and (root / LOSSES_FOLDER.format(model=name)).is_dir():
        print(
            f"`{name}`: {LOCK.format(model=name)} is gone, and its results are still there. Restore a copy of it "
            "if you have one. Else the hub is asked again, and results of commits that it no longer has are refused.",
            file=sys.stderr,
        )
    if lock is not None and lock.identity != identity_of(entry):
        lock = None  # of another repository, or another spelling: the rule that makes it runs again
    unknown = [fact for fact in FACTS if fact not in entry] + ["steps"] * (places is None)
    if lock is None and unknown:
        if ask is None:
            raise InputError(
                f"`{name}`: {', '.join(unknown)} are not in the registry; only the hub knows them. Ask it once with "
                f"`lmshape lock {name}`; that takes seconds and downloads no weights."
            )
        lock = ask(path, name, entry, issues=issues, choice=choice)
    told = lock.facts if lock else {}
    check_facts(name, entry, told)
    known = {**entry, **{fact: told[fact] for fact in corrected_facts(entry, told)}}
    facts = {fact: known.get(fact, told.get(fact)) for fact in (*FACTS, "context")}
    _check_known(name, facts)
    checkpoints, unlisted = known_checkpoints(name, entry, places, lock, issues_of(issues, name))
    if not checkpoints:
        raise InputError(
            f"`{name}`: the hub has weights of none of its checkpoints, by {LOCK.format(model=name)}. Look at them "
            f"with `lmshape audit {name}`, and correct the registry of models."
        )
    return HubRun(tuple(checkpoints), tuple(unlisted), facts, lock)


def known_checkpoints(
    name: str,
    entry: Mapping[str, Yaml],
    places: Sequence[Place] | None,
    lock: Lock | None,
    issues: Sequence[Issue],
) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Return the checkpoints that the registry lists, or all where it has no list, and the others; by step.

    Parameters
    ----------
    name, entry : of the registry
    places : `listed_places` of it
    lock : what the hub said, if it was asked
    issues : known faults of this model
    """
    listed = [_of_place(name, place, entry, issues) for place in places or ()]
    locked = _of_lock(name, lock, issues) if lock else listed
    steps = {one.step for one in listed or locked}
    return [one for one in locked if one.step in steps], [one for one in locked if one.step not in steps]


def choose(
    known: Sequence[Checkpoint], unlisted: Sequence[Checkpoint], choice: Choice, *, model: str
) -> tuple[tuple[Checkpoint, ...], tuple[Checkpoint, ...]]:
    """Choose the checkpoints of a study, and list those that were skipped.

    A list takes what it names, other choices among the `choosable`. Of those with the same content one is measured, a
    trusted one before a doubted one: `same_as` of the others names it.

    Parameters
    ----------
    known, unlisted : those that any choice may take, by step, and those that a list of names alone takes
    choice : what the study asks for
    model : name for the error message

    Raises
    ------
    InputError
        When a listed one does not exist, or none is left to choose from.
    """
    if isinstance(choice, list):
        known = sorted([*known, *unlisted], key=lambda checkpoint: checkpoint.step)
    trusted = choosable(known, choice)
    doubted = tuple(one for one in known if one not in trusted)
    if not trusted:
        raise InputError(
            f"`{model}`: none of its {len(doubted)} checkpoints is known to match its name. Look at "
            f"them with `lmshape audit {model}`, and list under `checkpoints` those that you want anyway."
        )
    chosen = select_checkpoints(trusted, choice, model=model)
    measured: dict[str, str] = {}
    for one in sorted(chosen, key=lambda one: one.verdict in DISTRUSTED):
        measured.setdefault(one.content or one.name, one.name)
    firsts = {one.name: measured[one.content or one.name] for one in chosen}
    taken = (
        replace(one, same_as=first) if (first := firsts[one.name]) != one.name else one for one in chosen
    )
    return tuple(taken), doubted


def choosable(known: Sequence[Checkpoint], choice: Choice) -> list[Checkpoint]:
    """Return those that a choice is among: for `every` and `log` what is, as far as known, what its name says."""
    return [one for one in known if not isinstance(choice, dict) or one.verdict not in DISTRUSTED]


def corrected_facts(entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> dict[str, Yaml]:
    """Return the registry's values of unverified keys that the hub's config.json contradicts: the hub's counts."""
    return {key: entry[key] for key in _contradicted(entry, facts) if key in entry.get("unverified", ())}


def _contradicted(entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> list[str]:
    # `kind` of config.json is a guess at times
    told = {key: value for key, value in facts.items() if value is not None and key != "kind"}
    return [key for key, value in told.items() if entry.get(key) not in (None, value)]


def check_facts(name: str, entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> None:
    """Refuse a registry entry whose shape is not that of the hub's config.json, in a key that is not `unverified`.

    Raises
    ------
    InputError
        Naming the keys, both values, and what to correct.
    """
    wrong = [
        f"`{key}` is {entry[key]}, config.json has {facts[key]}"
        for key in _contradicted(entry, facts)
        if key not in entry.get("unverified", ())
    ]
    if wrong:
        raise InputError(
            f"`{name}`: the registry and the hub's config.json differ: {'; '.join(wrong)}. Correct the registry of "
            "models, name these keys under `unverified`, or take them out of the entry."
        )


def _check_known(name: str, facts: Mapping[str, str | int | None]) -> None:
    unknown = [fact for fact in FACTS if facts[fact] is None]
    if unknown:
        raise InputError(
            f"`{name}`: {', '.join(unknown)} are not in the registry, and the hub has not shown its config.json. Log "
            f"in (`hf auth login`, or HF_TOKEN) and ask again, `lmshape lock --update {name}`, or give them in the "
            "registry of models."
        )


def _of_place(name: str, place: Place, entry: Mapping[str, Yaml], issues: Sequence[Issue]) -> Checkpoint:
    seen = tokens_seen(place.step, entry.get("tokens_per_step"))
    folder = Path(WEIGHTS.format(model=name, checkpoint=place.name))
    verdict = cited_verdict(issues, place.step, weights=entry.get("weights", ""))
    content = _cited_content(issues, place.step)
    return Checkpoint(place.name, place.step, folder, seen, verdict=verdict, content=content)


def _cited_content(issues: Sequence[Issue], step: int) -> str:
    """Spell the steps that are said to have the weights of a step; "" where nothing is said."""
    equal = (one.steps for one in issues if one.verdict == "expected_duplicate" and step in one.steps)
    return str(sorted(next(equal, ())) or "")


def _of_lock(name: str, lock: Lock, issues: Sequence[Issue]) -> list[Checkpoint]:
    """List the checkpoints of a lock that can be loaded, with the verdicts of what is known today."""
    return [
        Checkpoint(
            one.checkpoint,
            one.step,
            Path(WEIGHTS.format(model=name, checkpoint=one.checkpoint)),
            one.tokens_seen,
            revised=one.revised,
            verdict="" if one.verdict == NOT_ASKED else one.verdict,
            content=one.content if one.asked else _cited_content(issues, one.step),
        )
        for one in audited(lock.checkpoints, main=lock.main_sha256, issues=issues)
        if one.loadable
    ]
