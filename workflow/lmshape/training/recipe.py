"""The models that a study trains: section `pretraining` of its configuration, and the recipe of each run.

A recipe is all that determines the weights, apart from text and tokenizer.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from lmshape.checkpoints import checkpoint_steps
from lmshape.errors import InputError
from lmshape.texts.corpus import checked_span

if TYPE_CHECKING:
    from lmshape.schema import Yaml

GEOMETRY_COLUMNS = ("step", "layer", "metric", "value")  # of a run's geometry.csv


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A small model and how it is trained.

    Attributes
    ----------
    architecture : a causal decoder (`gpt_neox`, Pythia's) or a masked encoder (`bert`, `modernbert`)
    width, blocks, heads : residual stream dimension, transformer blocks, attention heads
    window, sequences : tokens a sequence, sequences a step
    steps : parameter updates; checkpoint `s` holds the weights after `s` of them
    checkpoint_steps : the updates after which the weights are saved
    learning_rate, warmup, final_share : peak rate, updates until it is reached, share of it at the end
    first_share : share of the peak rate at step 0; 0 warms up linearly, more geometrically (as a learning-rate
        range test does, Smith 2017), so that a rate too high is met late, by a model that has learned
    cycle : steps after which the schedule of the rate begins again (warm restarts, Loshchilov & Hutter 2017); 0 never
    weight_decay, beta2, gradient_clip : AdamW's, and the largest gradient norm (`inf`: not clipped)
    seed : of the initial weights, the data order and the masks
    probe_every, probe_tokens : steps from one measurement of the geometry to the next, 0 for none, and the tokens that
        it is measured on (`lmshape.monitor`); the weights do not depend on them
    keep_checkpoints : whether the weights stay when the run is done; else they are there to resume from meanwhile
    """

    architecture: Literal["gpt_neox", "bert", "modernbert"]
    width: int
    blocks: int
    heads: int
    window: int
    sequences: int
    steps: int
    checkpoint_steps: tuple[int, ...]
    learning_rate: float
    warmup: int = 0
    first_share: float = 0.0
    final_share: float = 0.1
    cycle: int = 0
    weight_decay: float = 0.1
    beta2: float = 0.95
    gradient_clip: float = 1.0
    seed: int = 0
    probe_every: int = 0
    probe_tokens: int = 512
    keep_checkpoints: bool = True

    def __post_init__(self) -> None:
        """Refuse a recipe that cannot be followed."""
        if self.width % self.heads:
            raise InputError(
                f"`width` {self.width} is not a multiple of `heads` {self.heads}. Change one of the two."
            )
        if self.width // self.heads < 8:
            raise InputError(
                f"`width` {self.width} over `heads` {self.heads} leaves {self.width // self.heads} dimensions per "
                "head, too few for rotary positions; 8 are needed. Take fewer heads."
            )
        if max(self.checkpoint_steps, default=0) > self.steps:
            raise InputError(
                f"a checkpoint after step {max(self.checkpoint_steps)} is after the last step, {self.steps}. "
                "Raise `steps`."
            )
        if self.probe_every and self.probe_tokens < max(64, self.window):
            raise InputError(
                f"`probe_tokens` is {self.probe_tokens}; a dimension needs 64 tokens, and a whole window of "
                f"{self.window}. Take 512 or more."
            )

    def as_json(self) -> str:
        """Spell the recipe out, for what depends on all of it."""
        return json.dumps(dataclasses.asdict(self))

    def learning_rate_at(self, step: int) -> float:
        """Warm up, linearly or geometrically, then follow a cosine down to the `final_share`; in each cycle anew."""
        length = self.cycle or self.steps
        place = step % self.cycle if self.cycle else step
        if place < self.warmup and self.first_share:
            return self.learning_rate * self.first_share ** (1 - place / self.warmup)
        if place < self.warmup:
            return self.learning_rate * (place + 1) / self.warmup
        done = (place - self.warmup) / max(1, length - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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


def _recipe(name: str, run: Mapping[str, Yaml], section: Mapping[str, Yaml]) -> Recipe:
    keys = {key: section[key] for key in ("window", "sequences", "steps", "seed")} | dict(run)
    every, kept = section["linear_every"], run["keep_checkpoints"]
    try:
        if kept and keys["steps"] != section["steps"]:
            raise InputError(
                f"`steps` {keys['steps']} are not the study's {section['steps']}: runs that keep their checkpoints "
                "have the same ones. Leave `steps` out, or write `keep_checkpoints: false`."
            )
        to_resume_from = tuple(range(every, keys["steps"], every))
        steps = checkpoint_steps(section["steps"], every) if kept else to_resume_from
        return Recipe(**keys, checkpoint_steps=steps)
    except InputError as error:
        raise InputError(f"`pretraining.runs.{name}`: {error}") from None
