"""Places of a published run's checkpoints on the hub, as the registry has them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from lmshape.errors import InputError
from lmshape.hub.lock import LockedFile
from lmshape.schema import Yaml

_PLACEHOLDER = re.compile(r"\{(step|kilo|billions)(?::0(\d)d)?\}")

MAIN = "main"
UNKNOWN_STEP = -1

# safetensors before PyTorch's .bin, which is loaded with weights only; GGUF where there is nothing else
_FORMATS = (
    (r"model\.safetensors", ""),
    (r"model-\d{5}-of-\d{5}\.safetensors", "model.safetensors.index.json"),
    (r"pytorch_model\.bin", ""),
    (r"pytorch_model-\d{5}-of-\d{5}\.bin", "pytorch_model.bin.index.json"),
    (r"[^/]+\.gguf", ""),
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
ONLY_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")

Steps = Sequence[int | dict[str, int]]


@dataclass(frozen=True, slots=True)
class Naming:
    """A template such as `stage1-step{step}-tokens{billions}B`, or a pattern that only reads.

    Attributes
    ----------
    template : `{step}`, also `{step:03d}` with leading zeros; `{kilo}`, step / 1000; `{billions}`, the tokens up
        to the step in billions, rounded up. Empty for a pattern
    pattern : what a whole name matches; its first group is the step, or the step / `unit`
    unit : steps that the number in the name counts
    tokens_per_step : tokens of a training step, needed for `{billions}`
    """

    template: str
    pattern: re.Pattern[str]
    unit: int = 1
    tokens_per_step: int | None = None

    @classmethod
    def of(cls, template: str, *, tokens_per_step: int | None = None) -> Self:
        """Read a template.

        Raises
        ------
        InputError
            When no placeholder, or several, hold the step; when `{billions}` has no `tokens_per_step`; for
            braces that are not placeholders.
        """
        found = [match[1] for match in _PLACEHOLDER.finditer(template)]
        rest = _PLACEHOLDER.sub("", template)
        if len([name for name in found if name != "billions"]) != 1 or {"{", "}"} & set(rest):
            raise InputError(
                f"`{template}`: must hold the step once, as {{step}}, {{step:03d}} or {{kilo}}; besides it "
                "only {billions} is known."
            )
        if "billions" in found and tokens_per_step is None:
            raise InputError(f"`{template}`: {{billions}} needs `tokens_per_step` beside it.")
        unit = 1000 if "kilo" in found else 1
        return cls(template, re.compile(_regular_expression(template)), unit, tokens_per_step)

    @classmethod
    def reading(cls, pattern: str) -> Self:
        """Take a regular expression for whole names whose first group is the step.

        Raises
        ------
        InputError
            When it is not a regular expression, or has no group.
        """
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise InputError(f"`step_pattern` = '{pattern}': not a regular expression ({error}).") from None
        if not compiled.groups:
            raise InputError(
                f"`step_pattern` = '{pattern}': needs a group around the step, as in `step(\\d+)`."
            )
        return cls("", compiled)

    def name(self, step: int) -> str:
        """Spell a step.

        >>> Naming.of("stage1-step{step}-tokens{billions}B", tokens_per_step=2_097_152).name(23100)
        'stage1-step23100-tokens49B'
        """
        tokens = step * (self.tokens_per_step or 0)
        values = {"step": step, "kilo": step // 1000, "billions": -(-tokens // 10**9)}
        return _PLACEHOLDER.sub(lambda match: f"{values[match[1]]:0{match[2] or 1}d}", self.template)

    def spells(self, step: int) -> bool:
        """Whether no other step has the same name: in thousands only whole ones do."""
        return step % self.unit == 0

    def step(self, name: str) -> int | None:
        """Read the step off a name; None for a name of another kind.

        >>> Naming.of("step_{kilo}k").step("step_20k")
        20000
        """
        match = self.pattern.fullmatch(name)
        digits = match[1] if match else None
        return int(digits) * self.unit if digits and digits.isdecimal() else None


def expand_steps(steps: Steps, *, where: str) -> tuple[int, ...]:
    """Write out `[0, 1, {from: 1000, to: 3000, every: 1000}]` as (0, 1, 1000, 2000, 3000).

    Raises
    ------
    InputError
        When the steps do not ascend, or a range ends before it begins.
    """
    expanded = tuple(step for entry in steps for step in _entry(entry, where))
    for before, after in zip(expanded, expanded[1:], strict=False):
        if after <= before:
            raise InputError(f"`{where}`: {after} follows {before}. List the steps in ascending order, once.")
    return expanded


def tokens_seen(step: int, tokens_per_step: int | None) -> float:
    """Training tokens up to a step; NaN where the step or its tokens are not known."""
    return math.nan if tokens_per_step is None or step < 0 else float(step * tokens_per_step)


def path_safe(name: str) -> str:
    """Replace whatever a path cannot hold by a dash."""
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", name)


def _entry(entry: int | dict[str, int], where: str) -> Sequence[int]:
    if isinstance(entry, int):
        return (entry,)
    first, last = entry["from"], entry["to"]
    if last < first:
        raise InputError(f"`{where}`: from {first} to {last} there is no step. Swap the two.")
    return range(first, last + 1, entry["every"])


def _regular_expression(template: str) -> str:
    pieces, end = [], 0
    for match in _PLACEHOLDER.finditer(template):
        pieces += [re.escape(template[end : match.start()]), r"\d+" if match[1] == "billions" else r"(\d+)"]
        end = match.end()
    return "".join([*pieces, re.escape(template[end:])])


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint on the hub.

    Attributes
    ----------
    name : as paths spell it: the revision's name made safe, or that of what else tells checkpoints apart
    step : training steps before it; -1 where it is not known
    repository, revision : as the hub spells them
    subfolder : folder within the repository, "" for its root
    """

    name: str
    step: int
    repository: str
    revision: str = MAIN
    subfolder: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A repository of a run, or a family of repositories, one a checkpoint.

    Attributes
    ----------
    repository, revision, subfolder : one of them is a template of the step, or none where there is one checkpoint
    naming : how that one is spelt; None for a single checkpoint
    varying : `repository`, `revision` or `subfolder`, whichever tells checkpoints apart; "" for a single one
    steps : published steps, None where only the hub knows
    main_step : step of the branch `main`, if the registry gives it
    """

    repository: str
    revision: str
    subfolder: str
    naming: Naming | None
    varying: str
    steps: tuple[int, ...] | None
    main_step: int | None

    @classmethod
    def of(cls, entry: Mapping[str, Yaml], *, where: str, tokens_per_step: int | None) -> Self:
        """Read the keys of one repository.

        Raises
        ------
        InputError
            For a template that cannot be read, two of them, steps without one, or steps that it cannot spell.
        """
        entry = {**entry, "subfolder": entry.get("subfolder", "").strip("/")}  # as the hub spells folders
        varying, naming = _naming(entry, tokens_per_step, where)
        steps = expand_steps(entry["steps"], where=f"{where}.steps") if "steps" in entry else None
        _check_steps(steps, entry, varying, naming, where)
        return cls(
            repository=entry["repository"],
            revision=entry.get("revision", ""),
            subfolder=entry["subfolder"],
            naming=naming,
            varying=varying,
            steps=steps,
            main_step=entry.get("main_step"),
        )

    def place(self, step: int) -> Place:
        """Say where the checkpoint of a step lies."""
        place = Place(f"step{step}", step, self.repository, self.revision or MAIN, self.subfolder)
        if self.naming is None:
            return place
        spelt = self.naming.name(step)
        name = place.name if self.varying == "repository" else path_safe(spelt)
        varied: dict[str, Any] = {"name": name, self.varying: spelt}
        return replace(place, **varied)

    def single(self) -> Place:
        """Return the one checkpoint of a repository, or the branch `main` beside the others."""
        step = self.main_step if self.main_step is not None else UNKNOWN_STEP
        revision = MAIN if self.varying == "revision" else self.revision or MAIN
        return Place(path_safe(revision), step, self.repository, revision, self.subfolder)

    def published(self) -> list[Place] | None:
        """List what the registry knows; None where only the hub does."""
        if self.varying and self.steps is None:
            return None
        places = [self.place(step) for step in self.steps or ()]
        return [*places, self.single()] if self.has_main() else places

    def has_main(self) -> bool:
        """Whether `main` is a checkpoint of its own: the only one, or of a step that no other name has."""
        if not self.varying:
            return self.steps is None
        beside = self.main_step is not None and self.main_step not in (self.steps or ())
        return self.varying == "revision" and beside


def read_sources(name: str, entry: Mapping[str, Yaml]) -> tuple[Source, ...]:
    """Read a model's repositories: its own, and those under `also`."""
    tokens = entry.get("tokens_per_step")
    more = [(f"{name}.also[{i}]", other) for i, other in enumerate(entry.get("also", ()))]
    return tuple(
        Source.of(part, where=where, tokens_per_step=tokens) for where, part in [(name, entry), *more]
    )


