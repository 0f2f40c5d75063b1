"""The audit of checkpoint names: equal weights under two names, missing weights, known faults.

A pure function of what the hub says of every revision and of the cited list of faults; no weight is downloaded.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median_low
from typing import Any

from lmshape.checkpoints import expand_steps
from lmshape.errors import InputError
from lmshape.hub.lock import MAIN, NOT_ASKED, UNLOADABLE, Lock, LockedCheckpoint
from lmshape.progress import size_text
from lmshape.schema import faults, read_yaml, schema_with_names

EXPECTED = "expected_duplicate"
# Worst first: a checkpoint that deserves several gets the first.
AUDIT_VERDICTS = {
    "no_weights": "the hub has no weights under this name",
    "incomplete": "shards that the others announce, parts of them or their index are missing",
    "wrong_weights": "known to hold the weights of another step",
    "same_as_main": "the weights of main, under the name of an earlier step",
    "duplicate": "the weights of another step, too: at most one of the names is right",
    "mixed_shards": "some of its shards are those of another step",
    "doubtful": "its source gives a reason to doubt it; it is measured and shown",
    EXPECTED: "known to equal another step, and rightly so",
    NOT_ASKED: "no study chooses it, and the hub was not asked for its files",
    "ok": "nothing is known against it",
}
DISTRUSTED = (*UNLOADABLE, "wrong_weights", "same_as_main", "duplicate", "mixed_shards")  # only in tables

SAME_SIZE = 1e-3  # equal tensors in containers whose names differ; a lost part of a shard is more
MOST_SOUND = 40  # of checkpoints with the verdict ok, in a table for people
KEYS = tuple(  # of a checkpoint, in JSON
    "checkpoint step verdict note repository revision ref commit subfolder tokens_seen weights_sha256 "
    "weights_bytes same_weights_as".split()
)
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.(safetensors|bin)")


@dataclass(frozen=True, slots=True)
class Issue:
    """A published fault: models (shell patterns), steps, verdict, who says so, and the files, where not all have it."""

    models: tuple[str, ...]
    steps: frozenset[int]
    verdict: str
    reason: str
    source: str
    files: tuple[str, ...] = ()

    def concerns(self, one: LockedCheckpoint) -> bool:
        """Whether it concerns the files that lmshape takes of a checkpoint."""
        if one.step not in self.steps:
            return False
        names = {file.path.rpartition("/")[2] for file in one.weights}
        return not self.files or any(fnmatchcase(name, pattern) for name in names for pattern in self.files)


def read_issues(path: Path) -> tuple[Issue, ...]:
    """Read the cited list of known faults.

    Raises
    ------
    InputError
        When it cannot be read, or an entry has a key or a verdict that is not known.
    """
    data = read_yaml(path)
    found = faults(data, schema_with_names("known_issues", {}), where=f"{path}: ")
    if found:
        raise InputError("\n".join(found))
    return tuple(
        Issue(
            models=tuple(entry["models"]),
            steps=frozenset(expand_steps(entry["steps"], where="known_issues.steps")),
            verdict=entry["verdict"],
            reason=entry["reason"].rstrip("."),
            source=entry["source"],
            files=tuple(entry.get("files", ())),
        )
        for entry in data
    )


def issues_of(issues: Iterable[Issue], model: str) -> tuple[Issue, ...]:
    """Keep the faults of one model."""
    return tuple(issue for issue in issues if any(fnmatchcase(model, pattern) for pattern in issue.models))


def cited_verdict(issues: Iterable[Issue], step: int, *, weights: str = "") -> str:
    """Return what the list of known faults says of a step before the hub is asked; "" where it says nothing.

    A fault of some files counts, since only the hub can tell which others there are; but not where the registry asks
    for another format (`weights`).
    """
    return _worst(
        issue.verdict
        for issue in issues
        if step in issue.steps
        and (not weights or not issue.files or any(name.endswith(weights) for name in issue.files))
    )


def _worst(verdicts: Iterable[str]) -> str:
    return min(verdicts, key=list(AUDIT_VERDICTS).index, default="")


def audited(lock: Lock, issues: Iterable[Issue]) -> Lock:
    """Give every checkpoint of a lock its `verdict`, `same_weights_as` and `note`.

    The checkpoint of the last step may equal `main`; of several others that equal each other, or share a shard, none
    is trusted, since the weights do not say whose they are.

    Parameters
    ----------
    lock : of a model
    issues : known faults of any model
    """
    evidence = _Evidence(lock, issues)
    return replace(lock, checkpoints=tuple(map(evidence.judged, lock.checkpoints)))


def with_sound_weights(lock: Lock, issues: Iterable[Issue]) -> Lock:
    """Take other formats where the preferred one holds the weights of another step, or some are missing.

    Another format counts as sound when its verdict is one to trust and its size the usual one. Where none is, the
    preferred one stays, with its verdict. Parameters as of `audited`.
    """
    evidence = _Evidence(lock, issues)
    return replace(lock, checkpoints=tuple(map(evidence.sound, lock.checkpoints)))


class _Evidence:
    """Facts of all checkpoints of a model together, and what they say of each.

    Attributes
    ----------
    of_weights : fingerprint of whole weights → names of the checkpoints that have them in any format
    of_file : digest of one file of weights → the same
    preferred : format that the registry names; "" where it names none
    usual_bytes : format → size of more than half of the weights of at least two checkpoints, where there is one
    may_be_main : names of the last checkpoint, which may equal `main`, and of `main` itself
    """

    def __init__(self, lock: Lock, issues: Iterable[Issue]) -> None:
        self.main, self.issues = lock.main_sha256, issues_of(issues, lock.model)
        self.preferred = json.loads(lock.identity).get("weights", "")
        self.may_be_main = (MAIN, *(one.checkpoint for one in lock.checkpoints[-1:]))
        self.steps = {one.checkpoint: one.step for one in lock.checkpoints}
        self.of_weights: dict[str, list[str]] = {}
        self.of_file: dict[str, list[str]] = {}
        sizes: dict[str, list[int]] = {}
        for one in (each for checkpoint in lock.checkpoints for each in checkpoint.in_each_format()):
            if one.weights:
                self.of_weights.setdefault(one.weights_sha256, []).append(one.checkpoint)
                sizes.setdefault(one.weights_format, []).append(one.weights_bytes)
            for file in one.weights:
                self.of_file.setdefault(file.digest, []).append(one.checkpoint)
        usual = {name: median_low(found) for name, found in sizes.items()}
        self.usual_bytes = {
            name: size
            for name, size in usual.items()
            if sum(math.isclose(one, size, rel_tol=SAME_SIZE) for one in sizes[name])
            > max(1, len(sizes[name]) / 2)
        }

    def judged(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Give a checkpoint its verdict."""
        found = self.found(one)
        verdict = _worst(verdict for verdict, _ in found) or "ok"
        notes = [*(note for _, note in found), *self.remarks(one, verdict)]
        same = [*self.equals(one), *([MAIN] if self.equals_main(one) else [])]
        return replace(
            one,
            verdict=verdict,
            same_weights_as=tuple(dict.fromkeys(same)),
            note="; ".join(filter(None, notes)),
        )

    def sound(self, one: LockedCheckpoint) -> LockedCheckpoint:
        """Take another format of a checkpoint that is distrusted in this one."""
        if self.trusts(one):
            return one
        others = (other for other in one.in_each_format() if other.files != one.files)
        return next((other for other in others if self.trusts(other) and not self.odd_size(other)), one)

    def verdict(self, one: LockedCheckpoint) -> str:
        """Return the worst of what is known against the weights that are taken of a checkpoint."""
        return _worst(verdict for verdict, _ in self.found(one)) or "ok"

    def trusts(self, one: LockedCheckpoint) -> bool:
        """Whether the weights that are taken of a checkpoint are, as far as known, what its name says."""
        return self.verdict(one) not in DISTRUSTED

    def found(self, one: LockedCheckpoint) -> list[tuple[str, str]]:
        """List what is known against the weights that are taken of a checkpoint: verdicts, and a note on each."""
        known = [issue for issue in self.issues if issue.concerns(one) and self.shows(issue, one)]
        found = [(issue.verdict, f"{issue.reason} ({issue.source})") for issue in known]
        if not one.weights:
            found.append(("no_weights" if one.asked else NOT_ASKED, ""))
        elif missing := _missing_files(one):
            found.append(("incomplete", f"missing: {', '.join(missing)}"))
        if one.checkpoint in self.may_be_main or any(issue.verdict == EXPECTED for issue in known):
            return found
        if self.equals_main(one):
            found.append(("same_as_main", ""))
        elif self.equals(one):
            found.append(("duplicate", ""))
        elif others := self.share_a_shard(one):
            found.append(("mixed_shards", f"shares a shard with {', '.join(others)}"))
        return found

    def shows(self, issue: Issue, one: LockedCheckpoint) -> bool:
        """Take the list's word where the hub does not show otherwise: weights, a usual size, other equalities."""
        if issue.verdict == "no_weights":
            return not one.weights
        if issue.verdict == "incomplete":
            return one.weights_format not in self.usual_bytes or self.odd_size(one)
        if issue.verdict == EXPECTED:
            steps = {self.steps[name] for name in self.equals(one)}
            return bool(steps) and steps <= issue.steps and not self.equals_main(one)
        return True

    def equals(self, one: LockedCheckpoint) -> list[str]:
        """Name the other checkpoints with the same weights."""
        return [name for name in self.of_weights.get(one.weights_sha256, ()) if name != one.checkpoint]

    def equals_main(self, one: LockedCheckpoint) -> bool:
        """Whether an earlier checkpoint has the weights of `main`."""
        return one.weights_sha256 in self.main and one.checkpoint not in self.may_be_main

    def share_a_shard(self, one: LockedCheckpoint) -> list[str]:
        """Name the checkpoints with other weights that have a shard in common with it."""
        same = {one.checkpoint, *self.equals(one)}
        return sorted({name for file in one.weights for name in self.of_file[file.digest]} - same)

    def odd_size(self, one: LockedCheckpoint) -> bool:
        """Whether most checkpoints have weights of another size in the format of this one."""
        usual = self.usual_bytes.get(one.weights_format, one.weights_bytes)
        return not math.isclose(one.weights_bytes, usual, rel_tol=SAME_SIZE)

    def remarks(self, one: LockedCheckpoint, verdict: str) -> Iterator[str]:
        """Yield what is told of a checkpoint beside its verdict."""
        if self.odd_size(one):
            usual = self.usual_bytes[one.weights_format]
            yield f"{one.weights_bytes} bytes of weights, most have {usual}"
        if one.weights and self.preferred not in ("", one.weights_format):
            yield f"no {self.preferred} on the hub, which `weights` of the registry prefers"
        if one.weights_format == "bin":
            yield "PyTorch's .bin, loaded with weights only"
        for other in one.in_each_format() if one.weights and verdict not in DISTRUSTED else ():
            if (refused := self.verdict(other)) in DISTRUSTED:
                yield f"not taken: {other.weights_format} ({refused}: {AUDIT_VERDICTS[refused]})"


