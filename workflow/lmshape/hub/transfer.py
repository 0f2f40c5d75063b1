"""Download the files of a commit: resumed after a kill, verified byte for byte, renamed when whole.

Xet downloads in a process of its own, since hf_xet cannot be stopped from within when it hangs. The process says how
many bytes it has so far, and in the end where the file lies or why it does not. It ends with the one that started it.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import (
    HfFileMetadata,
    constants,
    get_hf_file_metadata,
    get_session,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status
from tqdm import tqdm

from lmshape.downloading import TRANSIENT, CutShort, held_bytes, reason_of, receive
from lmshape.errors import InputError
from lmshape.hub.client import ask_hub
from lmshape.hub.lock import LockedCheckpoint, LockedFile, Tokenizer
from lmshape.paths import no_xet_file, partial_folder
from lmshape.progress import progress, size_text
from lmshape.receipt import PARTIAL, digest_of, write_receipt, xet_folder
from lmshape.writing import NO_ROOM, name_whole_folder

_LOG = logging.getLogger(__name__)

# Without a byte, after which Xet is given up; on a slow line bytes are counted as they come.
XET_SILENCE_SECONDS = 180.0
XET_START_SECONDS = 120.0  # for the first word: a busy machine, a slow disk

WeightsIn = Literal["study", "cache"]
Transfer = Literal["auto", "http", "xet"]


class WrongBytes(InputError):
    """A file that came whole, and is another one than the hub's own listing says."""


def bring_files(
    one: LockedCheckpoint | Tokenizer,
    folder: Path,
    *,
    weights_in: WeightsIn = "study",
    transfer: Transfer = "http",
) -> None:
    """Download the files of a checkpoint or a tokenizer into `folder`, which appears when all are there and verified.

    Their folders in the repository are left out. What an earlier, killed call has received is taken up where it
    stopped. Over HTTP memory is constant, and the disk holds nothing beyond the files themselves.

    Raises
    ------
    InputError
        When the hub refuses them for good, or keeps sending other bytes than it lists.
    """
    arriving = partial_folder(folder)
    arriving.mkdir(parents=True, exist_ok=True)
    told = ("repository", "revision", "commit", "weights_sha256")
    listed = {Path(file.path).name: file.bytes for file in one.files}
    try:
        # first: what is deleted must be named
        write_receipt(
            arriving, **{name: getattr(one, name) for name in told if hasattr(one, name)}, files=listed
        )
        for file in one.files:
            download = _Download(one.repository, one.commit, file, no_xet_file(folder))
            download.bring(arriving / Path(file.path).name, weights_in, transfer)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise InputError(
                f"`{folder}`: no room on the disk ({error.strerror}). What was received is kept in `{arriving}`; make "
                "room, or limit downloads with `disk_budget_gb`, and run again."
            ) from error
        raise
    # in the place of an empty shell that an earlier release may have left
    name_whole_folder(arriving, folder, {Path(file.path).name: file.digest for file in one.files})


def cached_bytes(one: LockedCheckpoint) -> int:
    """Bytes of a checkpoint that lie in the user's cache already, and count nothing of the disk quota."""
    return sum(file.bytes for file in one.files if _cached(one.repository, one.commit, file))


def _cached(repository: str, commit: str, file: LockedFile) -> Path | None:
    """Return where a file lies in the user's cache; None where it does not."""
    found = try_to_load_from_cache(repository, file.path, revision=commit)
    return Path(found) if isinstance(found, str) else None


