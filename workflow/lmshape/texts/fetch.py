"""Fetch and verify a text: a file or an address, unpacked; or rows of a file or of a hub dataset."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import httpx2

from lmshape.downloading import (
    BLOCK_BYTES,
    SILENCE_SECONDS,
    TRANSIENT,
    held_bytes,
    patiently,
    reason_of,
    receive,
    status_of,
)
from lmshape.errors import InputError, unknown
from lmshape.texts.corpus import DOCUMENT_END, lines_of
from lmshape.writing import replaced_when_whole

BEHIND_A_ROW = f"\n\n{DOCUMENT_END}"
DAMAGED_ARCHIVE = (EOFError, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error)


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
    expected = {"sha256": sha256 and sha256.lower(), "md5": md5 and md5.lower(), "bytes": size}
    destination.parent.mkdir(parents=True, exist_ok=True)
    if not str(source).startswith(("http://", "https://")):
        path = Path(source).expanduser()
        if not path.is_file():
            raise InputError(f"`source` is {source}, which is not a file; give a path or an http(s) address.")
        return _install(path, destination, source=source, expected=expected)
    received = destination.with_name(f"{destination.name}.partial")
    if not (sha256 or md5):
        received.unlink(missing_ok=True)
    with httpx2.Client(follow_redirects=True, timeout=SILENCE_SECONDS) as client:
        patiently(
            lambda: receive(lambda headers: client.stream("GET", str(source), headers=headers), received),
            what=f"`{source}`",
            explain=partial(_refusal, received=received),
            received=lambda: held_bytes(received),
        )
    try:
        _install(received, destination, source=source, expected=expected)
    except InputError:
        received.unlink()  # whole and wrong: resuming it would never make it right
        raise
    received.unlink()


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


def _install(
    archive: Path, destination: Path, *, source: str | Path, expected: Mapping[str, str | int | None]
) -> None:
    """Unpack a text to its place, unless it is another than expected."""
    hashes = {name: hashlib.new(name) for name in ("sha256", "md5") if expected[name]}
    with replaced_when_whole(destination) as unfinished, unfinished.open("wb") as output:
        try:
            for block in _unpacked(archive):
                output.write(block)
                for digest in hashes.values():
                    digest.update(block)
        except DAMAGED_ARCHIVE as error:
            raise InputError(f"`{source}` is a damaged archive ({error}); fetch it again.") from error
        found = {"bytes": output.tell(), **{name: digest.hexdigest() for name, digest in hashes.items()}}
        wrong = [
            f"`{name}` {value} instead of {expected[name]}"
            for name, value in found.items()
            if expected[name] not in (None, value)
        ]
        if wrong:
            raise InputError(
                f"`{source}` is another text than expected: {', '.join(wrong)}. Nothing of it was kept: fetch it "
                "again or, if it is the right one, correct the expected values."
            )


def _unpacked(archive: Path) -> Iterator[bytes]:
    """Yield the bytes of a text in blocks, out of its archive if it is in one."""
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(archive) as folder:
            names = [entry.filename for entry in folder.infolist() if not entry.is_dir()]
            if len(names) != 1:
                raise InputError(
                    f"`{archive}` holds {len(names)} files; a zipped text must be alone in its archive."
                )
            with folder.open(names[0]) as member:
                yield from iter(partial(member.read, BLOCK_BYTES), b"")
        return
    opener = lzma.open if start == b"\xfd7zXZ\x00" else gzip.open if start[:2] == b"\x1f\x8b" else io.open
    with opener(archive, "rb") as text:
        yield from iter(partial(text.read, BLOCK_BYTES), b"")


def write_rows_of(source: Path, destination: Path, *, column: str) -> None:
    """Write the column of a JSON Lines or Parquet file as a text, an empty line and `DOCUMENT_END` behind each row.

    Raises
    ------
    InputError
        When the file is not one of these, or has no such column of text.
    """
    read = _of_parquet if source.suffix == ".parquet" else _of_json_lines
    _write_rows(_readable(read(source, column), of=f"`{source}`"), destination, of=f"`{source}`")


def write_hub_dataset(
    path: str, destination: Path, *, name: str | None, split: str, column: str, megabytes: float
) -> None:
    """Write the first rows of a dataset of the hub as a text, as `write_rows_of` does; only these are downloaded.

    Parameters
    ----------
    path, name, split : as `datasets.load_dataset` takes them
    destination : file to write; it appears when it is whole
    column : of the text
    megabytes : of text, after which no further row is taken

    Raises
    ------
    InputError
        Without the package `datasets`; when the hub has no such dataset, or that no such column.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"the text is the dataset `{path}` of the hub, and `datasets` is not installed: pip install datasets"
        ) from None

    def texts() -> Iterator[str]:
        for row in datasets.load_dataset(path, name, split=split, streaming=True):
            yield _text_of(row, column, of=f"`{path}`")

    _write_rows(
        _readable(texts(), of=f"the dataset `{path}`"), destination, of=f"`{path}`", most=megabytes * 10**6
    )


def _readable(texts: Iterator[str], *, of: str) -> Iterator[str]:
    """Yield texts; whatever keeps a reader from going on is told with the name of what it reads."""
    try:
        yield from texts
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, httpx2.HTTPError, *DAMAGED_ARCHIVE) as error:
        raise InputError(
            f"{of} cannot be read: {reason_of(error)}. Correct its name or the file, or run again."
        ) from error


def _of_json_lines(source: Path, column: str) -> Iterator[str]:
    with gzip.open(source) if source.suffix == ".gz" else source.open("rb") as stream:
        for number, line in enumerate(lines_of(stream), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(
                        f"`{source}`, line {number}, is not JSON ({error}). Correct the file."
                    ) from error
                yield _text_of(row, column, of=f"`{source}`, line {number},")


def _of_parquet(source: Path, column: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(source)
    if column not in file.schema_arrow.names:
        raise unknown(f"column of `{source}`", column, file.schema_arrow.names)
    for batch in file.iter_batches(columns=[column]):
        yield from (_text_of(row, column, of=f"`{source}`") for row in batch.to_pylist())


def _text_of(row: Any, column: str, *, of: str) -> str:
    named = row if isinstance(row, Mapping) else {}
    if not isinstance(named.get(column), str):
        names = ", ".join(named) or "none"
        raise InputError(f"{of} has no text under `column` = '{column}'; its columns: {names}.")
    return named[column]


def _write_rows(texts: Iterable[str], destination: Path, *, of: str, most: float = inf) -> None:
    with replaced_when_whole(destination) as partial, partial.open("wb") as output:
        for text in texts:
            if text.strip():
                # "replace": JSON can spell halves of a character, and some rows of the web do
                output.write((text.strip("\n") + BEHIND_A_ROW).encode(errors="replace"))
            if output.tell() >= most:
                break
        if not output.tell():
            raise InputError(f"{of} has no text in it. Name another file, column or split.")