def _missing_files(one: LockedCheckpoint) -> list[str]:
    """Name the shards of `model-00001-of-00003.safetensors`, and their index, that are not there."""
    there = {file.path for file in one.files}
    for file in one.weights:
        if match := _SHARD.fullmatch(file.path):  # one of them tells the names of all
            stem, count, ending = match.groups()
            shards = [f"{stem}-{number:05d}-of-{count}.{ending}" for number in range(1, int(count) + 1)]
            return [path for path in (*shards, f"{stem}.{ending}.index.json") if path not in there]
    return []


def as_table(lock: Lock, *, moved: Sequence[str] = (), missing: Sequence[str] = ()) -> str:
    """Tell the verdict on every checkpoint, those with a fault first, and how many there are of each.

    Parameters
    ----------
    lock : what the hub says now
    moved : checkpoints whose commit is another than in the lock that the study uses
    missing : checkpoints that the registry lists and the hub does not have
    """
    suspects = [one for one in lock.checkpoints if one.verdict != "ok"]
    fine = [one for one in lock.checkpoints if one.verdict == "ok"]
    rows = [("checkpoint", "verdict", "size", "same weights as", "note")]
    rows += map(_row, (*suspects, *fine[:MOST_SOUND]))
    lines = [
        f"{name:<32} {verdict:<19} {size:>8}  {same:<28} {note}".rstrip()
        for name, verdict, size, same, note in rows
    ]
    if len(fine) > MOST_SOUND:
        lines.append(f"… and {len(fine) - MOST_SOUND} more with the verdict ok")
    lines += ["", summary(lock)]
    if missing:
        lines.append(f"listed in the registry, not on the hub: {', '.join(missing)}")
    if moved:
        lines.append(f"another commit than in the study's lock: {', '.join(moved)}")
    return "\n".join(lines)


