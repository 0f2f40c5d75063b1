"""The sections of a study's configuration: truncation, pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lmshape.checkpoints import Choice, checkpoint_steps
from lmshape.errors import InputError
from lmshape.schema import Yaml
from lmshape.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncating:
    """Settings of the truncation: the ranks to try, on which checkpoints and datasets.

    Attributes
    ----------
    checkpoints : which of a model's checkpoints in the study
    datasets : which of a model's datasets: its `first`, `all`, or those named
    sequences : of each draw, whose loss is measured; the axes come from all tokens of the other draws
    ranks, removed : leading axes that are kept, and taken out; None: `lmshape.truncation.ranks`
    """

    checkpoints: Choice
    datasets: Literal["first", "all"] | tuple[str, ...]
    sequences: int
    ranks: tuple[int, ...] | None
    removed: tuple[int, ...] | None

    def datasets_of(self, measured: tuple[str, ...]) -> tuple[str, ...]:
        """Choose of the datasets that a model is measured on, in their order."""
        if self.datasets == "first":
            return measured[:1]
        return (
            measured if self.datasets == "all" else tuple(name for name in measured if name in self.datasets)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """Models that the study trains itself.

    Attributes
    ----------
    text, clean, span : what they are trained on: text of the registry, without markup or with, share of it
    vocabulary : entries of the tokenizer trained on the same text
    threads : CPU threads of a run
    runs : name of the run → its recipe; it is written to results/pretrained/{run}
    """

    text: str
    clean: bool
    span: tuple[float, float]
    vocabulary: int
    threads: int
    runs: Mapping[str, Recipe]


def read_pretraining(section: Mapping[str, Yaml]) -> Pretraining:
    """Build the pretraining from its section, checked and with defaults.

    Raises
    ------
    InputError
        When a run cannot be trained as it is described.
    """
    span = checked_span(section["span"], where="pretraining.span")
    probed = [name for name, run in section["runs"].items() if run["probe_every"]]
    if probed and span == (0.0, 1.0):
        raise InputError(
            f"`pretraining.runs.{probed[0]}.probe_every`: the geometry is measured on text that no run trains on, and "
            "`pretraining.span` takes all of it. Train on less, as in [0.0, 0.9]."
        )
    return Pretraining(
        **{key: section[key] for key in ("text", "clean", "vocabulary", "threads")},
        span=span,
        runs={name: _recipe(name, run, section) for name, run in section["runs"].items()},
    )


def read_truncating(section: Mapping[str, Yaml] | bool) -> Truncating | None:
    """Build the truncation from its section, checked and with defaults; None where it is `off`."""
    if not isinstance(section, Mapping):
        return None
    chosen = {key: _listed(section[key], other="auto") for key in ("ranks", "removed")}
    datasets = section["datasets"]
    return Truncating(
        checkpoints=section["checkpoints"],
        datasets=tuple(datasets) if isinstance(datasets, list) else datasets,
        sequences=section["sequences"],
        **chosen,
    )


def _listed(value: Yaml, *, other: str) -> tuple[int, ...] | None:
    return None if value == other else tuple(value)


def checked_span(span: list[float], *, where: str) -> tuple[float, float]:
    """Share of a text, from and to.

    Raises
    ------
    InputError
        When it ends before it begins.
    """
    first, last = map(float, span)
    if first >= last:
        raise InputError(f"`{where}` = {span}: must end after it begins. Write it as in [0.9, 1.0].")
    return first, last


def _recipe(name: str, run: Mapping[str, Yaml], section: Mapping[str, Yaml]) -> Recipe:
    keys = {key: section[key] for key in ("window", "sequences", "steps", "seed")} | dict(run)
    every = section["linear_every"]
    try:
        if not run["keep_checkpoints"]:
            # to resume from
            return Recipe(**keys, checkpoint_steps=tuple(range(every, keys["steps"], every)))
        if keys["steps"] != section["steps"]:
            raise InputError(
                f"`steps` {keys['steps']} are not the study's {section['steps']}: runs that keep their checkpoints "
                "have the same ones. Leave `steps` out, or write `keep_checkpoints: false`."
            )
        return Recipe(**keys, checkpoint_steps=checkpoint_steps(section["steps"], every))
    except InputError as error:
        raise InputError(f"`pretraining.runs.{name}`: {error}") from None
