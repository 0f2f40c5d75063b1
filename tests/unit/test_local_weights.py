"""Local weights are known by content: other weights of an older date run again, equal ones of a new date do not."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from lmshape.store.statistics import write_loss_card
from lmshape.store.weights import weights_key

DAY = 86_400


class Folder:
    """A checkpoint, the record of its key, and a loss card of the weights that were read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.weights = root / "checkpoint" / "model.safetensors"
        self.weights.parent.mkdir()
        (root / "checkpoint" / "config.json").write_text("{}")

    def save(self, content: bytes, *, age: int) -> None:
        self.weights.write_bytes(content)
        os.utime(self.weights, (10**9 - age, 10**9 - age))

    def read(self, name: str = "card") -> None:
        sha256 = hashlib.sha256(self.weights.read_bytes()).hexdigest()
        write_loss_card(self.root / f"{name}.json", attributes={"weights_sha256": sha256}, draws=[])

    def key(self) -> str:
        return weights_key(self.root / "checkpoint", self.root / "seen.json", self.root.glob("card*.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.save(b"first", age=0)
    return folder


@pytest.mark.parametrize("age", [DAY, -DAY], ids=["older", "newer"])
@pytest.mark.parametrize("was_read", [True, False])
def test_other_weights_of_any_date_are_others(folder: Folder, age: int, was_read: bool) -> None:
    before = folder.key()
    assert folder.key() == before
    if was_read:
        folder.read()
    folder.save(b"other", age=age)  # as many bytes
    after = folder.key()
    assert after != before
    folder.save(b"other", age=2 * age)
    assert folder.key() == after


@pytest.mark.parametrize("age", [DAY, -DAY])
def test_equal_weights_of_another_date_are_the_same(folder: Folder, age: int) -> None:
    before = folder.key()
    folder.read()
    folder.save(b"first", age=age)
    assert folder.key() == before
    assert json.loads((folder.root / "seen.json").read_text())["files"][0][2] == (10**9 - age) * 10**9


def test_weights_that_come_back_are_not_those_that_were_read_last(folder: Folder) -> None:
    """One dataset is of the first weights, the other of those that took their place."""
    keys = [folder.key()]
    folder.read("card-a")
    folder.save(b"other", age=DAY)
    keys.append(folder.key())
    folder.read("card-b")
    folder.save(b"first", age=2 * DAY)
    keys.append(folder.key())
    assert len(set(keys)) == 3


def test_a_config_counts_by_its_content(folder: Folder) -> None:
    before, config = folder.key(), folder.root / "checkpoint" / "config.json"
    config.touch()
    assert folder.key() == before
    config.write_text('{"rope_theta": 1}')
    assert folder.key() != before


def test_unchanged_weights_are_not_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder.key()
    monkeypatch.setattr("lmshape.store.weights.weights_sha256", lambda folder: pytest.fail("hashed"))
    assert folder.key() == before
