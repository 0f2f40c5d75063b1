"""Downloads of a checkpoint from the loopback hub, and what must be true when one has come to its end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from hub_store import git_oid

from lmshape.hub.lock import RECEIPT, LockedCheckpoint, LockedFile, read_receipt
from lmshape.paths import partial_folder
from lmshape.receipt import read_told
from lmshape.store.weights import weights_sha256

WEIGHTS = r"resolve/.*model.*\.(safetensors|bin)$"

Bring = Callable[..., Path]  # downloads a checkpoint, and gives its folder


def assert_right(folder: Path, one: LockedCheckpoint) -> None:
    """Every file is byte for byte the hub's, the receipt says whose, and nothing else is there."""
    names = {Path(file.path).name: file for file in one.files}
    assert {path.name for path in folder.iterdir()} == {*names, RECEIPT}
    for name, file in names.items():
        assert digest((folder / name).read_bytes(), file) == file.digest
    assert weights_sha256(folder) == one.weights_sha256 == read_receipt(folder)["weights_sha256"]
    assert read_receipt(folder)["commit"] == one.commit
    assert read_told(folder)["digests"] == {name: file.digest for name, file in names.items()}
    assert not partial_folder(folder).exists()


def digest(content: bytes, file: LockedFile) -> str:
    """What the hub would list for these bytes."""
    is_small = file.digest.startswith("git:")
    return f"git:{git_oid(content)}" if is_small else hashlib.sha256(content).hexdigest()
