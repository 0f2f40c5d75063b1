"""The sha256 of a file of ours, noted in a hidden file beside it, so that what reads it notices rot."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lmshape.errors import InputError
from lmshape.receipt import RECEIPT, read_told, write_receipt
from lmshape.writing import replaced_when_whole

SHA256_DIGITS = 64  # bytes of a note


def write_digest(file: Path) -> None:
    """Note what a file holds, for `check_digest`."""
    with replaced_when_whole(_digest_file(file)) as partial:
        partial.write_text(_sha256(file))


def write_digests(folder: Path, *patterns: str) -> None:
    """Note what files of a folder and its receipt hold, and name the notes in it, but nothing of the user there."""
    listed = dict(read_told(folder).get("files", {}))
    for file in (file for pattern in patterns for file in folder.glob(pattern)):
        write_digest(file)
        listed[_digest_file(file).relative_to(folder).as_posix()] = _digest_file(file).stat().st_size
    noted = _digest_file(folder / RECEIPT)
    write_receipt(folder, files={**listed, noted.name: SHA256_DIGITS})
    write_digest(folder / RECEIPT)


def check_digest(file: Path) -> None:
    """Refuse a file that is not what was written there; one without a note is taken as it is.

    The user's files have none, nor have those of an older lmshape.

    Raises
    ------
    InputError
        When it is damaged, or was changed by hand.
    """
    if has_changed(file):
        raise InputError(
            f"`{file}` has changed since it was written: the disk is damaged, or the file was edited. Delete it, "
            "and run again."
        )


def has_changed(file: Path) -> bool:
    """Whether a file is not what its note says; one without a note has not changed."""
    noted = _digest_file(file)
    return noted.is_file() and file.is_file() and noted.read_bytes() != _sha256(file).encode()


def _digest_file(file: Path) -> Path:
    return file.with_name(f".{file.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
