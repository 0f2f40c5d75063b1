"""Downloads from a hub that misbehaves: the right bytes in the end, or the right words, and nothing in between."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from hub_models import bin_with_code, decoder, model_files
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from runs import ENTRY, locked, published

from lmshape.errors import InputError
from lmshape.hub import client
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.receipt import read_receipt
from lmshape.hub.transfer import bring_checkpoint
from lmshape.paths import partial_folder
from lmshape.weights import weights_sha256

WEIGHTS = r"resolve/.*model.*\.(safetensors|bin)$"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(client, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # else nothing of a small file is kept


Bring = Callable[..., Path]


@pytest.fixture
def one(hub: LoopbackHub, tmp_path: Path) -> LockedCheckpoint:
    """The last checkpoint of a published run."""
    published(hub)
    checkpoint = locked(tmp_path).named("step16")
    hub.clear_log()
    return checkpoint


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    def run(one: LockedCheckpoint, weights_in: str = "study") -> Path:
        bring_checkpoint(one, tmp_path / "weights" / one.checkpoint, weights_in=weights_in)
        return tmp_path / "weights" / one.checkpoint

    return run


def assert_right(folder: Path, one: LockedCheckpoint) -> None:
    """Every file is byte for byte the hub's, the receipt says whose, and nothing else is there."""
    names = {Path(file.path).name: file for file in one.files}
    assert {path.name for path in folder.iterdir()} == {*names, "lmshape.json"}
    for name, file in names.items():
        assert (folder / name).stat().st_size == file.bytes
        if file.sha256:
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == file.sha256
    assert weights_sha256(folder) == one.weights_sha256 == read_receipt(folder)["weights_sha256"]
    assert read_receipt(folder)["commit"] == one.commit
    assert not partial_folder(folder).exists()


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "sharded_bin", "both"])
def test_every_layout_comes_in_one_format(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, layout: str
) -> None:
    published(hub, layout=layout)
    one = locked(tmp_path).named("step4")
    assert_right(bring(one), one)
    wanted = ".bin" if "bin" in layout else ".safetensors"
    assert {Path(request.path).suffix for request in hub.downloads(r"model")} - {".json"} == {wanted}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"status": 429, "retry_after": 0}),
        ("status", {"status": 429, "rate_limit": 0}),
        ("status", {"status": 503}),
        ("status", {"status": 500}),
        ("cut", {"after": 20_000}),
        ("cut", {"after": 20_000, "reset": True}),
        ("flip", {}),
    ],
)
def test_what_goes_wrong_for_a_while_is_asked_for_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, kind: str, options: dict[str, object]
) -> None:
    fault = hub.fault(WEIGHTS, kind, times=1, **options)
    assert_right(bring(one), one)
    assert fault.hits == 1


def test_a_cut_download_goes_on_where_it_stopped(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring
) -> None:
    hub.fault(WEIGHTS, "cut", after=20_000, times=1, reset=True)
    assert_right(bring(one), one)
    ranges = [request.range for request in hub.downloads(WEIGHTS)]
    assert ranges[0] is None
    assert 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 20_000


