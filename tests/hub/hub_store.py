"""Repositories of models on disk, each with commits, branches and tags, as a hub stores them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

LARGE = 1_000_000  # bytes from which any file is one of LFS
LARGE_ENDINGS = (".safetensors", ".bin", ".gguf", ".pt", ".h5", ".msgpack")
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)

Content = bytes | Path


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit: its bytes lie under `blobs/sha256`."""

    path: str
    size: int
    sha256: str
    oid: str  # git's hash of what git holds: the bytes, or for a file of LFS its pointer
    pointer_size: int | None = None  # only of a file of LFS

    @property
    def etag(self) -> str:
        return self.oid if self.pointer_size is None else self.sha256

    @property
    def xet_hash(self) -> str:
        """Not the true hash of Xet, but of its form."""
        return hashlib.sha256(b"xet" + self.sha256.encode()).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    date: str
    files: dict[str, StoredFile]


@dataclass(frozen=True)
class Access:
    """Who may read: everyone, or who holds a token."""

    gated: str | None = None  # the token that opens the files
    private: str | None = None  # the token without which the repository does not exist
    gated_listing: bool = False  # whether the gate hides the names of the files too

    @property
    def tokens(self) -> set[str]:
        return {token for token in (self.gated, self.private) if token}


class HubStore:
    """A folder of repositories. Two processes may share it: one that commits, others that serve.

    Every change is written whole before it is visible, and nothing but the immutable commits is remembered.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commits: dict[tuple[str, str], Commit] = {}
        self._lock = threading.RLock()
        (folder / "blobs").mkdir(parents=True, exist_ok=True)

    def commit(
        self,
        repo: str,
        files: Mapping[str, Content] | Path,
        branch: str | None = "main",
        tag: str | None = None,
        *,
        keep: bool = False,
        delete: Iterable[str] = (),
    ) -> str:
        """Make a commit and point `branch` and `tag` at it; return its sha.

        The commit holds `files` alone (a mapping, or all files of a folder), or with `keep` also the other files
        of the branch; without those in `delete`.
        """
        with self._lock:
            refs = self.refs(repo)
            kept = self.read_commit(repo, refs["branches"][branch]).files if keep else {}
            stored = {**kept, **{path: self._store(path, data) for path, data in _contents(files).items()}}
            for path in delete:
                del stored[path]
            sha = self._write_commit(repo, dict(sorted(stored.items())))
            refs["branches"].update({branch: sha} if branch else {})
            refs["tags"].update({tag: sha} if tag else {})
            _write_json(self._repository(repo) / "refs.json", refs)
        return sha

    def delete_file(self, repo: str, path: str, branch: str = "main") -> str:
        """Make a commit of the branch's files without one of them; return its sha."""
        return self.commit(repo, {}, branch, keep=True, delete=[path])

    def delete_ref(self, repo: str, name: str) -> None:
        """Remove the branch or tag; its commits stay."""
        with self._lock:
            refs = self.refs(repo)
            refs = {kind: {k: v for k, v in named.items() if k != name} for kind, named in refs.items()}
            _write_json(self._repository(repo) / "refs.json", refs)

    def gate(self, repo: str, token: str, *, listing: bool = False) -> None:
        """Let only this token read the files; with `listing`, only it may see their names too."""
        self._write_access(repo, Access(gated=token, gated_listing=listing))

    def hide(self, repo: str, token: str) -> None:
        """Make the repository private: without this token it does not exist."""
        self._write_access(repo, Access(private=token))

    def open(self, repo: str) -> None:
        self._write_access(repo, Access())

    def rename(self, old: str, new: str) -> None:
        """Answer requests for `old` with a redirect to `new`, as the hub does for renamed repositories."""
        with self._lock:
            _write_json(self.folder / "renamed.json", {**self.renamed, old: new})

    @property
    def renamed(self) -> dict[str, str]:
        return _read_json(self.folder / "renamed.json", {})

    def exists(self, repo: str) -> bool:
        return (self._repository(repo) / "refs.json").is_file()

    def refs(self, repo: str) -> dict[str, dict[str, str]]:
        """Commits by name, of the branches and of the tags."""
        return _read_json(self._repository(repo) / "refs.json", {"branches": {}, "tags": {}})

    def access(self, repo: str) -> Access:
        return Access(**_read_json(self._repository(repo) / "access.json", {}))

    def tokens(self) -> set[str]:
        """Every token that some repository knows."""
        paths = self.folder.glob("repositories/*/access.json")
        return set().union(*(Access(**_read_json(path, {})).tokens for path in paths))

    def resolve(self, repo: str, revision: str) -> Commit | None:
        """The commit that a branch, a tag or a sha means."""
        refs = self.refs(repo)
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = refs["branches"].get(name) or refs["tags"].get(name) or revision
        return self.read_commit(repo, sha) if self._commit_path(repo, sha).is_file() else None

    def read_commit(self, repo: str, sha: str) -> Commit:
        if (repo, sha) not in self._commits:
            content = json.loads(self._commit_path(repo, sha).read_text())
            files = {entry["path"]: StoredFile(**entry) for entry in content["files"]}
            self._commits[repo, sha] = Commit(sha, content["date"], files)
        return self._commits[repo, sha]

    def blob(self, sha256: str) -> Path:
        return self.folder / "blobs" / sha256

    def _repository(self, repo: str) -> Path:
        return self.folder / "repositories" / repo.replace("/", "--")

    def _commit_path(self, repo: str, sha: str) -> Path:
        return self._repository(repo) / "commits" / f"{sha.replace('/', '--')}.json"

    def _write_access(self, repo: str, access: Access) -> None:
        _write_json(self._repository(repo) / "access.json", asdict(access))

    def _write_commit(self, repo: str, files: dict[str, StoredFile]) -> str:
        count = len(list((self._repository(repo) / "commits").glob("*.json")))
        listing = "".join(f"{file.path} {file.sha256}\n" for file in files.values())
        sha = hashlib.sha1(f"{repo} {count}\n{listing}".encode()).hexdigest()
        date = (FIRST_DAY + timedelta(hours=count)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        content = {"date": date, "files": [asdict(file) for file in files.values()]}
        _write_json(self._commit_path(repo, sha), content)
        return sha

    def _store(self, path: str, content: Content) -> StoredFile:
        sha256 = _sha256(content)
        blob = self.blob(sha256)
        if not blob.exists():
            partial = blob.with_name(f"{sha256}.partial-{os.getpid()}")
            partial.write_bytes(content) if isinstance(content, bytes) else shutil.copyfile(content, partial)
            os.replace(partial, blob)
        size = blob.stat().st_size
        if not path.endswith(LARGE_ENDINGS) and size <= LARGE:
            return StoredFile(path, size, sha256, git_oid(blob.read_bytes()))
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return StoredFile(path, size, sha256, git_oid(pointer), len(pointer))


def git_oid(data: bytes, kind: str = "blob") -> str:
    """The hash by which git names an object."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def _sha256(content: Content) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _contents(files: Mapping[str, Content] | Path) -> Mapping[str, Content]:
    if not isinstance(files, Path):
        return files
    return {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}


def _read_json(path: Path, default: dict) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return default


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_text(json.dumps(content))
    os.replace(partial, path)
