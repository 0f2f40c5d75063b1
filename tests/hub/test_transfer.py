"""Downloads from a hub that behaves: the right bytes, in one format, and each of them asked for once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from downloads import WEIGHTS, Bring, assert_right
from hub_models import at_step, bin_with_code, decoder, encoder, model_files
from hub_store import git_oid
from huggingface_hub import constants, hf_hub_download
from loopback_hub import LoopbackHub
from runs import ENTRY, locked, published

import lmshape.hub.transfer
from lmshape.errors import InputError
from lmshape.hub.budget import forget_last_run
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.transfer import bring_files
from lmshape.models.network import load_model
from lmshape.paths import no_xet_file, partial_folder
from lmshape.store.weights import weights_sha256

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "sharded_bin", "both"])
def test_every_layout_comes_in_one_format(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, layout: str
) -> None:
    published(hub, layout=layout)
    one = locked(tmp_path).named("step4")
    folder = bring(one)
    assert_right(folder, one)
    wanted = ".bin" if "bin" in layout else ".safetensors"
    assert {Path(request.path).suffix for request in hub.downloads(r"model")} - {".json"} == {wanted}
    network = load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
    expected = at_step(decoder(), 4).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.model.state_dict().items())


def test_every_file_is_asked_for_once(hub: LoopbackHub, one: LockedCheckpoint, bring: Bring) -> None:
    bring(one)
    assert sorted(request.path.rpartition("/")[2] for request in hub.downloads()) == [
        "config.json",
        "model.safetensors",
    ]
    assert all(f"/resolve/{one.commit}/" in request.path for request in hub.requests)


def test_files_of_the_large_storage_announced_as_xet_come_by_http(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring
) -> None:
    hub.set(xet=True, redirect=True)
    assert_right(bring(one), one)


HF_XET = '''
import os, time
from pathlib import Path


class XetFileInfo:
    def __init__(self, *told):
        pass


class XetSession:
    """Does what the file names that XET_DOES names: brings a file, fails, falls silent or dies."""

    def new_file_download_group(self, **options):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def start_download_file(self, info, path):
        does = os.environ["XET_DOES"]
        if does == "fail":
            raise RuntimeError("Data processing error: CAS service error")
        if does == "hang":
            time.sleep(600)
        if does == "die":
            os._exit(9)
        Path(path).write_bytes(Path(does).read_bytes())
'''
Xet = Callable[[object], None]


@pytest.fixture
def xet(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Xet:
    """A hub that announces Xet, and a hf_xet that does as it is told, in a process of its own."""
    (tmp_path / "stand-in").mkdir()
    (tmp_path / "stand-in/hf_xet.py").write_text(HF_XET)
    monkeypatch.syspath_prepend(tmp_path / "stand-in")
    hub.set(xet=True)
    return lambda does: monkeypatch.setenv("XET_DOES", str(does))


@pytest.mark.parametrize(
    ("does", "told"),
    [
        ("fail", "Data processing error: CAS service error"),
        ("hang", "no byte came for 0.5 s"),
        ("die", "its process ended with 9"),
    ],
)
@pytest.mark.parametrize(
    "options", [{"weights_in": "cache", "transfer": "auto"}, {"weights_in": "study", "transfer": "auto"}]
)
def test_where_xet_fails_http_takes_its_place(
    hub: LoopbackHub,
    one: LockedCheckpoint,
    tmp_path: Path,
    xet: Xet,
    options: dict[str, str],
    does: str,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if does == "hang":
        monkeypatch.setattr(lmshape.hub.transfer, "XET_SILENCE_SECONDS", 0.5)
    xet(does)
    folder = tmp_path / "weights/run/step16"
    bring_files(one, folder, **options)
    assert_right(folder, one)
    assert f"Xet failed ({told}); this run downloads by HTTP from here on" in caplog.text
    assert [Path(request.path).name for request in hub.downloads("safetensors")] == ["model.safetensors"]
    assert no_xet_file(folder).exists()  # what comes after it does not try
    forget_last_run(tmp_path)
    xet_is_tried_anew = not (tmp_path / "results/weights/.no-xet").exists()
    assert xet_is_tried_anew and not constants.HF_HUB_DISABLE_XET


def test_the_real_hf_xet_is_left_where_its_store_never_answers(
    hub: LoopbackHub, one: LockedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmshape.hub.transfer, "XET_SILENCE_SECONDS", 3)
    hub.set(xet=True)
    hub.fault("/reconstructions/", "hang")
    bring_files(one, tmp_path / "weights/run/step16", weights_in="study", transfer="auto")
    assert_right(tmp_path / "weights/run/step16", one)
    assert hub.asked("/reconstructions/")
    assert not list(Path(os.environ["HF_HOME"]).glob("**/*.log"))


def test_the_process_of_xet_ends_with_a_job_that_is_killed(hub: LoopbackHub, one: LockedCheckpoint) -> None:
    hub.set(xet=True)
    hub.fault("/reconstructions/", "hang")
    order = {"repo_id": one.repository, "filename": one.weights[0].path, "revision": one.commit}
    code = f"from lmshape.hub.transfer import bring_by_xet; bring_by_xet({order}, size=1)"
    job = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not hub.asked("/reconstructions/") and time.monotonic() < deadline:
        time.sleep(0.01)
    children = psutil.Process(job.pid).children()
    assert children
    job.kill()
    job.wait()
    assert not psutil.wait_procs(children, timeout=30)[1]


@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize(
    "options", [{"weights_in": "cache", "transfer": "auto"}, {"weights_in": "study", "transfer": "auto"}]
)
def test_what_comes_by_xet_is_verified_and_asked_for_by_http_where_it_is_wrong(
    hub: LoopbackHub,
    one: LockedCheckpoint,
    tmp_path: Path,
    xet: Xet,
    options: dict[str, str],
    right: bool,
) -> None:
    content = hub.blob(one.weights[0].digest).read_bytes()
    (tmp_path / "comes").write_bytes(content if right else content[::-1])
    xet(tmp_path / "comes")
    bring_files(one, tmp_path / "weights/run/step16", **options)
    assert_right(tmp_path / "weights/run/step16", one)
    assert len(hub.downloads("safetensors")) == (0 if right else 1)


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_who_wants_xet_alone_gets_no_http(
    hub: LoopbackHub, one: LockedCheckpoint, tmp_path: Path, xet: Xet, weights_in: str
) -> None:
    xet("fail")
    with pytest.raises(InputError, match="Xet cannot fetch it, and `transfer: xet` allows nothing else"):
        bring_files(one, tmp_path / "weights/run/step16", weights_in=weights_in, transfer="xet")
    assert not hub.downloads("safetensors")


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_who_wants_http_alone_gets_no_xet(
    one: LockedCheckpoint, tmp_path: Path, xet: Xet, weights_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    xet("die")
    bring_files(one, tmp_path / "weights/run/step16", weights_in=weights_in, transfer="http")
    assert_right(tmp_path / "weights/run/step16", one)
    assert "Xet" not in caplog.text


def test_what_was_begun_by_http_goes_on_by_http(
    hub: LoopbackHub, one: LockedCheckpoint, tmp_path: Path, xet: Xet
) -> None:
    xet("fail")
    folder = tmp_path / "weights/run/step16"
    partial_folder(folder).mkdir(parents=True)
    begun = partial_folder(folder) / f"{one.weights[0].path}.partial"
    begun.write_bytes(hub.blob(one.weights[0].digest).read_bytes()[:1000])
    bring_files(one, folder, weights_in="study", transfer="auto")
    assert [request.range for request in hub.downloads("safetensors")] == ["bytes=1000-"]
    assert not no_xet_file(folder).exists()


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_of_a_file_that_is_too_large_for_http_it_is_told_what_brings_it(
    one: LockedCheckpoint,
    bring: Bring,
    weights_in: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 10_000)
    words = "may refuse files of more than 10.0 kB over HTTP. Should it do so, install `hf_xet`"
    if weights_in == "cache":  # the hub's library refuses itself
        with pytest.raises(InputError, match=words):
            bring(one, weights_in)
        return
    assert_right(bring(one, weights_in), one)
    assert words in caplog.text


def test_a_repository_that_has_another_name_now_is_followed(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    published(hub)
    hub.rename("tiny/old", "tiny/run")
    one = locked(tmp_path, {**ENTRY, "repository": "tiny/old"}).named("step2")
    assert_right(bring(one), one)


def test_small_weights_outside_the_large_file_storage_are_verified_too(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_store.LARGE_ENDINGS", ())
    published(hub)
    one = locked(tmp_path).named("step2")
    assert one.weights[0].digest == f"git:{git_oid(model_files(at_step(decoder(), 2))['model.safetensors'])}"
    fault = hub.fault(WEIGHTS, "flip")
    with pytest.raises(InputError, match=r"`model.safetensors` of `tiny/run`: came with .* digest git:"):
        bring(one)
    assert fault.hits == 2
    hub.clear_faults()
    assert (bring(one) / "model.safetensors").stat().st_size == one.weights_bytes


def test_equal_weights_outside_the_large_file_storage_are_found_too(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub_store.LARGE_ENDINGS", ())
    published(hub, same_as={8: 4})
    assert locked(tmp_path).named("step8").same_weights_as == ("step4",)


def test_what_lies_in_the_users_cache_is_linked_and_not_asked_for(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring
) -> None:
    for file in one.files:
        hf_hub_download(one.repository, file.path, revision=one.commit, endpoint=hub.endpoint)
    hub.clear_log()
    folder = bring(one)
    assert (folder / "model.safetensors").is_symlink()
    assert_right(folder, one)
    assert not hub.requests


def test_a_download_into_the_users_cache_is_there_for_everybody(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    kept = bring(one, weights_in="cache")
    assert_right(kept, one)
    hub.clear_log()
    kept.rename(tmp_path / "elsewhere")
    assert (bring(one) / "model.safetensors").is_symlink()
    hf_hub_download(one.repository, one.weights[0].path, revision=one.commit, endpoint=hub.endpoint)
    assert not hub.downloads()


@pytest.mark.parametrize("weights_in", ["study", "cache"])
def test_a_file_of_the_cache_that_has_rotted_is_not_taken(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, weights_in: str
) -> None:
    rotten = Path(hf_hub_download(one.repository, one.weights[0].path, revision=one.commit)).resolve()
    content = bytearray(rotten.read_bytes())
    content[5_000] ^= 0xFF
    rotten.write_bytes(content)
    assert_right(bring(one, weights_in), one)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bin_that_carries_code_is_refused_when_it_is_read(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, zipped: bool
) -> None:
    marker = tmp_path / "the code ran"
    weights = bin_with_code(decoder(), marker, zipped=zipped)
    hub.commit("tiny/run", {**model_files(decoder(), "bin"), "pytorch_model.bin": weights}, "step0")
    folder = bring(locked(tmp_path, ENTRY).named("step0"))
    with pytest.raises(InputError, match="holds code that would run on loading"):
        load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
    assert not marker.exists()


def test_a_safetensors_beside_a_bin_with_code_is_all_that_comes(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    marker = tmp_path / "the code ran"
    files = {**model_files(decoder()), "pytorch_model.bin": bin_with_code(decoder(), marker)}
    hub.commit("tiny/run", files, "step0")
    folder = bring(locked(tmp_path, ENTRY).named("step0"))
    assert not (folder / "pytorch_model.bin").exists()
    load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
    assert not marker.exists()


def test_python_code_beside_the_weights_stays_on_the_hub(
    hub: LoopbackHub, tmp_path: Path, bring: Bring
) -> None:
    hub.commit("tiny/run", {**model_files(decoder()), "modeling_tiny.py": b"raise SystemExit"}, "step0")
    bring(locked(tmp_path).named("step0"))
    assert not hub.asked(r"\.py")


def test_an_encoder_comes_as_a_decoder_does(hub: LoopbackHub, tmp_path: Path, bring: Bring) -> None:
    hub.commit("tiny/bert", model_files(encoder(), "bin"))
    one = locked(tmp_path, {"kind": "encoder", "repository": "tiny/bert"}).named("main")
    folder = bring(one)
    assert_right(folder, one)
    load_model(folder, kind="encoder", dtype="float32", device=torch.device("cpu"))


def test_two_downloads_of_one_checkpoint_give_the_same_bytes(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path
) -> None:
    first = bring(one).rename(tmp_path / "first")
    assert not partial_folder(tmp_path / "weights/step16").exists()
    assert weights_sha256(first) == weights_sha256(bring(one))