def listed_places(name: str, entry: Mapping[str, Yaml]) -> tuple[Place, ...] | None:
    """List a run's checkpoints by step, of equal steps the first source's; None where only the hub knows them.

    Raises
    ------
    InputError
        When the entry cannot be read, or two steps have one name in paths.
    """
    by_step: dict[int, Place] = {}
    for source in read_sources(name, entry):
        places = source.published()
        if places is None:
            return None
        for place in places:
            by_step.setdefault(place.step, place)
    ordered = tuple(by_step[step] for step in sorted(by_step))
    check_names(ordered)
    return ordered


def check_names(places: Sequence[Place]) -> None:
    """Refuse places that paths could not tell apart.

    Raises
    ------
    InputError
        Naming two of them.
    """
    named: dict[str, Place] = {}
    for place in places:
        other = named.setdefault(place.name, place)
        if other is not place:
            raise InputError(
                f"`{other.repository}` and `{place.repository}`: steps {other.step} and {place.step} would both have "
                f"the name {place.name}. Give one of them as `steps: [{place.step}]`, without `main_step`."
            )


def _check_steps(
    steps: Sequence[int] | None, entry: Mapping[str, Yaml], varying: str, naming: Naming | None, where: str
) -> None:
    if steps is None:
        if varying == "repository":
            raise InputError(
                f"`{where}`: the hub cannot list the repositories of `{entry['repository']}`. Give their `steps`."
            )
        return
    if "step_pattern" in entry:
        raise InputError(
            f"`{where}`: `step_pattern` reads steps off the hub's names and cannot spell `steps`. Keep one of them, "
            "or give `revision` as a template."
        )
    if naming is None:
        if len(steps) != 1:
            raise InputError(
                f"`{where}.steps`: nothing distinguishes the {len(steps)} steps. Give `revision` as a template, "
                "such as step{step}."
            )
        return
    odd = [step for step in steps if not naming.spells(step)]
    if odd:
        raise InputError(
            f"`{where}.steps`: {odd[0]} is not a multiple of {naming.unit}, and `{naming.template}` counts in these."
        )