@dataclass(frozen=True, slots=True)
class _Download:
    """A file of a commit on its way.

    Attributes
    ----------
    repository, commit, file : where it lies, and what it is
    no_xet : file whose presence says that Xet has failed in this run
    """

    repository: str
    commit: str
    file: LockedFile
    no_xet: Path

    @property
    def what(self) -> str:
        """In the words of a message."""
        return f"`{self.file.path}` of `{self.repository}`"

    @property
    def order(self) -> dict[str, Any]:
        """Arguments of the hub's library."""
        return {
            "repo_id": self.repository,
            "filename": self.file.path,
            "revision": self.commit,
            "endpoint": constants.ENDPOINT,
        }

    def where(self) -> HfFileMetadata:
        """Ask the hub where the file lies."""
        return get_hf_file_metadata(hf_hub_url(**self.order), endpoint=constants.ENDPOINT)

    def bring(self, destination: Path, weights_in: WeightsIn, transfer: Transfer) -> None:
        """Put the file in its place: from the user's cache, or from the hub."""
        if destination.exists() and _is_right(destination, self.file):
            return
        cached = _cached(self.repository, self.commit, self.file)
        if cached and _is_right(cached, self.file):
            return _link(cached, destination)
        for repeated in (False, True):
            try:
                if weights_in == "cache":
                    return _link(self._through_cache(transfer, again=repeated), destination)
                return self._receive_whole(destination, transfer)
            except WrongBytes:  # a proxy may have spoilt them; the hub itself would send the same again
                if repeated:
                    raise

    def _receive_whole(self, destination: Path, transfer: Transfer) -> None:
        received = destination.with_name(f"{destination.name}{PARTIAL}")
        begun = transfer == "auto" and received.exists()
        folder = xet_folder(received)
        try:
            came = None if begun else self._by_xet(transfer, local_dir=str(folder))
            if came:
                os.replace(came, received)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # this, or what a killed job has left
        if not came and self.file.bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
            _LOG.warning("%s", self._large())
        ask_hub(
            lambda: receive(self._request, received, size=self.file.bytes),
            what=self.what,
            received=lambda: held_bytes(received),
        )
        try:
            _verify(received, self.file, self.what)
        except WrongBytes as error:
            received.unlink()
            if came:
                self._give_up_xet(error)
            raise
        os.replace(received, destination)

    def _by_xet(self, transfer: Transfer, **options: Any) -> Path | None:
        """Bring the file by Xet where the hub announces it; None where HTTP has to bring it.

        After any failure the rest of the run takes HTTP, which resumes, and says itself what is wrong.
        """
        if transfer == "http" or not self.file.has_sha256:
            return None
        may_come = xet_is_there() and not self.no_xet.exists()
        if may_come and ask_hub(self.where, what=self.what).xet_file_data is not None:
            try:
                return bring_by_xet({**self.order, **options}, size=self.file.bytes)
            except XetFailed as error:
                self._give_up_xet(error)
        if transfer == "xet":
            raise InputError(
                f"{self.what}: Xet cannot fetch it, and `transfer: xet` allows nothing else. `auto` falls back to HTTP."
            )
        return None

    def _give_up_xet(self, error: Exception) -> None:
        self.no_xet.touch()
        _LOG.warning(
            "%s: Xet failed (%s); this run downloads by HTTP from here on", self.what, reason_of(error)
        )

    def _request(self, range_headers: Mapping[str, str]) -> AbstractContextManager[httpx2.Response]:
        """Ask the hub where the file lies, and ask there for its bytes."""
        headers = {**build_hf_headers(), **range_headers}
        location = self.where().location
        if urlsplit(location).netloc != urlsplit(constants.ENDPOINT).netloc:
            headers.pop("authorization", None)  # the token is for the hub, not for the store it redirects to
        return get_session().stream(
            "GET", location, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )

    def _large(self) -> str:
        return (
            f"{self.what}: has {size_text(self.file.bytes)}, and the hub's store may refuse files of more than "
            f"{size_text(constants.MAX_HTTP_DOWNLOAD_SIZE)} over HTTP. Should it do so, install `hf_xet` and take "
            "`transfer: auto`, which downloads them by Xet."
        )

    def _through_cache(self, transfer: Transfer, *, again: bool) -> Path:
        """Let the hub's library put the file into the user's cache, in place of a wrong one where asked `again`."""
        by_http = again and transfer == "auto"
        came = None if by_http else self._by_xet(transfer, force_download=again)
        path = came or ask_hub(partial(self._into_cache, again=again), what=self.what)
        _verify(path.resolve(), self.file, self.what)
        return path

    def _into_cache(self, *, again: bool) -> Path:
        if self.file.bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:  # which it refuses
            raise InputError(self._large())
        return by_library(partial(hf_hub_download, **self.order, force_download=again))


def _link(cached: Path, destination: Path) -> None:
    destination.unlink(missing_ok=True)
    destination.symlink_to(cached.resolve())


