"""The registry: the models, texts and datasets that exist, and known faults of checkpoints.

Users may also name a local folder or a hub repository as a model: `known_as` enters them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from lmshape.errors import Problems, unknown
from lmshape.hub.integrity import Issue, read_issues
from lmshape.hub.published import path_safe
from lmshape.schema import Yaml, faults, read_yaml, schema_with_names, with_defaults
from lmshape.texts.corpus import PACKED, checked_span
from lmshape.texts.tokens import Order

REPOSITORY = Path(__file__).parents[3]
ROW_FILES = (".jsonl", ".jsonl.gz", ".json.gz", ".parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text: a local `path`, else a `url`, else a dataset of the hub; checksums and length of its raw bytes, if known.

    `column` is that of a path whose rows are the text; `hf` holds the arguments of `write_hub_dataset`.
    """

    name: str
    path: Path | None
    url: str | None
    hf: Mapping[str, Yaml] | None = None
    column: str = "text"
    md5: str | None
    sha256: str | None
    bytes: int | None
    license: str
    origin: str

    @property
    def is_of_rows(self) -> bool:
        """Whether it is a column of a local file."""
        return self.path is not None and self.path.name.endswith(ROW_FILES)

    @property
    def plain_path(self) -> Path | None:
        """The local file that holds the text as it is; None where there is none."""
        return None if self.path is None or self.path.suffix in PACKED else self.path

    def raw_bytes(self, root: Path) -> int | None:
        """Return the size of the text, as far as file or registry tell; 0 of an empty file."""
        size = (root / self.path).stat().st_size if self.path and (root / self.path).is_file() else None
        return size if size == 0 or (self.plain_path and size) else self.bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A part of a text, and the order of its tokens.

    Attributes
    ----------
    name : name in the registry
    text : name of the text; None for `random` tokens that follow no text
    clean : take Wikipedia's markup out first
    span : part of the text, from and to, as shares of its length
    order : as in the `text`, `shuffled` within each sequence, or `random` tokens of the model's vocabulary
    """

    name: str
    text: str | None
    clean: bool
    span: tuple[float, float]
    order: Order


@dataclass(frozen=True, slots=True)
class Registry:
    """Entries of models (folders not yet read), texts and datasets, and known faults."""

    models: Mapping[str, Mapping[str, Yaml]]
    texts: Mapping[str, Text]
    datasets: Mapping[str, Dataset]
    issues: tuple[Issue, ...] = ()


Entries = str | Path | Mapping[str, Yaml]  # a file, or entries as they would stand in one


def read_registry(
    models: Entries | Sequence[Entries],
    datasets: Entries | Sequence[Entries],
    issues_file: Path | None = None,
    *,
    root: Path,
) -> Registry:
    """Read the registry: lmshape's own files, and on top of them those of the study, the last one uppermost.

    Parameters
    ----------
    models, datasets : files and entries of the study; an entry takes the place of one of the same name
    issues_file : known faults; may be missing
    root : the working directory

    Raises
    ------
    InputError
        With every fault of them: a missing file, an unknown or missing key, a value out of range, a text
        without a source, a dataset of a text that is not there.
    """
    problems = Problems()
    entries: dict[str, Yaml] = {}
    for one in _layers(models, "models"):
        entries |= _read(one, "models", root, problems)
    texts: dict[str, Yaml] = {}
    known: dict[str, Yaml] = {}
    for one in _layers(datasets, "datasets"):
        found = _read(one, "datasets", root, problems)
        texts, known = texts | found.get("texts", {}), known | found.get("datasets", {})
    problems.raise_all(what=f"the registry ({_told(models)}, {_told(datasets)})")
    registry = Registry(
        entries,
        {name: _text(name, entry, root) for name, entry in texts.items()},
        {name: _dataset(name, entry, texts, problems) for name, entry in known.items()},
        read_issues(root / find_file(issues_file, root=root)) if issues_file else (),
    )
    where = _told(datasets)
    Problems(f"{where}: {problem}" for problem in problems).raise_all(what=where)
    return registry


def find_file(path: str | Path, *, root: Path) -> Path:
    """Path of a file named in configuration: from the working directory, else from lmshape's repository.

    The second lets a study run in any folder with the registry and the excerpt that the repository carries.
    """
    path = Path(path).expanduser()
    if (root / path).exists() or not (REPOSITORY / path).exists():
        return path
    return REPOSITORY / path


def _listed(given: Entries | Sequence[Entries]) -> list[Entries]:
    return [given] if isinstance(given, str | Path | Mapping) else list(given)


def _told(given: Entries | Sequence[Entries]) -> str:
    """Name the files of a registry."""
    return ", ".join("its entries" if isinstance(one, Mapping) else str(one) for one in _listed(given))


def _layers(given: Entries | Sequence[Entries], kind: str) -> list[Entries]:
    """Return what a registry is read from, lowest first: lmshape's file, unless it is among those given."""
    listed, ours = _listed(given), Path(f"config/{kind}.yaml")
    named = ours in [Path(one) for one in listed if isinstance(one, str | Path)]
    return listed if named or not (REPOSITORY / ours).is_file() else [REPOSITORY / ours, *listed]


