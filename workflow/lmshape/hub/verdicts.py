"""The audit of a training run as people and programs read it: a table, a summary, JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

from lmshape.hub.integrity import DISTRUSTED, VERDICTS
from lmshape.hub.lock import Lock, LockedCheckpoint
from lmshape.sizes import size_text

MOST_ROWS = 40  # of checkpoints against which nothing is known, in a table for people


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
    lines = [_line("checkpoint", "verdict", "size", "same weights as", "note")]
    lines += [_of(one) for one in (*suspects, *fine[:MOST_ROWS])]
    if len(fine) > MOST_ROWS:
        lines.append(f"… and {len(fine) - MOST_ROWS} more with the verdict ok")
    lines += ["", summary(lock)]
    if missing:
        lines.append(f"listed in the registry, not on the hub: {', '.join(missing)}")
    if moved:
        lines.append(f"another commit than in the study's lock: {', '.join(moved)}")
    return "\n".join(lines)


def summary(lock: Lock) -> str:
    """Count the verdicts of a model in a few lines."""
    counts = Counter(one.verdict for one in lock.checkpoints)
    size = size_text(sum(one.weights_bytes for one in lock.checkpoints))
    head = f"{lock.model}: {len(lock.checkpoints)} checkpoints, {size} of weights; asked {lock.asked}"
    lines = [f"  {counts[name]:5d} {name}: {meaning}" for name, meaning in VERDICTS.items() if counts[name]]
    return "\n".join([head, *lines])


def as_json(lock: Lock, *, moved: Sequence[str] = (), missing: Sequence[str] = ()) -> str:
    """Spell the same as JSON: `{"model", "asked", "counts", "missing", "moved", "checkpoints": [{…}, …]}`."""
    counts = Counter(one.verdict for one in lock.checkpoints)
    return json.dumps(
        {
            "model": lock.model,
            "asked": lock.asked,
            "counts": {name: counts[name] for name in VERDICTS},
            "missing": list(missing),
            "moved": list(moved),
            "checkpoints": [_entry(one) for one in lock.checkpoints],
        },
        indent=1,
        allow_nan=False,
    )


def has_fault(lock: Lock) -> bool:
    """Whether any checkpoint is not what its name says."""
    return any(one.verdict in DISTRUSTED for one in lock.checkpoints)


def _entry(one: LockedCheckpoint) -> dict[str, object]:
    names = ("checkpoint", "step", "verdict", "note", "repository", "revision", "ref", "commit", "subfolder")
    seen = None if math.isnan(one.tokens_seen) else int(one.tokens_seen)
    weights = {"weights_sha256": one.weights_sha256, "weights_bytes": one.weights_bytes}
    same = {"same_weights_as": list(one.same_weights_as)}
    return {name: getattr(one, name) for name in names} | {"tokens_seen": seen} | weights | same


def _of(one: LockedCheckpoint) -> str:
    same = ", ".join(one.same_weights_as[:3]) + (", …" if len(one.same_weights_as) > 3 else "")
    return _line(one.checkpoint, one.verdict, size_text(one.weights_bytes), same, one.note)


def _line(checkpoint: str, verdict: str, size: str, same: str, note: str) -> str:
    return f"{checkpoint:<32} {verdict:<19} {size:>8}  {same:<28} {note}".rstrip()