def _is_right(path: Path, file: LockedFile) -> bool:
    """Whether a file has the size and the digest that the lock names."""
    return path.stat().st_size == file.bytes and digest_of(path, like=file.digest) == file.digest


def _verify(path: Path, file: LockedFile, what: str) -> None:
    if not _is_right(path, file):
        raise WrongBytes(
            f"{what}: came with {path.stat().st_size} bytes and digest {digest_of(path, like=file.digest)} where the "
            f"hub lists {file.bytes} bytes and {file.digest}. It is not used. Run again; if it happens again, the hub "
            "or a proxy on the way serves a wrong file."
        )


class XetFailed(ConnectionError):
    """A file does not come by Xet, for whatever reason."""


def xet_is_there() -> bool:
    """Whether hf_xet is installed and not turned off."""
    return find_spec("hf_xet") is not None and not constants.HF_HUB_DISABLE_XET


def by_library(download: Callable[[], str]) -> Path:
    """Let the hub's library download over HTTP into the user's cache; errors are such as `ask_hub` knows."""
    try:
        with _plain_http():
            return Path(download())
    except LocalEntryNotFoundError as error:  # the cause says why the hub was not reached
        raise error.__cause__ or error from None
    except OSError as error:
        if "Consistency check failed" in str(error):  # all that it says of a connection that ended early
            raise CutShort(str(error)) from error
        raise


@contextmanager
def _plain_http() -> Iterator[None]:
    """Keep the hub's library from Xet, from telling addresses, which are signed, and from a patience of its own.

    All three are settings of the process, which may be the user's: they are put back.
    """
    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    logger, session = logging.getLogger("huggingface_hub"), get_session()
    level, hooks = logger.level, session.event_hooks
    logger.setLevel(logging.ERROR)
    session.event_hooks = {**hooks, "response": [*hooks["response"], _refuse_at_once]}
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before
        logger.setLevel(level)
        session.event_hooks = hooks


def _refuse_at_once(response: httpx2.Response) -> None:
    """Raise what the library would ask for six times in each of our attempts."""
    if response.status_code in TRANSIENT:
        hf_raise_for_status(response)


def bring_by_xet(order: Mapping[str, Any], *, size: int) -> Path:
    """Let a process of its own download a file of the hub, and return where it lies.

    Parameters
    ----------
    order : arguments of `huggingface_hub.hf_hub_download`
    size : of the file, in bytes

    Raises
    ------
    XetFailed
        When the process says so, ends without a word, or no byte comes for `XET_SILENCE_SECONDS`.
    """
    context = get_context("spawn")
    told, tell = context.Pipe(duplex=False)
    process = context.Process(target=_bring_as_ordered, args=(dict(order), tell), daemon=True)
    process.start()
    tell.close()  # so that what is told ends with the process
    patience = XET_START_SECONDS
    try:
        with progress(size, description=Path(str(order["filename"])).name, unit="B") as bar:
            while told.poll(patience):
                patience, word = XET_SILENCE_SECONDS, told.recv()
                if isinstance(word, Path):
                    return word
                if isinstance(word, str):
                    raise XetFailed(word)
                bar.update(word - bar.n)
        raise XetFailed(f"no byte came for {patience:g} s")
    except EOFError:
        process.join()
        raise XetFailed(f"its process ended with {process.exitcode}") from None
    finally:
        process.kill()
        process.join()


def _bring_as_ordered(order: Mapping[str, Any], tell: Connection) -> None:
    """Download a file: tell the bytes so far, then the path of the file or the reason for its absence."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where the bars of the hub's library are drawn
    os.environ.setdefault("HF_XET_LOG_DEST", os.devnull)  # hf_xet's own log may tell signed addresses
    Thread(target=_end_with_parent, daemon=True).start()
    most = 0

    class Told(tqdm):
        """The hub library's progress bar, of received or of written bytes."""

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal most
            shown = super().update(n)
            most = max(most, int(self.n))
            tell.send(most)
            return shown

    tell.send(most)
    try:
        tell.send(Path(hf_hub_download(**order, tqdm_class=Told)))
    except Exception as error:  # RuntimeError is all that hf_xet says, and others may come from around it
        tell.send(reason_of(error))


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
