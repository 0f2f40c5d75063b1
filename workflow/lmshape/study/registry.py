"""The registry: which models, texts and datasets exist, and what is wrong with some, as its files say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    """A text file: a local `path`, else a `url`; checksums and length of its raw bytes, if known."""

    name: str
    path: Path | None
    url: str | None
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
    """What exists: entries of models (folders not yet looked into), texts and datasets; known faults."""

    models: Mapping[str, Mapping[str, Yaml]]
    texts: Mapping[str, Text]
    datasets: Mapping[str, Dataset]
    issues: tuple[Issue, ...] = ()


def read_registry(
    models_file: Path, datasets_file: Path, issues_file: Path | None = None, *, root: Path
) -> Registry:
    """Read the files of the registry, each once; the file of known faults may be missing.

    Raises
    ------
    InputError
        With every fault of them: a missing file, an unknown or missing key, a value out of range, a text
        without a source, a dataset of a text that is not there.
    """
    problems: list[str] = []
    models = _read(models_file, "models", root, problems)
    datasets = _read(datasets_file, "datasets", root, problems)
    raise_all(problems, what=f"the registry ({models_file}, {datasets_file})")
    texts, known = datasets["texts"], datasets["datasets"]
    registry = Registry(
        models,
        {name: _text(name, entry, root, problems) for name, entry in texts.items()},
        {name: _dataset(name, entry, texts, problems) for name, entry in known.items()},
        read_issues(root / find_file(issues_file, root=root)) if issues_file else (),
    )
    raise_all((f"{datasets_file}: {problem}" for problem in problems), what=f"{datasets_file}")
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


def _read(file: Path, schema_name: str, root: Path, problems: list[str]) -> dict[str, Yaml]:
    schema = schema_with_names(schema_name, {})
    try:
        data = read_yaml(root / find_file(file, root=root))
    except InputError as error:
        problems.append(str(error))
        return {}
    found = faults(data, schema, where=f"{file}: ")
    problems.extend(found)
    return {} if found else with_defaults(data, schema)


def _text(name: str, entry: Mapping[str, Yaml], root: Path, problems: list[str]) -> Text:
    path, url = entry.get("path"), entry.get("url")
    if path is None and url is None:
        problems.append(f"`texts.{name}`: needs `path`, a file on this machine, or `url`.")
    elif path is None and not {"md5", "sha256"} & entry.keys():
        problems.append(f"`texts.{name}`: a download needs `md5` or `sha256` of the raw text to be verified.")
    return Text(
        name=name,
        path=None if path is None else find_file(path, root=root),
        url=url,
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
    """Files of a training run of somebody else: its losses, and what `lmshape.monitor` measured in it, if anything."""

    losses: Path
    geometry: Path | None

    @property
    def files(self) -> list[Path]:
        """The files that there must be."""
        return [self.losses, *([self.geometry] if self.geometry else [])]


def read_loss_log(entry: str | Mapping[str, str], *, root: Path) -> LossLog:
    """Read an entry of `loss_logs`: paths from the working directory, else from the repository."""
    files = {"losses": entry} if isinstance(entry, str) else entry
    found = {key: find_file(path, root=root) for key, path in files.items()}
    return LossLog(losses=found["losses"], geometry=found.get("geometry"))
