"""Fetch a text from a file or an address, unpack it, and verify it."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import httpx2

from lmshape.downloading import (
    SILENCE_SECONDS,
    TRANSIENT,
    held_bytes,
    patiently,
    reason_of,
    receive,
    status_of,
)
from lmshape.errors import InputError
from lmshape.writing import replaced_when_whole

BLOCK_BYTES = 1 << 20
DAMAGED = (EOFError, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error)


def write_digest(text: Path) -> None:
    """Write the sha256 of a text into a hidden file beside it, for `check_digest`."""
    with replaced_when_whole(_digest_file(text)) as partial:
        partial.write_text(_sha256(text))


def check_digest(text: Path) -> None:
    """Refuse a text that is not what was written there; one without a digest, of an older lmshape, is taken as it is.

    Raises
    ------
    InputError
        When it is damaged, or was changed by hand.
    """
    noted = _digest_file(text)
    if noted.is_file() and noted.read_bytes() != _sha256(text).encode():
        raise InputError(
            f"`{text}` has changed since it was written: the disk is damaged, or the file was edited. Delete it, "
            "and run again."
        )


def _digest_file(text: Path) -> Path:
    return text.with_name(f".{text.name}.sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    source: str | Path,
    destination: Path,
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size: int | None = None,
) -> None:
    """Bring a text to `destination`, unpacked and verified; a file there is a file that is right.

    An address is downloaded into `{destination}.partial`, which survives a kill and is resumed; without a
    checksum nothing could tell whether two halves belong together, so then it starts anew. The archive format
    (xz, gzip, zip of one file, or none) is read off the first bytes. Memory is constant.

    Parameters
    ----------
    source : local path, or http(s) address
    destination : file to write, by renaming a finished one
    sha256, md5, size : what the unpacked text must have, as hexadecimal digits and bytes; None is not checked

    Raises
    ------
    InputError
        When there is no such source, the archive is damaged, or the text is another one than expected. A
        wrong download is removed.
    """
    digests = {name: value.lower() for name, value in (("sha256", sha256), ("md5", md5)) if value}
    destination.parent.mkdir(parents=True, exist_ok=True)
    if not str(source).startswith(("http://", "https://")):
        return _install(_local(source), destination, source=source, digests=digests, size=size)
    received = destination.with_name(f"{destination.name}.partial")
    if not digests:
        received.unlink(missing_ok=True)
    _download(str(source), received)
    try:
        _install(received, destination, source=source, digests=digests, size=size)
    except InputError:
        received.unlink()  # whole and wrong: resuming it would never make it right
        raise
    received.unlink()


def _download(address: str, received: Path) -> None:
    """Complete `received` with the bytes at an address; see `lmshape.downloading`."""
    with httpx2.Client(follow_redirects=True, timeout=SILENCE_SECONDS) as client:
        patiently(
            lambda: receive(lambda headers: client.stream("GET", address, headers=headers), received),
            what=f"`{address}`",
            explain=partial(_refusal, received=received),
            received=lambda: held_bytes(received),
        )


def _refusal(error: Exception, *, what: str, attempts: int, received: Path) -> InputError:
    if isinstance(error, httpx2.HTTPStatusError) and status_of(error) not in TRANSIENT:
        answer = error.response
        return InputError(
            f"{what} answers {answer.status_code} {answer.reason_phrase}; "
            "correct the address or name a local copy."
        )
    if isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | OSError):
        return InputError(
            f"{what} could not be fetched in {attempts} attempts ({reason_of(error)}). {held_bytes(received)} "
            f"bytes are kept in `{received}`: run again to resume, or name a local copy."
        )
    raise error


def _local(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"`source` is {source}, which is not a file; give a path or an http(s) address.")
    return path


def _install(
    archive: Path, destination: Path, *, source: str | Path, digests: Mapping[str, str], size: int | None
) -> None:
    hashes = {name: hashlib.new(name) for name in digests}
    with replaced_when_whole(destination) as partial, partial.open("wb") as output:
        try:
            with _unpacked(archive) as text:
                while block := text.read(BLOCK_BYTES):
                    output.write(block)
                    for digest in hashes.values():
                        digest.update(block)
        except DAMAGED as error:
            raise InputError(f"`{source}` is a damaged archive ({error}); fetch it again.") from error
        found = {name: digest.hexdigest() for name, digest in hashes.items()}
        _verify(source, found={**found, "bytes": output.tell()}, expected={**digests, "bytes": size})


def _verify(source: str | Path, *, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    wrong = [name for name, value in expected.items() if value is not None and found[name] != value]
    if wrong:
        difference = ", ".join(f"`{name}` {found[name]} instead of {expected[name]}" for name in wrong)
        raise InputError(
            f"`{source}` is another text than expected: {difference}. Nothing of it was kept: fetch it again "
            "or, if it is the right one, correct the expected values."
        )


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def _unpacked(archive: Path) -> Iterator[_Readable]:
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(archive) as folder, folder.open(_only_name(archive, folder)) as text:
            yield text
        return
    opener = lzma.open if start == b"\xfd7zXZ\x00" else gzip.open if start[:2] == b"\x1f\x8b" else io.open
    with opener(archive, "rb") as text:
        yield text


def _only_name(archive: Path, folder: zipfile.ZipFile) -> str:
    names = [entry.filename for entry in folder.infolist() if not entry.is_dir()]
    if len(names) != 1:
        raise InputError(f"`{archive}` holds {len(names)} files; a zipped text must be alone in its archive.")
    return names[0]
