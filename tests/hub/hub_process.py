"""The loopback hub as a process of its own, with the methods of `LoopbackHub`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import hub_faults
from hub_faults import Fault, Kind
from loopback_hub import Hub

_SCRIPT = Path(__file__).with_name("loopback_hub.py")
_PATIENCE = 30  # seconds until the process must listen


class HubProcess(Hub):
    """Serves a folder from a process that ends with this one; repositories are committed from here, to the disk."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        port_file = folder / f"port-{time.monotonic_ns()}"
        command = [
            sys.executable,
            str(_SCRIPT),
            str(folder),
            "--port-file",
            str(port_file),
            "--until-stdin-ends",
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self._open = build_opener(ProxyHandler({})).open
        self.endpoint = f"http://127.0.0.1:{self._wait_for(port_file)}"
        self.cdn_endpoint = self._control({"settings": settings})["cdn_endpoint"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()

    def fault(self, path: str, kind: Kind, **options: Any) -> None:
        self._control({"faults": [{"path": path, "kind": kind, **options}]})

    @property
    def faults(self) -> list[Fault]:
        """The rules in force, with their `hits`."""
        return [Fault(**rule) for rule in self._control({})["faults"]]

    def clear_faults(self) -> None:
        self._control({"clear_faults": True})

    def set(self, **settings: Any) -> None:
        self._control({"settings": settings})

    @property
    def requests(self) -> list[hub_faults.Request]:
        return [hub_faults.Request(**request) for request in self._log()["requests"]]

    @property
    def peak_downloads(self) -> int:
        return self._log()["peak_downloads"]

    def clear_log(self) -> None:
        self._control({"clear_log": True})

    def _wait_for(self, port_file: Path) -> str:
        deadline = time.monotonic() + _PATIENCE
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the loopback hub did not start")
            time.sleep(0.02)
        port = port_file.read_text()
        port_file.unlink()
        return port

    def _control(self, orders: dict[str, Any]) -> dict[str, Any]:
        return self._ask("/_control", json.dumps(orders).encode())

    def _log(self) -> dict[str, Any]:
        return self._ask("/_control/requests")

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        with self._open(Request(self.endpoint + path, body), timeout=_PATIENCE) as response:
            return json.load(response)
