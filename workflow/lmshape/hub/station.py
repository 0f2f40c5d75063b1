"""The stations between the registry and a checkpoint on the disk: lock, weights, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lmshape.errors import InputError
from lmshape.hub import budget
from lmshape.hub.integrity import Issue, audited, issues_of
from lmshape.hub.lock import Lock, LockedCheckpoint, identity_of, read_lock, write_lock
from lmshape.hub.models import check_facts
from lmshape.hub.resolve import resolve
from lmshape.hub.transfer import WeightsIn, bring_checkpoint, bring_files, cached_bytes
from lmshape.planning.checkpoints import Checkpoint, nearest
from lmshape.planning.schema import Yaml


def make_lock(
    path: Path,
    name: str,
    entry: Mapping[str, Yaml],
    *,
    issues: Sequence[Issue],
    wanted: Sequence[str] = (),
    update: bool = False,
) -> Lock:
    """Write a model's lock, or keep the one there is: its commits stay unless `update` says otherwise.

    A lock that is kept asks the hub for nothing; only its verdicts are made anew, since the list of known faults may
    have grown. One that was made for another repository or spelling is renewed.

    Parameters
    ----------
    path : of the lock
    name, entry : of the registry
    issues : known faults of any model
    wanted : checkpoints that a study takes
    update : ask again, and take what the names point at now

    Raises
    ------
    InputError
        When the hub cannot be asked, lacks a wanted checkpoint, or has another shape of model than the registry.
    """
    previous = read_lock(path)
    kept = previous if previous and previous.identity == identity_of(entry) else None
    known = issues_of(issues, name)
    if kept and not update:
        lock = replace(kept, checkpoints=audited(kept.checkpoints, main=kept.main_sha256, issues=known))
    else:
        lock = resolve(name, entry, issues=known, previous=kept)
    check_facts(name, entry, lock.facts)
    if lock != previous:
        write_lock(path, lock)
    check_wanted(name, lock, wanted)
    return lock


def check_wanted(name: str, lock: Lock, wanted: Sequence[str]) -> None:
    """Refuse checkpoints that the hub does not have or has no weights of, all of them at once, with the nearest it has.

    Raises
    ------
    InputError
        See above.
    """
    usable = [one for one in lock.checkpoints if one.weights and one.verdict != "incomplete"]
    names = {one.checkpoint for one in usable}
    absent = [name for name in wanted if name not in names]
    if absent:
        there = [Checkpoint(one.checkpoint, one.step, Path()) for one in usable]
        found = "; ".join(f"{one} (nearest: {_names(nearest(one, there))})" for one in absent)
        raise InputError(
            f"`{name}`: {len(absent)} of its {len(wanted)} checkpoints cannot be had from the hub: {found}. Leave them "
            f"out under `checkpoints`; after `lmshape lock {name}`, `all`, `every` and `log` choose of what there is."
        )


def _names(checkpoints: Sequence[Checkpoint]) -> str:
    return ", ".join(one.name for one in checkpoints) or "none"


def read_locked(lock_file: Path, checkpoint: str) -> LockedCheckpoint:
    """Read one checkpoint of a lock.

    Raises
    ------
    InputError
        When there is no lock, or it lacks the checkpoint.
    """
    lock = read_lock(lock_file)
    if lock is None:
        raise InputError(f"`{lock_file}` does not exist; `lmshape lock` makes it.")
    one = lock.named(checkpoint)
    if one is None:
        check_wanted(lock.model, lock, [checkpoint])
    return one


def download(
    lock_file: Path,
    checkpoint: str,
    folder: Path,
    *,
    datasets: Sequence[str],
    activations: Mapping[str, str],
    activation_bytes: int,
    weights_in: WeightsIn,
    keep: bool,
    budget_bytes: int | None,
) -> None:
    """Put a checkpoint's weights on the disk, after waiting for room within the budget.

    Parameters
    ----------
    lock_file, checkpoint, folder : what is downloaded, and where to
    datasets : those that will be read from these weights
    activations, activation_bytes : files that will be made of them and deleted, and the size of each
    weights_in, keep, budget_bytes : the study's settings
    """
    one = read_locked(lock_file, checkpoint)
    if budget_bytes is not None and weights_in == "study":
        size = sum(file.bytes for file in one.files) - cached_bytes(one)
        room = budget.Reservation(
            folder=str(folder),
            weights_bytes=size,
            datasets=list(datasets),
            activations=dict(activations),
            activation_bytes=activation_bytes,
        )
        budget.reserve(room, budget=budget_bytes, keeps=keep)
    bring_checkpoint(one, folder, weights_in=weights_in)


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
    found = lock.tokenizer
    receipt = {"repository": found.repository, "commit": found.commit}
    bring_files(found.repository, found.commit, found.files, folder, weights_in="study", receipt=receipt)
