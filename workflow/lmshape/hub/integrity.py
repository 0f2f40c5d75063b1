"""What the names of checkpoints are worth: equal weights under two names, missing weights, known faults.

A pure function of what the hub says of every revision and of the cited list of faults; no weight is downloaded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

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
    `main`; of several others that equal each other, none is trusted, since the weights do not say whose they are.
    """
    names: dict[str, list[str]] = {}
    for checkpoint in checkpoints:
        names.setdefault(checkpoint.weights_sha256, []).append(checkpoint.checkpoint)
    usual = Counter(checkpoint.weights_bytes for checkpoint in checkpoints if checkpoint.files).most_common(1)
    usual_bytes = usual[0][0] if usual else 0
    last = checkpoints[-1].checkpoint if checkpoints else ""
    return tuple(
        _judged(checkpoint, names[checkpoint.weights_sha256], main, last, usual_bytes, issues)
        for checkpoint in checkpoints
    )


def _judged(
    checkpoint: LockedCheckpoint,
    equals: Sequence[str],
    main: str,
    last: str,
    usual_bytes: int,
    issues: Sequence[Issue],
) -> LockedCheckpoint:
    others = tuple(name for name in equals if name != checkpoint.checkpoint) if checkpoint.weights else ()
    known = [issue for issue in issues if checkpoint.step in issue.steps]
    verdicts = {issue.verdict: f"{issue.reason} ({issue.source})" for issue in known}
    of_main = checkpoint.weights_sha256 == main != "" and checkpoint.checkpoint != last
    if not checkpoint.weights:
        verdicts.setdefault("no_weights", "")
    elif missing := _missing_shards([file.path for file in checkpoint.weights]):
        verdicts["incomplete"] = f"missing: {', '.join(missing)}"
    if of_main and checkpoint.revision != "main":
        verdicts["same_as_main"] = ""
    elif others and checkpoint.checkpoint != last and "expected_duplicate" not in verdicts:
        verdicts["duplicate"] = ""
    elif "expected_duplicate" in verdicts and not others and checkpoint.weights:
        # what the list says is no longer so: the hub at run time wins
        verdicts.pop("expected_duplicate")
    verdict = next((name for name in VERDICTS if name in verdicts), "ok")
    notes = [note for note in verdicts.values() if note]
    if checkpoint.weights and checkpoint.weights_bytes != usual_bytes:
        notes.append(f"{checkpoint.weights_bytes} bytes of weights, most have {usual_bytes}")
    if checkpoint.weights and checkpoint.weights[0].path.endswith(".bin"):
        notes.append("PyTorch's .bin, loaded with weights only")
    same = (*others, "main") if of_main else others
    return replace(checkpoint, verdict=verdict, same_weights_as=same, note="; ".join(notes))


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
