"""The hub's answers: branches and tags, files of a commit, small JSON files; never a weight.

Everything goes through huggingface_hub, so that HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and a saved login work as they
do everywhere else. What the hub refuses for the moment (rate limits, dropped connections, errors of its own) is
asked again after growing pauses; what it refuses for good ends in a sentence that says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx2
from huggingface_hub import constants, get_session, get_token, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, validate_repo_id

from lmshape.downloading import QUOTA, SILENCE_SECONDS, Answer, is_transient, patiently, reason_of, status_of
from lmshape.errors import InputError
from lmshape.hub.lock import GIT, LockedFile
from lmshape.progress import progress
from lmshape.writing import NO_ROOM

REFUSED = frozenset({401, 403})
AT_ONCE = 8  # listings under way: a run of 154 revisions takes seconds, and no hub calls it a flood

Asked = TypeVar("Asked")


class NotThere(InputError):
    """The hub knows no such repository, revision or file."""


class Closed(InputError):
    """The hub shows it to some users only."""


# name → branch, tag, commit or pull request, and the commit that it means
Refs = dict[str, tuple[str, str]]


def gate(entry: Mapping[str, Any]) -> str:
    """Tell what opens a gated repository where there is no token; "" for any other entry of the registry."""
    if not entry.get("gated") or get_token() is not None:
        return ""
    page = f"{constants.ENDPOINT}/{entry['repository']}"
    return f"gated. Accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN"


def refs(repository: str) -> Refs:
    """List branches, then tags; a tag of a branch's name is left out, as the hub resolves the branch.

    Raises
    ------
    NotThere, InputError
        When the hub has no such repository, will not show it, or cannot be reached.
    """
    what = f"the revisions of `{repository}`"
    ask_hub(partial(validate_repo_id, repository), what=what)
    found = ask_hub(partial(_get_json, f"{constants.ENDPOINT}/api/models/{repository}/refs"), what=what)
    branches = {ref["name"]: ("branch", ref["targetCommit"]) for ref in found["branches"]}
    tags = {ref["name"]: ("tag", ref["targetCommit"]) for ref in found["tags"] if ref["name"] not in branches}
    return branches | tags


def commit_of(repository: str, revision: str) -> str:
    """Return the commit that any revision means, a pull request (refs/pr/1) or a commit among them."""
    address = f"{constants.ENDPOINT}/api/models/{repository}/revision/{quote(revision, safe='')}"
    return ask_hub(partial(_get_json, address), what=f"the revision {revision} of `{repository}`")["sha"]


def files(repository: str, commit: str) -> list[LockedFile]:
    """List all files of a commit, with size and sha256, or git's name of those that have no sha256.

    The pages are asked for here, and not by huggingface_hub, which asks six times for each before it tells anybody.
    """
    found: list[LockedFile] = []
    page = f"{constants.ENDPOINT}/api/models/{repository}/tree/{commit}?recursive=true"
    while page:
        entries, page = ask_hub(
            partial(_page_of_files, page), what=f"the files of `{repository}` at {commit}"
        )
        for entry in entries:
            if large := entry.get("lfs"):
                found.append(LockedFile(entry["path"], large["size"], large["oid"]))
            elif entry["type"] == "file":
                found.append(LockedFile(entry["path"], entry["size"], f"{GIT}{entry['oid']}"))
    return found


def _page_of_files(address: str) -> tuple[list[dict[str, Any]], str]:
    """Return the entries of a page, and the address of the next; "" behind the last."""
    response = _get(address)
    return json.loads(response.content), response.links.get("next", {}).get("url", "")


def _get_json(address: str) -> dict:
    return json.loads(_get(address).content)


def _get(address: str) -> httpx2.Response:
    response = get_session().get(
        address, headers=build_hf_headers(), follow_redirects=True, timeout=SILENCE_SECONDS
    )
    hf_raise_for_status(response)
    return response


def at_once(
    ask: Callable[[Asked], Answer], questions: Mapping[str, Asked], *, what: str, unit: str
) -> list[Answer]:
    """Ask several questions at once; the answers are in their order, and counted by name as they come."""
    with (
        ThreadPoolExecutor(AT_ONCE) as pool,
        progress(len(questions), description=what, unit=unit) as bar,
    ):
        answers = []
        for name, answer in zip(questions, pool.map(ask, questions.values()), strict=True):
            answers.append(answer)
            bar.set_postfix_str(f"the last: {name}", refresh=False)
            bar.update()
        return answers


def read_json(repository: str, commit: str, path: str) -> dict:
    """Read a small JSON file of a commit."""
    address = hf_hub_url(repository, path, revision=commit, endpoint=constants.ENDPOINT)
    return ask_hub(partial(_get_json, address), what=f"{path} of `{repository}`")


def ask_hub(ask: Callable[[], Answer], *, what: str, received: Callable[[], int] = lambda: 0) -> Answer:
    """Ask as `patiently` does; what the hub refuses is raised as `hub_error` says it.

    A refusal by another host is not a refusal by the hub: addresses that it signs for its store live for an hour. Each
    attempt asks the hub for a new one.
    """
    return patiently(
        ask, what=what, explain=hub_error, received=received, may_pass=_may_pass, tell=_with_hint
    )


def _may_pass(error: Exception) -> bool:
    return is_transient(error) or refusing_host(error) is not None


def refusing_host(error: Exception) -> str | None:
    """Name the host that refuses, where it is not the hub's: a mirror hands on answers of the hub, with its codes."""
    response = getattr(error, "response", None)
    if response is None or not 400 <= response.status_code < 500 or "X-Error-Code" in response.headers:
        return None
    host = urlsplit(str(response.url)).netloc
    return None if host == urlsplit(constants.ENDPOINT).netloc else host


