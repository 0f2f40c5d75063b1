"""What the loopback hub answers when it behaves: the addresses, headers and error codes of the real one."""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlencode

from hub_listing import describe, path_entries, tree_entries
from hub_replies import Denied, Moved, Reply, json_reply
from hub_store import Commit, HubStore, StoredFile

_REPO = r"(?P<repo>[^/]+(?:/[^/]+)?)"
_OF_MODELS = re.compile(
    r"/api/models/(?P<repo>[^/]+(?:/[^/]+)??)"
    r"(?:/(?P<verb>refs|tree|revision|paths-info|auth-check|xet-read-token)(?:/(?P<rest>.*))?)?"
)
_OF_FILES = re.compile(rf"/{_REPO}/(?P<verb>resolve|raw)/(?P<revision>[^/]+)/(?P<file>.+)")
_OF_CACHE = re.compile(rf"/api/resolve-cache/models/{_REPO}/(?P<revision>[0-9a-f]{{40}})/(?P<file>.+)")
_OF_CDN = re.compile(rf"/cdn/{_REPO}/(?P<sha256>[0-9a-f]{{64}})/(?P<file>.+)")
SIGNED = "secretOfTheAddress"  # begins the signatures of addresses
_PAGE_EXPANDED = 50  # the most entries of a page with the last commits


@dataclass
class Settings:
    """How the hub serves; changeable while it runs."""

    page_size: int = 1000  # entries per page of a tree
    redirect: bool = False  # whether files are served after a redirect, those of LFS from another origin
    xet: bool = False  # whether files of LFS are announced as stored in Xet (whose protocol is not spoken)
    address_uses: int | None = (
        None  # how many requests a signed address of the other origin serves, None: any
    )
    firewall: bool = False  # whether something before the other origin refuses every request
    quota: int | None = None  # requests of the API in a window, None: any
    quota_seconds: int = 1  # how long the window is
    tokens: list[str] = field(default_factory=list)  # valid ones, beside those that open a repository


@dataclass(frozen=True)
class Asked:
    """A request, taken apart."""

    method: str
    path: str  # as sent, without its query
    query: dict[str, list[str]]
    token: str | None = None  # what the Authorization header held
    body: bytes = b""

    def flag(self, name: str) -> bool:
        return self.query.get(name, [""])[0].lower() in ("true", "1")