def summary(lock: Lock) -> str:
    """Count the verdicts of a model in a few lines, and tell what of the registry the hub has corrected."""
    counts = Counter(one.verdict for one in lock.checkpoints)
    size = size_text(sum(one.weights_bytes for one in lock.checkpoints))
    head = f"{lock.model}: {len(lock.checkpoints)} checkpoints, {size} of weights; asked {lock.asked}"
    lines = [
        f"  {counts[name]:5d} {name}: {meaning}" for name, meaning in AUDIT_VERDICTS.items() if counts[name]
    ]
    return "\n".join([head, *lines, *map("  {}".format, corrections(lock))])


def corrections(lock: Lock) -> list[str]:
    """Tell which unverified keys of the registry the hub's config.json contradicts."""
    return [
        f"`{key}` of the registry is {told} and unverified; taken from config.json: {lock.facts[key]}"
        for key, told in lock.corrected.items()
    ]


def as_json(lock: Lock, *, moved: Sequence[str] = (), missing: Sequence[str] = ()) -> str:
    """Spell the same as JSON: `{"model", "asked", "counts", "missing", "moved", "checkpoints": [{…}, …]}`."""
    counts = Counter(one.verdict for one in lock.checkpoints)
    return json.dumps(
        {
            "model": lock.model,
            "asked": lock.asked,
            "counts": {name: counts[name] for name in AUDIT_VERDICTS},
            "missing": list(missing),
            "moved": list(moved),
            "checkpoints": [_entry(one) for one in lock.checkpoints],
        },
        indent=1,
        allow_nan=False,
    )


