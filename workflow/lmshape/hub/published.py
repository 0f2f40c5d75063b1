"""Published runs: where the registry says that their checkpoints lie, and what a study knows and takes of them."""

from __future__ import annotations

import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from lmshape.checkpoints import NO_STEP, Checkpoint, Choice, expand_steps, select_checkpoints
from lmshape.errors import InputError
from lmshape.hub.integrity import DISTRUSTED, Issue, audited, cited_verdict, issues_of
from lmshape.hub.lock import MAIN, NOT_ASKED, Lock, LockedCheckpoint, LockedFile, identity_of, read_lock
from lmshape.paths import LOCK, LOSSES_FOLDER, WEIGHTS
from lmshape.schema import Yaml

FACTS = ("kind", "architecture", "blocks", "width", "vocabulary")  # without them no job can be planned

Ask = Callable[..., Lock]  # `lmshape.hub.resolve.make_lock`

_PLACEHOLDER = re.compile(r"\{((?:step|kilo|billions)(?::0\dd)?)\}")

# safetensors before PyTorch's .bin, which is loaded with weights only; GGUF where there is nothing else
_FORMATS = (
    (r"model\.safetensors", ""),
    (r"model-\d{5}-of-\d{5}\.safetensors", "model.safetensors.index.json"),
    (r"pytorch_model\.bin", ""),
    (r"pytorch_model-\d{5}-of-\d{5}\.bin", "pytorch_model.bin.index.json"),
    (r"[^/]+\.gguf", ""),
)
TOKENIZER_FILES = tuple(
    "tokenizer.json tokenizer_config.json special_tokens_map.json added_tokens.json vocab.json merges.txt "
    "vocab.txt tokenizer.model spiece.model sentencepiece.bpe.model".split()
)
ONLY_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


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
        pieces = _PLACEHOLDER.split(template)  # text, placeholder, text, …
        found = [name.partition(":")[0] for name in pieces[1::2]]
        if len(found) - found.count("billions") != 1 or {"{", "}"} & set("".join(pieces[::2])):
            raise InputError(
                f"`{template}`: must hold the step once, as {{step}}, {{step:03d}} or {{kilo}}; besides it "
                "only {billions} is known."
            )
        if "billions" in found and tokens_per_step is None:
            raise InputError(f"`{template}`: {{billions}} needs `tokens_per_step` beside it.")
        pieces[1::2] = [r"\d+" if name == "billions" else r"(\d+)" for name in found]
        pieces[::2] = map(re.escape, pieces[::2])
        unit = 1000 if "kilo" in found else 1
        return cls(template, re.compile("".join(pieces)), unit, tokens_per_step)

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
        return self.template.format(step=step, kilo=step // 1000, billions=-(-tokens // 10**9))

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


def tokens_seen(step: int, tokens_per_step: int | None) -> float:
    """Training tokens up to a step; NaN where the step or its tokens are not known."""
    return math.nan if tokens_per_step is None or step < 0 else float(step * tokens_per_step)


def path_safe(name: str) -> str:
    """Leave the marks of letters out, and replace whatever else a path cannot hold by a dash."""
    # macOS spells ä by two characters, others by one
    plain = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFKD", name))
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", plain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A repository of a run, or a family of repositories, one a checkpoint.

    Attributes
    ----------
    repository, revision, subfolder : one of them is a template of the step, or none where there is one checkpoint
    naming : how that one is spelt; None for a single checkpoint
    varying : `repository`, `revision` or `subfolder`, whichever tells checkpoints apart; "" for a single one
    steps : published steps, None where only the hub knows
    main_step, tokens_per_step : step of the branch `main`, and tokens of a step, if the registry gives them
    """

    repository: str
    revision: str
    subfolder: str
    naming: Naming | None
    varying: str
    steps: tuple[int, ...] | None
    main_step: int | None
    tokens_per_step: int | None

    @classmethod
    def of(cls, entry: Mapping[str, Yaml], *, where: str) -> Self:
        """Read the keys of one repository, with `tokens_per_step` of the whole run.

        Raises
        ------
        InputError
            For a template that cannot be read, two of them, steps without one, or steps that it cannot spell.
        """
        entry = {**entry, "subfolder": entry.get("subfolder", "").strip("/")}  # as the hub spells folders
        varying, naming = _naming(entry, where)
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
            tokens_per_step=entry.get("tokens_per_step"),
        )

    def at(self, step: int, name: str, **where: str) -> LockedCheckpoint:
        """Say where a checkpoint lies, under its name in paths."""
        place: dict[str, Any] = {"repository": self.repository, "subfolder": self.subfolder}
        place |= {"revision": self.revision or MAIN, **where}
        seen = tokens_seen(step, self.tokens_per_step)
        name = path_safe(name)
        return LockedCheckpoint(checkpoint=name, step=step, tokens_seen=seen, other_files=None, **place)

    def place(self, step: int) -> LockedCheckpoint:
        """Say where the checkpoint of a step lies."""
        if self.naming is None:
            return self.at(step, f"step{step}")
        spelt = self.naming.name(step)
        return self.at(
            step, f"step{step}" if self.varying == "repository" else spelt, **{self.varying: spelt}
        )

    def single(self) -> LockedCheckpoint:
        """Return the one checkpoint of a repository, or the branch `main` beside the others."""
        revision = MAIN if self.varying == "revision" else self.revision or MAIN
        return self.at(NO_STEP if self.main_step is None else self.main_step, revision, revision=revision)

    def published(self) -> list[LockedCheckpoint] | None:
        """List what the registry knows; None where only the hub does.

        `main` is among them if it is a checkpoint of its own: the only one, or of a step that no other name has.
        """
        if self.varying and self.steps is None:
            return None
        steps = self.steps or ()
        beside = self.varying == "revision" and self.main_step not in (None, *steps)
        alone = not self.varying and self.steps is None
        return [*map(self.place, steps), *([self.single()] if beside or alone else [])]


def read_sources(name: str, entry: Mapping[str, Yaml]) -> tuple[Source, ...]:
    """Read a model's repositories: its own, and those under `also`."""
    tokens = {"tokens_per_step": entry.get("tokens_per_step")}
    more = [(f"{name}.also[{i}]", other) for i, other in enumerate(entry.get("also", ()))]
    return tuple(Source.of({**part, **tokens}, where=where) for where, part in [(name, entry), *more])


def by_step(places: Iterable[LockedCheckpoint]) -> tuple[LockedCheckpoint, ...]:
    """Order by step; of equal steps the first source's stays."""
    first: dict[int, LockedCheckpoint] = {}
    for place in places:
        first.setdefault(place.step, place)
    return tuple(first[step] for step in sorted(first))


def listed_places(name: str, entry: Mapping[str, Yaml]) -> tuple[LockedCheckpoint, ...] | None:
    """List a run's checkpoints by step; None where only the hub knows them.

    Raises
    ------
    InputError
        When the entry cannot be read, or two steps have one name in paths.
    """
    found: list[LockedCheckpoint] = []
    for source in read_sources(name, entry):
        places = source.published()
        if places is None:
            return None
        found += places
    ordered = by_step(found)
    named: dict[str, LockedCheckpoint] = {}
    for place in ordered:
        other = named.setdefault(place.checkpoint, place)
        if other is not place:
            raise InputError(
                f"`{other.repository}` and `{place.repository}`: steps {other.step} and {place.step} would both have "
                f"the name {place.checkpoint}. Give one of them as `steps: [{place.step}]`, without `main_step`."
            )
    return ordered


def _check_steps(
    steps: Sequence[int] | None, entry: Mapping[str, Yaml], varying: str, naming: Naming | None, where: str
) -> None:
    if steps is None:
        if varying == "repository":
            raise InputError(
                f"`{where}`: the hub cannot list the repositories of `{entry['repository']}`. Give their `steps`."
            )
    elif "step_pattern" in entry:
        raise InputError(
            f"`{where}`: `step_pattern` reads steps off the hub's names and cannot spell `steps`. Keep one of them, "
            "or give `revision` as a template."
        )
    elif naming is None and len(steps) != 1:
        raise InputError(
            f"`{where}.steps`: nothing distinguishes the {len(steps)} steps. Give `revision` as a template, "
            "such as step{step}."
        )
    elif naming and (odd := [step for step in steps if not naming.spells(step)]):
        raise InputError(
            f"`{where}.steps`: {odd[0]} is not a multiple of {naming.unit}, and `{naming.template}` counts in these."
        )


def _naming(entry: Mapping[str, Yaml], where: str) -> tuple[str, Naming | None]:
    """Say which key tells the step, and how."""
    patterns = ("revision", "step_pattern") if "step_pattern" in entry else ()
    telling = [
        key
        for key in ("repository", "revision", "subfolder", "step_pattern")
        if key in entry and (key in patterns or "{" in entry[key])
    ]
    if len(telling) > 1:
        raise InputError(f"`{where}`: {', '.join(telling)} all give the step. Keep one of them.")
    try:
        if "step_pattern" in entry:
            return "revision", Naming.reading(entry["step_pattern"])
        for key in telling:
            return key, Naming.of(entry[key], tokens_per_step=entry.get("tokens_per_step"))
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


@dataclass(frozen=True, slots=True)
class HubRun:
    """The known facts of a published run before any download.

    Attributes
    ----------
    checkpoints, unlisted : by step; those that the registry lists, or all where it has no list, and the others
    facts : kind, architecture, blocks, width, vocabulary, context; the registry's before the hub's
    lock : what the hub said, if it was asked, with the verdicts of what is known today
    """

    checkpoints: tuple[Checkpoint, ...]
    unlisted: tuple[Checkpoint, ...]
    facts: Mapping[str, Any]
    lock: Lock | None


def read_run(
    name: str,
    entry: Mapping[str, Yaml],
    *,
    root: Path,
    ask: Ask | None,
    issues: Sequence[Issue] = (),
    choice: Choice = "all",
) -> HubRun:
    """Look up the checkpoints of a published run.

    The registry's list counts as far as the lock, if there is one, has checkpoints of these steps, so that the plan
    is the same before and after the hub was asked. Where the registry has no list, or lacks the shape of the model,
    the lock tells; and where there is no lock, the hub is asked now.

    Parameters
    ----------
    name, entry : of the registry
    root : the working directory
    ask : makes the lock, and writes it; None refuses instead
    issues : known faults of any model
    choice : the checkpoints that a new lock must know

    Raises
    ------
    InputError
        When the entry cannot be read, or only the hub could tell and must not be asked.
    """
    path = root / LOCK.format(model=name)
    lock = read_lock(path)
    if lock is None and (root / LOSSES_FOLDER.format(model=name)).is_dir():
        print(
            f"`{name}`: {LOCK.format(model=name)} is gone, and its results are still there. Restore a copy of it "
            "if you have one. Else the hub is asked again, and results of commits that it no longer has are refused.",
            file=sys.stderr,
        )
    if lock is not None:  # of another repository, or another spelling: the rule that makes it runs again
        lock = corrected(audited(lock, issues), entry) if lock.identity == identity_of(entry) else None
    unknown = [fact for fact in FACTS if fact not in entry]
    unknown += ["steps"] * (listed_places(name, entry) is None)
    if lock is None and unknown:
        if ask is None:
            raise InputError(
                f"`{name}`: {', '.join(unknown)} are not in the registry; only the hub knows them. Ask it once with "
                f"`lmshape lock {name}`; that takes seconds and downloads no weights."
            )
        lock = ask(path, name, entry, issues=issues, choice=choice)
    facts = _known_facts(name, entry, lock.facts if lock else {})
    checkpoints, unlisted = known_checkpoints(name, entry, lock, issues)
    if not checkpoints:
        raise InputError(
            f"`{name}`: the hub has weights of none of its checkpoints, by {LOCK.format(model=name)}. Look at them "
            f"with `lmshape audit {name}`, and correct the registry of models."
        )
    return HubRun(tuple(checkpoints), tuple(unlisted), facts, lock)


def known_checkpoints(
    name: str, entry: Mapping[str, Yaml], lock: Lock | None, issues: Sequence[Issue]
) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """Return the checkpoints that the registry lists, or all where it has no list, and the others; by step.

    Parameters
    ----------
    name, entry : of the registry
    lock : what the hub said, if it was asked, with the verdicts of today; what cannot be loaded is left out
    issues : known faults of any model
    """
    cited, weights = issues_of(issues, name), entry.get("weights", "")

    def known(one: LockedCheckpoint, verdict: str) -> Checkpoint:
        return Checkpoint(
            name=one.checkpoint,
            step=one.step,
            folder=Path(WEIGHTS.format(model=name, checkpoint=one.checkpoint)),
            tokens_seen=one.tokens_seen,
            revised=one.revised,
            revision=one.revision,
            verdict=verdict,
            content=one.content if one.asked else _cited_content(cited, one.step),
        )

    places = listed_places(name, entry) or ()
    if lock is None:
        return [known(one, cited_verdict(cited, one.step, weights=weights)) for one in places], []
    loadable = [one for one in lock.checkpoints if one.loadable]
    found = [known(one, "" if one.verdict == NOT_ASKED else one.verdict) for one in loadable]
    steps = {one.step for one in places or found}
    return [one for one in found if one.step in steps], [one for one in found if one.step not in steps]


def _cited_content(issues: Sequence[Issue], step: int) -> str:
    """Spell the steps that are said to have the weights of a step; "" where nothing is said."""
    equal = (one.steps for one in issues if one.verdict == "expected_duplicate" and step in one.steps)
    return str(sorted(next(equal, ())) or "")


def choose(
    known: Sequence[Checkpoint], unlisted: Sequence[Checkpoint], choice: Choice, *, model: str
) -> tuple[tuple[Checkpoint, ...], tuple[Checkpoint, ...]]:
    """Choose the checkpoints of a study, and list those that were skipped.

    A list takes what it names, other choices among the `choosable`. Of those with the same content one is measured, a
    trusted one before a doubted one: `same_as` of the others names it.

    Parameters
    ----------
    known, unlisted : those that any choice may take, by step, and those that a list of names alone takes
    choice : what the study asks for
    model : name for the error message

    Raises
    ------
    InputError
        When a listed one does not exist, or none is left to choose from.
    """
    if isinstance(choice, list):
        known = sorted([*known, *unlisted], key=lambda checkpoint: checkpoint.step)
    trusted = choosable(known, choice)
    doubted = tuple(one for one in known if one not in trusted)
    if not trusted:
        raise InputError(
            f"`{model}`: none of its {len(doubted)} checkpoints is known to match its name. Look at "
            f"them with `lmshape audit {model}`, and list under `checkpoints` those that you want anyway."
        )
    chosen = select_checkpoints(trusted, choice, model=model)
    measured: dict[str, str] = {}
    for one in sorted(chosen, key=lambda one: one.verdict in DISTRUSTED):
        measured.setdefault(one.content or one.name, one.name)
    firsts = [measured[one.content or one.name] for one in chosen]
    taken = [
        one if one.name == first else replace(one, same_as=first)
        for one, first in zip(chosen, firsts, strict=True)
    ]
    return tuple(taken), doubted


def choosable(known: Sequence[Checkpoint], choice: Choice) -> list[Checkpoint]:
    """Return those that a choice is among: for `every` and `log` what is, as far as known, what its name says."""
    return [one for one in known if not isinstance(choice, dict) or one.verdict not in DISTRUSTED]


def contradicted_facts(
    entry: Mapping[str, Yaml], facts: Mapping[str, Yaml], *, unverified: bool
) -> dict[str, Yaml]:
    """Return what the registry says of a model's shape and the hub's config.json contradicts.

    Parameters
    ----------
    entry, facts : of the registry; of config.json, whose `kind` is a guess at times and contradicts nothing
    unverified : whether of the keys that the registry calls so, where the hub's value counts; else of the others
    """
    return {
        key: entry[key]
        for key, value in facts.items()
        if key != "kind"
        and value is not None
        and entry.get(key) not in (None, value)
        and (key in entry.get("unverified", ())) == unverified
    }


def corrected(lock: Lock, entry: Mapping[str, Yaml]) -> Lock:
    """Record which unverified keys of the registry, as it is now, the hub's config.json contradicts."""
    return replace(lock, corrected=contradicted_facts(entry, lock.facts, unverified=True))


def check_facts(name: str, entry: Mapping[str, Yaml], facts: Mapping[str, Yaml]) -> None:
    """Refuse a registry entry whose shape is not that of the hub's config.json, in a key that is not `unverified`.

    Raises
    ------
    InputError
        Naming the keys, both values, and what to correct.
    """
    if wrong := contradicted_facts(entry, facts, unverified=False):
        told = "; ".join(f"`{key}` is {value}, config.json has {facts[key]}" for key, value in wrong.items())
        raise InputError(
            f"`{name}`: the registry and the hub's config.json differ: {told}. Correct the registry of "
            "models, name these keys under `unverified`, or take them out of the entry."
        )


def _known_facts(name: str, entry: Mapping[str, Yaml], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the registry's facts, the hub's where it has none or unverified ones."""
    check_facts(name, entry, told)
    wrong = contradicted_facts(entry, told, unverified=True)
    known = {**told, **{key: value for key, value in entry.items() if key not in wrong}}
    facts = {fact: known.get(fact) for fact in (*FACTS, "context")}
    if unknown := [fact for fact in FACTS if facts[fact] is None]:
        raise InputError(
            f"`{name}`: {', '.join(unknown)} are not in the registry, and the hub has not shown its config.json. Log "
            f"in (`hf auth login`, or HF_TOKEN) and ask again, `lmshape lock --update {name}`, or give them in the "
            "registry of models."
        )
    return facts
