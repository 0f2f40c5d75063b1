"""The disk quota of downloaded weights: a download reserves its share first, and waits while others hold it.

What is held is read off the files themselves, so that a killed run leaves no wrong account.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from socket import gethostname

from lmshape.errors import InputError
from lmshape.hub.lock import WEIGHT_SUFFIXES, holds_weights
from lmshape.paths import STAGED, WEIGHTS, no_xet_file, partial_folder, staged_file
from lmshape.progress import gigabytes_above, size_text
from lmshape.receipt import delete_own, own_files, read_told
from lmshape.writing import is_abandoned, replaced_when_whole

_LOG = logging.getLogger(__name__)

BOOK = ".budget"
READ_MARK = ".read-"  # begins the name of the file that says that a reader has read the weights
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_WARNINGS = 60.0
LONGEST_SILENCE_SECONDS = 3600.0  # of another host's download, which cannot be looked up; pauses are shorter
LONGEST_WAIT_SECONDS = 12 * 3600.0  # without any change: a queue may be long, but not that long


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The part of the quota that one checkpoint takes.

    Attributes
    ----------
    folder : of its weights, from the working directory
    weights_bytes : what will be downloaded
    readers : datasets and truncations that will read the weights
    process, host : that downloads, and the machine it runs on; one that is dead will not finish
    """

    folder: str
    weights_bytes: int
    readers: Sequence[str] = ()
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=gethostname)

    @property
    def name(self) -> str:
        """Model and checkpoint."""
        return "/".join(Path(self.folder).parts[-2:])

    @property
    def partial(self) -> Path:
        """Where its weights lie while they are on their way."""
        return partial_folder(Path(self.folder))

    @property
    def arriving(self) -> bool:
        """Whether its weights are on their way; traces of an earlier download do not count then."""
        return self.partial.exists()

    @property
    def abandoned(self) -> bool:
        """Whether the process of the download has ended before the weights were whole."""
        owner = (self.process, self.host)
        return self.arriving and is_abandoned(self.partial, *owner, silence=LONGEST_SILENCE_SECONDS)

    def held(self) -> int:
        """Bytes that it holds or still will: of weights that have been deleted, nothing."""
        # In this order: weights that arrive between two looks would otherwise be seen in neither place.
        return self.weights_bytes if self.arriving or holds_weights(Path(self.folder)) else 0

    def unread(self) -> list[str]:
        """Name the readers that have not read the weights yet."""
        return [name for name in self.readers if self.arriving or not _read_mark(self.folder, name).exists()]


