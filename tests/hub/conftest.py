"""A loopback hub for each test, and no other hub within reach of the tests or of the processes they start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session, disable_progress_bars

from lmshape import downloading
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.transfer import bring_files

sys.path.insert(0, str(Path(__file__).parent))  # of a package, pytest adds the parent
from downloads import Bring
from loopback_hub import LoopbackHub
from runs import locked, published

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE")


def point_at(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Make a hub the default one, of new processes by their environment, of this one in the client's constants."""
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )


@pytest.fixture(autouse=True)
def only_the_loopback(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """An empty home of the client, no token, no proxy, and an address at which there is no hub; gives the home."""
    home = tmp_path_factory.mktemp("hf-home")
    for name in (*TOKENS, *PROXIES, *(proxy.upper() for proxy in PROXIES)):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "AGENT_HARNESSES_PATH", str(home / ".agent_harnesses.json"))
    point_at(monkeypatch, NOWHERE)
    disable_progress_bars()
    yield home
    close_session()  # its connections are to a hub that is gone


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """An empty hub, the default one of every process that the test starts."""
    with LoopbackHub(tmp_path / "hub") as hub:
        point_at(monkeypatch, hub.endpoint)
        yield hub
        close_session()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses, and pieces small enough that something of a small file is kept."""
    monkeypatch.setattr(downloading, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(downloading, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)


@pytest.fixture
def one(hub: LoopbackHub, tmp_path: Path) -> LockedCheckpoint:
    """The last checkpoint of a published run."""
    published(hub)
    checkpoint = locked(tmp_path).named("step16")
    hub.clear_log()
    return checkpoint


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    """Download a checkpoint in this process."""

    def run(one: LockedCheckpoint, weights_in: str = "study") -> Path:
        bring_files(one, tmp_path / "weights" / one.checkpoint, weights_in=weights_in)
        return tmp_path / "weights" / one.checkpoint

    return run
