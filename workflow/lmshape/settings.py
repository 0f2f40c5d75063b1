"""The sections of a study's configuration: sampling, extraction, pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lmshape.checkpoints import checkpoint_steps
from lmshape.errors import InputError
from lmshape.recipe import Recipe
from lmshape.schema import Yaml

PAPER_CHARACTERS = 128 * 512  # of all chunks: LLM-Microscope's released sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Which tokens are measured; the same for every checkpoint of a model.

    Attributes
    ----------
    protocol : packed `windows`, or the random chunks of the `paper`
    window : tokens of a sequence; `paper` does not use it
    draws : disjoint draws of whole sequences
    rows_per_draw : unique rows of a draw that neighbor metrics use
    seed : of the choice of sequences, of shuffling and random tokens
    """

    protocol: Literal["windows", "paper"]
    window: int
    draws: int
    rows_per_draw: int
    seed: int

    @property
    def sequences_per_draw(self) -> int:
        """Windows of a draw: a quarter more tokens than rows, so that repeated rows can be dropped."""
        return -(-5 * self.rows_per_draw // (4 * self.window))

    @property
    def most_tokens(self) -> int:
        """Tokens of a cell, at most: a character of the paper's chunks is one token at the very most."""
        if self.protocol == "paper":
            return PAPER_CHARACTERS
        return self.draws * self.sequences_per_draw * self.window

    @property
    def least_bytes(self) -> int:
        """Bytes that a text needs at the very least: one a token, or a character of the paper's chunks."""
        return self.most_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """How the forward passes run; `auto` is decided where they run.

    Attributes
    ----------
    dtype : number type of weights and passes; `auto`: bfloat16 on a CUDA GPU, float32 elsewhere
    device : `auto`: a GPU if there is one
    device_map : `auto`: a model larger than one GPU is spread over all of them
    batch_tokens : tokens of a pass; `auto`: `lmshape.batch_size.starting_tokens`
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"]
    device: str
    device_map: Literal["none", "auto"]
    batch_tokens: int | Literal["auto"]


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
    shared = {key: section[key] for key in ("window", "sequences", "steps", "seed")}
    shared["checkpoint_steps"] = checkpoint_steps(section["steps"], section["linear_every"])
    return Pretraining(
        **{key: section[key] for key in ("text", "clean", "vocabulary", "threads")},
        span=read_span(section["span"], where="pretraining.span"),
        runs={name: _recipe(name, shared | run) for name, run in section["runs"].items()},
    )


def read_span(span: list[float], *, where: str) -> tuple[float, float]:
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


def _recipe(name: str, keys: Mapping[str, Yaml]) -> Recipe:
    try:
        return Recipe(**keys)
    except InputError as error:
        raise InputError(f"`pretraining.runs.{name}`: {error}") from None