def reserve(wanted: Reservation, *, budget: int, keeps: bool, patience: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait until the quota has enough left, and take it; abandoned downloads are deleted.

    Parameters
    ----------
    wanted : what is needed; it takes the place of an earlier reservation of its name
    budget : bytes of all reservations together
    keeps : whether weights stay for good: waiting has no point then
    patience : seconds without any change after which waiting has no point

    Raises
    ------
    InputError
        When the quota could not hold the checkpoint even alone, or nothing moves for too long.
    """
    if wanted.weights_bytes > budget:
        raise InputError(
            f"`{wanted.name}` needs {size_text(wanted.weights_bytes)} of disk, `disk_budget_gb` allows "
            f"{size_text(budget)}. Raise it to at least {gigabytes_above(wanted.weights_bytes)}, or leave the "
            "checkpoint out."
        )
    before: Mapping[str, int] = {}
    changed, told = time.monotonic(), -SECONDS_BETWEEN_WARNINGS
    while holders := _holders_or_enter(wanted, budget):
        now, held = time.monotonic(), {one.name: one.held() for one in holders}
        changed, before = changed if held == before else now, held
        why = _why(wanted, held, budget)
        if keeps:
            raise InputError(
                f"{why} `keep_weights` keeps the weights. Raise the budget, or let read weights be deleted."
            )
        if now - changed > patience:
            raise InputError(f"{why} {_remedy(holders)}")
        if now - told > SECONDS_BETWEEN_WARNINGS:
            _LOG.warning("%s Waiting until they have been read.", why)
            told = now
        time.sleep(SECONDS_BETWEEN_LOOKS)


def release(folder: Path, reader: str, *, of: Sequence[str], keep: bool) -> None:
    """Note that a reader has read; after the last one delete the weights, and leave what says whose they were.

    Parameters
    ----------
    folder : weights of a checkpoint
    reader, of : the dataset or truncation that has read, and all that do
    keep : whether the weights stay
    """
    _read_mark(folder, reader).touch()
    if not keep and all(_read_mark(folder, name).exists() for name in of):
        delete_weights(folder)


def forget_readers(folder: Path) -> None:
    """Unmark who has read the weights, which are about to come again."""
    for mark in folder.glob(f"{READ_MARK}*"):
        mark.unlink()


def delete_weights(folder: Path) -> None:
    """Delete downloaded weights, or the links to the user's cache in their place; config.json and receipt stay.

    Weights that the receipt does not name, or that have another size, are the user's and stay.
    """
    for path in own_files(folder):
        if path.suffix in WEIGHT_SUFFIXES or path.name.endswith(".index.json"):
            path.unlink(missing_ok=True)


def clear_unneeded(root: Path, needed: set[Path]) -> list[Path]:
    """Delete downloaded weights, whole or partial, of checkpoints that a study does not have; return their folders.

    Folders without a receipt of a download, and files that it does not name, are the user's and stay.
    """
    cleared = []
    for folder in root.glob("results/weights/*/*"):
        whole = folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))
        if not folder.is_dir() or whole.relative_to(root) in needed or folder.parent.name == BOOK:
            continue
        if not read_told(folder).get("repository"):
            continue
        if folder != whole:
            delete_own(folder)
            cleared.append(folder)
        elif any(path.suffix in WEIGHT_SUFFIXES for path in own_files(folder)):
            delete_weights(folder)
            # so that they are downloaded when needed again
            (root / staged_file(folder)).unlink(missing_ok=True)
            cleared.append(folder)
    return cleared


def forget_last_run(root: Path) -> None:
    """Unmark weights that are gone though a run was killed before it had noted who had read them; try Xet anew.

    Called before a study is planned: what is not marked as there is downloaded again if anybody needs it.
    """
    (root / no_xet_file(Path(WEIGHTS))).unlink(missing_ok=True)
    for marker in root.glob(STAGED.format(model="*", checkpoint="*")):
        if not holds_weights(root / WEIGHTS.format(model=marker.parent.name, checkpoint=marker.name)):
            marker.unlink(missing_ok=True)


def _read_mark(folder: str | Path, reader: str) -> Path:
    """Name the file that says that a reader has read the weights."""
    return Path(folder) / f"{READ_MARK}{reader}"


def _holders_or_enter(wanted: Reservation, budget: int) -> list[Reservation]:
    """Take the quota and return an empty list; where too little is left, return those that hold it."""
    with _book(Path(wanted.folder).parents[1]) as book:
        others = _others(book, wanted)
        while sum(one.held() for one in others) + wanted.weights_bytes > budget:
            given_up = next((one for one in others if one.abandoned), None)
            if given_up is None:
                return others
            _LOG.warning(
                "%s: its partial download was deleted to free its share of the disk quota", given_up.name
            )
            delete_own(given_up.partial)
            others.remove(given_up)
        # The partial folder says that the download is on its way.
        wanted.partial.mkdir(parents=True, exist_ok=True)
        with replaced_when_whole(book / f"{wanted.name.replace('/', '@')}.json") as partial:
            partial.write_text(json.dumps(asdict(wanted)), encoding="utf-8")
        return []


@contextmanager
def _book(weights: Path) -> Iterator[Path]:
    """Hold the book of reservations alone; all that reserves for a study runs on one machine, where Snakemake does."""
    folder = weights / BOOK
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise InputError(
                f"`disk_budget_gb` needs file locks, and the file system of `{folder}` has none ({error.strerror}). "
                "Mount it with locks, run the study in another folder (`--directory`), or leave the key out."
            ) from error
        yield folder


def _others(book: Path, wanted: Reservation) -> list[Reservation]:
    """Read who else holds weights, and delete the entries of those that no longer do."""
    found = []
    for page in sorted(book.glob("*.json")):
        try:
            one = Reservation(**json.loads(page.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"`{page}` is damaged ({error}). Delete it, and run again.") from error
        if not one.held():
            page.unlink()
        elif one.name != wanted.name:
            found.append(one)
    return found


def _why(wanted: Reservation, held: Mapping[str, int], budget: int) -> str:
    holders = ", ".join(f"{other} {size_text(size)}" for other, size in held.items())
    return (
        f"`{wanted.name}` needs {size_text(wanted.weights_bytes)}; of the {size_text(budget)} of `disk_budget_gb` "
        f"are held: {holders}."
    )


def _remedy(holders: Sequence[Reservation]) -> str:
    unread = "; ".join(f"{one.name} by {', '.join(one.unread())}" for one in holders)
    folders = " ".join(one.folder for one in holders)
    return (
        f"Nothing has moved for hours. Not read yet: {unread}. Look at the logs of their extraction, and leave a "
        f"checkpoint that cannot be read out under `checkpoints`. This frees the disk: `rm -r {folders}`."
    )
