"""The receipt beside downloaded weights: where they came from, for whoever reads them."""

from __future__ import annotations

import json
from pathlib import Path

from lmshape.errors import InputError
from lmshape.hub.lock import WEIGHTS

RECEIPT = "lmshape.json"


def read_receipt(folder: Path) -> dict[str, str]:
    """Return repository, revision, commit and weights_sha256 of downloaded weights; nothing for a local run.

    Raises
    ------
    InputError
        When the weights have been deleted since they were read.
    """
    path = folder / RECEIPT
    if not path.is_file():
        return {}
    if not has_weights(folder):
        raise InputError(
            f"`{folder}`: the weights were deleted when the last dataset had been read. Download them again with "
            f"`snakemake --forcerun download`, or run the whole study, which knows when they are needed."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def has_weights(folder: Path) -> bool:
    """Whether weights lie in a folder, which may be about to go."""
    try:
        return any(path.suffix in WEIGHTS for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
