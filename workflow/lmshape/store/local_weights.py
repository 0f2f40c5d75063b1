"""Whether a local checkpoint's weights are those that were read: by size and date, by content where these differ.

A date tells nothing by itself: `rsync -a` and `cp -p` put older weights in the place of newer ones, and a copy of
equal weights has a new date. Weights of gigabytes are hashed only when size or date have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lmshape.errors import InputError
from lmshape.store.statistics import read_loss_card
from lmshape.store.weights import files_as_found, has_weights, weights_sha256
from lmshape.writing import replaced_when_whole

HASHED_BYTES = 50_000_000  # of a file that is hashed whenever a study is planned: 50 ms


def file_key(path: Path) -> str:
    """Return a key of a file of the user's: its content, of a large one size and date; empty where it is not there."""
    if not path.is_file():
        return ""
    known = path.stat()
    large = known.st_size > HASHED_BYTES
    return f"{known.st_size} {known.st_mtime_ns}" if large else _digest(path.read_bytes())


def weights_key(folder: Path, record: Path, cards: Iterable[Path]) -> str:
    """Return a key that changes with the content of a checkpoint's weights and config.json, and with nothing else.

    Parameters
    ----------
    folder : of the checkpoint
    record : JSON file that remembers the key, and sizes and dates that it was given for; written where these changed
    cards : loss cards of the checkpoint, as far as they are there: they say which weights were read
    """
    if not has_weights(folder):  # it was measured, and is gone
        return str(_remembered(record).get("whole", "gone"))
    files = list(map(list, files_as_found(folder)))
    known = _remembered(record)
    key = known.get("key", _digest(json.dumps(files).encode()))
    if known and known["files"] != files and _read_weights(cards) != {sha256 := weights_sha256(folder)}:
        key = sha256
    told = {"key": key, "files": files, "whole": f"{key} {file_key(folder / 'config.json')}"}
    if told != known:
        with replaced_when_whole(record) as partial:
            partial.write_text(json.dumps(told))
    return told["whole"]


def _remembered(record: Path) -> dict[str, Any]:
    """Return what a record says; nothing where there is none, or a damaged one, which is written anew."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.keys() >= {"key", "files", "whole"} else {}


def _read_weights(cards: Iterable[Path]) -> set[str]:
    """Return the fingerprints of the weights that the cards are of."""
    found: set[str] = set()
    for card in cards:
        try:
            found.add(str(read_loss_card(card)[0].get("weights_sha256")))
        except InputError:  # it is made again
            continue
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
