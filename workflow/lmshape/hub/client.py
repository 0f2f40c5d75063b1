"""The hub's answers: branches and tags, files of a commit, small JSON files; never a weight.

Everything goes through huggingface_hub, so that HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and a saved login work as they
do everywhere else. What the hub refuses for the moment (rate limits, dropped connections, errors of its own) is
asked again after growing pauses; what it refuses for good ends in a sentence that says what to do.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
    set_client_factory,
)
from huggingface_hub.utils._http import hf_request_event_hook

from lmshape.errors import InputError
from lmshape.hub.lock import LockedFile

LOG = logging.getLogger(__name__)

ATTEMPTS = 7
FIRST_PAUSE_SECONDS = float(
    os.environ.get("LMSHAPE_FIRST_PAUSE_SECONDS", "1")
)  # doubled every time: a minute in all
LONGEST_PAUSE_SECONDS = 300.0
SILENCE_SECONDS = 60.0  # after which a connection is dropped; huggingface_hub's listings would wait for ever
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({401, 403})
AT_ONCE = 8  # listings under way: a run of 154 revisions takes seconds, and no hub calls it a flood

Answer = TypeVar("Answer")


class _Client(httpx2.Client):
    """A client that never waits for ever, whatever its caller asks for."""

    def send(self, request: httpx2.Request, **options: object) -> httpx2.Response:
        """Send a request, with a time-out where it has none."""
        if not (request.extensions.get("timeout") or {}).get("read"):
            request.extensions["timeout"] = httpx2.Timeout(SILENCE_SECONDS).as_dict()
        return super().send(request, **options)


def _new_client() -> httpx2.Client:
    return _Client(event_hooks={"request": [hf_request_event_hook]}, follow_redirects=True, timeout=None)


set_client_factory(_new_client)


class NotThere(InputError):
    """The hub knows no such repository, revision or file."""


class Closed(InputError):
    """The hub shows it only to those whom it knows."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A branch or a tag, and the commit it points at."""

    name: str
    kind: str
    commit: str


def refs(repository: str) -> list[Ref]:
    """List branches and tags; a tag of a branch's name is left out, as the hub resolves the branch.

    Raises
    ------
    NotThere, InputError
        When the hub has no such repository, will not show it, or cannot be reached.
    """
    found = patiently(lambda: _api().list_repo_refs(repository), what=f"the revisions of `{repository}`")
    branches = [Ref(ref.name, "branch", ref.target_commit) for ref in found.branches]
    taken = {branch.name for branch in branches}
    return branches + [Ref(ref.name, "tag", ref.target_commit) for ref in found.tags if ref.name not in taken]


def files(repository: str, commit: str) -> list[LockedFile]:
    """List all files of a commit, with size and sha256, or git's name of those that have no sha256."""

    def ask() -> list[LockedFile]:
        entries = _api().list_repo_tree(repository, revision=commit, recursive=True)
        return [_file(entry) for entry in entries if isinstance(entry, RepoFile)]

    return patiently(ask, what=f"the files of `{repository}` at {commit}")


def files_of_many(places: Sequence[tuple[str, str]]) -> list[list[LockedFile]]:
    """List the files of many (repository, commit), several at once, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda place: files(*place), places))


def refs_of_many(repositories: Iterable[str]) -> list[list[Ref] | None]:
    """List the refs of many repositories, several at once; None for one that is not there."""

    def ask(repository: str) -> list[Ref] | None:
        try:
            return refs(repository)
        except NotThere:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, repositories))


def read_json(repository: str, commit: str, path: str) -> dict:
    """Read a small JSON file of a commit."""

    def ask() -> dict:
        response = get_session().get(
            hf_hub_url(repository, path, revision=commit, endpoint=constants.ENDPOINT),
            headers=build_hf_headers(),
            follow_redirects=True,
        )
        hf_raise_for_status(response)
        return json.loads(response.content)

    return patiently(ask, what=f"{path} of `{repository}`")


def patiently(ask: Callable[[], Answer], *, what: str) -> Answer:
    """Ask until the hub answers, with growing pauses, or refuses for good.

    Raises
    ------
    NotThere, InputError
        See `hub_error`.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except Exception as error:
            if attempt == ATTEMPTS or not is_transient(error):
                raise hub_error(error, what=what, attempts=attempt) from error
            pause(error, attempt, what=what)
    raise AssertionError("the last attempt returns or raises")


