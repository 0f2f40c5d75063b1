"""Replies of the loopback hub, and what its server sends of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass
class Reply:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file: Path | None = None  # instead of the body
    start: int = 0  # the part of the file
    stop: int | None = None

    @property
    def length(self) -> int:
        if self.file is None:
            return len(self.body)
        return (self.file.stat().st_size if self.stop is None else self.stop) - self.start

    def ranged(self, header: str | None) -> Reply:
        """The reply to a request for one range of the file, as the header Range has it."""
        match = _RANGE.fullmatch(header or "")
        if self.file is None or match is None or match.groups() == ("", ""):
            return self
        size = self.file.stat().st_size
        first, last = match.groups()
        start = int(first) if first else max(size - int(last), 0)
        stop = min(int(last) + 1, size) if first and last else size
        if start >= stop:
            return Reply(416, {"Content-Range": f"bytes */{size}"})
        headers = {**self.headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        return Reply(206, headers, file=self.file, start=start, stop=stop)


def json_reply(content: Any, headers: dict[str, str] | None = None, status: int = 200) -> Reply:
    headers = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Reply(status, headers, json.dumps(content).encode())


class Denied(Exception):
    """An error of the hub, with its code in a header, where the client looks for it."""

    def __init__(
        self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {**(headers or {}), **({"X-Error-Code": code} if code else {})}

    def reply(self) -> Reply:
        headers = {**self.headers, "X-Error-Message": self.message}
        return json_reply({"error": self.message}, headers, self.status)


class Moved(Exception):
    """The repository has another name now."""

    def __init__(self, path: str, query: dict[str, list[str]]) -> None:
        super().__init__(path)
        self.location = f"{path}?{urlencode(query, doseq=True)}" if query else path

    def reply(self) -> Reply:
        return Reply(307, {"Location": self.location})
