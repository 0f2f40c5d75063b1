"""A hub of models on the loopback for tests, which speaks what `huggingface_hub` needs and misbehaves on demand.

As a process: `python loopback_hub.py FOLDER --port-file FILE` serves the repositories of a folder (`HubStore` writes
it, also while the process serves) until it is ended; `POST /_control` changes its faults and settings.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hub_api import Api, Settings
from hub_faults import Fault, Kind, Request, bytes_served
from hub_server import HubServer, Service
from hub_store import HubStore


class Hub(HubStore):
    """A hub in whichever process: its repositories, its faults and settings, and the log of its requests."""

    endpoint: str
    cdn_endpoint: str  # the other origin, from which files of LFS are served with the setting `redirect`

    def fault(self, path: str, kind: Kind, **options: Any) -> Fault | None:
        """Misbehave for requests whose path holds the regular expression; see `hub_faults.Fault`."""
        raise NotImplementedError

    def clear_faults(self) -> None:
        raise NotImplementedError

    def set(self, **settings: Any) -> None:
        """Change settings; see `hub_api.Settings`."""
        raise NotImplementedError

    @property
    def requests(self) -> list[Request]:
        raise NotImplementedError

    @property
    def peak_downloads(self) -> int:
        """The most downloads of files that ran at once."""
        raise NotImplementedError

    def clear_log(self) -> None:
        raise NotImplementedError

    @property
    def bytes_served(self) -> Counter[str]:
        """Bytes of bodies by path."""
        return bytes_served(self.requests)

    def asked(self, path: str = "", method: str | None = None) -> list[Request]:
        """Requests whose path holds the regular expression."""
        return [r for r in self.requests if method in (None, r.method) and re.search(path, r.path)]

    def downloads(self, path: str = "") -> list[Request]:
        """Requests that were answered with bytes of a file."""
        return [r for r in self.asked(path, "GET") if r.is_download and r.status in (200, 206)]

    def stop(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class LoopbackHub(Hub):
    """A hub in this process, which serves from when it is made until `stop`, or the end of its context."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        api = Api(self, Settings(**settings))
        self._service = Service(api)
        self._servers = [HubServer(self._service), HubServer(self._service, is_cdn=True)]
        self.endpoint, self.cdn_endpoint = (server.origin for server in self._servers)
        api.endpoint, api.cdn_endpoint = self.endpoint, self.cdn_endpoint

    def stop(self) -> None:
        self._service.stopping.set()
        for server in self._servers:
            server.stop()

    def fault(self, path: str, kind: Kind, **options: Any) -> Fault:
        """Add a rule; its `hits` tell how often it was applied."""
        return self._service.faults.add(Fault(path, kind, **options))

    def clear_faults(self) -> None:
        self._service.faults.clear()

    def set(self, **settings: Any) -> None:
        self._service.control({"settings": settings})

    @property
    def requests(self) -> list[Request]:
        return list(self._service.log.requests)

    @property
    def peak_downloads(self) -> int:
        return self._service.log.peak_downloads

    def clear_log(self) -> None:
        self._service.log.clear()


def main() -> None:
    """Serve a folder until this process is ended or, if asked to, its standard input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port-file", type=Path, help="where to write the port when the hub listens")
    parser.add_argument(
        "--until-stdin-ends", action="store_true", help="end with the process that started this"
    )
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with LoopbackHub(arguments.folder) as hub:
        print(hub.endpoint, flush=True)
        if arguments.port_file:
            partial = arguments.port_file.with_name(f".{arguments.port_file.name}.partial")
            partial.write_text(hub.endpoint.rpartition(":")[2])
            os.replace(partial, arguments.port_file)
        if arguments.until_stdin_ends:
            threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
        ended.wait()


if __name__ == "__main__":
    main()
