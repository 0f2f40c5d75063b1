"""The disk budget: room for a checkpoint is taken before its download begins, and waited for when there is none.

A reservation covers the checkpoint's way through the study: its weights until the last dataset has been read, and
the activations that will be deleted until they are. What is held is read off the files themselves, so that a killed
run leaves no wrong account.
"""

from __future__ import annotations

import fcntl
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lmshape.errors import InputError
from lmshape.hub.lock import WEIGHTS
from lmshape.hub.receipt import has_weights
from lmshape.paths import partial_folder, staged_file
from lmshape.sizes import size_text
from lmshape.store.atomic import replaced_when_whole

LOG = logging.getLogger(__name__)

BOOK = ".budget"
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LOG_LINES = 60.0
LONGEST_WAIT_SECONDS = 12 * 3600.0  # without any change: a queue may be long, but not that long
GIGABYTE = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Room for one checkpoint.

    Attributes
    ----------
    folder : of its weights, from the working directory
    weights_bytes : what will be downloaded
    datasets : those that will be read
    activations : dataset → its activation file, of those that will be deleted once measured
    activation_bytes : size of each of these files
    """

    folder: str
    weights_bytes: int
    datasets: list[str]
    activations: Mapping[str, str] = field(default_factory=dict)
    activation_bytes: int = 0

    @property
    def total(self) -> int:
        """Most that the checkpoint will ever hold."""
        return self.weights_bytes + self.activation_bytes * len(self.activations)

    def held(self) -> int:
        """Bytes that it holds or still will: of what has been deleted, nothing."""
        folder = Path(self.folder)
        arriving = partial_folder(folder).exists()
        weights = self.weights_bytes if arriving or has_weights(folder) else 0
        waiting = [
            dataset
            for dataset, file in self.activations.items()
            if Path(file).exists() or (weights and not mark(folder, "read", dataset).exists())
        ]
        return weights + self.activation_bytes * len(waiting)


def reserve(wanted: Reservation, *, budget: int, keeps: bool, patience: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait until there is room, and take it; weights whose every remaining reader has failed make room.

    Parameters
    ----------
    wanted : what is needed; of the same folder it takes the place of an earlier one
    budget : bytes of all reservations together
    keeps : whether weights stay for good: then nobody waits for what nobody will delete
    patience : seconds without any change after which waiting has no point

    Raises
    ------
    InputError
        When the budget could not hold the checkpoint even alone, or nothing moves for too long.
    """
    name = _name(wanted.folder)
    if wanted.total > budget:
        raise InputError(
            f"`{name}` needs {size_text(wanted.total)} of disk, `disk_budget_gb` allows {size_text(budget)}. "
            f"Raise it to at least {wanted.total / GIGABYTE:.3g}, or take fewer tokens or datasets."
        )
    changed, told, before = time.monotonic(), -SECONDS_BETWEEN_LOG_LINES, ""
    while True:
        with _book(Path(wanted.folder).parents[1]) as book:
            others = {_name(one.folder): one.held() for one in _others(book, wanted)}
            if sum(others.values()) + wanted.total <= budget:
                return _enter(book, wanted)
            if _evict_failed(book, wanted):
                continue
        now, state = time.monotonic(), json.dumps(others)
        changed = now if state != before else changed
        before = state
        if keeps or now - changed > patience:
            raise InputError(_no_room(name, wanted, others, budget, keeps=keeps))
        if now - told > SECONDS_BETWEEN_LOG_LINES:
            LOG.warning("%s", _no_room(name, wanted, others, budget, keeps=keeps, waiting=True))
            told = now
        time.sleep(SECONDS_BETWEEN_LOOKS)


def release(folder: Path, dataset: str, *, of: list[str], keep: bool) -> None:
    """Note that a dataset has been read; after the last one delete the weights, and leave what says whose they were.

    Parameters
    ----------
    folder : weights of a checkpoint
    dataset, of : the one that has been read, and all that are
    keep : whether the weights stay
    """
    mark(folder, "failed", dataset).unlink(missing_ok=True)
    mark(folder, "read", dataset).touch()
    if not keep and all(mark(folder, "read", name).exists() for name in of):
        delete_weights(folder)


def delete_weights(folder: Path) -> None:
    """Delete the weights, or the links to the user's cache in their place; config.json and receipt stay."""
    for path in folder.iterdir():
        if path.suffix in WEIGHTS or path.name.endswith(".index.json"):
            path.unlink(missing_ok=True)


def mark(folder: Path, word: str, dataset: str) -> Path:
    """Name the file that says what has become of a dataset: `read` or `failed`."""
    return folder / f".{word}-{dataset}"


def clear_unneeded(root: Path, needed: set[Path]) -> list[Path]:
    """Delete downloaded weights, whole or partial, of checkpoints that a study does not have; return their folders."""
    cleared = []
    for folder in root.glob("results/weights/*/*"):
        whole = folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))
        if not folder.is_dir() or whole.relative_to(root) in needed or folder.parent.name == BOOK:
            continue
        if folder != whole:
            shutil.rmtree(folder)
            cleared.append(folder)
        elif has_weights(folder):
            delete_weights(folder)
            cleared.append(folder)
    return cleared


@contextmanager
def _book(root: Path) -> Iterator[Path]:
    """Hold the book of reservations alone; all downloads of a study run on one machine."""
    folder = root / BOOK
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder


def _others(book: Path, wanted: Reservation) -> list[Reservation]:
    found = []
    for path in sorted(book.glob("*.json")):
        one = Reservation(**json.loads(path.read_text(encoding="utf-8")))
        if one.folder != wanted.folder:
            if one.held():
                found.append(one)
            else:
                path.unlink()
    return found


def _enter(book: Path, wanted: Reservation) -> None:
    """Write the reservation; the partial folder says that the download is on its way."""
    partial_folder(Path(wanted.folder)).mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(book / f"{_name(wanted.folder).replace('/', '--')}.json") as partial:
        partial.write_text(json.dumps(asdict(wanted)), encoding="utf-8")


def _evict_failed(book: Path, wanted: Reservation) -> bool:
    """Delete the weights of a checkpoint all of whose unread datasets have failed: this run will not read them."""
    for one in _others(book, wanted):
        folder = Path(one.folder)
        unread = [name for name in one.datasets if not mark(folder, "read", name).exists()]
        if has_weights(folder) and unread and all(mark(folder, "failed", name).exists() for name in unread):
            LOG.warning("%s: deleted to make room, since reading it has failed", _name(one.folder))
            delete_weights(folder)
            staged_file(folder).unlink(missing_ok=True)  # so that the next run downloads it again
            return True
    return False


def _no_room(
    name: str,
    wanted: Reservation,
    others: Mapping[str, int],
    budget: int,
    *,
    keeps: bool,
    waiting: bool = False,
) -> str:
    holders = ", ".join(f"{other} {size_text(size)}" for other, size in others.items())
    room = f"of the {size_text(budget)} of `disk_budget_gb` are held: {holders}"
    text = f"`{name}` needs {size_text(wanted.total)}; {room}."
    if waiting:
        return f"{text} Waiting until they have been read."
    if keeps:
        return f"{text} `keep_weights` keeps them. Raise the budget, or let weights be deleted once read."
    return (
        f"{text} Nothing has moved for hours. Look at the logs of their extraction, or delete their weights."
    )


def _name(folder: str) -> str:
    return "/".join(Path(folder).parts[-2:])
