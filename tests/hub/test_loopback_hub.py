"""The loopback hub is one to the real client, and misbehaves as it is told to."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
from hub_process import HubProcess
from hub_store import git_oid
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from loopback_hub import LoopbackHub

REPO = "someone/model"
WEIGHTS = np.random.default_rng(0).bytes(300_000)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "a/b/notes.txt": b"notes", "a/c.txt": b""}


@pytest.fixture
def sha(hub: LoopbackHub) -> str:
    """A repository with a commit on main; its sha."""
    return hub.commit(REPO, FILES)


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi(endpoint=hub.endpoint)


def fetch(hub: LoopbackHub, folder: Path, file: str = "model.safetensors", **options: object) -> bytes:
    """The bytes of a file as the client downloads it to a folder."""
    return Path(hf_hub_download(REPO, file, local_dir=folder, endpoint=hub.endpoint, **options)).read_bytes()


def test_refs_of_branches_and_tags(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    step = hub.commit(REPO, {"config.json": b"1"}, "step1")
    tagged = hub.commit(REPO, {"config.json": b"2"}, None, "v1")
    refs = api.list_repo_refs(REPO)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": sha, "step1": step}
    assert [(tag.name, tag.ref, tag.target_commit) for tag in refs.tags] == [("v1", "refs/tags/v1", tagged)]
    assert all(api.model_info(REPO, revision=name).sha == tagged for name in ("v1", tagged))
    assert api.model_info(REPO).sha == sha


def test_commits_of_equal_files_differ_and_cost_one_blob(hub: LoopbackHub) -> None:
    first, second = (hub.commit(REPO, FILES, f"step{i}") for i in range(2))
    assert first != second
    assert len(list((hub.folder / "blobs").iterdir())) == len(FILES)
    changed = hub.delete_file(REPO, "model.safetensors", "step1")
    assert hub.refs(REPO)["branches"] == {"step0": first, "step1": changed}
    assert set(hub.read_commit(REPO, changed).files) == set(FILES) - {"model.safetensors"}


@pytest.mark.parametrize("page_size", [1, 4, 1000])
def test_tree_in_pages(hub: LoopbackHub, api: HfApi, sha: str, page_size: int) -> None:
    hub.set(page_size=page_size)
    entries = {entry.path: entry for entry in api.list_repo_tree(REPO, recursive=True)}
    assert list(entries) == ["a", "a/b", "a/b/notes.txt", "a/c.txt", "config.json", "model.safetensors"]
    assert len(hub.asked("/tree/main")) == -(-len(entries) // page_size)
    assert entries["config.json"].blob_id == git_oid(b"{}")
    assert entries["config.json"].lfs is None
    weights = entries["model.safetensors"]
    assert weights.size == weights.lfs.size == len(WEIGHTS)
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.blob_id != weights.lfs.sha256


def test_tree_of_a_folder_and_of_paths(api: HfApi, sha: str) -> None:
    assert [entry.path for entry in api.list_repo_tree(REPO)] == ["a", "config.json", "model.safetensors"]
    inside = list(api.list_repo_tree(REPO, "a", revision=sha, expand=True))
    assert [entry.path for entry in inside] == ["a/b", "a/c.txt"]
    assert {entry.last_commit.oid for entry in inside} == {sha}
    found = api.get_paths_info(REPO, ["a", "config.json", "absent"], revision=sha, expand=True)
    assert [entry.path for entry in found] == ["a", "config.json"]
    siblings = {file.rfilename: file for file in api.model_info(REPO, files_metadata=True).siblings}
    assert siblings["model.safetensors"].lfs.size == siblings["model.safetensors"].size == len(WEIGHTS)
    with pytest.raises(RemoteEntryNotFoundError):
        list(api.list_repo_tree(REPO, "absent"))


@pytest.mark.parametrize("redirect", [False, True])
def test_download(hub: LoopbackHub, tmp_path: Path, sha: str, redirect: bool) -> None:
    hub.set(redirect=redirect, tokens=["hf_any"])
    for revision in (None, sha):
        folder = tmp_path / str(revision)
        for file, data in FILES.items():
            assert fetch(hub, folder, file, revision=revision, token="hf_any") == data
        with (folder / ".cache/huggingface/download/model.safetensors.metadata").open() as metadata:
            assert metadata.read().split()[:2] == [sha, hashlib.sha256(WEIGHTS).hexdigest()]
    weights = hub.downloads(r"model\.safetensors")
    assert [(request.cdn, request.authorized) for request in weights] == 2 * [(redirect, not redirect)]
    assert [request.bytes_sent for request in weights] == 2 * [len(WEIGHTS)]


def test_download_to_a_cache(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    options = {"cache_dir": tmp_path / "cache", "endpoint": hub.endpoint}
    folder = Path(snapshot_download(REPO, **options))
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert folder.name == sha
    hub.clear_log()
    assert snapshot_download(REPO, revision=sha, **options) == str(folder)
    assert hub.requests == []


def test_large_download_resumes_after_a_cut(
    hub: LoopbackHub, tmp_path: Path, sha: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what the client keeps: whole chunks
    fault = hub.fault("/resolve/", "cut", after=250_000, times=1)
    assert fetch(hub, tmp_path) == WEIGHTS
    assert fault.hits == 1
    ranges = [(request.range, request.status, request.bytes_sent) for request in hub.downloads()]
    assert ranges == [(None, 200, 250_000), ("bytes=200000-", 206, 100_000)]


def test_reset_connection_is_an_error(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    hub.fault("/resolve/", "cut", after=250_000, reset=True, times=1)
    with pytest.raises(httpx2.ReadError):
        fetch(hub, tmp_path)
    assert fetch(hub, tmp_path) == WEIGHTS


def test_ranges(hub: LoopbackHub, sha: str) -> None:
    url = f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors"

    def get(part: str) -> httpx2.Response:
        return httpx2.get(url, headers={"Range": f"bytes={part}"}, trust_env=False)

    size = len(WEIGHTS)
    assert get("10-19").content == WEIGHTS[10:20]
    assert get("10-19").headers["Content-Range"] == f"bytes 10-19/{size}"
    assert get(f"{size - 3}-").content == get("-3").content == WEIGHTS[-3:]
    assert (get(f"{size}-").status_code, get(f"{size}-").headers["Content-Range"]) == (416, f"bytes */{size}")
    hub.fault("/resolve/", "no_range")
    assert (get("10-19").status_code, get("10-19").content) == (200, WEIGHTS)


def test_gated_repository(hub: LoopbackHub, api: HfApi, tmp_path: Path, sha: str) -> None:
    hub.gate(REPO, "hf_member")
    hub.set(tokens=["hf_stranger"])
    for token in (False, "hf_stranger"):
        with pytest.raises(GatedRepoError):
            fetch(hub, tmp_path, token=token)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        fetch(hub, tmp_path, token="hf_mistyped")
    assert fetch(hub, tmp_path, token="hf_member") == WEIGHTS
    assert api.model_info(REPO, token=False).gated == "manual"  # what is open to all
    hub.gate(REPO, "hf_member", listing=True)
    with pytest.raises(GatedRepoError):
        list(api.list_repo_tree(REPO))
    assert api.whoami(token="hf_member")["name"] == "tester"


def test_what_is_not_there(hub: LoopbackHub, api: HfApi, tmp_path: Path, sha: str) -> None:
    hub.commit("someone/hidden", FILES)
    hub.hide("someone/hidden", "hf_owner")
    for repo in ("someone/hidden", "someone/absent", "absent"):
        with pytest.raises(RepositoryNotFoundError):
            api.list_repo_refs(repo)
    assert api.model_info("someone/hidden", token="hf_owner").private
    with pytest.raises(RepositoryNotFoundError):  # a status of 404 to those it knows
        api.model_info("someone/absent", token="hf_owner")
    with pytest.raises(RevisionNotFoundError):
        fetch(hub, tmp_path, revision="step7")
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree(REPO, revision="0" * 40))
    with pytest.raises(RemoteEntryNotFoundError):
        fetch(hub, tmp_path, "absent.bin")


def test_renamed_repository(hub: LoopbackHub, api: HfApi, tmp_path: Path, sha: str) -> None:
    hub.rename("model", REPO)
    assert api.model_info("model").id == REPO
    assert len(list(api.list_repo_tree("model", recursive=True))) == 6
    assert Path(hf_hub_download("model", "config.json", local_dir=tmp_path, endpoint=hub.endpoint)).is_file()


@pytest.mark.parametrize("after", [None, 0, len(WEIGHTS) - 20])
def test_wrong_bytes_go_unnoticed(hub: LoopbackHub, tmp_path: Path, sha: str, after: int | None) -> None:
    hub.fault(r"\.safetensors", "flip", after=after, times=1)
    data = fetch(hub, tmp_path)
    offset = len(WEIGHTS) // 2 if after is None else after
    wrong = [i for i in range(len(WEIGHTS)) if data[i] != WEIGHTS[i]]
    assert wrong == list(range(offset, offset + 16))
    assert fetch(hub, tmp_path) == data  # the client believes its own notes


def test_short_file_is_an_error(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    hub.fault(r"\.safetensors", "short", after=1000)
    with pytest.raises(OSError, match="Consistency check failed"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_too_many_requests_then_success(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    fault = hub.fault("/resolve/", "status", method="GET", status=429, retry_after=0, rate_limit=0, times=1)
    begin = time.monotonic()
    assert fetch(hub, tmp_path) == WEIGHTS
    assert fault.hits == 1
    assert time.monotonic() - begin > 1  # the client adds a second
    assert [request.status for request in hub.asked("/resolve/", "GET")] == [429, 200]


def test_errors_by_status(hub: LoopbackHub, api: HfApi, sha: str) -> None:
    for status, code, error in ((503, None, HfHubHTTPError), (404, "RepoNotFound", RepositoryNotFoundError)):
        hub.fault("/refs", "status", status=status, error_code=code, skip=1, times=1)
        api.list_repo_refs(REPO)
        with pytest.raises(error) as caught:
            api.list_repo_refs(REPO)
        assert caught.value.response.status_code == status
        hub.clear_faults()


def test_slow_downloads_at_once(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    hub.fault("/resolve/", "slow", rate=1_000_000)
    begin = time.monotonic()
    with ThreadPoolExecutor() as pool:
        jobs = [pool.submit(fetch, hub, tmp_path / str(i)) for i in range(3)]
        assert [job.result() for job in jobs] == 3 * [WEIGHTS]
    assert time.monotonic() - begin >= 0.28
    assert hub.peak_downloads == 3
    assert hub.bytes_served[f"/{REPO}/resolve/main/model.safetensors"] == 3 * len(WEIGHTS)


@pytest.mark.parametrize("after", [None, 1000])
def test_hang(hub: LoopbackHub, sha: str, after: int | None) -> None:
    hub.fault("/resolve/", "hang", after=after, times=1)
    url = f"{hub.endpoint}/{REPO}/resolve/main/model.safetensors"
    with pytest.raises(httpx2.ReadTimeout):
        httpx2.get(url, timeout=0.3, trust_env=False)
    assert httpx2.get(url, trust_env=False).content == WEIGHTS


def test_announced_xet_is_asked_for_and_no_http(hub: LoopbackHub, tmp_path: Path, sha: str) -> None:
    hub.set(xet=True)
    script = "import sys, huggingface_hub as h; h.hf_hub_download(*sys.argv[1:3], local_dir=sys.argv[3])"
    command = [sys.executable, "-c", script, REPO, "model.safetensors", str(tmp_path / "folder")]
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode != 0
    assert hub.asked("/reconstructions/") and not hub.downloads()


def test_process(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub", page_size=2) as hub:
        hub.commit(REPO, FILES)
        api = HfApi(endpoint=hub.endpoint)
        assert len(list(api.list_repo_tree(REPO))) == 3
        assert len(hub.asked("/tree/")) == 2
        later = hub.commit(REPO, {"config.json": b"later"}, "later")
        assert api.model_info(REPO, revision="later").sha == later
        hub.fault("/refs", "status", status=503, times=1)
        with pytest.raises(HfHubHTTPError):
            api.list_repo_refs(REPO)
        assert len(api.list_repo_refs(REPO).branches) == 2
        assert [(fault.status, fault.hits) for fault in hub.faults] == [(503, 1)]
        hub.clear_faults()
        hub.clear_log()
        assert (hub.faults, hub.requests, hub.peak_downloads) == ([], [], 0)
        hub.set(page_size=1)
        with pytest.raises(OSError, match="400"):
            hub.set(pages=3)