class Api:
    """The addresses of a hub over a store."""

    def __init__(self, store: HubStore, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.endpoint = self.cdn_endpoint = ""  # known when the server listens
        self._signatures, self._used = count(1), Counter[str]()
        self._window, self._asked = 0.0, 0

    def answer(self, asked: Asked) -> Reply:
        """The reply to a request."""
        try:
            return self._route(asked)
        except (Denied, Moved) as error:
            return error.reply()
        except Exception as error:  # a status that the client does not ask for again
            traceback.print_exc()
            return Denied(400, None, f"The loopback hub has a bug: {error!r}").reply()

    def _route(self, asked: Asked) -> Reply:
        if asked.path.startswith("/api/models/"):
            self._count()
        fixed = {"/api/whoami-v2": self._whoami, "/api/agent-harnesses": _no_harnesses}
        if asked.path in fixed:
            return fixed[asked.path](asked)
        routes = (
            (_OF_CDN, self._cdn),
            (_OF_CACHE, self._file),
            (_OF_MODELS, self._model),
            (_OF_FILES, self._file),
        )
        for pattern, reply in routes:
            if match := pattern.fullmatch(asked.path):
                return reply(asked, match)
        raise Denied(404, None, "Sorry, we can't find the page you are looking for.")

    def _count(self) -> None:
        """Refuse what goes beyond the quota of a window."""
        settings, now = self.settings, time.monotonic()
        if now - self._window > settings.quota_seconds:
            self._window, self._asked = now, 0
        self._asked += 1
        if settings.quota is not None and self._asked > settings.quota:
            limit = {"RateLimit": f'"api";r=0;t={settings.quota_seconds}'}
            limit["RateLimit-Policy"] = f'"fixed window";"api";q={settings.quota};w={settings.quota_seconds}'
            raise Denied(429, None, "We had to rate limit your IP.", limit)

    def _whoami(self, asked: Asked) -> Reply:
        if not self._is_known(asked):
            raise Denied(401, None, "Invalid username or password.")
        return json_reply({"type": "user", "name": "tester", "auth": {"type": "access_token"}})

    def _is_known(self, asked: Asked) -> bool:
        """Whether the request holds a valid token, of whomever."""
        return asked.token is not None and asked.token in self.store.tokens() | set(self.settings.tokens)

    def _admit(self, asked: Asked, match: re.Match[str], *, files: bool) -> str:
        """The repository of the request; raises what keeps the request from it, if anything does."""
        repo = unquote(match["repo"])
        if new := self.store.renamed.get(repo):
            begin, end = match.span("repo")
            raise Moved(asked.path[:begin] + new + asked.path[end:], asked.query)
        if asked.token is not None and not self._is_known(asked):
            raise Denied(401, None, "Invalid credentials in Authorization header")
        access, known = self.store.access(repo), asked.token is not None
        if not self.store.exists(repo) or access.private not in (None, asked.token):
            message = "Repository not found" if known else "Invalid username or password."
            raise Denied(404 if known else 401, "RepoNotFound", message)
        if (files or access.gated_listing) and access.gated not in (None, asked.token):
            message = f"Access to model {repo} is restricted and you are not in the authorized list. Visit"
            raise Denied(
                403 if known else 401, "GatedRepo", f"{message} {self.endpoint}/{repo} to ask for access."
            )
        return repo

    def _commit(self, repo: str, revision: str) -> Commit:
        commit = self.store.resolve(repo, unquote(revision))
        if commit is None:
            raise Denied(404, "RevisionNotFound", f"Invalid rev id: {unquote(revision)}")
        return commit

    def _model(self, asked: Asked, match: re.Match[str]) -> Reply:
        verb = match["verb"] or "revision"
        repo = self._admit(asked, match, files=verb == "auth-check")
        revision, _, path = (match["rest"] or "main").partition("/")
        if verb == "refs":
            return self._refs(repo)
        if verb == "auth-check":
            return json_reply({})
        verbs: dict[str, Callable[[Asked, str, Commit, str], Reply]] = {
            "tree": self._tree,
            "revision": self._info,
            "paths-info": self._paths,
            "xet-read-token": self._xet_token,
        }
        return verbs[verb](asked, repo, self._commit(repo, revision), unquote(path))

    def _refs(self, repo: str) -> Reply:
        refs, folders = self.store.refs(repo), {"branches": "heads", "tags": "tags"}
        named = {
            kind: [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}
                for name, sha in refs[kind].items()
                if not name.startswith("refs/pr/")
            ]
            for kind, folder in folders.items()
        }
        return json_reply({**named, "converts": [], "pullRequests": []})

    def _tree(self, asked: Asked, repo: str, commit: Commit, path: str) -> Reply:
        expand = asked.flag("expand")
        entries = tree_entries(
            commit, path, recursive=asked.flag("recursive"), expand=expand, xet=self.settings.xet
        )
        if path and not entries:
            raise Denied(404, "EntryNotFound", f"{path} does not exist on {commit.sha}")
        size = min(self.settings.page_size, _PAGE_EXPANDED if expand else self.settings.page_size)
        start = int(asked.query.get("cursor", ["0"])[0])
        headers = {}
        if start + size < len(entries):
            following = urlencode({**asked.query, "cursor": str(start + size)}, doseq=True)
            headers = {"Link": f'<{self.endpoint}{asked.path}?{following}>; rel="next"'}
        return json_reply(entries[start : start + size], headers)

    def _paths(self, asked: Asked, repo: str, commit: Commit, path: str) -> Reply:
        form = parse_qs(asked.body.decode())
        expand = form.get("expand", ["false"])[0].lower() == "true"
        return json_reply(path_entries(commit, form.get("paths", []), expand=expand, xet=self.settings.xet))

    def _info(self, asked: Asked, repo: str, commit: Commit, path: str) -> Reply:
        gated = "manual" if self.store.access(repo).gated else False
        private = self.store.access(repo).private is not None
        facts = {"gated": gated, "private": private}
        return json_reply({**describe(repo, commit, blobs=asked.flag("blobs")), **facts})

    def _xet_token(self, asked: Asked, repo: str, commit: Commit, path: str) -> Reply:
        """A token for a storage that does not exist: who uses it is seen asking the other origin."""
        xet = {"Cas-Url": self.cdn_endpoint, "Access-Token": "xet", "Token-Expiration": "4102444800"}
        return json_reply({}, {f"X-Xet-{name}": value for name, value in xet.items()})

    def _file(self, asked: Asked, match: re.Match[str]) -> Reply:
        repo, path = self._admit(asked, match, files=True), unquote(match["file"])
        commit = self._commit(repo, match["revision"])
        if (file := commit.files.get(path)) is None:
            raise Denied(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit.sha})
        headers = self._headers(repo, commit, file)
        if self.settings.redirect and match.re is not _OF_CACHE:
            status, location = self._location(repo, commit, file)
            return Reply(status, {**headers, "Location": location})
        return Reply(200, headers, file=self.store.blob(file.sha256))

    def _headers(self, repo: str, commit: Commit, file: StoredFile) -> dict[str, str]:
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{file.etag}"',
            "X-Linked-Etag": f'"{file.etag}"',
            "X-Linked-Size": str(file.size),
            "Accept-Ranges": "bytes",
            "Content-Disposition": f'inline; filename="{Path(file.path).name}";',
        }
        if self.settings.xet and file.pointer_size is not None:
            token = f"{self.endpoint}/api/models/{repo}/xet-read-token/{commit.sha}"
            headers |= {"X-Xet-Hash": file.xet_hash, "Link": f'<{token}>; rel="xet-auth"'}
        return headers

    def _location(self, repo: str, commit: Commit, file: StoredFile) -> tuple[int, str]:
        """Where a file is served: in LFS from a signed address of another origin, else from the hub's cache."""
        if file.pointer_size is None:
            return 307, f"/api/resolve-cache/models/{repo}/{commit.sha}/{quote(file.path)}"
        signed = f"Expires=1&Signature={SIGNED}{next(self._signatures)}"
        return 302, f"{self.cdn_endpoint}/cdn/{repo}/{file.sha256}/{quote(file.path)}?{signed}"

    def _cdn(self, asked: Asked, match: re.Match[str]) -> Reply:
        if asked.token is not None:
            raise Denied(400, None, "Only one auth mechanism allowed")
        blob = self.store.blob(match["sha256"])
        if self.settings.firewall:
            page = b"<html>This site is blocked by your organization.</html>"
            return Reply(403, {"Content-Type": "text/html"}, page)
        [signature] = asked.query.get("Signature", [""])
        self._used[signature] += 1
        limit = self.settings.address_uses
        if not signature or not blob.is_file() or (limit is not None and self._used[signature] > limit):
            raise Denied(403, None, "Access denied")
        headers = {"ETag": f'"{match["sha256"][:32]}"', "Accept-Ranges": "bytes"}
        return Reply(200, headers, file=blob)


def _no_harnesses(asked: Asked) -> Reply:
    """The client asks which tools may run it: none."""
    return json_reply({"standardEnvVars": [], "harnesses": {}})
