"""Rules by which the loopback hub misbehaves, and the log of what it was asked."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["status", "cut", "flip", "short", "slow", "hang", "no_range"]
OF_BODIES = ("cut", "flip", "short", "slow")  # which a HEAD request neither sees nor uses up


@dataclass
class Fault:
    """What to do to the requests whose path (unquoted, with the query) holds the regular expression `path`.

    Kinds:
    - status: answer with `status`, and with `retry_after` seconds in the header Retry-After, `rate_limit`
      seconds in the headers RateLimit and RateLimit-Policy, `error_code` in X-Error-Code
    - cut: close the connection after `after` bytes of the body, whose length is announced in full; with `reset`
      by a reset, which the client sees as an error of reading
    - flip: the right length and ETag, 16 bytes from offset `after` of the file (by default its middle) inverted
    - short: only the first `after` bytes, announced as such
    - slow: `rate` bytes per second
    - hang: wait for `seconds` before the answer or, with `after`, after so many bytes of the body
    - no_range: answer a request for a range with the whole file
    """

    path: str
    kind: Kind
    times: int | None = None  # None: forever
    skip: int = 0  # the first so many requests pass
    method: str | None = None
    status: int = 503
    retry_after: int | None = None
    rate_limit: int | None = None
    error_code: str | None = None
    after: int | None = None
    reset: bool = False
    rate: float = 100_000
    seconds: float = 3600
    hits: int = 0  # how often it was applied

    def meets(self, method: str, path: str) -> bool:
        """Whether the rule is for such a request."""
        if self.method is None and self.kind in OF_BODIES and method == "HEAD":
            return False
        return self.method in (None, method) and re.search(self.path, path) is not None

    def take(self) -> bool:
        """Use the rule up by one request, if that many are left."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules in force."""

    def __init__(self) -> None:
        self.rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self.rules.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self.rules.clear()

    def take(self, method: str, path: str) -> dict[str, Fault]:
        """The faults of this request by kind, the oldest rule first; they count as used."""
        taken: dict[str, Fault] = {}
        with self._lock:
            for rule in self.rules:
                if rule.kind not in taken and rule.meets(method, path) and rule.take():
                    taken[rule.kind] = rule
        return taken


@dataclass
class Request:
    """A request as the server saw it; entered when it arrives, complete when its answer is sent."""

    method: str
    path: str  # unquoted, with the query
    range: str | None
    authorized: bool  # whether an Authorization header came
    user_agent: str
    cdn: bool = False  # whether it came to the other origin, of the redirects
    status: int = 0
    bytes_sent: int = 0  # of the body
    seconds: float | None = None  # None: not complete

    @property
    def is_download(self) -> bool:
        return self.method == "GET" and re.match(r"/cdn/|/.+/(resolve|raw)/", self.path) is not None


class Log:
    """All requests, and how many downloads of files ran at once."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.peak_downloads = 0
        self._downloads = 0
        self._lock = threading.Lock()

    def enter(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    @contextmanager
    def download(self) -> Iterator[None]:
        """Count a download of a file while it runs."""
        with self._lock:
            self._downloads += 1
            self.peak_downloads = max(self.peak_downloads, self._downloads)
        try:
            yield
        finally:
            with self._lock:
                self._downloads -= 1

    def clear(self) -> None:
        with self._lock:
            self.requests.clear()
            self.peak_downloads = self._downloads

    def as_json(self) -> dict[str, Any]:
        with self._lock:
            requests = [asdict(request) for request in self.requests]
        return {"requests": requests, "peak_downloads": self.peak_downloads}


def bytes_served(requests: list[Request]) -> Counter[str]:
    """Bytes of bodies by path, without its query."""
    served: Counter[str] = Counter()
    for request in requests:
        served[request.path.partition("?")[0]] += request.bytes_sent
    return served
