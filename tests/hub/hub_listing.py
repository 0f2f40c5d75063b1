"""Listings of a commit's files in the words of the hub's API."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from hub_store import FIRST_DAY, Commit, StoredFile, git_oid

Entry = dict[str, Any]


def tree_entries(commit: Commit, path: str, *, recursive: bool, expand: bool, xet: bool) -> list[Entry]:
    """Files and folders under a folder of the commit, by path."""
    inside = [name for name in [*commit.files, *_folders(commit)] if not path or name.startswith(f"{path}/")]
    depth = len(PurePosixPath(path).parts) + 1
    shown = [name for name in inside if recursive or len(PurePosixPath(name).parts) == depth]
    return [_entry(commit, name, expand=expand, xet=xet) for name in sorted(shown)]


def path_entries(commit: Commit, paths: Iterable[str], *, expand: bool, xet: bool) -> list[Entry]:
    """Those of the paths that the commit has."""
    existing = {*commit.files, *_folders(commit)}
    return [_entry(commit, path, expand=expand, xet=xet) for path in paths if path in existing]


def describe(repo: str, commit: Commit, *, blobs: bool) -> Entry:
    """The facts of a repository at a commit."""
    return {
        "_id": "0" * 24,
        "id": repo,
        "modelId": repo,
        "author": repo.rpartition("/")[0],
        "sha": commit.sha,
        "createdAt": FIRST_DAY.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "lastModified": commit.date,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": ["transformers"],
        "library_name": "transformers",
        "siblings": [_sibling(file, blobs=blobs) for file in commit.files.values()],
        "usedStorage": sum(file.size for file in commit.files.values()),
    }


def _folders(commit: Commit) -> set[str]:
    parents = {str(parent) for path in commit.files for parent in PurePosixPath(path).parents}
    return parents - {"."}


def _entry(commit: Commit, path: str, *, expand: bool, xet: bool) -> Entry:
    file = commit.files.get(path)
    if file is None:
        inside = "".join(
            f"{name} {f.oid}\n" for name, f in commit.files.items() if name.startswith(f"{path}/")
        )
        entry: Entry = {"type": "directory", "oid": git_oid(inside.encode(), "tree"), "size": 0, "path": path}
    else:
        entry = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.pointer_size is not None:
            entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
            entry |= {"xetHash": file.xet_hash} if xet else {}
    return entry | (_expanded(commit, file) if expand else {})


def _expanded(commit: Commit, file: StoredFile | None) -> Entry:
    last = {"lastCommit": {"id": commit.sha, "title": "Upload", "date": commit.date}}
    scan = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return last if file is None else {**last, "securityFileStatus": scan}


def _sibling(file: StoredFile, *, blobs: bool) -> Entry:
    entry: Entry = {"rfilename": file.path}
    if blobs:
        entry |= {"size": file.size, "blobId": file.oid}
        if file.pointer_size is not None:
            entry["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return entry
