"""The receipt of a folder: names and sizes of the files that lmshape wrote. It deletes no other files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any

RECEIPT = "lmshape.json"
GIT = "git:"  # begins a digest that is git's name of the content
OWN_SUM = "sha256"  # key, of the receipt's own content
PARTIAL = ".partial"  # ends the name of a file that is still being received


def write_receipt(folder: Path, **told: Any) -> None:
    """Write or renew the receipt of a folder.

    Parameters
    ----------
    folder : the folder, which exists
    told : what the receipt shall say besides; what it said before stays. `files`, path below the folder → bytes, is
        that of the files that are there unless it is given
    """
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(_files(folder))
        if path != folder / RECEIPT
    }
    receipt = {**read_told(folder), "files": files, **told}
    whole = {**receipt, OWN_SUM: _sum_of(receipt)}
    (folder / RECEIPT).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def read_told(folder: Path) -> dict[str, Any]:
    """Return what the receipt of a folder says; nothing where there is none, or a damaged one."""
    try:
        told = json.loads((folder / RECEIPT).read_text(encoding="utf-8"))
        noted = told.pop(OWN_SUM, None)
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
    older = noted is None and not told.keys() & {"place", "digests"}  # which knew none of the three
    return told if older or noted == _sum_of(told) else {}


def _sum_of(told: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def place_of(folder: Path) -> str:
    """Return the last two names of a folder, or of what it becomes when it is whole."""
    return "/".join(name.removeprefix(".").removesuffix(PARTIAL) for name in folder.absolute().parts[-2:])


def is_copied(folder: Path, told: Mapping[str, Any]) -> bool:
    """Whether the receipt of a folder was written for another one; that of an older lmshape does not say."""
    return told.get("place", place_of(folder)) != place_of(folder)


def digest_of(path: Path, *, like: str = "") -> str:
    """Return the sha256 of a file, or git's name of it where the digest to compare with is one."""
    with path.open("rb") as file:
        if not like.startswith(GIT):
            return hashlib.file_digest(file, "sha256").hexdigest()
        blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return f"{GIT}{hashlib.file_digest(file, lambda: blob).hexdigest()}"


def xet_folder(received: Path) -> Path:
    """Return where the hub's library puts what it receives of a file by Xet, until it is whole."""
    return received.with_name(f".{received.name}.xet")


def own_files(folder: Path, told: Mapping[str, Any] | None = None) -> list[Path]:
    """List the files that the receipt names and that have the size it names, or are the beginning of such a file.

    The receipt, which `told` spares reading, is not among them. A link whose target is gone has no size, and counts as
    it is. A linked folder, and one whose receipt was copied from elsewhere, are the user's.
    """
    told = read_told(folder) if told is None else told
    listed = told.get("files")
    if folder.is_symlink() or is_copied(folder, told):
        return []
    own: list[Path] = []
    for name, size in listed.items() if isinstance(listed, dict) else ():
        if not isinstance(size, int) or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            continue
        path = folder / name
        beginning = path.with_name(f"{path.name}{PARTIAL}")
        own += [path] if os.path.lexists(path) and _size(path) in (size, None) else []
        own += [beginning] if beginning.is_file() and (_size(beginning) or 0) <= size else []
        own += _files(xet_folder(beginning))
    return own


def delete_own(folder: Path) -> None:
    """Delete the files that the receipt names, the receipt, and the folders that are empty then."""
    for path in own_files(folder):
        path.unlink(missing_ok=True)
    (folder / RECEIPT).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # it holds something else
            os.rmdir(parent)


def foreign_files(folder: Path, told: Mapping[str, Any] | None = None) -> list[Path]:
    """List the files of a folder that no receipt there names; `told` spares reading it."""
    own = {folder / RECEIPT, *own_files(folder, told)}
    return sorted(path for path in _files(folder) if path not in own)


def _files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder; a link is one, whatever it leads to."""
    for parent, folders, names in os.walk(folder):
        links = (name for name in folders if os.path.islink(os.path.join(parent, name)))
        yield from (Path(parent, name) for name in (*names, *links))


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
