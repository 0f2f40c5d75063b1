r"""The lock of a model: commit and weights of each checkpoint, as one TSV file.

One row per checkpoint, readable as a table (`pandas.read_csv(path, sep="\t", comment="#")`; text is in quotes, since a
note may hold a `#`); what holds for the whole model stands above it, in lines that begin with `#`. Later runs use the
commits that the lock names, whatever the hub's branches have come to point at; `lmshape lock --update` renews it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import starmap, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from lmshape.errors import InputError
from lmshape.receipt import GIT, RECEIPT, is_copied, read_told
from lmshape.schema import Yaml
from lmshape.writing import replaced_when_whole

FORMAT = "lmshape-lock 3"
OLDER = ("lmshape-lock 1", "lmshape-lock 2")  # without `other_files`; without `sha256`
LOCK_COLUMNS = tuple(
    "checkpoint step tokens_seen verdict same_weights_as note repository revision ref commit subfolder "
    "weights_format weights_bytes weights_sha256 revised files other_files".split()
)
HEAD = ("model", "asked", "identity", "facts", "corrected", "main_sha256")
MAIN = "main"  # the branch that every repository has
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
UNLOADABLE = ("no_weights", "incomplete")  # verdicts
NOT_ASKED = "not_asked"  # verdict
_FORMAT_OF = re.compile(r"\.(safetensors|bin|gguf)(?:\.index\.json)?$")


class LockedFile(NamedTuple):
    """A file of a commit.

    Attributes
    ----------
    path : from the root of the repository
    bytes : size
    digest : what identifies its bytes: their sha256 where the hub says it (large files), else `GIT` and git's name
    """

    path: str
    bytes: int
    digest: str

    @property
    def has_sha256(self) -> bool:
        """Whether its digest is a sha256, as that of all files of the hub's large file storage."""
        return not self.digest.startswith(GIT)

    @property
    def format(self) -> str:
        """Format of the weights that it holds, or whose index it is: safetensors, bin or gguf; "" of other files."""
        match = _FORMAT_OF.search(self.path)
        return match[1] if match else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedCheckpoint:
    """A checkpoint on the hub: where it lies and, once the hub was asked, the commit and the files of its name.

    Attributes
    ----------
    checkpoint, step, tokens_seen : name in paths, training steps (-1: unknown), training tokens (NaN: unknown)
    repository, revision, subfolder : where it lies, as the hub spells it; the folder is "" for the root
    ref, commit : what the revision is (branch, tag, commit or pull request), and the commit that it means; "" as
        long as the hub was not asked
    files : what is downloaded: weights in one format, their index, config.json; no weights: nothing to load
    other_files : weights in formats that are not taken, and their index; None where an older lock does not say, or
        the hub was not asked for the files
    revised : how often an update has found other weights under this name
    verdict, same_weights_as, note : what the audit says of it
    """

    checkpoint: str
    step: int
    tokens_seen: float = math.nan
    repository: str
    revision: str
    ref: str = ""
    commit: str = ""
    subfolder: str = ""
    files: tuple[LockedFile, ...] = ()
    other_files: tuple[LockedFile, ...] | None = ()
    revised: int = 0
    verdict: str = "ok"
    same_weights_as: tuple[str, ...] = ()
    note: str = ""

    @property
    def weights(self) -> tuple[LockedFile, ...]:
        """Files that hold tensors, by name."""
        return tuple(sorted(file for file in self.files if file.path.endswith(WEIGHT_SUFFIXES)))

    def in_each_format(self) -> Iterator[LockedCheckpoint]:
        """Yield the checkpoint with its weights as they are taken, then in each other format."""
        listed = (*self.files, *(self.other_files or ()))
        for name in dict.fromkeys(file.format for file in listed if file.format):
            taken = tuple(file for file in listed if file.format in ("", name))
            yield replace(self, files=taken, other_files=tuple(file for file in listed if file not in taken))

    @property
    def asked(self) -> bool:
        """Whether the hub was asked for its files."""
        return bool(self.files) or self.other_files is not None

    @property
    def loadable(self) -> bool:
        """Whether the hub has all of its weights, as far as it was asked."""
        return (bool(self.weights) or not self.asked) and self.verdict not in UNLOADABLE

    @property
    def weights_format(self) -> str:
        """Format of the weights; "" without weights."""
        return self.weights[0].format if self.weights else ""

    @property
    def weights_bytes(self) -> int:
        """Size of the weights."""
        return sum(file.bytes for file in self.weights)

    @property
    def weights_sha256(self) -> str:
        """Fingerprint of the weights, as `lmshape.store.weights.weights_sha256` takes it; "" without weights.

        Where the hub gives no sha256 (small files that are not in its large file storage), git's names of the
        files take its place: still equal for equal weights, and for no others.
        """
        digests = [file.digest for file in self.weights]
        if len(digests) <= 1:
            return "".join(digests)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    @property
    def content(self) -> str:
        """Fingerprint of all that is downloaded, whatever its folder: equal contents give equal results."""
        told = sorted((file.path.rpartition("/")[2], file.digest) for file in self.files)
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """The files of a model's tokenizer, at one commit."""

    repository: str
    commit: str
    files: tuple[LockedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The known facts of a model's checkpoints.

    Attributes
    ----------
    model : name in the registry
    identity : what the registry said of where they lie, when the hub was asked
    facts : kind, architecture, blocks, width, vocabulary, context (None: no longest sequence), of config.json
    corrected : values of unverified keys of the registry that the hub's config.json contradicts
    tokenizer : its files; None where the repository has none
    main_sha256 : fingerprints of the weights on `main`, one a format; none where checkpoints are not branches beside it
    checkpoints : by step
    asked : UTC time at which the hub was asked
    """

    model: str
    identity: str
    facts: Mapping[str, str | int | None]
    tokenizer: Tokenizer | None
    main_sha256: tuple[str, ...]
    checkpoints: tuple[LockedCheckpoint, ...]
    asked: str
    corrected: Mapping[str, str | int] = field(default_factory=dict)

    def named(self, checkpoint: str) -> LockedCheckpoint | None:
        """Find a checkpoint by its name."""
        return next((one for one in self.checkpoints if one.checkpoint == checkpoint), None)


def identity_of(entry: Mapping[str, Yaml]) -> str:
    """Spell what decides where a model's checkpoints lie; another spelling makes a lock void."""
    keys = "repository revision step_pattern subfolder main_step tokens_per_step tokenizer also remote_code weights"
    if not any("{" in entry.get(key, "") for key in ("revision", "subfolder")):
        keys += " steps"  # the hub is asked for these alone; else for whatever has such a name
    told = {key: entry[key] for key in keys.split() if entry.get(key) not in (None, False)}
    return json.dumps(told, sort_keys=True)


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock; it appears when it is whole."""
    text = io.StringIO()
    head = {name: getattr(lock, name) for name in HEAD}
    head["tokenizer"] = lock.tokenizer and asdict(lock.tokenizer)
    text.writelines(f"# {key}: {json.dumps(value)}\n" for key, value in head.items())
    text.write("\t".join(LOCK_COLUMNS) + "\n")
    rows = csv.DictWriter(
        text, LOCK_COLUMNS, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC
    )
    rows.writerows(_row(checkpoint) for checkpoint in lock.checkpoints)
    first = f"# {FORMAT}: made by lmshape; `lmshape lock --update {lock.model}` renews it\n"
    with replaced_when_whole(path) as partial:
        partial.write_text(
            f"{first}# sha256: {_digest(text.getvalue())}\n{text.getvalue()}", encoding="utf-8"
        )


def _digest(text: str) -> str:
    """Hash what stands below the line with the hash."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_lock(path: Path) -> Lock | None:
    """Read a lock; None where there is none.

    Raises
    ------
    InputError
        When the file is not a lock, is of a version that this code does not know, or has changed since it was written.
    """
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return _lock(file.readlines())
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"`{path}` is not a lock that this lmshape can read ({error}). Delete it, and the hub is asked again; "
            "results of another commit are then refused by name."
        ) from None


