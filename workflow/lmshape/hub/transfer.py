"""Files of a commit, brought here: resumed after a kill, verified byte for byte, under their names when whole."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import build_hf_headers

from lmshape.downloading import CutShort, held_bytes, reason_of, receive
from lmshape.errors import InputError
from lmshape.hub.client import ask_hub
from lmshape.hub.lock import GIT, LockedCheckpoint, LockedFile
from lmshape.paths import partial_folder
from lmshape.progress import size_text
from lmshape.receipt import PARTIAL, write_receipt
from lmshape.writing import NO_ROOM, name_whole_folder

LOG = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 20

WeightsIn = Literal["study", "cache"]
Transfer = Literal["auto", "http", "xet"]


class WrongBytes(InputError):
    """A file that came whole, and is another one than the hub's own listing says."""


def bring_checkpoint(
    one: LockedCheckpoint, folder: Path, *, weights_in: WeightsIn, transfer: Transfer = "http"
) -> None:
    """Download a checkpoint's files into `folder`, which appears when all of them are there and verified.

    What an earlier, killed call has received is taken up where it stopped. Over HTTP memory is constant, and the disk
    holds nothing beyond the files themselves.

    Raises
    ------
    InputError
        When the hub refuses them for good, or keeps sending other bytes than it lists.
    """
    receipt = {name: getattr(one, name) for name in ("repository", "revision", "commit", "weights_sha256")}
    bring_files(
        one.repository,
        one.commit,
        one.files,
        folder,
        weights_in=weights_in,
        receipt=receipt,
        transfer=transfer,
    )


def bring_files(
    repository: str,
    commit: str,
    files: Sequence[LockedFile],
    folder: Path,
    *,
    weights_in: WeightsIn,
    receipt: Mapping[str, str],
    transfer: Transfer = "http",
) -> None:
    """Download files of one commit into a folder, without their folders in the repository; see `bring_checkpoint`."""
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        listed = {Path(file.path).name: file.bytes for file in files}
        write_receipt(partial, **receipt, files=listed)  # first: what is deleted must be named
        for file in files:
            _bring(repository, commit, file, partial / Path(file.path).name, weights_in, transfer)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise InputError(
                f"`{folder}`: no room on the disk ({error.strerror}). What was received is kept in `{partial}`; make "
                "room, or bound what waits there with `disk_budget_gb`, and run again."
            ) from error
        raise
    name_whole_folder(partial, folder)  # in the place of an empty shell that an earlier release may have left


def cached_bytes(one: LockedCheckpoint) -> int:
    """Bytes of a checkpoint that lie in the user's cache already, and count nothing of the disk quota."""
    cached = (try_to_load_from_cache(one.repository, file.path, revision=one.commit) for file in one.files)
    return sum(file.bytes for file, path in zip(one.files, cached, strict=True) if isinstance(path, str))


def _bring(
    repository: str,
    commit: str,
    file: LockedFile,
    destination: Path,
    weights_in: WeightsIn,
    transfer: Transfer,
) -> None:
    """Put one file in its place: from the user's cache, or from the hub."""
    if destination.exists() and _is_right(destination, file):
        return
    cached = try_to_load_from_cache(repository, file.path, revision=commit)
    if isinstance(cached, str) and _is_right(Path(cached), file):
        return _link(Path(cached), destination)
    for repeated in (False, True):
        try:
            if weights_in == "cache":
                return _link(_through_cache(repository, commit, file, again=repeated), destination)
            return _receive_whole(repository, commit, file, destination, transfer)
        except WrongBytes:  # a proxy may have spoilt them; the hub itself would send the same again
            if repeated:
                raise


def _receive_whole(
    repository: str, commit: str, file: LockedFile, destination: Path, transfer: Transfer
) -> None:
    received = destination.with_name(f"{destination.name}{PARTIAL}")
    what = f"`{file.path}` of `{repository}`"
    may_come = transfer == "xet" or (transfer == "auto" and not received.exists())
    xet = may_come and _by_xet(repository, commit, file, received)
    if transfer == "xet" and not xet and not file.digest.startswith(GIT):
        raise InputError(
            f"{what}: does not come by Xet, and `transfer: xet` allows nothing else. With `auto` HTTP follows."
        )
    if not xet and file.bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
        LOG.warning("%s", _large(what, file))

    def ask() -> None:
        receive(lambda headers: _request(repository, commit, file, headers), received, size=file.bytes)

    ask_hub(ask, what=what, received=lambda: held_bytes(received))
    try:
        _verify(received, file, what)
    except WrongBytes as error:
        received.unlink()
        if xet:
            _give_up_xet(error, what)
        raise
    shutil.rmtree(_xet_folder(received), ignore_errors=True)  # of a job that was killed
    os.replace(received, destination)