def has_fault(lock: Lock) -> bool:
    """Whether the weights of any checkpoint differ from its name."""
    return any(one.verdict in DISTRUSTED for one in lock.checkpoints)


def _row(one: LockedCheckpoint) -> tuple[str, str, str, str, str]:
    same = ", ".join(one.same_weights_as[:3]) + (", …" if len(one.same_weights_as) > 3 else "")
    return one.checkpoint, one.verdict, size_text(one.weights_bytes), same, one.note


def _entry(one: LockedCheckpoint) -> dict[str, object]:
    seen = None if math.isnan(one.tokens_seen) else int(one.tokens_seen)
    return {name: getattr(one, name) for name in KEYS} | {"tokens_seen": seen}


def doubts(one: LockedCheckpoint | None, measured_as: str = "") -> dict[str, str]:
    """Return verdict, checkpoints of the same weights, and note, of a local run empty.

    And where the checkpoint lies, if another was measured in its place.
    """
    if one is None:
        return {"verdict": "", "same_weights_as": "", "note": ""}
    note = "; ".join(filter(None, [one.note, measured_as and f"measured as {measured_as}"]))
    told = {"verdict": one.verdict, "same_weights_as": ", ".join(one.same_weights_as), "note": note}
    place = ("repository", "revision", "commit") if measured_as else ()
    return told | {name: getattr(one, name) for name in place}


def check_weights(path: Path, attributes: Mapping[str, Any], one: LockedCheckpoint | None) -> None:
    """Refuse a file that was made from other weights than the lock names.

    Raises
    ------
    InputError
        Naming both, and what to do.
    """
    if one is not None and attributes["weights_sha256"] != one.weights_sha256:
        raise InputError(
            f"`{path}` was made from the weights {attributes['weights_sha256']} (commit {attributes['commit']}), "
            f"the lock of `{attributes['model']}` names {one.weights_sha256} (commit {one.commit}). Delete the "
            f"results of checkpoint `{one.checkpoint}` and run again."
        )
