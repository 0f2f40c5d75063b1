"""The registry: the models, texts and datasets that exist, and known faults of checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lmshape.errors import InputError, unknown
from lmshape.hub.integrity import Issue, read_issues
from lmshape.schema import Yaml, faults, read_yaml, schema_with_names, with_defaults
from lmshape.study.settings import read_span

REPOSITORY = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text: a local `path`, else a `url`, else a dataset of the hub; checksums and length of its raw bytes, if known.

    `column` is that of a path whose rows are the text; `hf` holds the arguments of `lmshape.texts.rows`.
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
    order: Literal["text", "shuffled", "random"]


@dataclass(frozen=True, slots=True)
class Registry:
    """Entries of models (folders not yet read), texts and datasets, and known faults."""

    models: Mapping[str, Mapping[str, Yaml]]
    texts: Mapping[str, Text]
    datasets: Mapping[str, Dataset]
    issues: tuple[Issue, ...] = ()


OURS = {"models": Path("config/models.yaml"), "datasets": Path("config/datasets.yaml")}  # of the repository
Source = str | Path | Mapping[str, Yaml]  # a file, or entries as they would stand in one


def read_registry(
    models: Source | Sequence[Source],
    datasets: Source | Sequence[Source],
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
    problems: list[str] = []
    entries: dict[str, Yaml] = {}
    for one in _layers(models, "models"):
        entries |= _read(one, "models", root, problems)
    texts: dict[str, Yaml] = {}
    known: dict[str, Yaml] = {}
    for one in _layers(datasets, "datasets"):
        found = _read(one, "datasets", root, problems)
        texts, known = texts | found.get("texts", {}), known | found.get("datasets", {})
    raise_all(problems, what=f"the registry ({_told(models)}, {_told(datasets)})")
    registry = Registry(
        entries,
        {name: _text(name, entry, root, problems) for name, entry in texts.items()},
        {name: _dataset(name, entry, texts, problems) for name, entry in known.items()},
        read_issues(root / find_file(issues_file, root=root)) if issues_file else (),
    )
    where = _told(datasets)
    raise_all((f"{where}: {problem}" for problem in problems), what=where)
    return registry


def find_file(path: str | Path, *, root: Path) -> Path:
    """Path of a file named in configuration: from the working directory, else from lmshape's repository.

    The second lets a study run in any folder with the registry and the excerpt that the repository carries.
    """
    path = Path(path).expanduser()
    if (root / path).exists() or not (REPOSITORY / path).exists():
        return path
    return REPOSITORY / path


def raise_all(problems: Iterable[str], *, what: str) -> None:
    """Raise one error that tells every problem, if there is any."""
    problems = list(dict.fromkeys(problems))
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        raise InputError(
            f"{len(problems)} faults in {what}:\n" + "\n".join(f"- {problem}" for problem in problems)
        )


def _listed(given: Source | Sequence[Source]) -> list[Source]:
    return [given] if isinstance(given, str | Path | Mapping) else list(given)


def _told(given: Source | Sequence[Source]) -> str:
    """Name the files of a registry."""
    return ", ".join("its entries" if isinstance(one, Mapping) else str(one) for one in _listed(given))


def _layers(given: Source | Sequence[Source], kind: str) -> list[Source]:
    """Return what a registry is read from, lowest first: lmshape's file, unless it is among those given."""
    listed = _listed(given)
    ours = REPOSITORY / OURS[kind]
    named = OURS[kind] in [Path(one) for one in listed if isinstance(one, str | Path)]
    return listed if named or not ours.is_file() else [ours, *listed]


def _read(source: Source, schema_name: str, root: Path, problems: list[str]) -> dict[str, Yaml]:
    schema = schema_with_names(schema_name, {})
    try:
        data = source if isinstance(source, Mapping) else read_yaml(root / find_file(source, root=root))
    except InputError as error:
        problems.append(str(error))
        return {}
    where = f"registry.{schema_name}" if isinstance(source, Mapping) else source
    found = faults(data, schema, where=f"{where}: ")
    problems.extend(found)
    return {} if found else with_defaults(data, schema)


def _text(name: str, entry: Mapping[str, Yaml], root: Path, problems: list[str]) -> Text:
    path, url, hf = entry.get("path"), entry.get("url"), entry.get("hf")
    if path is None and url is None and hf is None:
        problems.append(f"`texts.{name}`: needs `path`, a file on this machine, or `url`, or `hf`.")
    elif path is None and hf is None and not {"md5", "sha256"} & entry.keys():
        problems.append(f"`texts.{name}`: a download needs `md5` or `sha256` of the raw text to be verified.")
    return Text(
        name=name,
        path=None if path is None else find_file(path, root=root),
        url=url,
        hf=hf,
        column=entry["column"],
        md5=entry.get("md5"),
        sha256=entry.get("sha256"),
        bytes=entry.get("bytes"),
        license=entry["license"],
        origin=entry["origin"],
    )


def _dataset(name: str, entry: Mapping[str, Yaml], texts: Iterable[str], problems: list[str]) -> Dataset:
    text, span = entry.get("text"), (0.0, 1.0)
    if text is not None and text not in texts:
        problems.append(f"`datasets.{name}.text`: {unknown('text', text, texts)}")
    try:
        span = read_span(entry["span"], where=f"datasets.{name}.span")
    except InputError as error:
        problems.append(str(error))
    return Dataset(name=name, text=text, clean=entry["clean"], span=span, order=entry["order"])


@dataclass(frozen=True, slots=True, kw_only=True)
class LossLog:
    """Files of a training run outside of the study: its losses, and the geometry of `lmshape.monitor`, if any."""

    losses: Path
    geometry: Path | None

    @property
    def files(self) -> list[Path]:
        """The files that there must be."""
        return [self.losses, *([self.geometry] if self.geometry else [])]


def loss_log_of(entry: str | Mapping[str, str], *, root: Path) -> LossLog:
    """Read an entry of `loss_logs`: paths from the working directory, else from the repository."""
    files = {"losses": entry} if isinstance(entry, str) else entry
    found = {key: find_file(path, root=root) for key, path in files.items()}
    return LossLog(losses=found["losses"], geometry=found.get("geometry"))
