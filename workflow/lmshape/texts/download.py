"""One file over HTTP, into a partial file that survives kills: resumed by byte range, retried with pauses."""

from __future__ import annotations

import http.client
import logging
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from lmshape.errors import InputError
from lmshape.progress import progress

LOG = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 1.0  # doubled after every failure: 31 seconds in all
TIMEOUT_SECONDS = 60.0
BLOCK_BYTES = 1 << 18
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
        while block := response.read(BLOCK_BYTES):
            file.write(block)
            bar.update(len(block))
    if total is not None and held_bytes(partial) != total:
        raise ConnectionError(f"connection closed after {held_bytes(partial)} of {total} bytes")
