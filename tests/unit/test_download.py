"""Fetching over HTTP, against a real server on loopback that cuts, refuses and forgets on command."""

from __future__ import annotations

import hashlib
import io
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lmshape.downloading import ATTEMPTS, held_bytes
from lmshape.errors import InputError
from lmshape.texts.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(3 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serve `content`; each request takes the next word of `script`, then "ok" for ever."""

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.script: list[str] = []
        self.ranges: list[str | None] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/enwik8.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        behavior = self.server.script.pop(0) if self.server.script else "ok"
        asked = self.headers["Range"]
        self.server.ranges.append(asked)
        if behavior.isdigit():
            self.send_error(int(behavior))
            return
        start = (
            int(asked.removeprefix("bytes=").removesuffix("-")) if asked and "whole" not in behavior else 0
        )
        if start >= len(self.server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.server.content)}")
            self.end_headers()
            return
        self._send(start + ("shifted" in behavior), behavior)

    def _send(self, start: int, behavior: str) -> None:
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(self.server.content) - 1}/*")
        if "endless" not in behavior:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if "cut" in behavior or "stall" in behavior else body)
        if "stall" in behavior:
            self.server.released.wait(20)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(CONTENT) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that were asked for, none of them made."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    return taken


def check(destination: Path) -> None:
    """Assert that the text is whole and alone in its folder."""
    assert destination.read_bytes() == CONTENT
    assert list(destination.parent.iterdir()) == [destination]


def test_a_text_arrives_in_one_request(server: Server, tmp_path: Path) -> None:
    fetch(server.address, tmp_path / "texts" / "a.txt", sha256=SHA256, size=len(CONTENT))
    check(tmp_path / "texts" / "a.txt")
    assert server.ranges == [None]


def test_a_zip_is_unpacked(server: Server, tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as folder:
        folder.writestr("enwik8", CONTENT)
    server.content = archive.getvalue()
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256.upper())
    check(tmp_path / "a.txt")


def test_a_cut_connection_is_resumed_where_it_was_cut(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.script = ["cut", "cut"]
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")
    half = len(CONTENT) // 2
    assert server.ranges == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert pauses == [1.0, 1.0], "an attempt that brings bytes starts the pauses anew"


def test_pauses_grow_while_the_server_is_busy(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.script = ["503", "429", "500"]
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")
    assert pauses == [1.0, 60.0, 4.0]  # a quota whose end is not said lasts for minutes


@pytest.mark.parametrize("behavior", ["whole", "shifted"])
def test_a_server_that_does_not_continue_restarts_the_text(
    server: Server, tmp_path: Path, pauses: list[float], behavior: str
) -> None:
    server.script = ["cut", behavior]
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")


def test_a_length_that_is_not_told_is_no_obstacle(server: Server, tmp_path: Path) -> None:
    server.script = ["endless"]
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")


@pytest.mark.parametrize(("held", "ranges"), [(CONTENT, 1), (CONTENT + b"x", 2)], ids=["whole", "too long"])
def test_a_partial_file_past_the_end(
    server: Server, tmp_path: Path, pauses: list[float], held: bytes, ranges: int
) -> None:
    (tmp_path / "a.txt.partial").write_bytes(held)
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")
    assert server.ranges == [f"bytes={len(held)}-", None][:ranges]


def test_wrong_bytes_are_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        fetch(server.address, tmp_path / "a.txt", md5="0" * 32, size=7)
    message = str(refusal.value)
    assert f"`md5` {hashlib.md5(CONTENT).hexdigest()} instead of {'0' * 32}" in message
    assert f"`bytes` {len(CONTENT)} instead of 7" in message
    assert "fetch it again" in message
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_does_not_exist_is_not_asked_twice(server: Server, tmp_path: Path) -> None:
    server.script = ["404"]
    with pytest.raises(InputError, match="answers 404 Not Found; correct the address or name a local copy"):
        fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    assert len(server.ranges) == 1


def test_giving_up_keeps_what_came_and_says_so(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.script = ["cut"] + ["503"] * ATTEMPTS
    with pytest.raises(InputError, match=f"in {ATTEMPTS} attempts .* {len(CONTENT) // 2} bytes are kept in"):
        fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")
    assert server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"


def test_restarting_over_and_over_is_no_progress(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.script = ["whole cut"] * 20
    with pytest.raises(InputError, match=rf"closed connection .*received \d+ bytes, expected {len(CONTENT)}"):
        fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    assert len(server.ranges) == ATTEMPTS


def test_nobody_at_the_address(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(InputError, match=f"could not be fetched in {ATTEMPTS} attempts .*refused"):
        fetch("http://127.0.0.1:9/enwik8.zip", tmp_path / "a.txt")


def test_without_a_checksum_no_half_of_an_earlier_download_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.txt.partial").write_bytes(b"half of another text")
    fetch(server.address, tmp_path / "a.txt")
    check(tmp_path / "a.txt")


def test_a_killed_fetch_is_resumed(server: Server, tmp_path: Path) -> None:
    server.script = ["stall"]
    code = "import sys; from pathlib import Path; from lmshape.texts.fetch import fetch; "
    code += f"fetch(sys.argv[1], Path(sys.argv[2]), sha256={SHA256!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code, server.address, tmp_path / "a.txt"], stderr=subprocess.PIPE
    )
    partial = tmp_path / "a.txt.partial"
    deadline = time.monotonic() + 120
    while not held_bytes(partial) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    held = held_bytes(partial)
    assert 0 < held < len(CONTENT)
    assert list(tmp_path.iterdir()) == [partial]
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    check(tmp_path / "a.txt")
    assert server.ranges == [None, f"bytes={held}-"]


def test_a_log_file_gets_lines_and_no_bars(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(server.address, tmp_path / "a.txt", sha256=SHA256)
    assert "\r" not in capsys.readouterr().err
