"""Texts as files: fetched and verified, cleaned, read back, and cut into spans to train and to measure on."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from lmshape.download import download
from lmshape.errors import InputError
from lmshape.progress import progress
from lmshape.wikitext import articles

BLOCK_BYTES = 1 << 20
# A span starts at a line's start if one is this near; a text without line ends is cut between two characters.
LINE_SEARCH_CHARACTERS = 10_000
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


def clean_file(source: Path, destination: Path) -> None:
    """Write the prose of a Wikipedia dump, by the rule of `lmshape.wikitext.clean`, one page at a time.

    Raises
    ------
    InputError
        When the text is not UTF-8 or holds no article.
    """
    with written(destination) as output, source.open("rb") as stream:
        size = source.stat().st_size
        with progress(size, description=source.name, unit="B") as bar:
            for article in articles(_lines(stream, bar)):
                output.write(article.encode())
        if not output.tell():
            raise InputError(
                f"`{source}` holds no Wikipedia article in <page><text>…; set `clean: false` for a text that "
                "is plain already."
            )


def read_text(path: Path) -> str:
    """Read a UTF-8 text; a last character that a cut at a byte has halved is left out.

    Raises
    ------
    InputError
        When the text is not UTF-8.
    """
    with path.open("rb") as stream:
        return "".join(_lines(stream))


def span(text: str, start: float, end: float) -> str:
    """Give the part of a text between two fractions of its characters, moved on to the start of a line.

    The cuts depend on their own fraction only: `span(text, 0, 0.9)` and `span(text, 0.9, 1)` share nothing
    and together are the text, which keeps held-out text held out.

    Parameters
    ----------
    text : the whole text
    start, end : fractions of its characters, 0 ≤ start < end ≤ 1

    Raises
    ------
    InputError
        When the fractions are not ordered within 0 and 1.
    """
    if not 0 <= start < end <= 1:
        raise InputError(f"`span` is [{start}, {end}]; it needs 0 <= start < end <= 1.")
    return text[_cut(text, start) : _cut(text, end)]


@contextmanager
def written(destination: Path) -> Iterator[BinaryIO]:
    """Open a file beside `destination` that takes its name once it is whole, and vanishes when it is not."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    unfinished = destination.with_name(f".{destination.name}.partial-{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, destination)
    finally:
        unfinished.unlink(missing_ok=True)


def _local(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"`source` is {source}, which is no file; give a path or an http(s) address.")
    return path


def _install(
    archive: Path, destination: Path, *, source: str | Path, digests: Mapping[str, str], size: int | None
) -> None:
    hashes = {name: hashlib.new(name) for name in digests}
    with written(destination) as output:
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


def _lines(stream: BinaryIO, bar: tqdm | None = None) -> Iterator[str]:
    try:
        for line in stream:
            # final=False: half a character at the end of the file is left out; anywhere else it is an error.
            yield codecs.utf_8_decode(line, "strict", False)[0]
            if bar is not None:
                bar.update(len(line))
    except UnicodeDecodeError as error:
        raise InputError(
            f"`{stream.name}` is not UTF-8 ({error.reason}, byte {line[error.start]:#04x}); convert it, for "
            "instance with `iconv -t utf-8`."
        ) from error


def _cut(text: str, fraction: float) -> int:
    position = round(fraction * len(text))
    if position in (0, len(text)):
        return position
    newline = text.find("\n", position - 1, position + LINE_SEARCH_CHARACTERS)
    return position if newline < 0 else newline + 1