def _lock(lines: Sequence[str]) -> Lock:
    if not lines or not lines[0].startswith(tuple(f"# {version}:" for version in (FORMAT, *OLDER))):
        raise ValueError(f"it begins with {lines[0][:40]!r}" if lines else "it is empty")
    if lines[0].startswith(f"# {FORMAT}:"):
        sums, lines = lines[1:2], [lines[0], *lines[2:]]
        if sums != [f"# sha256: {_digest(''.join(lines[1:]))}\n"]:
            raise ValueError("it has changed since it was written")
    head = list(takewhile(lambda line: line.startswith("# "), lines))
    values = {key: json.loads(value) for key, value in (line[2:].split(": ", 1) for line in head[1:])}
    tokenizer, main = values.pop("tokenizer"), values.pop("main_sha256")
    if isinstance(main, str):  # of version 1
        main = [main] if main else []
    return Lock(
        **values,
        main_sha256=tuple(main),
        tokenizer=tokenizer and Tokenizer(**{**tokenizer, "files": _files(tokenizer["files"])}),
        checkpoints=tuple(map(_checkpoint, csv.DictReader(lines[len(head) :], delimiter="\t"))),
    )


def _row(checkpoint: LockedCheckpoint) -> dict[str, str | int]:
    seen = checkpoint.tokens_seen
    spelt = {
        "tokens_seen": "" if math.isnan(seen) else int(seen),
        "same_weights_as": " ".join(checkpoint.same_weights_as),
        "files": json.dumps(checkpoint.files, separators=(",", ":")),
        "other_files": json.dumps(checkpoint.other_files, separators=(",", ":")),
    }
    return {name: spelt.get(name, getattr(checkpoint, name)) for name in LOCK_COLUMNS}