def _by_xet(repository: str, commit: str, file: LockedFile, received: Path) -> bool:
    """Bring a file by Xet where the hub announces it, and say whether it came.

    After any failure the rest of the job takes HTTP, which resumes, and says itself what is wrong.
    """
    if constants.HF_HUB_DISABLE_XET or find_spec("hf_xet") is None or file.digest.startswith(GIT):
        return False
    what = f"`{file.path}` of `{repository}`"
    address = hf_hub_url(repository, file.path, revision=commit, endpoint=constants.ENDPOINT)
    known = ask_hub(lambda: get_hf_file_metadata(address, endpoint=constants.ENDPOINT), what=what)
    if known.xet_file_data is None:
        return False
    folder = _xet_folder(received)
    try:
        came = hf_hub_download(
            repository, file.path, revision=commit, endpoint=constants.ENDPOINT, local_dir=folder
        )
        os.replace(came, received)
    except Exception as error:  # RuntimeError is all that hf_xet says, and others may come from around it
        _give_up_xet(error, what)
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _xet_folder(received: Path) -> Path:
    return received.with_name(f".{received.name}.xet")


def _give_up_xet(error: Exception, what: str) -> None:
    constants.HF_HUB_DISABLE_XET = True
    LOG.warning("%s: Xet failed (%s); this job downloads by HTTP from here on", what, reason_of(error))


def _request(
    repository: str, commit: str, file: LockedFile, range_headers: Mapping[str, str]
) -> AbstractContextManager[httpx2.Response]:
    """Ask the hub where a file lies, and ask there for its bytes."""
    address = hf_hub_url(repository, file.path, revision=commit, endpoint=constants.ENDPOINT)
    headers = {**build_hf_headers(), **range_headers}
    location = get_hf_file_metadata(address, endpoint=constants.ENDPOINT).location
    if urlsplit(location).netloc != urlsplit(address).netloc:
        headers.pop("authorization", None)  # the token is for the hub, not for the store that it redirects to
    return get_session().stream("GET", location, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _large(what: str, file: LockedFile) -> str:
    return (
        f"{what}: has {size_text(file.bytes)}, and the hub's store may refuse files of more than "
        f"{size_text(constants.MAX_HTTP_DOWNLOAD_SIZE)} over HTTP. Should it do so, install `hf_xet` and take "
        "`transfer: auto`, which downloads them by Xet."
    )


def _through_cache(repository: str, commit: str, file: LockedFile, *, again: bool) -> Path:
    """Let the hub's library put a file into the user's cache, in the place of a wrong one where it is asked `again`.

    It takes Xet where the hub announces it and hf_xet is installed; HTTP for the rest of the job once Xet has failed.
    """
    what = f"`{file.path}` of `{repository}`"

    def ask() -> Path:
        try:
            path = hf_hub_download(
                repository, file.path, revision=commit, endpoint=constants.ENDPOINT, force_download=again
            )
            return Path(path)
        except RuntimeError as error:  # all that Xet says of whatever fails
            if constants.HF_HUB_DISABLE_XET:
                raise
            _give_up_xet(error, what)
            raise CutShort(f"Xet failed: {reason_of(error)}") from error
        except ValueError as error:
            if file.bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
                raise InputError(_large(what, file)) from error
            raise
        except LocalEntryNotFoundError as error:  # the cause says why the hub was not reached
            raise error.__cause__ or error from None
        except OSError as error:
            if "Consistency check failed" in str(error):  # all that it says of a connection that ended early
                raise CutShort(str(error)) from error
            raise

    path = ask_hub(ask, what=what)
    _verify(path.resolve(), file, what)
    return path


def _link(cached: Path, destination: Path) -> None:
    destination.unlink(missing_ok=True)
    destination.symlink_to(cached.resolve())


def _is_right(path: Path, file: LockedFile) -> bool:
    """Whether a file has the size and the digest that the lock names."""
    return path.stat().st_size == file.bytes and _digest(path, file) == file.digest


def _verify(path: Path, file: LockedFile, what: str) -> None:
    found, size = _digest(path, file), path.stat().st_size
    if (size, found) == (file.bytes, file.digest):
        return
    raise WrongBytes(
        f"{what}: came with {size} bytes and digest {found} where the hub lists {file.bytes} bytes and {file.digest}. "
        "It is not used. Run again; if it comes back, the hub or a proxy on the way serves a wrong file."
    )


def _digest(path: Path, file: LockedFile) -> str:
    """Take the sha256 of a file, or git's name of it where the hub gives nothing else."""
    with path.open("rb") as stream:
        if not file.digest.startswith(GIT):
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
        return f"{GIT}{digest.hexdigest()}"