def _naming(entry: Mapping[str, Yaml], tokens_per_step: int | None, where: str) -> tuple[str, Naming | None]:
    """Say which key tells the step, and how."""
    keys = ("repository", "revision", "subfolder")
    templates = {key: entry[key] for key in keys if "{" in entry.get(key, "")}
    patterns = (
        [key for key in ("revision", "step_pattern") if key in entry] if "step_pattern" in entry else []
    )
    telling = list(dict.fromkeys([*templates, *patterns]))
    if len(telling) > 1:
        raise InputError(f"`{where}`: {', '.join(telling)} all give the step. Keep one of them.")
    try:
        if "step_pattern" in entry:
            return "revision", Naming.reading(entry["step_pattern"])
        for key, template in templates.items():
            return key, Naming.of(template, tokens_per_step=tokens_per_step)
    except InputError as error:
        raise InputError(f"`{where}`: {error}") from None
    return "", None


def files_of_checkpoint(
    listed: Sequence[LockedFile], subfolder: str, *, code: bool = False, prefer: str = ""
) -> tuple[tuple[LockedFile, ...], tuple[LockedFile, ...]]:
    """Choose what to download of a listing, and name beside it the weights in other formats.

    Parameters
    ----------
    listed, subfolder : files of a commit, and the folder of the checkpoint
    code : whether Python files are downloaded too
    prefer : format to take where it is there; else safetensors before PyTorch's .bin before GGUF

    Returns
    -------
    config.json, the index and the weights in one format, as far as they are there; the same of the other formats
    """
    inside = _inside(listed, subfolder)
    common = [inside["config.json"]] if "config.json" in inside else []
    common += [inside[name] for name in sorted(inside) if code and name.endswith(".py")]
    weights: dict[str, list[LockedFile]] = {}
    for pattern, index in _FORMATS:
        names = sorted(name for name in inside if re.fullmatch(pattern, name))
        if names:
            names = names[:1] if pattern.endswith("gguf") else names
            indices = [index] if index in inside else []
            found = [inside[name] for name in (*indices, *names)]
            weights.setdefault(found[-1].format, found)
    taken = weights.pop(prefer, None) or weights.pop(next(iter(weights), ""), [])
    return (*common, *taken), tuple(file for files in weights.values() for file in files)


def downloads_of_tokenizer(
    listed: Sequence[LockedFile], subfolder: str, *, code: bool = False
) -> tuple[LockedFile, ...]:
    """Choose the files of a tokenizer, with config.json beside them; none where there is only its settings.

    Python files are among them only if `code` says so.
    """
    inside = _inside(listed, subfolder)
    if not inside.keys() & (set(TOKENIZER_FILES) - set(ONLY_SETTINGS)):
        return ()
    # transformers reads off config.json which class of tokenizer it is
    python = [name for name in sorted(inside) if code and name.endswith(".py")]
    return tuple(inside[name] for name in (*TOKENIZER_FILES, "config.json", *python) if name in inside)


def _inside(listed: Sequence[LockedFile], subfolder: str) -> dict[str, LockedFile]:
    """Return name → file of those that lie in a folder itself."""
    places = ((*file.path.rpartition("/")[::2], file) for file in listed)
    return {name: file for folder, name, file in places if folder == subfolder}
