"""Downloads from a hub that misbehaves: the right bytes in the end, or the right words, and nothing in between."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest
from downloads import WEIGHTS, Bring, assert_right
from huggingface_hub import constants, get_hf_file_metadata
from loopback_hub import LoopbackHub

from lmshape import downloading
from lmshape.errors import InputError
from lmshape.hub import transfer
from lmshape.hub.lock import LockedCheckpoint
from lmshape.paths import partial_folder

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 429, "retry_after": 0}),
        ("status", {"status": 429, "rate_limit": 0}),
        ("status", {"status": 503}),
        ("status", {"status": 503, "method": "GET"}),
        ("status", {"status": 500}),
        ("cut", {"after": 20_000}),
        ("cut", {"after": 20_000, "reset": True}),
        ("cut", {"after": 0, "reset": True}),
        ("short", {"after": 20_000}),
        ("flip", {}),
        ("flip", {"after": 0}),
    ],
)
def test_what_goes_wrong_for_a_while_is_asked_for_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, kind: str, options: dict[str, object]
) -> None:
    fault = hub.fault(WEIGHTS, kind, times=1, **options)
    assert_right(bring(one), one)
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 429, "retry_after": 0, "method": "HEAD"}),
        ("status", {"status": 503, "method": "HEAD"}),
        ("status", {"status": 503, "method": "GET"}),
        ("cut", {"after": 20_000, "reset": True}),
        ("short", {"after": 20_000}),
        ("flip", {}),
    ],
)
def test_so_it_is_on_the_way_through_the_users_cache(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, kind: str, options: dict[str, object]
) -> None:
    fault = hub.fault(WEIGHTS, kind, times=1, **options)
    assert_right(bring(one, "cache"), one)
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("options", "seconds"),
    [({"status": 429, "retry_after": 3}, 3), ({"status": 429, "rate_limit": 4}, 5), ({"retry_after": 2}, 2)],
)
def test_the_hub_is_asked_again_when_it_wants_to_be(
    hub: LoopbackHub,
    one: LockedCheckpoint,
    bring: Bring,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, int],
    seconds: int,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(downloading, "LONGEST_PAUSE_SECONDS", 300.0)
    monkeypatch.setattr(downloading.time, "sleep", waits.append)
    hub.fault(WEIGHTS, "status", times=1, **options)
    assert_right(bring(one), one)
    assert waits == [seconds]


@pytest.mark.parametrize("reset", [True, False])
def test_a_cut_download_goes_on_where_it_stopped(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, reset: bool
) -> None:
    hub.fault(WEIGHTS, "cut", after=20_000, times=1, reset=reset)
    assert_right(bring(one), one)
    ranges = [request.range for request in hub.downloads(WEIGHTS)]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 20_000


def test_as_many_cuts_as_it_takes(hub: LoopbackHub, one: LockedCheckpoint, bring: Bring) -> None:
    """Patience is for a hub that gives nothing: each of these gives some."""
    cuts = hub.fault(WEIGHTS, "cut", after=5_000, reset=True)
    assert_right(bring(one), one)
    assert cuts.hits > downloading.ATTEMPTS


def test_a_hub_that_knows_no_ranges_sends_the_whole_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring
) -> None:
    hub.fault(WEIGHTS, "cut", after=20_000, times=1, reset=True)
    hub.fault(WEIGHTS, "no_range")
    assert_right(bring(one), one)
    assert [request.status for request in hub.downloads(WEIGHTS)] == [200, 200]


def test_a_download_of_an_earlier_process_goes_on(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    left_behind(tmp_path, hub.blob(one.weights[0].digest).read_bytes()[:30_000])
    assert_right(bring(one), one)
    assert [request.range for request in hub.downloads(WEIGHTS)] == ["bytes=30000-"]


@pytest.mark.parametrize("size", [30_000, 300_000])
def test_what_an_earlier_process_left_wrong_is_fetched_anew(
    one: LockedCheckpoint, bring: Bring, tmp_path: Path, size: int
) -> None:
    partial_weights = left_behind(tmp_path, bytes(size))
    (partial_weights.parent / "config.json").write_text("{}")
    assert_right(bring(one), one)


def left_behind(folder: Path, content: bytes) -> Path:
    """Lay down what a killed download has received."""
    partial_weights = partial_folder(folder / "weights/step16") / "model.safetensors.partial"
    partial_weights.parent.mkdir(parents=True)
    partial_weights.write_bytes(content)
    return partial_weights


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("status", {"status": 404, "error_code": "EntryNotFound"}, "not on the hub"),
        ("status", {"status": 404, "error_code": "RevisionNotFound"}, "not on the hub"),
        (
            "status",
            {"status": 503},
            r"cannot be used after 7 attempts \(.*503.*\). Check the network and HF_E",
        ),
        (
            "status",
            {"status": 429, "retry_after": 0},
            r"too many requests, after 7 attempts \(.*429.*HF_TOKEN",
        ),
        ("cut", {"after": 0, "reset": True}, "cannot be used after 7 attempts"),
        ("short", {"after": 0}, "cannot be used after 7 attempts .*would make 0 bytes of"),
    ],
)
def test_what_stays_wrong_ends_in_words_and_leaves_nothing(
    hub: LoopbackHub,
    one: LockedCheckpoint,
    bring: Bring,
    tmp_path: Path,
    kind: str,
    options: dict[str, object],
    words: str,
) -> None:
    hub.fault(WEIGHTS, kind, **options)
    with pytest.raises(InputError, match=words):
        bring(one)
    assert not (tmp_path / "weights/step16").exists()
    hub.clear_faults()
    assert_right(bring(one), one)


def test_wrong_bytes_under_the_right_name_are_refused_with_both_digests(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    fault = hub.fault(WEIGHTS, "flip")
    with pytest.raises(InputError) as error:
        bring(one)
    file = one.weights[0]
    message = str(error.value)
    assert message.startswith(f"`model.safetensors` of `tiny/run`: came with {file.bytes} bytes and digest ")
    assert f"where the hub lists {file.bytes} bytes and {file.digest}. It is not used." in message
    assert fault.hits == 2  # once more, in case a proxy has spoilt them
    assert not list(tmp_path.glob("weights/**/model.safetensors*"))
    hub.clear_faults()
    assert_right(bring(one), one)


@pytest.mark.parametrize("after", [None, 20_000])
def test_a_hub_that_falls_silent_is_asked_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, monkeypatch: pytest.MonkeyPatch, after: int | None
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    fault = hub.fault(WEIGHTS, "hang", times=1, after=after, method="GET", seconds=5)
    assert_right(bring(one), one)
    assert fault.hits == 1


def test_a_file_whose_head_never_comes_is_asked_for_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "get_hf_file_metadata", partial(get_hf_file_metadata, timeout=0.3))
    fault = hub.fault(WEIGHTS, "hang", times=1, method="HEAD", seconds=5)
    assert_right(bring(one), one)
    assert fault.hits == 1


def test_a_slow_hub_is_waited_for(hub: LoopbackHub, one: LockedCheckpoint, bring: Bring) -> None:
    hub.fault(WEIGHTS, "slow", rate=200_000)
    assert_right(bring(one), one)


def test_a_full_disk_is_told_and_what_was_received_is_kept(
    one: LockedCheckpoint, bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    partial_weights = left_behind(tmp_path, b"received")
    monkeypatch.setattr(transfer, "receive", full)
    with pytest.raises(InputError, match="no room on the disk .* is kept in .* limit downloads with"):
        bring(one)
    assert partial_weights.read_bytes() == b"received"
