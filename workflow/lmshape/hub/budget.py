"""The disk budget: room is taken before a download or a local extraction begins, and waited for when there is none.

What is held is read off the files themselves, so that a killed run leaves no wrong account.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from socket import gethostname

from lmshape.errors import InputError
from lmshape.hub.lock import WEIGHTS, has_weights
from lmshape.hub.passing import Passing
from lmshape.paths import STAGED, partial_folder, staged_file
from lmshape.paths import WEIGHTS as WEIGHTS_OF
from lmshape.progress import gigabytes_above, size_text
from lmshape.writing import is_abandoned, replaced_when_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Room for one checkpoint.

    Attributes
    ----------
    folder : of its weights, from the working directory
    weights_bytes : what will be downloaded
    datasets : those that will be read, and truncations, which read the weights as well
    activations : dataset → its activation file, of those that will be deleted once measured
    activation_bytes : size of each of these files
    process, host : that downloads, and the machine it runs on; one that is dead will not finish
    """

    folder: str
    weights_bytes: int
    datasets: list[str]
    activations: Mapping[str, str] = field(default_factory=dict)
    activation_bytes: int = 0
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=gethostname)

    @property
    def name(self) -> str:
        """Model and checkpoint."""
        return "/".join(Path(self.folder).parts[-2:])

    @property
    def results(self) -> Path:
        """Folder of all results, where the book of reservations lies."""
        return Path(self.folder).parents[2]

    @property
    def total(self) -> int:
        """Most that the checkpoint will ever hold."""
        return self.weights_bytes + self.activation_bytes * len(self.activations)

    @property
    def arriving(self) -> bool:
        """Whether its weights are on their way: what an earlier visit of theirs has left behind says nothing now."""
        return partial_folder(Path(self.folder)).exists()

    def held_weights(self) -> int:
        """Bytes of weights that it holds or still will: of what has been deleted, nothing."""
        return self.weights_bytes if self.arriving or has_weights(Path(self.folder)) else 0

    def held(self) -> int:
        """Bytes of weights and passing activations that it holds or still will."""
        waiting = [dataset for dataset, file in self.activations.items() if self._waits(dataset, Path(file))]
        return self.held_weights() + self.activation_bytes * len(waiting)

    def begin(self) -> None:
        """Hold the room from now on: the partial folder says that the download is on its way."""
        partial_folder(Path(self.folder)).mkdir(parents=True, exist_ok=True)

    def _waits(self, dataset: str, file: Path) -> bool:
        # In the order in which they come: weights on their way, weights unread, activations. Looked at in any other,
        # a file that moves on between two looks would be seen in neither place.
        folder = Path(self.folder)
        return (
            self.arriving
            or (has_weights(folder) and not mark(folder, "read", dataset).exists())
            or file.exists()
        )


def has_failed(folder: Path, reader: str) -> bool:
    """Whether a dataset could not be extracted, or a truncation not be made: it waits for its dataset's extraction."""
    return any(mark(folder, "failed", name).exists() for name in (reader, reader.partition("@")[0]))


def mark(folder: Path, word: str, dataset: str) -> Path:
    """Name the file that says what has become of a dataset: `read` or `failed`."""
    return folder / f".{word}-{dataset}"


LOG = logging.getLogger(__name__)

BOOK = ".budget"
SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_BETWEEN_LOG_LINES = 60.0
LONGEST_SILENCE_SECONDS = 3600.0  # of another host's download, which cannot be looked up; pauses are shorter
LONGEST_WAIT_SECONDS = 12 * 3600.0  # without any change: a queue may be long, but not that long
ANOTHER_ATTEMPT_SECONDS = 600.0  # where all that holds room has failed: a cluster may try again
KEPT = "`keep_weights` keeps the weights. Raise the budget, or let weights be deleted once read."
UNMEASURED = "Measuring them has failed. Look at the logs below results/logs/measure, and run again."
STUCK = "Nothing has moved for hours. Look at the logs of their extraction, or delete their weights."


Room = Reservation | Passing


