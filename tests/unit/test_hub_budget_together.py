"""Many downloads at once: together they never hold more than the budget, whatever the order."""

from __future__ import annotations

import fcntl
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import accumulate
from multiprocessing import get_context
from pathlib import Path
from random import Random

import pytest

from lmshape.hub import budget
from lmshape.hub.budget import Reservation, release, reserve
from lmshape.paths import partial_folder
from lmshape.receipt import write_receipt

BUDGET, WORKERS, CHECKPOINTS = 1000, 8, 24
DATASETS = ["wiki", "random"]


def note(ledger: Path, change: int) -> None:
    """Write into the ledger, one after the other, what has been taken or is about to be given back."""
    with ledger.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(f"{change}\n")


def pass_through(root: Path, number: int) -> None:
    """Take the quota for a checkpoint, download it, read it, and let it go."""
    budget.SECONDS_BETWEEN_LOOKS = 0.003
    random = Random(number)
    folder = root / f"results/weights/run/step{number}"
    size = random.randrange(100, 500)
    reserve(Reservation(folder=str(folder), weights_bytes=size, readers=DATASETS), budget=BUDGET, keeps=False)
    note(root / "ledger", size)
    write_receipt(partial_folder(folder), repository="some/where", files={"model.safetensors": 0})
    (partial_folder(folder) / "model.safetensors").touch()
    partial_folder(folder).rename(folder)
    for dataset in DATASETS:
        time.sleep(random.random() / 20)
        note(root / "ledger", -size if dataset == DATASETS[-1] else 0)
        release(folder, dataset, of=DATASETS, keep=False)


def executor(kind: str) -> Executor:
    if kind == "threads":
        return ThreadPoolExecutor(WORKERS)
    return ProcessPoolExecutor(WORKERS // 2, mp_context=get_context("spawn"))


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_the_budget_is_never_exceeded(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.003)
    with executor(kind) as workers:
        list(workers.map(pass_through, [tmp_path] * CHECKPOINTS, range(CHECKPOINTS)))
    held = list(accumulate(map(int, (tmp_path / "ledger").read_text().split())))
    assert len(held) == 3 * CHECKPOINTS and held[-1] == 0
    assert 500 < max(held) <= BUDGET  # the quota of several was used, and no more than there is