def test_a_download_of_an_earlier_process_goes_on(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    partial = partial_folder(tmp_path / "weights/step16")
    partial.mkdir(parents=True)
    blob = hub.blob(one.weights[0].sha256).read_bytes()
    (partial / "model.safetensors.partial").write_bytes(blob[:30_000])
    assert_right(bring(one), one)
    assert [request.range for request in hub.downloads(WEIGHTS)] == ["bytes=30000-"]


def test_what_an_earlier_process_left_wrong_is_fetched_anew(
    one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    partial = partial_folder(tmp_path / "weights/step16")
    partial.mkdir(parents=True)
    (partial / "model.safetensors.partial").write_bytes(bytes(30_000))
    (partial / "config.json").write_text("{}")
    assert_right(bring(one), one)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("status", {"status": 404, "error_code": "EntryNotFound"}, "not on the hub"),
        (
            "status",
            {"status": 503},
            r"cannot be used after 7 attempts \(.*503.*\). Check the network and HF_ENDPOINT",
        ),
        ("status", {"status": 429, "retry_after": 0}, "cannot be used after 7 attempts .*429"),
        (
            "status",
            {"status": 401, "error_code": "GatedRepo"},
            "access must be granted .* `hf auth login` or set HF_TOKEN",
        ),
        ("flip", {}, "digest [0-9a-f]{64} where the hub lists .* Nothing of it was kept"),
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


def test_a_hub_that_falls_silent_is_asked_again(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
    fault = hub.fault(WEIGHTS, "hang", times=1, after=20_000, method="GET", seconds=5)
    assert_right(bring(one), one)
    assert fault.hits == 1


def test_a_listing_that_never_comes_is_given_up(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    hub.fault("/refs", "hang", seconds=3)
    with pytest.raises(InputError, match="the revisions of `tiny/run`: .* cannot be used after 2 attempts"):
        locked(tmp_path)


def test_a_slow_hub_is_waited_for(hub: LoopbackHub, one: LockedCheckpoint, bring: Bring) -> None:
    hub.fault(WEIGHTS, "slow", rate=200_000)
    assert_right(bring(one), one)


def test_small_weights_outside_the_large_file_storage_are_verified_too(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    published(hub)
    one = locked(tmp_path).named("step2")
    config = next(file for file in one.files if file.path == "config.json")
    assert config.git_oid and not config.sha256
    hub.fault(r"resolve/.*config\.json", "flip", after=0)
    with pytest.raises(InputError, match=r"`config.json` of `tiny/run`: came with .* digest git:"):
        bring(one)


def test_the_token_stays_with_the_hub(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.set(redirect=True)
    published(hub)
    hub.gate("tiny/run", "hf_secret")
    one = locked(tmp_path).named("step2")
    with pytest.raises(InputError, match="access must be granted") as error:
        bring(one)
    assert "hf_" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert_right(bring(one), one)
    assert {request.authorized for request in hub.requests if request.cdn} == {False}


def test_what_lies_in_the_users_cache_is_not_asked_for(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    kept = bring(one, weights_in="cache")
    assert (kept / "model.safetensors").is_symlink()
    hub.clear_log()
    (tmp_path / "weights/step16").rename(tmp_path / "elsewhere")
    assert (bring(one) / "model.safetensors").is_symlink()
    assert not hub.downloads()
    assert weights_sha256(kept) == one.weights_sha256


def test_offline_says_what_to_do(
    one: LockedCheckpoint, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set, so the hub is not asked. Unset it, or"):
        bring(one)


def test_names_without_weights_are_refused_before_anything_is_asked(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    published(hub, layout="sharded", weightless=(2,), missing_shard=(4,))
    lock = locked(tmp_path)
    hub.clear_log()
    for name, words in (("step2", "the hub has no weights under this name"), ("step4", "missing: model-0")):
        with pytest.raises(InputError, match=words):
            bring(lock.named(name))
    assert not hub.requests


def test_a_bin_that_carries_code_is_refused_when_it_is_read(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    import torch

    from lmshape.network import load_model

    marker = tmp_path / "the code ran"
    files = {**model_files(decoder(), "bin"), "pytorch_model.bin": bin_with_code(decoder(), marker)}
    hub.commit("tiny/run", files, "step0")
    folder = bring(locked(tmp_path, ENTRY).named("step0"))
    with pytest.raises(InputError, match="holds code that would run on loading"):
        load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
    assert not marker.exists()


def test_a_dead_hub_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 cannot be used after 2 attempts"):
        locked(tmp_path)


def test_unknown_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        client.patiently(lambda: 1 // 0, what="nothing")


def test_only_what_may_pass_is_asked_again() -> None:
    assert client.is_transient(httpx2.ReadError("reset"))
    assert not client.is_transient(ValueError("no"))
