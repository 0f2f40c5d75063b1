"""Registry entries of the loopback's runs, their locks, and the command line as a user calls it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml
from hub_models import Run, publish
from loopback_hub import Hub
from warm_python import CLIENT, warm_variables

from lmshape.hub.integrity import Issue
from lmshape.hub.lock import Lock
from lmshape.hub.resolve import make_lock

REPOSITORY = Path(__file__).parents[2]
STEPS = (0, 1, 2, 4, 8, 16)
ENTRY = {"kind": "decoder", "repository": "tiny/run", "revision": "step{step}", "tokens_per_step": 2048}
FACTS = {"architecture": "gpt_neox", "blocks": 2, "width": 16}
EXPECTED = Issue(("tiny*",), frozenset({0, 1}), "expected_duplicate", "The first step has rate 0", "tiny#1")


def published(hub: Hub, **faults: object) -> Run:
    """Publish a run of six steps with faults, as `hub_models.Run` names them."""
    run = Run(**{"steps": STEPS, **faults})
    publish(hub, "tiny/run", run)
    return run


def locked(folder: Path, entry: Mapping[str, object] = ENTRY, **options: object) -> Lock:
    """Make the lock of a run in a folder."""
    return make_lock(folder / "tiny.tsv", "tiny", entry, **{"issues": (), **options})


def verdicts(lock: Lock) -> dict[int, str]:
    return {one.step: one.verdict for one in lock.checkpoints}


def lmshape(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, output and errors apart, with quick retries."""
    quick = {"LMSHAPE_FIRST_PAUSE_SECONDS": "0.01", "PYTHONPATH": str(REPOSITORY / "workflow")}
    return subprocess.run(
        [*CLIENT, "-m", "lmshape", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **quick, **environment, **warm_variables()},
        text=True,
        capture_output=True,
        check=False,
    )


def write_registry(folder: Path, entries: Mapping[str, object], issues: object = ()) -> None:
    """Write the registry of a study that names every entry, and its configuration."""
    files = {
        "models": dict(entries),
        "issues": list(issues),
        "datasets": {
            "texts": {"text": {"path": "text.txt"}},
            "datasets": {"wiki": {"text": "text"}, "wiki-random": {"text": "text", "order": "random"}},
        },
        "config": {
            "study": "loopback",
            "models": list(entries),
            "datasets": ["wiki"],
            "metrics": ["spectral", "loss"],
            "rows": ["all"],
            "truncation": False,  # the unit tests of the disk quota have it
            "sampling": {"window": 16, "draws": 2, "rows_per_draw": 64},
            "registry": {
                "models": "models.yaml",
                "datasets": "datasets.yaml",
                "known_issues": "issues.yaml",
            },
        },
    }
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