def _with_hint(error: Exception) -> str:
    if status_of(error) == QUOTA and get_token() is None:
        told = reason_of(error).rstrip(".")
        return f"{told}. With a free token the hub answers more requests: `hf auth login`, or HF_TOKEN"
    return reason_of(error)


def hub_error(error: Exception, *, what: str, attempts: int) -> InputError:
    """Turn a refusal into a sentence: what was asked for, what the hub said, what to do."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        raise error  # of the disk that a file is written to
    if isinstance(error, OfflineModeIsEnabled):
        return InputError(
            f"{what}: HF_HUB_OFFLINE is set, so the hub is not asked. Unset it, or make what is needed beforehand "
            "on a machine with a network: `lmshape lock MODEL`, `snakemake --until download`."
        )
    if told := _refusal(error, what=what, attempts=attempts):
        return told
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return InputError(
            f"{what}: {constants.ENDPOINT} answers with something else than JSON ({reason_of(error)}). Check "
            "HF_ENDPOINT, and whether a proxy or a page to log in stands between."
        )
    if isinstance(error, httpx2.HTTPError | OSError):
        times = f" after {attempts} attempts" if attempts > 1 else ""
        return InputError(
            f"{what}: {constants.ENDPOINT} cannot be used{times} ({reason_of(error)}). Check the network and "
            "HF_ENDPOINT, then run the same command again: what was received is kept."
        )
    raise error


def _refusal(error: Exception, *, what: str, attempts: int) -> InputError | None:
    """Say who refuses a request, and why; None for an error that is not a refusal."""
    if status_of(error) == QUOTA:
        return InputError(
            f"{what}: too many requests, after {attempts} attempts ({_with_hint(error)}). Wait for five minutes, "
            "when a new quota begins, and run the same command again: what was received is kept."
        )
    if host := refusing_host(error):
        return InputError(
            f"{what}: {host}, where the hub keeps it, refuses it after {attempts} attempts, each with a new address "
            f"({reason_of(error)}). The hub itself has answered, so that no login helps: a firewall or a proxy seems "
            f"to stand between. Have it let {host} pass, or set HTTPS_PROXY, and run again: what was received is kept."
        )
    if isinstance(error, GatedRepoError):
        return Closed(
            f"{what}: access must be granted ({reason_of(error)}). Accept its terms on the hub's page of the model, "
            "then log in with `hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return NotThere(f"{what}: not on the hub ({reason_of(error)}).")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return NotThere(
            f"{what}: the hub shows no such repository. Correct its name; for a private or "
            "gated one log in with `hf auth login` or set HF_TOKEN."
        )
    if status_of(error) in REFUSED:
        return Closed(
            f"{what}: the hub refuses it ({reason_of(error)}). So it does where a token has expired or lacks a right: "
            "log in with `hf auth login` or set HF_TOKEN. A firewall or a proxy may also answer in its place."
        )
    return None