def _checkpoint(row: Mapping[str, str]) -> LockedCheckpoint:
    if None in row.values():
        raise ValueError(f"the row of {row['checkpoint']} is cut short")
    same = ("checkpoint", "repository", "revision", "ref", "commit", "subfolder", "verdict", "note")
    others = json.loads(row.get("other_files", "null"))
    return LockedCheckpoint(
        **{name: row[name] for name in same},
        step=int(row["step"]),
        tokens_seen=float(row["tokens_seen"] or math.nan),
        same_weights_as=tuple(row["same_weights_as"].split()),
        revised=int(row["revised"]),
        files=_files(json.loads(row["files"])),
        other_files=None if others is None else _files(others),
    )


def _files(listed: Sequence[Sequence[Any]]) -> tuple[LockedFile, ...]:
    return tuple(starmap(LockedFile, listed))


def read_receipt(folder: Path) -> dict[str, str]:
    """Return repository, revision, commit and weights_sha256 of downloaded weights; nothing for a local run.

    Raises
    ------
    InputError
        When the weights have been deleted since they were read, or the receipt is damaged.
    """
    if not (folder / RECEIPT).is_file():
        return {}
    if not holds_weights(folder):
        raise InputError(
            f"`{folder}`: the weights were deleted when the last dataset had been read. Download them again with "
            f"`snakemake --forcerun download`, or run the whole study, which knows when they are needed."
        )
    told = read_told(folder)
    if not told:
        raise InputError(
            f"`{folder / RECEIPT}` is damaged. Delete `{folder}`, and the next run brings the checkpoint again."
        )
    if is_copied(folder, told):  # what lies there may have been trained further
        return {}
    return {name: value for name, value in told.items() if name not in ("files", "place", "digests")}


def holds_weights(folder: Path) -> bool:
    """Whether a folder has weights, which another process may delete meanwhile."""
    try:
        return any(path.suffix in WEIGHT_SUFFIXES for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return False