def is_transient(error: Exception) -> bool:
    """Whether a later attempt may well succeed."""
    if isinstance(error, HfHubHTTPError):
        return _status(error) in TRANSIENT
    if _is_short(error):
        return True
    return isinstance(error, httpx2.TransportError) and not isinstance(error, OfflineModeIsEnabled)


def _is_short(error: Exception) -> bool:
    """Whether the connection ended early: huggingface_hub tells that as an OSError without a number."""
    return isinstance(error, OSError) and error.errno is None and "Consistency check failed" in str(error)


def pause(error: Exception, attempt: int, *, what: str) -> None:
    """Wait before the next attempt: as long as the hub asks for, else twice as long as the time before."""
    seconds = max(FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _asked_seconds(error))
    seconds = min(seconds, LONGEST_PAUSE_SECONDS)
    LOG.warning("%s: %s; asking again in %g s", what, first_line(error), seconds)
    time.sleep(seconds)


def _asked_seconds(error: Exception) -> float:
    """Return how long the hub asks to wait, by Retry-After or by the rest of its rate limit's window."""
    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return 0.0
    after = error.response.headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    limit = parse_ratelimit_headers(error.response.headers)
    return limit.reset_in_seconds + 1.0 if limit is not None and limit.remaining == 0 else 0.0


def hub_error(error: Exception, *, what: str, attempts: int = 1) -> InputError:
    """Turn a refusal into a sentence: what was asked for, what the hub said, what to do."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(
            f"{what}: HF_HUB_OFFLINE is set, so the hub is not asked. Unset it, or make what is needed beforehand "
            "on a machine with a network: `lmshape lock MODEL`, `snakemake --until download`."
        )
    if isinstance(error, GatedRepoError):
        return Closed(
            f"{what}: access must be granted ({first_line(error)}). Accept its terms on the hub's page of the model, "
            "then log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return NotThere(f"{what}: not on the hub ({first_line(error)}).")
    if isinstance(error, RepositoryNotFoundError):
        return NotThere(
            f"{what}: the hub shows no such repository. Correct its name in the registry of models; for a private or "
            "gated one log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, HfHubHTTPError) and _status(error) in REFUSED:
        return Closed(
            f"{what}: the hub refuses it ({first_line(error)}). So it does where a token has expired or lacks a right: "
            "log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return InputError(
            f"{what}: {constants.ENDPOINT} answers with something else than JSON ({first_line(error)}). Check "
            "HF_ENDPOINT, and whether a proxy or a page to log in stands between."
        )
    if isinstance(error, HfHubHTTPError | httpx2.HTTPError | OSError):
        times = f" after {attempts} attempts" if attempts > 1 else ""
        return InputError(
            f"{what}: {constants.ENDPOINT} cannot be used{times} ({first_line(error)}). Check the network and "
            "HF_ENDPOINT, then run the same command again: what was received is kept."
        )
    raise error


def _status(error: HfHubHTTPError) -> int | None:
    return error.response.status_code if error.response is not None else None


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, without any token that may stand in it."""
    text = (str(error).strip() or repr(error)).splitlines()[0]
    token = get_token()
    return text.replace(token, "***") if token else text


def _api() -> HfApi:
    return HfApi(endpoint=constants.ENDPOINT)


def _file(entry: RepoFile) -> LockedFile:
    if entry.lfs is not None:
        return LockedFile(entry.path, entry.lfs.size, sha256=entry.lfs.sha256)
    return LockedFile(entry.path, entry.size, git_oid=entry.blob_id)