def reserve(wanted: Room, *, budget: int, keeps: bool, patience: float = LONGEST_WAIT_SECONDS) -> None:
    """Wait until there is room, and take it.

    Weights whose every remaining reader has failed make room, and so do downloads that nobody goes on with.

    Parameters
    ----------
    wanted : what is needed, of a download or of a local run's cell; it takes the place of an earlier one of its name
    budget : bytes of all reservations together
    keeps : whether weights stay for good: then nobody waits for what nobody will delete
    patience : seconds without any change after which waiting has no point

    Raises
    ------
    InputError
        When the budget could not hold the checkpoint even alone, or nothing moves for too long.
    """
    name = wanted.name
    if wanted.total > budget:
        raise InputError(
            f"`{name}` needs {size_text(wanted.total)} of disk, `disk_budget_gb` allows {size_text(budget)}. "
            f"Raise it to at least {gigabytes_above(wanted.total)}, or take fewer tokens or datasets."
        )
    changed, told, before = time.monotonic(), -SECONDS_BETWEEN_LOG_LINES, ""
    while True:
        with _book(wanted.results / "weights") as book:
            reserved = _others(book, wanted)
            others = {one.name: one.held() for one in reserved}
            if sum(others.values()) + wanted.total <= budget:
                return _enter(book, wanted)
            downloads = [one for one in reserved if isinstance(one, Reservation)]
            if _evict_abandoned(downloads) or (not keeps and _evict_failed(downloads)):
                continue
        in_vain = keeps and sum(one.held_weights() for one in reserved) + wanted.total > budget
        now, state = time.monotonic(), json.dumps(others)
        changed = now if state != before else changed
        before = state
        if in_vain:
            raise InputError(f"{_no_room(name, wanted, others, budget)} {KEPT}")
        stuck = bool(reserved) and all(isinstance(one, Passing) and one.is_stuck for one in reserved)
        if now - changed > (min(patience, ANOTHER_ATTEMPT_SECONDS) if stuck else patience):
            raise InputError(f"{_no_room(name, wanted, others, budget)} {UNMEASURED if stuck else STUCK}")
        if now - told > SECONDS_BETWEEN_LOG_LINES:
            LOG.warning("%s Waiting until they have been read.", _no_room(name, wanted, others, budget))
            told = now
        time.sleep(SECONDS_BETWEEN_LOOKS)


def release(folder: Path, dataset: str, *, of: list[str], keep: bool) -> None:
    """Note that a dataset has been read; after the last one delete the weights, and leave what says whose they were.

    Parameters
    ----------
    folder : weights of a checkpoint
    dataset, of : the one that has been read, and all that are; a truncation counts as one of its own
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
            _unstage(folder, root=root)
            cleared.append(folder)
    return cleared


def forget_deleted(root: Path) -> None:
    """Unmark weights that are gone though a run was killed before it had noted who had read them.

    Called before a study is planned: what is not marked as there is downloaded again if anybody needs it.
    """
    for marker in root.glob(STAGED.format(model="*", checkpoint="*")):
        if not has_weights(root / WEIGHTS_OF.format(model=marker.parent.name, checkpoint=marker.name)):
            marker.unlink(missing_ok=True)


@contextmanager
def _book(root: Path) -> Iterator[Path]:
    """Hold the book of reservations alone; all that reserves for a study runs on one machine, where Snakemake does."""
    folder = root / BOOK
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


def _others(book: Path, wanted: Room) -> list[Room]:
    found = []
    for path in sorted(book.glob("*.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        one = Passing(**fields) if "marker" in fields else Reservation(**fields)
        if one.name != wanted.name:
            if one.held():
                found.append(one)
            else:
                path.unlink()
    return found


def _enter(book: Path, wanted: Room) -> None:
    wanted.begin()
    with replaced_when_whole(book / f"{wanted.name.replace('/', '@')}.json") as partial:
        partial.write_text(json.dumps(asdict(wanted)), encoding="utf-8")


def _evict_abandoned(reserved: Sequence[Reservation]) -> bool:
    """Delete what has come of a download that was killed or has failed; if it is tried again, from the beginning."""
    for one in reserved:
        partial = partial_folder(Path(one.folder))
        if one.arriving and is_abandoned(partial, one.process, one.host, silence=LONGEST_SILENCE_SECONDS):
            LOG.warning("%s: what came of its download was deleted to make room", one.name)
            shutil.rmtree(partial)
            return True
    return False


def _evict_failed(reserved: Sequence[Reservation]) -> bool:
    """Delete the weights of a checkpoint that whoever has not read them has failed to: this run will not read them."""
    for one in reserved:
        folder = Path(one.folder)
        unread = [name for name in one.datasets if not mark(folder, "read", name).exists()]
        failed = bool(unread) and all(has_failed(folder, name) for name in unread)
        if failed and not one.arriving and has_weights(folder):
            LOG.warning("%s: deleted to make room, since reading it has failed", one.name)
            _unstage(folder)
            return True
    return False


def _unstage(folder: Path, *, root: Path = Path()) -> None:
    """Delete weights, and the file that says that they are there, so that they are downloaded when needed again."""
    delete_weights(folder)
    (root / staged_file(folder)).unlink(missing_ok=True)


def _no_room(name: str, wanted: Room, others: Mapping[str, int], budget: int) -> str:
    holders = ", ".join(f"{other} {size_text(size)}" for other, size in others.items())
    room = f"of the {size_text(budget)} of `disk_budget_gb` are held: {holders}"
    return f"`{name}` needs {size_text(wanted.total)}; {room}."
