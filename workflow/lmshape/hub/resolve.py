"""From a registry entry to its lock: ask the hub once for commits and files of a model's checkpoints."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from lmshape.checkpoints import Checkpoint, Choice, nearest
from lmshape.errors import InputError
from lmshape.hub import budget, client
from lmshape.hub.integrity import Issue, audited, corrections, issues_of, with_sound_weights
from lmshape.hub.lock import Lock, LockedCheckpoint, Tokenizer, identity_of, read_lock, write_lock
from lmshape.hub.models import check_facts, choosable, choose, corrected_facts, known_checkpoints
from lmshape.hub.published import (
    MAIN,
    Naming,
    Place,
    Source,
    downloads_of_tokenizer,
    files_of_checkpoint,
    listed_places,
    path_safe,
    read_sources,
    tokens_seen,
)
from lmshape.hub.transfer import Transfer, WeightsIn, bring_files, cached_bytes
from lmshape.schema import Yaml
from lmshape.store.weights import config_facts, kind_of

_LOG = logging.getLogger(__name__)
UNNAMED = re.compile(r"[0-9a-f]{40}|refs/pr/\d+")


class _Asked:
    """The hub's answers during one resolution: each question is asked once."""

    def __init__(self, entry: Mapping[str, Yaml], previous: Lock | None) -> None:
        self._code, self._prefer = bool(entry.get("remote_code")), entry.get("weights", "")
        self.refs = cache(client.refs)
        self.files = cache(client.files)
        # A commit never changes: what a lock says of one need not be asked again.
        self._locked = {
            (one.repository, one.commit): [*one.files, *one.other_files]
            for one in (previous.checkpoints if previous else ())
            if not one.subfolder and one.other_files is not None
        }

    def refs_if_there(self, repository: str) -> list[client.Ref]:
        """List branches and tags; none of a repository that is not there."""
        try:
            return self.refs(repository)
        except client.NotThere:
            return []

    def main(self, repository: str) -> str | None:
        """Return the commit of the branch `main`."""
        return next((ref.commit for ref in self.refs(repository) if ref.name == MAIN), None)

    def with_files(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Choose what to download of a checkpoint, from the lock if it knows the commit."""
        commit = (one.repository, one.commit)
        listed = self._locked.get(commit) if not one.subfolder else None
        listed = self.files(*commit) if listed is None else listed
        files, others = files_of_checkpoint(listed, one.subfolder, code=self._code, prefer=self._prefer)
        return replace(one, files=files, other_files=others)

    def with_known_files(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Do so where the lock knows the commit; else leave it to be asked for."""
        known = (one.repository, one.commit) in self._locked and not one.subfolder
        return self.with_files(one) if known else one

    def prepare(self, checkpoints: Sequence[LockedCheckpoint]) -> None:
        """List the files of many checkpoints at once."""
        names = {(one.repository, one.commit): one.checkpoint for one in checkpoints}  # each commit once
        commits = {name: commit for commit, name in names.items()}
        what = f"files of {checkpoints[0].repository}"
        client.at_once(lambda commit: self.files(*commit), commits, what=what, unit="checkpoints")


def resolve(
    name: str,
    entry: Mapping[str, Yaml],
    *,
    issues: Sequence[Issue] = (),
    previous: Lock | None = None,
    choice: Choice = "all",
) -> Lock:
    """Ask the hub for a model's branches, tags and commits, and the files of those that a study takes, and audit them.

    A training run of 154 revisions takes some 160 small requests, eight at a time; one of which a study takes 20
    takes some 30. Commits that a previous lock already lists are not asked for again, since a commit never changes.

    Parameters
    ----------
    name, entry : of the registry
    issues : known faults of this model
    previous : the lock to renew; checkpoints whose weights have changed since count one revision more
    choice : what a study takes

    Raises
    ------
    InputError
        When the hub cannot be asked, or has no checkpoint of this model.
    """
    sources = read_sources(name, entry)
    asked = _Asked(entry, previous)
    found = _by_step([one for source in sources for one in _of_source(source, asked)])
    if not found:
        raise InputError(_nothing_found(name, sources[0], asked))
    tokens = entry.get("tokens_per_step")
    lock = Lock(
        model=name,
        identity=identity_of(entry),
        facts={},
        tokenizer=None,
        main_sha256=_weights_of_main(sources, found[-1], asked),
        checkpoints=tuple(
            asked.with_known_files(replace(one, tokens_seen=tokens_seen(one.step, tokens))) for one in found
        ),
        asked=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    lock = _judged(lock, entry, issues, previous)
    lock = _completed(lock, entry, asked, issues=issues, previous=previous, choice=choice)
    facts = _facts(lock.checkpoints)
    return replace(
        lock,
        facts=facts,
        corrected=corrected_facts(entry, facts),
        tokenizer=_tokenizer(entry, lock.checkpoints, asked),
    )


def _completed(
    lock: Lock,
    entry: Mapping[str, Yaml],
    asked: _Asked,
    *,
    issues: Sequence[Issue],
    previous: Lock | None,
    choice: Choice,
) -> Lock:
    """Ask for the files of the checkpoints that a study takes, and of others in the place of those that are not sound.

    The commits are those of the lock. Each verdict rests on what is known of all checkpoints by then.
    """
    while wanted := _to_ask(lock, entry, issues, choice):
        asked.prepare(wanted)
        found = (asked.with_files(one) if one in wanted else one for one in lock.checkpoints)
        lock = _judged(replace(lock, checkpoints=tuple(found)), entry, issues, previous)
    return lock


def _judged(lock: Lock, entry: Mapping[str, Yaml], issues: Sequence[Issue], previous: Lock | None) -> Lock:
    """Take other formats where the preferred one is not sound, count revisions, and give the verdicts."""
    known, main = lock.checkpoints, lock.main_sha256
    sound = known if entry.get("weights") else with_sound_weights(known, main=main, issues=issues)
    revised = [_revised(one, previous) for one in sound]
    return replace(lock, checkpoints=audited(revised, main=main, issues=issues))


def _to_ask(
    lock: Lock, entry: Mapping[str, Yaml], issues: Sequence[Issue], choice: Choice
) -> list[LockedCheckpoint]:
    """Return the checkpoints that a study takes, as far as is known, and whose files the hub was not asked for."""
    unknown = [one for one in lock.checkpoints if not one.asked]
    if not unknown or choice == "all":
        return unknown
    known, unlisted = known_checkpoints(lock.model, entry, listed_places(lock.model, entry), lock, issues)
    if isinstance(choice, list):
        taken = [one for one in (*known, *unlisted) if {one.name, str(one.step)} & set(map(str, choice))]
    else:
        trusted = choosable(known, choice)
        taken = [*choose(trusted, (), choice, model=lock.model)[0]] if trusted else []
    names = {one.name for one in taken}
    return [one for one in unknown if one.checkpoint in names]


def _of_source(source: Source, asked: _Asked) -> Iterator[LockedCheckpoint]:
    """List what the hub has, without files yet."""
    if source.naming is None:
        place = source.place(source.steps[0]) if source.steps else source.single()
        yield from _at(
            place, [_unnamed(place)] if UNNAMED.fullmatch(place.revision) else asked.refs(source.repository)
        )
    elif source.varying == "repository":
        places = [source.place(step) for step in source.steps or ()]
        names = {place.repository: place.repository for place in places}
        refs_of = client.at_once(
            asked.refs_if_there, names, what=f"revisions of {source.repository}", unit="repositories"
        )
        for place, refs in zip(places, refs_of, strict=True):
            yield from _at(place, refs)
    elif source.varying == "revision":
        yield from _of_revisions(source, source.naming, asked.refs(source.repository))
    else:
        yield from _of_subfolders(source, source.naming, asked)


def _unnamed(place: Place) -> client.Ref:
    """Return what a commit or a pull request means, which stand in no list of branches and tags."""
    commit = client.commit_of(place.repository, place.revision)
    return client.Ref(place.revision, "commit" if commit == place.revision else "pull request", commit)


def _of_revisions(source: Source, naming: Naming, refs: Sequence[client.Ref]) -> Iterator[LockedCheckpoint]:
    """Match branches and tags with the registry by their step; the registry's names are those of a study's paths."""
    names = {place.step: place.name for place in source.published() or ()}
    steps: set[int] = set()
    for ref in refs:
        step = naming.step(ref.name)
        if step is not None and step not in steps:
            steps.add(step)
            name = names.get(step, path_safe(ref.name))
            yield from _at(Place(name, step, source.repository, ref.name, source.subfolder), [ref])
    if source.main_step is not None and source.main_step not in steps:
        main = source.single()
        yield from _at(replace(main, name=names.get(main.step, main.name)), refs)


def _of_subfolders(source: Source, naming: Naming, asked: _Asked) -> Iterator[LockedCheckpoint]:
    refs = [ref for ref in asked.refs(source.repository) if ref.name == (source.revision or MAIN)]
    for ref in refs:
        files = asked.files(source.repository, ref.commit)
        for folder in sorted({file.path.rpartition("/")[0] for file in files}):
            step = naming.step(folder)
            if step is not None:
                place = Place(path_safe(folder), step, source.repository, ref.name, folder)
                yield from map(asked.with_files, _at(place, [ref]))


def _at(place: Place, refs: Sequence[client.Ref]) -> Iterator[LockedCheckpoint]:
    for ref in refs:
        if ref.name == place.revision:
            yield LockedCheckpoint(
                checkpoint=place.name,
                step=place.step,
                repository=place.repository,
                revision=place.revision,
                ref=ref.kind,
                commit=ref.commit,
                subfolder=place.subfolder,
                other_files=None,
            )


def _by_step(found: Sequence[LockedCheckpoint]) -> list[LockedCheckpoint]:
    """Order by step; of equal steps the first source's stays."""
    first: dict[int, LockedCheckpoint] = {}
    for one in found:
        first.setdefault(one.step, one)
    return [first[step] for step in sorted(first)]


def _revised(one: LockedCheckpoint, previous: Lock | None) -> LockedCheckpoint:
    """Count how often an update has found other weights under a name."""
    before = previous.named(one.checkpoint) if previous else None
    if before is None:
        return one
    other = before.asked and one.asked and before.weights_sha256 != one.weights_sha256
    return replace(one, revised=before.revised + other)


def _weights_of_main(sources: Sequence[Source], like: LockedCheckpoint, asked: _Asked) -> tuple[str, ...]:
    """Fingerprints of the weights on `main` of the repository whose branches the checkpoints are; none without it."""
    source = sources[0]
    commit = asked.main(source.repository) if source.varying == "revision" else None
    if commit is None:
        return ()
    place = replace(like, repository=source.repository, commit=commit, subfolder=source.subfolder)
    return tuple(one.weights_sha256 for one in asked.with_files(place).in_each_format())


def _facts(checkpoints: Sequence[LockedCheckpoint]) -> dict[str, str | int | None]:
    """Read the config.json of the last checkpoint that has one; nothing where it is shown to members only."""
    configs = (
        (one.repository, one.commit, file.path)
        for one in reversed(checkpoints)
        for file in one.files
        if file.path.rpartition("/")[2] == "config.json"
    )
    try:
        config = next((client.read_json(*place) for place in configs), {})
        return {**config_facts(config), "kind": kind_of(config)} if config else {}
    except client.Closed:
        return {}  # listings are open all the same, and so is the audit


def _tokenizer(
    entry: Mapping[str, Yaml], checkpoints: Sequence[LockedCheckpoint], asked: _Asked
) -> Tokenizer | None:
    """Take the tokenizer that the registry names, else that of `main`, else that of the last checkpoint."""
    last = next((one for one in reversed(checkpoints) if one.asked), checkpoints[-1])
    code = bool(entry.get("remote_code"))
    repository = entry.get("tokenizer", last.repository)
    places = [(repository, asked.main(repository), "")]
    if "tokenizer" not in entry:
        places.append((last.repository, last.commit, last.subfolder))
    for repository, commit, subfolder in places:
        if commit and (
            found := downloads_of_tokenizer(asked.files(repository, commit), subfolder, code=code)
        ):
            return Tokenizer(repository=repository, commit=commit, files=found)
    carried = tuple(file for file in last.weights if file.path.endswith(".gguf"))
    return Tokenizer(repository=last.repository, commit=last.commit, files=carried) if carried else None


def _nothing_found(name: str, source: Source, asked: _Asked) -> str:
    spelt = (
        source.naming.template or source.naming.pattern.pattern if source.naming else source.revision or MAIN
    )
    message = f"`{name}`: the hub has no checkpoint of `{source.repository}` that is spelt `{spelt}`."
    if source.varying == "repository":
        return message + " Correct `repository` or `steps` in the registry of models."
    names = [ref.name for ref in asked.refs(source.repository)]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"{message} Its branches and tags: {shown}. Correct `revision` in the registry of models."


def make_lock(
    path: Path,
    name: str,
    entry: Mapping[str, Yaml],
    *,
    issues: Sequence[Issue],
    choice: Choice = "all",
    update: bool = False,
) -> Lock:
    """Write a model's lock, or keep the one there is: its commits stay unless `update` says otherwise.

    A lock that is kept asks the hub at most for files of its commits, where a study takes others than before; its
    verdicts are made anew, since the list of known faults may have grown. One that was made for another repository or
    spelling is renewed.

    Parameters
    ----------
    path : of the lock
    name, entry : of the registry
    issues : known faults of any model
    choice : what a study takes
    update : ask again, and take what the names point at now

    Raises
    ------
    InputError
        When the hub cannot be asked, lacks a listed checkpoint, or has another shape of model than the registry.
    """
    previous = read_lock(path)
    kept = previous if previous and previous.identity == identity_of(entry) else None
    known = issues_of(issues, name)
    if kept and not update:
        lock = replace(kept, checkpoints=audited(kept.checkpoints, main=kept.main_sha256, issues=known))
        lock = _completed(lock, entry, _Asked(entry, kept), issues=known, previous=kept, choice=choice)
    else:
        lock = resolve(name, entry, issues=known, previous=kept, choice=choice)
        for correction in corrections(lock):
            _LOG.warning("%s: %s", name, correction)
    check_facts(name, entry, lock.facts)
    if lock != previous:
        write_lock(path, lock)
    if isinstance(choice, list):
        _check_listed(lock, choice)
    return lock


def _check_listed(lock: Lock, listed: Sequence[str | int]) -> None:
    """Refuse checkpoints that the hub does not have or has no weights of, all of them at once."""
    there = [Checkpoint(one.checkpoint, one.step, Path()) for one in lock.checkpoints if one.loadable]
    keys = {key for one in there for key in (one.name, str(one.step))}
    absent = [str(key) for key in listed if str(key) not in keys]
    if absent:
        near = (", ".join(one.name for one in nearest(key, there)) or "none" for key in absent)
        found = "; ".join(f"{key} (nearest: {names})" for key, names in zip(absent, near, strict=True))
        raise InputError(
            f"`{lock.model}`: {len(absent)} of its {len(listed)} checkpoints are not on the hub: {found}. "
            "Leave them out under `checkpoints`."
        )


def download(
    lock_file: Path,
    checkpoint: str,
    folder: Path,
    *,
    readers: Sequence[str],
    weights_in: WeightsIn,
    transfer: Transfer,
    keep: bool,
    budget_bytes: int | None,
) -> None:
    """Put a checkpoint's weights on the disk, after waiting for its share of the disk quota.

    Parameters
    ----------
    lock_file, checkpoint, folder : what is downloaded, and where to
    readers : datasets and truncations that will read these weights
    weights_in, transfer, keep, budget_bytes : the study's settings
    """
    lock = read_lock(lock_file)
    one = lock.named(checkpoint) if lock else None
    assert lock and one, "the study has checkpoints of its lock alone"
    if not one.asked:
        raise InputError(
            f"`{lock_file}` does not list the files of {checkpoint}, since no study took it when the hub was asked. "
            f"Ask the hub with `lmshape lock {lock.model}`, and run the same command again."
        )
    if budget_bytes is not None and weights_in == "study":
        size = sum(file.bytes for file in one.files) - cached_bytes(one)
        wanted = budget.Reservation(folder=str(folder), weights_bytes=size, readers=tuple(readers))
        budget.reserve(wanted, budget=budget_bytes, keeps=keep)
    budget.forget_readers(folder)
    bring_files(one, folder, weights_in=weights_in, transfer=transfer)


def bring_tokenizer(lock_file: Path, folder: Path) -> None:
    """Download the tokenizer that a lock names.

    Raises
    ------
    InputError
        When the model's repository has none.
    """
    lock = read_lock(lock_file)
    if lock is None or lock.tokenizer is None:
        raise InputError(
            f"`{lock_file}` names no tokenizer: its repository has none. Give the repository that does as "
            "`tokenizer` in the registry of models, then `lmshape lock --update`."
        )
    bring_files(lock.tokenizer, folder)
