"""Models of the hub as a study plans them: from the lock if there is one, else from what the registry lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.hub.integrity import Issue, audited, cited_verdict, issues_of
from lmshape.hub.lock import Lock, identity_of, read_lock
from lmshape.hub.published import Place, published, read_sources, tokens_seen
from lmshape.paths import LOCK, WEIGHTS
from lmshape.schema import Yaml

FACTS = ("kind", "architecture", "blocks", "width", "vocabulary")  # without them no job can be planned

Ask = Callable[[str, Mapping[str, Yaml]], Lock]


@dataclass(frozen=True, slots=True)
class HubRun:
    """What is known of a published run before anything is downloaded.

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
    name: str, entry: Mapping[str, Yaml], *, root: Path, ask: Ask | None, issues: Sequence[Issue] = ()
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

    Raises
    ------
    InputError
        When the entry cannot be read, or only the hub could tell and must not be asked.
    """
    places = published(read_sources(name, entry))
    lock = read_lock(root / LOCK.format(model=name))
    if lock is not None and lock.identity != identity_of(entry):
        lock = None  # of another repository, or another spelling: the rule that makes it runs again
    unknown = [fact for fact in FACTS if fact not in entry] + ["steps"] * (places is None)
    if lock is None and unknown:
        if ask is None:
            raise InputError(
                f"`{name}`: {', '.join(unknown)} are not in the registry; only the hub knows them. Ask it once with "
                f"`lmshape lock {name}`; that takes seconds and downloads no weights."
            )
        lock = ask(name, entry)
    told = lock.facts if lock else {}
    check_facts(name, entry, told)
    known = {**entry, **{fact: told[fact] for fact in corrected_facts(entry, told)}}
    facts = {fact: known.get(fact, told.get(fact)) for fact in (*FACTS, "context")}
    _check_known(name, facts)
    known_faults = issues_of(issues, name)
    listed = [_of_place(name, place, entry, known_faults) for place in places or ()]
    locked = _of_lock(name, lock, known_faults) if lock else listed
    steps = {one.step for one in listed or locked}
    checkpoints = tuple(one for one in locked if one.step in steps)
    if not checkpoints:
        raise InputError(
            f"`{name}`: the hub has weights of none of its checkpoints, says {LOCK.format(model=name)}. Look at them "
            f"with `lmshape audit {name}`, and correct the registry of models."
        )
    return HubRun(
        checkpoints=checkpoints,
        unlisted=tuple(one for one in locked if one.step not in steps),
        facts=facts,
        lock=lock,
    )


def corrected_facts(entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> dict[str, Yaml]:
    """Return the registry's values of unverified keys that the hub's config.json contradicts: the hub's counts."""
    return {key: entry[key] for key in _contradicted(entry, facts) if key in entry.get("unverified", ())}


def _contradicted(entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> list[str]:
    told = {
        key: value for key, value in facts.items() if value is not None and key != "kind"
    }  # a guess at times
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
    equal = [one.steps for one in issues if one.verdict == "expected_duplicate" and place.step in one.steps]
    content = str(sorted(equal[0])) if equal else ""
    return Checkpoint(place.name, place.step, folder, seen, verdict=verdict, content=content)


def _of_lock(name: str, lock: Lock, issues: Sequence[Issue]) -> list[Checkpoint]:
    """List the checkpoints of a lock that can be loaded, with the verdicts of what is known today."""
    return [
        Checkpoint(
            one.checkpoint,
            one.step,
            Path(WEIGHTS.format(model=name, checkpoint=one.checkpoint)),
            one.tokens_seen,
            revised=one.revised,
            verdict=one.verdict,
            content=one.content,
        )
        for one in audited(lock.checkpoints, main=lock.main_sha256, issues=issues)
        if one.loadable
    ]
