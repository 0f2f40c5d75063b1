"""A study's disk while checkpoints come and go: the quota is taken, weights arrive, datasets are read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.hub.budget import Reservation, release, reserve
from lmshape.paths import partial_folder, staged_file
from lmshape.receipt import write_receipt

DATASETS = ["wiki", "random"]


def folder_of(name: str) -> Path:
    return Path("results/weights/run") / name


def wanted(name: str, weights: int = 100, **changes: object) -> Reservation:
    """The part of the quota that a checkpoint takes."""
    known = {"folder": str(folder_of(name)), "weights_bytes": weights, "readers": DATASETS}
    return Reservation(**{**known, **changes})


def take(name: str, *, bytes: int = 250, **options: object) -> Reservation:
    """Reserve and return at once, or be refused."""
    one = wanted(name, **options)
    reserve(one, budget=bytes, keeps=False, patience=0.02)
    return one


def begin(name: str) -> Path:
    """Begin a download as `bring_files` does."""
    partial = partial_folder(folder_of(name))
    write_receipt(partial, repository="some/where", files={"model.safetensors": 200})
    (partial / "model.safetensors.partial").touch()
    return partial


def arrive(name: str) -> Path:
    """End a download as `bring_files` does."""
    folder = folder_of(name)
    partial = partial_folder(folder)
    for file in (
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "config.json",
    ):
        (partial / file).touch()
    write_receipt(partial, repository="some/where")
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    staged_file(folder).parent.mkdir(parents=True, exist_ok=True)
    staged_file(folder).touch()
    return partial.rename(folder)


def read(name: str, *datasets: str, keep: bool = False) -> None:
    for dataset in datasets or DATASETS:
        release(folder_of(name), dataset, of=DATASETS, keep=keep)


def in_background(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(0.05)
    return thread


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as error:
        call()
    return str(error.value)
