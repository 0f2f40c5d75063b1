"""A text, brought here: from a file or an address, unpacked, and verified."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import logging
import lzma
import re
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lmshape.errors import InputError
from lmshape.progress import progress
from lmshape.writing import replaced_when_whole

LOG = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0  # doubled after every failure: 31 seconds in all
TIMEOUT_SECONDS = 60.0
BLOCK_BYTES_DOWNLOAD = 1 << 18
# Answers that a later attempt may well not get; any other 4xx is final.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
RANGE_NOT_SATISFIABLE = 416


def download(address: str, partial: Path) -> None:
    """Complete `partial` with the bytes at `address`, from where an earlier call left it.

    A server that does not continue where it is asked to makes the file start anew. Failures that bring no new
    bytes are counted, and the call gives up after `ATTEMPTS` of them; what was received stays in `partial`.

    Parameters
    ----------
    address : http or https address
    partial : file to append to; whether it holds the bytes that were meant is for the caller to check

    Raises
    ------
    InputError
        When the server refuses the address (404, 403, …) or the attempts are used up.
    """
    failures, most = 0, held_bytes(partial)
    while True:
        try:
            return _receive(address, partial)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in TRANSIENT:
                raise InputError(
                    f"`{address}` answers {error.code} {error.reason}; "
                    "correct the address or name a local copy."
                ) from error
            reason: Exception = error
        except (OSError, http.client.HTTPException) as error:
            reason = error
        failures = 1 if held_bytes(partial) > most else failures + 1
        most = max(most, held_bytes(partial))
        if failures >= ATTEMPTS:
            raise InputError(
                f"`{address}` could not be fetched in {ATTEMPTS} attempts ({reason}). {held_bytes(partial)} "
                f"bytes are kept in `{partial}`: run again to resume, or name a local copy."
            ) from reason
        pause = FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
        LOG.warning("%s: %s; trying again in %g s", address, reason, pause)
        time.sleep(pause)


def held_bytes(partial: Path) -> int:
    """Count the bytes that are already there."""
    return partial.stat().st_size if partial.exists() else 0


def _receive(address: str, partial: Path) -> None:
    """Make one request for what is missing and append the answer; a cut answer raises ConnectionError."""
    start = held_bytes(partial)
    # Compression on the way would make the byte range one of the compressed stream.
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != RANGE_NOT_SATISFIABLE or not start:
            raise
        error.close()
        return _beyond_the_end(error.headers.get("Content-Range", ""), partial)
    with response:
        _append(response, partial, start)


def _beyond_the_end(content_range: str, partial: Path) -> None:
    """Accept a partial file that is already whole; drop one that is longer than what the server has."""
    held = held_bytes(partial)
    if content_range != f"bytes */{held}":
        partial.unlink()
        raise ConnectionError(f"the server has no byte {held} to resume from; starting anew")


def _append(response: http.client.HTTPResponse, partial: Path, start: int) -> None:
    """Write the body behind the `start` bytes held, or over them when the server sends the whole file."""
    answered = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if (int(answered[1]) if answered else 0) != start:
        start = 0
        if answered:
            partial.unlink()
            raise ConnectionError("the server continues at another byte than asked; starting anew")
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    with (
        partial.open("ab" if start else "wb") as file,
        progress(total or 0, done=start, description=partial.stem, unit="B") as bar,
    ):
        while block := response.read(BLOCK_BYTES_DOWNLOAD):
            file.write(block)
            bar.update(len(block))
    if total is not None and held_bytes(partial) != total:
        raise ConnectionError(f"connection closed after {held_bytes(partial)} of {total} bytes")


BLOCK_BYTES = 1 << 20
DAMAGED = (EOFError, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error)


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
    partial = destination.with_name(f"{destination.name}.partial")
    if not digests:
        partial.unlink(missing_ok=True)
    download(str(source), partial)
    try:
        _install(partial, destination, source=source, digests=digests, size=size)
    except InputError:
        partial.unlink()  # whole and wrong: resuming it would never make it right
        raise
    partial.unlink()


def _local(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"`source` is {source}, which is no file; give a path or an http(s) address.")
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


@contextmanager
def _unpacked(archive: Path) -> Iterator[BinaryIO]:
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
