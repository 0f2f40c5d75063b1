"""Downloads over HTTP, with retries after growing pauses, each resumed where the last one stopped."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import get_token
from huggingface_hub.utils import parse_ratelimit_headers

from lmshape.errors import InputError, first_line
from lmshape.progress import progress

_LOG = logging.getLogger(__name__)

ATTEMPTS = 7
# doubled after every failure: a minute in all
FIRST_PAUSE_SECONDS = float(os.environ.get("LMSHAPE_FIRST_PAUSE_SECONDS", "1"))
LONGEST_PAUSE_SECONDS = 300.0
BLOCK_BYTES = 1 << 20  # read at a time
SILENCE_SECONDS = 60.0  # after which a connection is dropped
QUOTA = 429  # requests of a window of time are used up
QUOTA_PAUSE_SECONDS = 60.0  # six of them outlast the hub's window of five minutes
# Answers that a later attempt may well not get; any other 4xx is final.
TRANSIENT = frozenset({408, 425, QUOTA, 500, 502, 503, 504})
_QUERY = re.compile(r"(?<=[\w/])\?[^\s'\"<>]*=[^\s'\"<>]*")  # of an address
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416

Answer = TypeVar("Answer")
Request = Callable[[Mapping[str, str]], AbstractContextManager[httpx2.Response]]  # given headers, sends it
Explain = Callable[..., InputError]  # of an error, `what` and `attempts`: the sentence for the user


class CutShort(ConnectionError):
    """An answer that ended early, or began at another byte than asked."""


def status_of(error: Exception) -> int | None:
    """Return the status of the answer that an error is about; None where there was no answer."""
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def is_transient(error: Exception) -> bool:
    """Whether a later attempt may well succeed."""
    status = status_of(error)
    return status in TRANSIENT if status else isinstance(error, httpx2.TransportError | CutShort)


def reason_of(error: Exception) -> str:
    """Return the first line of an error's text, without secrets: the hub's token, and queries, which are signed."""
    token, text = get_token(), _QUERY.sub("?…", first_line(error))
    return text.replace(token, "***") if token else text


def patiently(
    ask: Callable[[], Answer],
    *,
    what: str,
    explain: Explain,
    received: Callable[[], int] = lambda: 0,
    may_pass: Callable[[Exception], bool] = is_transient,
    tell: Callable[[Exception], str] = reason_of,
) -> Answer:
    """Ask until there is an answer, with growing pauses, or a refusal for good.

    Parameters
    ----------
    ask : makes one attempt
    what : is asked for, in the words of a message
    explain : turns the last failure into the error to raise, and raises itself what is none of a connection
    received : counts the bytes that attempts have brought so far; failures that bring new ones are not counted
    may_pass : whether a later attempt may well succeed
    tell : the words of the log for a failure

    Raises
    ------
    InputError
        As `explain` has it, when the attempts are used up or another one has no point.
    """
    failures, most = 0, received()
    while True:
        try:
            return ask()
        except Exception as error:
            failures = 1 if received() > most else failures + 1
            most = max(most, received())
            if failures >= ATTEMPTS or not may_pass(error):
                raise explain(error, what=what, attempts=failures) from error
            # as long as the server asks for, else twice as long as the time before
            seconds = max(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), _asked_seconds(error))
            seconds = min(seconds, LONGEST_PAUSE_SECONDS)
            _LOG.warning("%s: %s; asking again in %g s", what, tell(error), seconds)
            time.sleep(seconds)


def receive(request: Request, partial: Path, *, size: int | None = None) -> None:
    """Ask once for the bytes that `partial` lacks, and append them; what is received of them stays.

    A server that does not continue at the requested byte makes the file start again.

    Parameters
    ----------
    request : sends a request with further headers
    partial : file to complete; whether it holds the bytes that were meant is for the caller to check
    size : of the whole file, if that is known

    Raises
    ------
    httpx2.HTTPError
        For a refusal or a broken connection.
    CutShort
        When the answer is not what is missing.
    """
    start = held_bytes(partial)
    if size is not None and start > size:
        partial.unlink()
        start = 0
    if start == size:
        partial.touch()
        return
    # Compression on the way would make the byte range one of the compressed stream.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with request(headers) as response:
        status, answered = response.status_code, response.headers.get("Content-Range", "")
        if start and status == RANGE_NOT_SATISFIABLE and answered == f"bytes */{start}":
            return  # it is whole already
        elsewhere = status == PARTIAL_CONTENT and not answered.startswith(f"bytes {start}-")
        if elsewhere or (start and status == RANGE_NOT_SATISFIABLE):
            partial.unlink(missing_ok=True)
            raise CutShort(f"the server does not continue at byte {start}; starting again")
        response.raise_for_status()
        _append(response, partial, start if status == PARTIAL_CONTENT else 0, size)


def held_bytes(partial: Path) -> int:
    """Count the bytes that are already there."""
    return partial.stat().st_size if partial.exists() else 0


def _asked_seconds(error: Exception) -> float:
    """Return how long the server asks to wait: by Retry-After, its quota's window, or a guess."""
    response = getattr(error, "response", None)
    if response is None:
        return 0.0
    after = response.headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    return QUOTA_PAUSE_SECONDS if response.status_code == QUOTA else 0.0


def _append(response: httpx2.Response, partial: Path, start: int, size: int | None) -> None:
    """Write the body behind the first `start` bytes."""
    length = response.headers.get("Content-Length")
    if length is not None and "Content-Encoding" not in response.headers:
        announced = start + int(length)
        if size not in (None, announced):  # a page in its place, say: what was received stays
            raise CutShort(f"the answer would make {announced} bytes of {size}")
        size = announced
    with (
        partial.open("ab" if start else "wb") as file,
        progress(size or 0, done=start, description=partial.stem, unit="B") as bar,
    ):
        for block in response.iter_bytes():
            file.write(block)
            bar.update(len(block))
    if size is not None and held_bytes(partial) != size:
        raise CutShort(f"connection closed after {held_bytes(partial)} of {size} bytes")
