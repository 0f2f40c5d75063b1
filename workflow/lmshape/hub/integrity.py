"""What the names of checkpoints are worth: equal weights under two names, missing weights, known faults.

A pure function of what the hub says of every revision and of the cited list of faults; no weight is downloaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from lmshape.errors import InputError
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.naming import expand_steps
from lmshape.schema import Yaml, faults, read_yaml, schema_with_names

# Worst first: a checkpoint that deserves several gets the first.
VERDICTS = {
    "no_weights": "the hub has no weights under this name",
    "incomplete": "shards are missing that the others announce",
    "wrong_weights": "known to hold the weights of another step",
    "same_as_main": "the weights of main, under the name of an earlier step",
    "duplicate": "the weights of another step, too: at most one of the names is right",
    "mixed_shards": "some of its shards are those of another step",
    "doubtful": "somebody has reason to doubt it; it is measured and shown",
    "expected_duplicate": "known to equal another step, and rightly so",
    "ok": "nothing is known against it",
}
UNLOADABLE = ("no_weights", "incomplete")
DISTRUSTED = (
    *UNLOADABLE,
    "wrong_weights",
    "same_as_main",
    "duplicate",
)  # out of trajectories, visible in tables

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")


@dataclass(frozen=True, slots=True)
class Issue:
    """A published fault: models (shell patterns), steps, verdict, and who says so."""

    models: tuple[str, ...]
    steps: frozenset[int]
    verdict: str
    reason: str
    source: str

    def concerns(self, model: str) -> bool:
        """Whether it is about a model of the registry."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


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
    return tuple(_issue(entry) for entry in data)


def issues_of(issues: Iterable[Issue], model: str) -> tuple[Issue, ...]:
    """Keep the faults of one model."""
    return tuple(issue for issue in issues if issue.concerns(model))


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What all checkpoints of a model say together.

    Attributes
    ----------
    of_weights : fingerprint of whole weights → names of the checkpoints that have them
    of_file : digest of one file of weights → the same
    main : fingerprint of the weights of `main`
    last : name of the last checkpoint, which may equal `main`
    usual_bytes : size of most checkpoints' weights
    steps : name → step
    issues : known faults
    """

    of_weights: Mapping[str, Sequence[str]]
    of_file: Mapping[str, Sequence[str]]
    main: str
    last: str
    usual_bytes: int
    steps: Mapping[str, int]
    issues: Sequence[Issue]

    @classmethod
    def of(cls, checkpoints: Sequence[LockedCheckpoint], main: str, issues: Sequence[Issue]) -> Self:
        loadable = [one for one in checkpoints if one.weights]
        of_weights: dict[str, list[str]] = {}
        of_file: dict[str, list[str]] = {}
        for one in loadable:
            of_weights.setdefault(one.weights_sha256, []).append(one.checkpoint)
            for file in one.weights:
                of_file.setdefault(file.digest, []).append(one.checkpoint)
        usual = Counter(one.weights_bytes for one in loadable).most_common(1)
        last = checkpoints[-1].checkpoint if checkpoints else ""
        steps = {one.checkpoint: one.step for one in checkpoints}
        return cls(of_weights, of_file, main, last, usual[0][0] if usual else 0, steps, issues)

    def equals(self, one: LockedCheckpoint) -> list[str]:
        """Name the other checkpoints with the same weights."""
        return [name for name in self.of_weights.get(one.weights_sha256, ()) if name != one.checkpoint]

    def equals_main(self, one: LockedCheckpoint) -> bool:
        """Whether an earlier checkpoint has the weights of `main`."""
        return bool(self.main) and one.weights_sha256 == self.main and one.checkpoint != self.last

    def share_a_shard(self, one: LockedCheckpoint) -> list[str]:
        """Name the checkpoints with other weights that have a shard in common with it."""
        same = {one.checkpoint, *self.equals(one)}
        return sorted({name for file in one.weights for name in self.of_file[file.digest]} - same)


def audited(
    checkpoints: Sequence[LockedCheckpoint], *, main: str, issues: Sequence[Issue]
) -> tuple[LockedCheckpoint, ...]:
    """Give every checkpoint its verdict.

    Parameters
    ----------
    checkpoints : all of a model, by step
    main : fingerprint of the weights on the branch `main`, "" where there is none
    issues : known faults of this model

    Returns
    -------
    The same checkpoints with `verdict`, `same_weights_as` and `note`. The checkpoint of the last step may equal
    `main`; of several others that equal each other, or share a shard, none is trusted, since the weights do not say
    whose they are.
    """
    evidence = _Evidence.of(checkpoints, main, issues)
    return tuple(_judged(one, evidence) for one in checkpoints)


def _judged(one: LockedCheckpoint, evidence: _Evidence) -> LockedCheckpoint:
    found = [*_known(one, evidence), *_unloadable(one)]
    if not any(verdict in ("expected_duplicate", *UNLOADABLE) for verdict, _ in found):
        found += _unexpected(one, evidence)
    verdicts = [verdict for verdict, _ in found]
    notes = [note for _, note in found if note]
    return replace(
        one,
        verdict=next((name for name in VERDICTS if name in verdicts), "ok"),
        same_weights_as=tuple(evidence.equals(one) + ["main"] * evidence.equals_main(one)),
        note="; ".join([*notes, *_remarks(one, evidence)]),
    )


def _known(one: LockedCheckpoint, evidence: _Evidence) -> Iterator[tuple[str, str]]:
    """Take the list's word, but for an expected equality that the hub does not show, or shows with other steps too."""
    equal_steps = {evidence.steps[name] for name in evidence.equals(one)}
    as_expected = bool(equal_steps) and not evidence.equals_main(one)
    for issue in evidence.issues:
        expects = issue.verdict == "expected_duplicate"
        if one.step in issue.steps and (not expects or (as_expected and equal_steps <= issue.steps)):
            yield issue.verdict, f"{issue.reason} ({issue.source})"


