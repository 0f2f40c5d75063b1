"""Digests of files of ours, so that what reads them notices rot: in the folder's receipt, or in a file beside them."""

from __future__ import annotations

from pathlib import Path

from lmshape.errors import InputError
from lmshape.receipt import digest_of, is_copied, read_told
from lmshape.writing import replaced_when_whole


def write_digest(file: Path) -> None:
    """Note what a file of no folder of ours holds, for `check_digest`."""
    with replaced_when_whole(_note(file)) as partial:
        partial.write_text(digest_of(file))


def check_digest(file: Path) -> None:
    """Refuse a file that is not what was written there; one without a digest is taken as it is.

    The user's files have none, nor have those of an older lmshape. A receipt that was copied from elsewhere says none.

    Raises
    ------
    InputError
        When it is damaged, or was changed by hand.
    """
    note, folder = _note(file), file.parent
    if note.is_file():
        noted, made = note.read_text(errors="replace"), file
    else:
        told = read_told(folder)
        noted, made = told.get("digests", {}).get(file.name), folder
        if is_copied(folder, told):
            return
    if noted is not None and file.is_file() and digest_of(file, like=noted) != noted:
        raise InputError(
            f"`{file}` has changed since it was written: the disk is damaged, or the file was edited. Move `{made}` "
            "elsewhere, and run again."
        )


def _note(file: Path) -> Path:
    return file.with_name(f".{file.name}.sha256")
