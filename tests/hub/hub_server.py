"""The loopback hub's HTTP server: sends replies, well or as a fault has it, and is controlled by HTTP too."""

from __future__ import annotations

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote

from hub_api import Api, Asked
from hub_faults import Fault, Faults, Log, Request
from hub_replies import Denied, Reply, json_reply

_PIECE = 1 << 16
_FLIPPED = 16  # bytes that the fault `flip` inverts


@dataclass
class Service:
    """What the servers of a hub share."""

    api: Api
    faults: Faults = field(default_factory=Faults)
    log: Log = field(default_factory=Log)
    stopping: threading.Event = field(default_factory=threading.Event)

    def state(self) -> dict[str, Any]:
        rules = [asdict(rule) for rule in self.faults.rules]
        return {"settings": asdict(self.api.settings), "faults": rules, "cdn_endpoint": self.api.cdn_endpoint}

    def control(self, orders: dict[str, Any]) -> dict[str, Any]:
        """Carry out orders: clear_faults, faults (a list), settings, clear_log; return the state."""
        if orders.get("clear_faults"):
            self.faults.clear()
        if orders.get("clear_log"):
            self.log.clear()
        for rule in orders.get("faults", []):
            self.faults.add(Fault(**rule))
        for name, value in orders.get("settings", {}).items():
            if not hasattr(self.api.settings, name):
                raise ValueError(f"the hub has no setting {name!r}")
            setattr(self.api.settings, name, value)
        return self.state()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HubServer

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_control"):
            self._send_head(reply := self._control(body))
            self.wfile.write(reply.body)
            return
        agent, authorized = self.headers.get("User-Agent", ""), "Authorization" in self.headers
        range_, path = self.headers.get("Range"), unquote(self.path)
        request = Request(self.command, path, range_, authorized, agent, cdn=self.server.is_cdn)
        self.server.service.log.enter(request)
        begin = time.monotonic()
        self._serve(request, body)
        request.seconds = time.monotonic() - begin

    do_HEAD = do_POST = do_GET

    def _control(self, body: bytes) -> Reply:
        service = self.server.service
        try:
            if self.command == "POST":
                return json_reply(service.control(json.loads(body)))
        except (TypeError, ValueError) as error:
            return json_reply({"error": str(error)}, status=400)
        return json_reply(service.log.as_json() if self.path == "/_control/requests" else service.state())

    def _serve(self, request: Request, body: bytes) -> None:
        service = self.server.service
        faults = service.faults.take(request.method, request.path)
        if "hang" in faults and faults["hang"].after is None and self._wait(faults["hang"].seconds):
            return
        reply = denial(faults["status"]) if "status" in faults else service.api.answer(self._asked(body))
        if request.method == "GET" and reply.status == 200 and "no_range" not in faults:
            reply = reply.ranged(request.range)
        if "short" in faults:
            reply.body = b"".join(slices(reply, _PIECE, faults["short"].after or 0))
            reply.file = None
        request.status = reply.status
        self._send_head(reply)
        if request.method != "HEAD":
            with service.log.download() if reply.file else nullcontext():
                self._send_body(reply, request, faults)

    def _asked(self, body: bytes) -> Asked:
        path, _, query = self.path.partition("?")
        authorization = self.headers.get("Authorization")
        token = None if authorization is None else authorization.removeprefix("Bearer ")
        return Asked(self.command, path, parse_qs(query), token, body)

    def _send_head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {**reply.headers, "Content-Length": str(reply.length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send_body(self, reply: Reply, request: Request, faults: dict[str, Fault]) -> None:
        rate = faults["slow"].rate if "slow" in faults else None
        size = _PIECE if rate is None else max(1, min(_PIECE, int(rate / 20)))
        cut, hang = faults.get("cut"), faults.get("hang")
        limits = [fault.after for fault in (cut, hang) if fault and fault.after is not None]
        limit = 0 if cut and cut.after is None else min(limits, default=None)
        for piece in slices(reply, size, limit):
            if "flip" in faults:
                piece = flipped(piece, reply, request.bytes_sent, faults["flip"].after)
            request.bytes_sent += len(piece)
            self.wfile.write(piece)
            if rate is not None and self._wait(len(piece) / rate):
                return
        if hang and hang.after is not None and self._wait(hang.seconds):
            return
        if cut:
            self._cut(reset=cut.reset)

    def _wait(self, seconds: float) -> bool:
        """Wait; whether the server is stopping, which ends the connection."""
        self.close_connection |= self.server.service.stopping.wait(seconds)
        return self.server.service.stopping.is_set()

    def _cut(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:  # a socket that does not linger is reset when it is closed
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        pass


def slices(reply: Reply, size: int, limit: int | None) -> Iterator[bytes]:
    """The body, or its first `limit` bytes, in pieces."""
    left = reply.length if limit is None else min(limit, reply.length)
    if reply.file is None:
        yield from (reply.body[i : min(i + size, left)] for i in range(0, left, size))
        return
    with reply.file.open("rb") as stream:
        stream.seek(reply.start)
        while left > 0 and (piece := stream.read(min(size, left))):
            left -= len(piece)
            yield piece


def flipped(piece: bytes, reply: Reply, sent: int, offset: int | None) -> bytes:
    """The piece with those of its bytes inverted that the fault `flip` inverts."""
    size = reply.file.stat().st_size if reply.file else reply.length
    first = (size // 2 if offset is None else offset) - reply.start - sent
    begin, end = max(first, 0), max(first + _FLIPPED, 0)
    return piece[:begin] + bytes(byte ^ 0xFF for byte in piece[begin:end]) + piece[end:]


def denial(fault: Fault) -> Reply:
    """The reply of a fault of kind `status`."""
    headers = {}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.rate_limit is not None:
        headers["RateLimit"] = f'"resolvers";r=0;t={fault.rate_limit}'
        headers["RateLimit-Policy"] = '"fixed window";"resolvers";q=3000;w=300'
    return Denied(fault.status, fault.error_code, f"A planted error {fault.status}", headers).reply()


class HubServer(ThreadingHTTPServer):
    """A server of one origin of the hub, on a free port of the loopback."""

    request_queue_size = 128

    def __init__(self, service: Service, *, is_cdn: bool = False, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.service, self.is_cdn = service, is_cdn
        self._connections: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        """Stop listening and close every connection."""
        self.shutdown()
        self._thread.join()
        for connection in list(self._connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        self.server_close()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(
            sys.exception(), ConnectionError | TimeoutError
        ):  # clients that go away are not news
            super().handle_error(request, client_address)
