"""Locks of made-up training runs, as the hub's answers would make them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from lmshape.hub.lock import Lock, LockedCheckpoint, LockedFile, Tokenizer, identity_of
from lmshape.schema import Yaml

PYTHIA_STEPS = [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, {"from": 1000, "to": 143_000, "every": 1000}]
ENTRY: dict[str, Yaml] = {
    "kind": "decoder",
    "repository": "some/run",
    "revision": "step{step}",
    "steps": PYTHIA_STEPS,
    "main_step": 143_000,
    "tokens_per_step": 2_097_152,
    "architecture": "gpt_neox",
    "blocks": 6,
    "width": 128,
    "vocabulary": 50_304,
    "context": 2048,
    "license": "apache-2.0",
}
FACTS = {key: ENTRY[key] for key in ("kind", "architecture", "blocks", "width", "vocabulary", "context")}
CONFIG = LockedFile("config.json", 570, "git:" + "c" * 40)


def sha(content: object) -> str:
    """A sha256 of its own for every content."""
    return hashlib.sha256(str(content).encode()).hexdigest()


def whole(content: object, size: int = 1000) -> tuple[LockedFile, ...]:
    """Weights in one file."""
    return (CONFIG, LockedFile("model.safetensors", size, sha(content)))


def shards(*contents: object, size: int = 1000) -> tuple[LockedFile, ...]:
    """Weights in several files, and their index."""
    count = len(contents)
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    index = LockedFile("model.safetensors.index.json", 90, "git:" + "1" * 40)
    parts = [LockedFile(name, size, sha(part)) for name, part in zip(names, contents, strict=True)]
    return (CONFIG, index, *parts)


def checkpoint(step: int, files: Sequence[LockedFile] | None = None, **changes: object) -> LockedCheckpoint:
    """A checkpoint with weights of its own, unless it is given others."""
    known = {
        "checkpoint": f"step{step}",
        "step": step,
        "tokens_seen": 2_097_152.0 * step,
        "repository": "some/run",
        "revision": f"step{step}",
        "ref": "branch",
        "commit": sha(step)[:40],
        "files": whole(step) if files is None else tuple(files),
    }
    return LockedCheckpoint(**{**known, **changes})


def lock_of(checkpoints: Sequence[LockedCheckpoint], entry: dict = ENTRY, **changes: object) -> Lock:
    """A lock of a model called `run`."""
    known = {
        "model": "run",
        "identity": identity_of(entry),
        "facts": FACTS,
        "tokenizer": Tokenizer(
            repository="some/run",
            commit="d" * 40,
            files=(LockedFile("tokenizer.json", 2000, sha("words")), CONFIG),
        ),
        "main_sha256": (),
        "checkpoints": tuple(checkpoints),
        "asked": "2026-10-01T12:00:00+00:00",
    }
    return Lock(**{**known, **changes})