def _unloadable(one: LockedCheckpoint) -> Iterator[tuple[str, str]]:
    missing = _missing_shards([file.path for file in one.weights])
    if not one.weights:
        yield "no_weights", ""
    elif missing:
        yield "incomplete", f"missing: {', '.join(missing)}"


def _unexpected(one: LockedCheckpoint, evidence: _Evidence) -> Iterator[tuple[str, str]]:
    if one.checkpoint == evidence.last or one.revision == "main":
        return
    if evidence.equals_main(one):
        yield "same_as_main", ""
    elif evidence.equals(one):
        yield "duplicate", ""
    elif others := evidence.share_a_shard(one):
        yield "mixed_shards", f"shares a shard with {', '.join(others)}"


def _remarks(one: LockedCheckpoint, evidence: _Evidence) -> Iterator[str]:
    if one.weights and one.weights_bytes != evidence.usual_bytes:
        yield f"{one.weights_bytes} bytes of weights, most have {evidence.usual_bytes}"
    if one.weights and one.weights[0].path.endswith(".bin"):
        yield "PyTorch's .bin, loaded with weights only"


def _missing_shards(paths: Sequence[str]) -> list[str]:
    """Name the shards of `model-00001-of-00003.safetensors` that are not there; all shards tell their count."""
    found = {path: match for path in paths if (match := _SHARD.search(path))}
    missing = []
    for path, match in list(found.items())[:1]:
        for number in range(1, int(match[2]) + 1):
            shard = path.replace(match[0], f"-{number:05d}-of-{match[2]}.")
            if shard not in found:
                missing.append(shard)
    return missing


def _issue(entry: Mapping[str, Yaml]) -> Issue:
    return Issue(
        models=tuple(entry["models"]),
        steps=frozenset(expand_steps(entry["steps"], where="known_issues.steps")),
        verdict=entry["verdict"],
        reason=entry["reason"].rstrip("."),
        source=entry["source"],
    )
