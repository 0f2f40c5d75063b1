"""From a registry entry to its lock: ask the hub once for commits and files of a model's checkpoints."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from lmshape.checkpoints import Checkpoint, Choice, by_key, nearest, select_checkpoints
from lmshape.errors import InputError, about
from lmshape.hub import client
from lmshape.hub.integrity import Issue, audited, corrections, with_sound_weights
from lmshape.hub.lock import (
    MAIN,
    Lock,
    LockedCheckpoint,
    LockedFile,
    Tokenizer,
    identity_of,
    read_lock,
    write_lock,
)
from lmshape.hub.published import (
    Naming,
    Source,
    by_step,
    check_facts,
    choosable,
    corrected,
    downloads_of_tokenizer,
    files_of_checkpoint,
    known_checkpoints,
    read_sources,
)
from lmshape.schema import Yaml
from lmshape.store.weights import check_architecture, config_facts, kind_of

_LOG = logging.getLogger(__name__)
UNNAMED = re.compile(r"[0-9a-f]{40}|refs/pr/\d+")


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
    asking = _Asking(name, entry, issues, kept, choice)
    if kept and not update:
        lock = corrected(asking.completed(audited(kept, issues)), entry)
    else:
        lock = asking.lock()
    if previous is None or lock.corrected != previous.corrected:
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
    loadable = [one for one in lock.checkpoints if one.loadable]
    there = [Checkpoint(one.checkpoint, one.step, Path(), revision=one.revision) for one in loadable]
    named = by_key(there)
    absent = [str(key) for key in listed if str(key) not in named]
    if absent:
        near = (", ".join(one.name for one in nearest(key, there)) or "none" for key in absent)
        found = "; ".join(f"{key} (nearest: {names})" for key, names in zip(absent, near, strict=True))
        raise InputError(
            f"`{lock.model}`: {len(absent)} of its {len(listed)} checkpoints are not on the hub: {found}. "
            "Leave them out under `checkpoints`."
        )


def resolve(name: str, entry: Mapping[str, Yaml], *, issues: Sequence[Issue] = ()) -> Lock:
    """Ask the hub for a model's branches, tags and commits, and the files of all of them, and audit them.

    A training run of 154 revisions takes some 160 small requests, eight at a time. Parameters as of `make_lock`.

    Raises
    ------
    InputError
        When the hub cannot be asked, or has no checkpoint of this model.
    """
    return _Asking(name, entry, issues).lock()


class _Asking:
    """What the hub is asked of one model, each question once.

    Attributes
    ----------
    name, entry : of the registry
    issues : known faults of any model
    previous : the lock to renew; checkpoints whose weights have changed since count one revision more
    choice : what a study takes: the files of other checkpoints are not asked for
    """

    def __init__(
        self,
        name: str,
        entry: Mapping[str, Yaml],
        issues: Sequence[Issue],
        previous: Lock | None = None,
        choice: Choice = "all",
    ) -> None:
        self.name, self.entry, self.issues = name, entry, issues
        self.previous, self.choice = previous, choice
        self.sources = read_sources(name, entry)
        self.code = bool(entry.get("remote_code"))
        self.refs = cache(client.refs)
        self.files = cache(client.files)
        # A commit never changes: what a lock says of one need not be asked again.
        self.known = {
            (one.repository, one.commit, one.subfolder): [*one.files, *one.other_files]
            for one in (previous.checkpoints if previous else ())
            if one.other_files is not None
        }

    def lock(self) -> Lock:
        """Make the lock: commits, files and verdicts."""
        found = by_step(one for source in self.sources for one in self.of_source(source))
        if not found:
            raise InputError(self.nothing_found(self.sources[0]))
        lock = Lock(
            model=self.name,
            identity=identity_of(self.entry),
            facts={},
            tokenizer=None,
            main_sha256=self.weights_of_main(found[-1]),
            checkpoints=tuple(self.with_files(one) if self.key(one) in self.known else one for one in found),
            asked=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        lock = self.completed(self.judged(lock))
        told = replace(lock, facts=self.facts(lock.checkpoints), tokenizer=self.tokenizer(lock.checkpoints))
        return corrected(told, self.entry)

    def completed(self, lock: Lock) -> Lock:
        """Ask for the files of the checkpoints that a study takes, and of others in the place of those not sound.

        The commits are those of the lock. Each verdict rests on what is known of all checkpoints by then.
        """
        while wanted := self.to_ask(lock):
            names = {self.key(one)[:2]: one.checkpoint for one in wanted}  # each commit once
            commits = {name: commit for commit, name in names.items()}
            what = f"files of {wanted[0].repository}"
            client.at_once(lambda commit: self.files(*commit), commits, what=what, unit="checkpoints")
            found = (self.with_files(one) if one in wanted else one for one in lock.checkpoints)
            lock = self.judged(replace(lock, checkpoints=tuple(found)))
        return lock

    def judged(self, lock: Lock) -> Lock:
        """Take other formats where the preferred one is not sound, count revisions, and give the verdicts."""
        sound = lock if self.entry.get("weights") else with_sound_weights(lock, self.issues)
        revised = tuple(map(self.revised, sound.checkpoints))
        return audited(replace(sound, checkpoints=revised), self.issues)

    def revised(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Count how often an update has found other weights under a name."""
        before = self.previous.named(one.checkpoint) if self.previous else None
        if before is None:
            return one
        other = before.asked and one.asked and before.weights_sha256 != one.weights_sha256
        return replace(one, revised=before.revised + other)

    def to_ask(self, lock: Lock) -> list[LockedCheckpoint]:
        """Return the checkpoints that a study takes, as far as is known, and whose files the hub was not asked for."""
        unknown = [one for one in lock.checkpoints if not one.asked]
        if not unknown or self.choice == "all":
            return unknown
        known, unlisted = known_checkpoints(lock.model, self.entry, lock, self.issues)
        trusted, taken = choosable(known, self.choice), []
        if isinstance(self.choice, list):
            named = by_key([*known, *unlisted])
            taken = [named[str(key)] for key in self.choice if str(key) in named]
        elif trusted:
            taken = [*select_checkpoints(trusted, self.choice, model=lock.model)]
        names = {one.name for one in taken}
        return [one for one in unknown if one.checkpoint in names]

    def with_files(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Choose what to download of a checkpoint, from the lock if it knows the commit."""
        listed: Sequence[LockedFile] | None = self.known.get(self.key(one))
        if listed is None:
            listed = self.files(one.repository, one.commit)
        prefer = self.entry.get("weights", "")
        files, others = files_of_checkpoint(listed, one.subfolder, code=self.code, prefer=prefer)
        return replace(one, files=files, other_files=others)

    @staticmethod
    def key(one: LockedCheckpoint) -> tuple[str, str, str]:
        """Return what determines the files of a checkpoint."""
        return one.repository, one.commit, one.subfolder

    def main(self, repository: str) -> str | None:
        """Return the commit of the branch `main`."""
        return self.refs(repository)[MAIN][1] if MAIN in self.refs(repository) else None

    def weights_of_main(self, like: LockedCheckpoint) -> tuple[str, ...]:
        """Fingerprints of the weights on `main` of the repository whose branches checkpoints are; none without it."""
        source = self.sources[0]
        commit = self.main(source.repository) if source.varying == "revision" else None
        if commit is None:
            return ()
        place = replace(like, repository=source.repository, commit=commit, subfolder=source.subfolder)
        return tuple(one.weights_sha256 for one in self.with_files(place).in_each_format())

    def of_source(self, source: Source) -> Iterator[LockedCheckpoint]:
        """List what the hub has, without files yet."""
        if source.naming is None:
            place = source.place(source.steps[0]) if source.steps else source.single()
            unnamed = UNNAMED.fullmatch(place.revision)
            yield from _at(place, _unnamed(place) if unnamed else self.refs(place.repository))
        elif source.varying == "repository":
            places = [source.place(step) for step in source.steps or ()]
            names = {place.repository: place.repository for place in places}
            what = f"revisions of {source.repository}"
            refs_of = client.at_once(self.refs_if_there, names, what=what, unit="repositories")
            for place, refs in zip(places, refs_of, strict=True):
                yield from _at(place, refs)
        elif source.varying == "revision":
            yield from self.of_revisions(source, source.naming)
        else:
            yield from self.of_subfolders(source, source.naming)

    def refs_if_there(self, repository: str) -> client.Refs:
        """List branches and tags; none of a repository that is not there."""
        try:
            return self.refs(repository)
        except client.NotThere:
            return {}

    def of_revisions(self, source: Source, naming: Naming) -> Iterator[LockedCheckpoint]:
        """Match branches and tags with the registry by their step; the registry's names are those of paths."""
        refs = self.refs(source.repository)
        names = {place.step: place.checkpoint for place in source.published() or ()}
        steps: set[int] = set()
        for ref in refs:
            step = naming.step(ref)
            if step is not None and step not in steps:
                steps.add(step)
                yield from _at(source.at(step, names.get(step, ref), revision=ref), refs)
        if source.main_step is not None and source.main_step not in steps:
            yield from _at(
                source.at(source.main_step, names.get(source.main_step, MAIN), revision=MAIN), refs
            )

    def of_subfolders(self, source: Source, naming: Naming) -> Iterator[LockedCheckpoint]:
        """Match folders with the registry by their step."""
        refs = self.refs(source.repository)
        for root in _at(source.single(), refs):
            files = self.files(root.repository, root.commit)
            for folder in sorted({file.path.rpartition("/")[0] for file in files}):
                step = naming.step(folder)
                if step is not None:
                    yield from map(self.with_files, _at(source.at(step, folder, subfolder=folder), refs))

    def facts(self, checkpoints: Sequence[LockedCheckpoint]) -> dict[str, str | int | None]:
        """Read the config.json of the last checkpoint that has one; nothing where it is shown to members only."""
        configs = (
            (one.repository, one.commit, file.path)
            for one in reversed(checkpoints)
            for file in one.files
            if file.path.rpartition("/")[2] == "config.json"
        )
        try:
            config = next((client.read_json(*place) for place in configs), {})
        except client.Closed:
            return {}  # listings are open all the same, and so is the audit
        if not config:
            return {}
        if "model_type" in config and not self.code:
            with about(self.name):  # before anything is downloaded that cannot be read
                check_architecture(config, self.entry.get("kind") or kind_of(config))
        return {**config_facts(config), "kind": kind_of(config)}

    def tokenizer(self, checkpoints: Sequence[LockedCheckpoint]) -> Tokenizer | None:
        """Take the tokenizer that the registry names, else that of `main`, else that of the last checkpoint."""
        last = next((one for one in reversed(checkpoints) if one.asked), checkpoints[-1])
        repository = self.entry.get("tokenizer", last.repository)
        places = [(repository, self.main(repository), "")]
        if "tokenizer" not in self.entry:
            places.append((last.repository, last.commit, last.subfolder))
        for repository, commit, subfolder in places:
            if commit and (
                found := downloads_of_tokenizer(self.files(repository, commit), subfolder, code=self.code)
            ):
                return Tokenizer(repository=repository, commit=commit, files=found)
        carried = tuple(file for file in last.weights if file.format == "gguf")
        return Tokenizer(repository=last.repository, commit=last.commit, files=carried) if carried else None

    def nothing_found(self, source: Source) -> str:
        """Say how the checkpoints are spelt that are not there, and what is."""
        naming = source.naming
        spelt = naming.template or naming.pattern.pattern if naming else source.revision or MAIN
        message = (
            f"`{self.name}`: the hub has no checkpoint of `{source.repository}` that is spelt `{spelt}`."
        )
        if source.varying == "repository":
            return message + " Correct `repository` or `steps` in the registry of models."
        names = list(self.refs(source.repository))
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        return f"{message} Its branches and tags: {shown}. Correct `revision` in the registry of models."


def _unnamed(place: LockedCheckpoint) -> client.Refs:
    """Return what a commit or a pull request means, which stand in no list of branches and tags."""
    commit = client.commit_of(place.repository, place.revision)
    return {place.revision: ("commit" if commit == place.revision else "pull request", commit)}


def _at(place: LockedCheckpoint, refs: client.Refs) -> Iterator[LockedCheckpoint]:
    """Give a place the commit of its revision; nothing where the hub has no such revision."""
    if place.revision in refs:
        ref, commit = refs[place.revision]
        yield replace(place, ref=ref, commit=commit)