def _read(source: Entries, schema_name: str, root: Path, problems: Problems) -> dict[str, Yaml]:
    """Read entries with their defaults; none where there are problems."""
    schema = schema_with_names(schema_name, {})
    with problems.noted():
        data = source if isinstance(source, Mapping) else read_yaml(root / find_file(source, root=root))
        where = f"registry.{schema_name}" if isinstance(source, Mapping) else source
        if not (found := faults(data, schema, where=f"{where}: ")):
            return with_defaults(data, schema)
        problems.extend(found)
    return {}


def _text(name: str, entry: Mapping[str, Yaml], root: Path) -> Text:
    given: dict[str, Yaml] = {part.name: entry.get(part.name) for part in fields(Text)}
    path = find_file(entry["path"], root=root) if "path" in entry else None
    return Text(**given | {"name": name, "path": path})


def _dataset(name: str, entry: Mapping[str, Yaml], texts: Iterable[str], problems: Problems) -> Dataset:
    text, span = entry.get("text"), (0.0, 1.0)
    if text is not None and text not in texts:
        problems.append(f"`datasets.{name}.text`: {unknown('text', text, texts)}")
    with problems.noted():
        span = checked_span(entry["span"], where=f"datasets.{name}.span")
    return Dataset(name=name, text=text, clean=entry["clean"], span=span, order=entry["order"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLog:
    """Files of a training run outside of the study: its losses, and the geometry of `lmshape.monitor`, if any."""

    losses: Path
    geometry: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files that there must be."""
        return [path for path in (self.losses, self.geometry) if path]


def loss_log_of(entry: str | Mapping[str, str], *, root: Path) -> LossLog:
    """Read an entry of `loss_logs`: paths from the working directory, else from the repository."""
    files = {"losses": entry} if isinstance(entry, str) else entry
    return LossLog(**{key: find_file(path, root=root) for key, path in files.items()})


def known_as(typed: Iterable[str], registry: Registry, *, root: Path) -> tuple[dict[str, str], Registry]:
    """Return what each folder and repository is called in the registry, and the registry with the entries it lacked.

    Names that are neither are left out.
    """
    names: dict[str, str] = {}
    models = dict(registry.models)
    for one in typed:
        if one not in models and ("/" in one or one.startswith((".", "~"))):
            source = _source(one, root)
            names[one] = _known(source, models) or _free_name(one, source, models, root)
            models.setdefault(names[one], with_defaults({one: source}, schema_with_names("models", {}))[one])
    return names, replace(registry, models=models)


def _source(typed: str, root: Path) -> dict[str, str]:
    """Return the entry: a folder where it looks like a path or there is one, else a repository of the hub."""
    local = typed.startswith(("/", ".", "~")) or (root / typed).is_dir()
    return {"folder": typed} if local or typed.count("/") != 1 else {"repository": typed}


def _known(source: Mapping[str, str], models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the registry's first name of the same run."""
    ((key, value),) = source.items()
    alike = os.path.normpath if key == "folder" else str.lower
    return next(
        (name for name, entry in models.items() if key in entry and alike(entry[key]) == alike(value)), None
    )


def _free_name(typed: str, source: Mapping[str, str], models: Iterable[str], root: Path) -> str:
    """Name an entry by the end of its path; by more of it where another has that name."""
    whole = str((root / Path(typed).expanduser()).resolve()) if "folder" in source else typed
    parts = [part for part in whole.split("/") if part]
    ends = [path_safe("-".join(parts[-length:])).lstrip("-._+=") for length in range(1, len(parts) + 1)]
    numbered = (f"{next(filter(None, ends), 'model')}-{number}" for number in count(2))
    return next(name for name in chain(ends, numbered) if name and name not in models)
