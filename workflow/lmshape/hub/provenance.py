"""What the lock says of the checkpoints that were measured, for the tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lmshape.errors import InputError
from lmshape.hub.integrity import audited, issues_of, read_issues
from lmshape.hub.lock import LockedCheckpoint, read_lock


@dataclass(frozen=True, slots=True)
class Provenance:
    """The checkpoints of a lock by name; none for a local run."""

    locked: Mapping[str, LockedCheckpoint]

    @classmethod
    def of(cls, lock_file: Path | None, issues_file: Path | None) -> Self:
        """Read a lock, if the model has one, and audit it with the faults that are known today."""
        lock = read_lock(lock_file) if lock_file else None
        if lock is None:
            return cls({})
        issues = issues_of(read_issues(issues_file), lock.model) if issues_file else ()
        found = audited(lock.checkpoints, main=lock.main_sha256, issues=issues)
        return cls({one.checkpoint: one for one in found})

    def verdict(self, checkpoint: str) -> str:
        """Return the audit's verdict; "" for a local run."""
        return self.locked[checkpoint].verdict if checkpoint in self.locked else ""

    def doubts(self, checkpoint: str) -> dict[str, str]:
        """Return verdict, checkpoints of the same weights, and note."""
        one = self.locked.get(checkpoint)
        if one is None:
            return {"verdict": "", "same_weights_as": "", "note": ""}
        return {"verdict": one.verdict, "same_weights_as": ", ".join(one.same_weights_as), "note": one.note}

    def check(self, path: Path, attributes: Mapping[str, str | int | float]) -> None:
        """Refuse a file that was made from other weights than the lock names.

        Raises
        ------
        InputError
            Naming both, and what to do.
        """
        one = self.locked.get(str(attributes["checkpoint"]))
        if one is not None and attributes["weights_sha256"] != one.weights_sha256:
            raise InputError(
                f"`{path}` was made from the weights {attributes['weights_sha256']} (commit {attributes['commit']}), "
                f"the lock of `{attributes['model']}` names {one.weights_sha256} (commit {one.commit}). Delete the "
                f"results of checkpoint `{one.checkpoint}` and run again."
            )
