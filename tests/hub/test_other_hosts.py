"""Files that the hub keeps on another host: addresses that expire, a firewall before it, and the hub's own quota."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from downloads import WEIGHTS, Bring, assert_right
from hub_api import SIGNED
from loopback_hub import LoopbackHub
from runs import ENTRY, lmshape, locked, published, write_registry

from lmshape import downloading
from lmshape.downloading import reason_of
from lmshape.errors import InputError
from lmshape.hub.client import refusing_host
from lmshape.hub.lock import LockedCheckpoint

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def elsewhere(hub: LoopbackHub, one: LockedCheckpoint) -> LockedCheckpoint:
    """A checkpoint whose weights are served from another origin; every address serves a single request."""
    hub.set(redirect=True, address_uses=1)
    return one


def test_a_download_that_outlives_its_address_goes_on_at_a_new_one(
    hub: LoopbackHub, elsewhere: LockedCheckpoint, bring: Bring
) -> None:
    hub.fault("/cdn/", "cut", after=20_000, times=2, reset=True)
    assert_right(bring(elsewhere), elsewhere)
    requests = hub.asked("/cdn/.*safetensors")
    assert len({request.path for request in requests}) == len(requests) == 3
    starts = [
        int((request.range or "bytes=0-").removeprefix("bytes=").removesuffix("-")) for request in requests
    ]
    assert starts == sorted(set(starts))  # each goes on from where the one before was


def test_a_refused_address_is_asked_for_again(
    hub: LoopbackHub, elsewhere: LockedCheckpoint, bring: Bring, caplog: pytest.LogCaptureFixture
) -> None:
    hub.fault("/cdn/", "status", status=403, times=3)
    assert_right(bring(elsewhere), elsewhere)
    assert len(hub.asked(WEIGHTS, "HEAD")) == 4
    assert "403 Forbidden" in caplog.text and SIGNED not in caplog.text


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_a_firewall_is_told_with_the_host_that_it_stands_before(
    hub: LoopbackHub,
    elsewhere: LockedCheckpoint,
    bring: Bring,
    weights_in: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 3)
    hub.set(firewall=True)
    host = hub.cdn_endpoint.removeprefix("http://")
    with pytest.raises(InputError) as error:
        bring(elsewhere, weights_in)
    message = str(error.value)
    assert f"{host}, where the hub keeps it, refuses it after 3 attempts" in message
    assert f"a firewall or a proxy seems to stand between. Have it let {host} pass" in message
    assert "log in" not in message and SIGNED not in message + caplog.text
    hub.set(firewall=False, address_uses=None)
    assert_right(bring(elsewhere), elsewhere)


def test_no_signature_is_told() -> None:
    text = "Client error for url 'https://cdn.host/file?Expires=1&Signature=abc~_' (is this one? no)"
    assert reason_of(ValueError(text)) == "Client error for url 'https://cdn.host/file?…' (is this one? no)"


def test_a_quota_is_waited_for_and_the_way_to_a_larger_one_is_told(
    hub: LoopbackHub, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    monkeypatch.setattr(downloading, "LONGEST_PAUSE_SECONDS", 300.0)
    hub.set(quota=4, quota_seconds=1)
    assert len(locked(tmp_path).checkpoints) == 6
    assert "With a free token the hub answers more requests: `hf auth login`, or HF_TOKEN" in caplog.text


def test_a_listing_is_asked_for_as_often_as_patience_has_it_and_no_more(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    published(hub, steps=(0,))
    hub.fault("/tree/", "status", status=503)
    with pytest.raises(InputError, match="the files of `tiny/run` at [0-9a-f]{40}: .* after 2 attempts"):
        locked(tmp_path)
    assert len(hub.asked("/tree/")) == 2


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_a_file_is_asked_for_as_often_as_patience_has_it_and_the_last_words_tell_of_the_token(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, weights_in: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    hub.fault(WEIGHTS, "status", status=429, method="GET")
    with pytest.raises(InputError, match="after 2 attempts .*429 .* With a free token .* HF_TOKEN"):
        bring(one, weights_in)
    assert len(hub.asked(WEIGHTS, "GET")) == 2


def test_a_plan_that_asks_the_hub_is_heard(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    write_registry(tmp_path, {"tiny": ENTRY})
    (tmp_path / "text.txt").write_text("A text of the test. " * 500)
    plan = lmshape("plan", "--configfile", "config.yaml", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "Asking the hub for the checkpoints of tiny" in plan.stderr
    assert re.search(r"files of tiny/run: [1-6]/6 checkpoints .* the last: step\d+", plan.stderr)


def test_a_name_of_two_parts_that_is_no_folder_is_said_to_be_taken_for_a_repository(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text("A text of the test. " * 500)
    write_registry(tmp_path, {"tiny": ENTRY})
    config = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(config.replace("tiny", "runs/my-run"))
    plan = lmshape("plan", "--configfile", "config.yaml", cwd=tmp_path)
    assert f"of my-run; there is no folder runs/my-run in {tmp_path} …" in plan.stderr


def test_a_mirror_that_hands_on_a_refusal_of_the_hub_is_no_firewall() -> None:
    refused = httpx2.Response(404, request=httpx2.Request("GET", "https://elsewhere/x"))
    error = httpx2.HTTPStatusError("no", request=refused.request, response=refused)
    assert refusing_host(error) == "elsewhere"
    refused.headers["X-Error-Code"] = "RepoNotFound"
    assert refusing_host(error) is None


def test_a_page_of_a_firewall_is_not_taken_for_the_file(
    hub: LoopbackHub, elsewhere: LockedCheckpoint, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    hub.fault("/cdn/", "cut", after=20_000, times=1, reset=True)
    for kind in ("short", "no_range"):  # a page of 50 bytes, with the status of success
        hub.fault("/cdn/", kind, after=50, skip=1, times=2)
    with pytest.raises(InputError, match="after 2 attempts .the answer would make 50 bytes of 59744"):
        bring(elsewhere)
    assert_right(bring(elsewhere), elsewhere)
    assert hub.asked("/cdn/")[-1].range not in (None, "bytes=50-")  # what had come before was kept
