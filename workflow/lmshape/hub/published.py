"""Where the checkpoints of a published training run lie on the hub, as far as the registry knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from lmshape.errors import InputError
from lmshape.hub.naming import Naming, expand_steps, path_safe
from lmshape.planning.schema import Yaml

MAIN = "main"
UNKNOWN_STEP = -1


@dataclass(frozen=True, slots=True)
class Place:
    """A checkpoint on the hub.

    Attributes
    ----------
    name : as paths spell it: the revision's name made safe, or that of what else tells checkpoints apart
    step : training steps before it; -1 where nobody says
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
        if not self.varying:
            return Place(f"step{step}", step, self.repository, self.revision or MAIN, self.subfolder)
        spelt = self.naming.name(step)
        parts = {
            "repository": self.repository,
            "revision": self.revision or MAIN,
            "subfolder": self.subfolder,
        }
        name = f"step{step}" if self.varying == "repository" else path_safe(spelt)
        return Place(name, step, **{**parts, self.varying: spelt})

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
        return (
            self.varying == "revision"
            and self.main_step is not None
            and self.main_step not in (self.steps or ())
        )


def read_sources(name: str, entry: Mapping[str, Yaml]) -> tuple[Source, ...]:
    """Read a model's repositories: its own, and those under `also`."""
    tokens = entry.get("tokens_per_step")
    more = [(f"{name}.also[{i}]", other) for i, other in enumerate(entry.get("also", ()))]
    return tuple(
        Source.of(part, where=where, tokens_per_step=tokens) for where, part in [(name, entry), *more]
    )


def published(sources: Sequence[Source]) -> tuple[Place, ...] | None:
    """List a run's checkpoints by step, of equal steps the first source's; None where only the hub knows them.

    Raises
    ------
    InputError
        When two steps have one name in paths.
    """
    by_step: dict[int, Place] = {}
    for source in sources:
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
                f"`{other.repository}` and `{place.repository}`: steps {other.step} and {place.step} would both be "
                f"called {place.name}. Give one of them as `steps: [{place.step}]`, without `main_step`."
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
    if naming is None and len(steps) != 1:
        raise InputError(
            f"`{where}.steps`: nothing tells {len(steps)} steps apart. Give `revision` as a template, "
            "such as step{step}."
        )
    odd = [step for step in steps if naming and not naming.spells(step)]
    if odd:
        raise InputError(
            f"`{where}.steps`: {odd[0]} is no multiple of {naming.unit}, and `{naming.template}` counts in these."
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
        raise InputError(f"`{where}`: {', '.join(telling)} all tell the step. Keep one of them.")
    try:
        if "step_pattern" in entry:
            return "revision", Naming.reading(entry["step_pattern"])
        for key, template in templates.items():
            return key, Naming.of(template, tokens_per_step=tokens_per_step)
    except InputError as error:
        raise InputError(f"`{where}`: {error}") from None
    return "", None
