"""Studies whose truth is known, of the size of published runs: 24 blocks, 20 checkpoints, 5 draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from lmshape.claims.evidence import Curves, Evidence, Examined
from lmshape.dynamics.phases import PHASE_COLUMNS, describe
from lmshape.dynamics.trajectories import Trajectory
from lmshape.site import middle_layer

BLOCKS, DRAWS, LAST = 24, 5, 143_000
STEPS = np.array([0, *np.unique(np.rint(np.geomspace(1, LAST, 19)).astype(int))])
AXIS = np.log10(1.0 + STEPS)
DEPTH = np.arange(1, BLOCKS + 1) / BLOCKS
ORDERS = {"wiki": "text", "wiki-shuffled": "shuffled", "wiki-random": "random"}
SHARES = (
    "anisotropy",
    "anisotropy_null",
    "mean_cosine",
    "linearity_held_out",
)  # noise is relative to their odds
OWN, STEP, COMMON = np.sqrt([0.5, 0.25, 0.25])  # parts of the noise: a number's, a checkpoint's, a draw's own

Key = tuple[str, str, str, str]  # model, metric, choice of rows, dataset
Truth = np.ndarray  # (steps, blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A made-up model of the size that claims are about."""

    kind: str = "decoder"
    family: str = "gpt_neox"
    parameters: float = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A claim, what is true in the study, and the verdict that is right.

    Attributes
    ----------
    truth : (generator) → key → true curve; drawn anew in each study where models differ by chance
    clear : whether the truth is so far from the threshold that a good rule decides it at small noise
    """

    slug: str
    name: str
    right: str
    truth: Callable[[np.random.Generator], Mapping[Key, Truth]]
    models: Mapping[str, Planted] = field(default_factory=lambda: {"m": Planted()})
    clear: bool = True


def measured(
    truth: Truth, noise: float, generator: np.random.Generator, *, draws: int, share: bool
) -> np.ndarray:
    """(K + 1, steps, blocks): a curve measured on K draws, and without each; `noise` is its relative standard error."""
    normal = generator.standard_normal
    steps, blocks = truth.shape
    parts = (
        OWN * normal((draws, steps, blocks)),
        STEP * normal((draws, steps, 1)),
        COMMON * normal((draws, 1, 1)),
    )
    error = noise * np.sqrt(draws) * sum(parts)
    drawn = 1 / (1 + (1 / truth - 1) * np.exp(-error)) if share else truth * (1 + error)
    whole = drawn.mean(axis=0)
    return np.concatenate([whole[None], (draws * whole - drawn) / (draws - 1)])


def study(case: Case, noise: float, generator: np.random.Generator, draws: int = DRAWS) -> Evidence:
    """Measure the truth of a case; a mean over all draws has the same error, however many they are."""
    blocks = np.arange(1, BLOCKS + 1)
    curves = {
        key: Curves(
            measured(truth, noise, generator, draws=draws, share=key[1] in SHARES),
            STEPS,
            blocks,
            DEPTH,
            1024,
        )
        for key, truth in case.truth(generator).items()
    }
    tables = {"phases": _phases(curves)} if case.slug == "transition_near_1000" else {}
    models = {name: _described(model, name, list(curves)) for name, model in case.models.items()}
    return Evidence(models=models, of_blocks=curves, tables=tables, orders=ORDERS)


def _described(planted: Planted, name: str, keys: list[Key]) -> Examined:
    """Say what the tables would say of a model: trained to the end, with a loss that falls around step 300."""
    loss = 2.5 + 8.3 / (1 + np.exp(4 * (AXIS - 2.5)))
    own = [key for key in keys if key[0] == name]
    return Examined(
        kind=planted.kind,
        family=planted.family,
        parameters=planted.parameters,
        checkpoints=len(STEPS),
        steps=LAST,
        tokens=2e6 * LAST,
        losses=dict(zip(STEPS.tolist(), loss.tolist(), strict=True)),
        datasets=[name for name in ORDERS if name in {dataset for *_, dataset in own}],
        rows={
            metric: list(dict.fromkeys(key[2] for key in own if key[1] == metric)) for _, metric, *_ in own
        },
    )


def _phases(curves: Mapping[Key, Curves]) -> pd.DataFrame:
    rows = []
    for (model, metric, choice, dataset), curve in curves.items():
        layer = middle_layer(BLOCKS)
        values = curve.values[:, :, layer - 1]
        place = {"rows": choice, "metric": metric, "band": "middle", "layer": layer}
        cell = {"study": "planted", "model": model, "kind": "decoder", "dataset": dataset, **place}
        rows.append(describe(Trajectory(cell=cell, steps=STEPS, numbers=values)))
    return pd.DataFrame(rows, columns=PHASE_COLUMNS.names)


# Profiles over the blocks, trajectories over training, and what is made of them

BELL = 0.05 + 0.9 * np.exp(-(((DEPTH - 0.5) / 0.22) ** 2))
PLATEAU = np.where((DEPTH > 0.1) & (DEPTH < 0.95), 0.99, 0.1)
LOW_BELL = 0.05 + 0.6 * np.exp(-(((DEPTH - 0.5) / 0.22) ** 2))
RISES = np.linspace(0.1, 0.8, BLOCKS)
VALLEY = 1.0 - BELL
ONSET = np.where((np.arange(1, BLOCKS + 1) >= 6) & (DEPTH < 0.95), 0.99, 0.2)  # as published of pythia-410m


def level(value: float) -> np.ndarray:
    """Profile that is the same at all blocks."""
    return np.full(BLOCKS, value)


def through(*points: tuple[float, float]) -> np.ndarray:
    """(steps,): value over training, in straight lines between (step, value) of its logarithm over log10(1 + step)."""
    steps, values = np.array(points).T
    return np.exp(np.interp(AXIS, np.log10(1 + steps), np.log(values)))


def bent(at: float, slopes: tuple[float, float], over: float) -> np.ndarray:
    """(steps,): 1 at a step, its logarithm going from one slope per decade to another smoothly, over some decades."""
    axis = AXIS - np.log10(1 + at)
    return np.exp(
        slopes[0] * axis + (slopes[1] - slopes[0]) * over * (np.logaddexp(0, axis / over) - np.log(2))
    )


RISE_FALL = through((64, 12), (4000, 30), (LAST, 15))
FALL_RISE = through((64, 30), (4000, 12), (LAST, 24))
RISE, FALL, FLAT = through((64, 12), (LAST, 30)), through((64, 30), (LAST, 12)), through((64, 20), (LAST, 20))
RISE_FALL_RISE = through((64, 12), (1000, 30), (16000, 15), (LAST, 30))
COLLAPSE = through((1, 400), (60, 100), (1500, 350), (LAST, 300))
UPSIDE_DOWN = through((1, 100), (60, 400), (4000, 100), (LAST, 400))
THREE = through((1, 400), (60, 100), (4000, 500), (LAST, 200))


def still(profile: np.ndarray) -> Truth:
    """Profile that is the same at all steps."""
    return np.tile(profile, (len(STEPS), 1))


def moving(values: np.ndarray, profile: np.ndarray | None = None) -> Truth:
    """Values over training at all blocks, times a profile of height 1."""
    shape = np.ones(BLOCKS) if profile is None else profile / profile.max()
    return np.outer(values, shape)


def turning(first: np.ndarray, last: np.ndarray, *, at: float = 5000) -> Truth:
    """Profile that goes over from one to another around a step."""
    share = 1 / (1 + np.exp(-4 * (AXIS - np.log10(at))))[:, None]
    share = (share - share[0]) / (share[-1] - share[0])
    return np.exp((1 - share) * np.log(first) + share * np.log(last))


def one(
    metric: str, truth: Truth, *, model: str = "m", **more: Truth
) -> Callable[[np.random.Generator], dict[Key, Truth]]:
    """Truth of one model, `more` of other metrics, of other rows or on other tokens."""
    others = {
        "no_sink": (model, metric, "no_sink", "wiki"),
        "random": (model, metric, "all", "wiki-random"),
    }
    found = {(model, metric, "all", "wiki"): truth}
    found |= {others.get(name, (model, name, "all", "wiki")): curve for name, curve in more.items()}
    return lambda generator: found


def several(metric: str, *truths: Truth) -> Callable[[np.random.Generator], dict[Key, Truth]]:
    """Truths of models that are called a, b, c."""
    return lambda generator: {
        (name, metric, "all", "wiki"): truth for name, truth in zip("abc", truths, strict=False)
    }


def kinds(generator: np.random.Generator, *, decoders: int, encoders: int, apart: float) -> dict[Key, Truth]:
    """Bells of a height that differs from model to model by 0.05, in decoders by `apart` times that more."""
    names = [f"decoder-{i}" for i in range(decoders)] + [f"encoder-{i}" for i in range(encoders)]
    return {
        (name, "anisotropy", "all", "wiki"): still(
            BELL / BELL.max() * (0.45 + 0.05 * (generator.standard_normal() + apart * name.startswith("d")))
        )
        for name in names
    }  # fmt: skip


ENCODER = {"m": Planted(kind="encoder", family="bert")}
OLMO = {"m": Planted(family="olmo2")}
THREE_DECODERS = {name: Planted() for name in "abc"}
TWO_DECODERS = {name: Planted() for name in "ab"}


def _kinds(name: str, right: str, decoders: int, encoders: int, apart: float, *, clear: bool = True) -> Case:
    models = {f"decoder-{i}": Planted() for i in range(decoders)}
    models |= {f"encoder-{i}": Planted(kind="encoder", family="bert") for i in range(encoders)}
    truth = partial(kinds, decoders=decoders, encoders=encoders, apart=apart)
    return Case(
        slug="decoders_over_encoders", name=name, right=right, truth=truth, models=models, clear=clear
    )


def _cases(
    slug: str, *found: tuple, models: Mapping[str, Planted] | None = None, unclear: tuple[str, ...] = ()
) -> list[Case]:
    given = {"models": models} if models else {}
    return [
        Case(slug=slug, name=name, right=right, truth=truth, clear=name not in unclear, **given)
        for name, right, truth in found
    ]


YES, NO, OPEN = "supported", "contradicted", "undecided"
A, D = "anisotropy", "id_twonn"
DIFFERENT = (level(0.3), RISES, VALLEY)
APART = (BELL, VALLEY, RISES)
UNTRAINED = level(0.02)

CASES = (
    *_cases("dome", ("bell", YES, one(A, still(BELL))), ("plateau", YES, one(A, still(PLATEAU))),
            ("level", NO, one(A, still(level(0.3)))), ("rises to the end", NO, one(A, still(RISES))),
            ("valley", NO, one(A, still(VALLEY)))),
    *_cases("isotropic_ends", ("bell", YES, one(A, still(BELL))), ("level", NO, one(A, still(level(0.3))))),
    *_cases("nearly_a_line", ("plateau", YES, one(A, still(PLATEAU))), ("bell of 0.65", NO, one(A, still(LOW_BELL)))),
    _kinds("3 + 3 models, no difference", NO, 3, 3, 0, clear=False),
    _kinds("3 + 3 models, 2 s.d. higher", YES, 3, 3, 2, clear=False),
    _kinds("3 + 3 models, 6 s.d. higher", YES, 3, 3, 6), _kinds("3 + 3 models, 6 s.d. lower", NO, 3, 3, -6),
    _kinds("1 + 1 models, no difference", OPEN, 1, 1, 0),
    *_cases("uniform_encoders", ("level", YES, one(A, still(level(0.1)))), ("bell", NO, one(A, still(BELL))),
            ("rises to the end", NO, one(A, still(RISES))), models=ENCODER),
    *_cases("high_raw_cosines", ("0.9", YES, one("mean_cosine", still(level(0.9)))),
            ("0.2", NO, one("mean_cosine", still(level(0.2)))), models=ENCODER),
    *_cases("isotropic_encoders", ("0.06", YES, one(A, still(level(0.06)))), ("0.5", NO, one(A, still(level(0.5)))),
            models=ENCODER),
    *_cases("one_profile", ("the same bell", YES, several(A, still(BELL), still(BELL))),
            ("bell and level", NO, several(A, still(BELL), still(level(0.3)))),
            ("level at 0.97 and at 0.21", NO, several(A, still(level(0.97)), still(level(0.21)))), models=TWO_DECODERS),
    *_cases("converge", ("alike at first, to one bell", YES, several(A, *[turning(UNTRAINED, BELL)] * 3)),
            ("unlike at first, to one bell", YES, several(A, *[turning(one, BELL) for one in DIFFERENT])),
            ("one bell from the start", OPEN, several(A, *[still(BELL)] * 3)),
            ("alike at first, then apart", NO, several(A, *[turning(level(0.3), one) for one in APART])),
            models=THREE_DECODERS),
    *_cases("grows", ("to a bell", YES, one(A, turning(UNTRAINED, BELL))),
            ("from a bell", NO, one(A, turning(BELL, UNTRAINED))),
            ("level", NO, one(A, moving(through((1, 0.3), (LAST, 0.3))))),
            ("up to 0.9, down to 0.4", NO, one(A, moving(through((64, 0.1), (2000, 0.9), (LAST, 0.4))))),
            ("12 % up", YES, one(A, moving(through((64, 0.3), (LAST, 0.338))))),
            ("12 % down", NO, one(A, moving(through((64, 0.338), (LAST, 0.3))))),
            unclear=("12 % up", "12 % down", "level")),
    *_cases("grows_after_2000", ("to a bell", YES, one(A, turning(UNTRAINED, BELL, at=20000))),
            ("from a bell", NO, one(A, turning(BELL, UNTRAINED, at=20000))),
            ("12 % up", YES, one(A, moving(through((2000, 0.3), (LAST, 0.338))))), unclear=("12 % up",)),
    *_cases("none_before_1000", ("from step 5000", YES, one(A, turning(UNTRAINED, PLATEAU, at=20000))),
            ("from step 100", NO, one(A, turning(UNTRAINED, PLATEAU, at=100)))),
    *_cases("plateau_onset", ("there", YES, one(A, still(ONSET), model="pythia-410m")),
            ("5 blocks later", NO, one(A, still(np.roll(ONSET, 5)), model="pythia-410m")),
            ("nowhere", NO, one(A, still(LOW_BELL), model="pythia-410m")),
            models={"pythia-410m": Planted(parameters=4e8)}),
    *_cases("sinks",
            ("all of it", YES, one(A, still(PLATEAU), no_sink=still(level(0.08)), anisotropy_null=still(level(0.01)))),
            ("a tenth", NO, one(A, still(PLATEAU), no_sink=still(0.9 * PLATEAU), anisotropy_null=still(level(0.01))))),
    *_cases("no_plateau_in_olmo_2", ("0.1", YES, one(A, still(level(0.1)))),
            ("plateau", NO, one(A, still(PLATEAU))), models=OLMO),
    *_cases("low_dimension", ("20", YES, one(D, still(level(20)))), ("100", NO, one(D, still(level(100))))),
    *_cases("rise_then_fall", ("rise, fall", YES, one(D, moving(RISE_FALL))),
            ("fall, rise", NO, one(D, moving(FALL_RISE))),
            ("rise, fall, rise", NO, one(D, moving(RISE_FALL_RISE))), ("rise", NO, one(D, moving(RISE))),
            ("fall", NO, one(D, moving(FALL))), ("level", NO, one(D, moving(FLAT))),
            ("12 % up, 12 % down", YES, one(D, moving(through((64, 20), (4000, 22.6), (LAST, 20))))),
            unclear=("12 % up, 12 % down", "rise", "fall", "level")),
    *_cases("one_course", ("all rise, fall", YES, several(D, *[moving(RISE_FALL)] * 3)),
            ("one falls, then rises", NO, several(D, moving(RISE_FALL), moving(RISE_FALL), moving(FALL_RISE))),
            ("one rises alone", NO, several(D, moving(RISE_FALL), moving(RISE_FALL), moving(RISE))),
            models=THREE_DECODERS, unclear=("one rises alone",)),
    *_cases("random_tokens", ("the same", YES, one(A, still(BELL), random=still(BELL))),
            ("level", NO, one(A, still(BELL), random=still(level(0.3))))),
    *_cases("random_trajectory", ("the same", YES, one(D, moving(RISE_FALL), random=moving(RISE_FALL))),
            ("the other way round", NO, one(D, moving(RISE_FALL), random=moving(FALL_RISE)))),
    *_cases("random_dimension", ("half", YES, one(D, still(level(20)), random=still(level(10)))),
            ("the same", NO, one(D, still(level(20)), random=still(level(20)))),
            ("double", NO, one(D, still(level(20)), random=still(level(40)))), unclear=("the same",)),
    *_cases("transition_near_1000", ("at 1000", YES, one(D, moving(through((0, 20), (1000, 20), (LAST, 5))))),
            ("at 30 000", NO, one(D, moving(through((0, 20), (30000, 20), (LAST, 5))))),
            ("at 30", NO, one(D, moving(through((0, 20), (30, 20), (LAST, 5))))),
            ("at 1000, round", YES, one(D, moving(20 * bent(1000, (0, -0.65), 0.25)))),
            ("at 30, round", NO, one(D, moving(20 * bent(30, (0, -0.65), 0.25)))),
            ("nowhere", OPEN, one(D, moving(through((0, 20), (LAST, 5)))))),
    *_cases("under_its_gaussian", ("half", YES, one(D, still(level(20)), id_twonn_surrogate=still(level(40)))),
            ("the same", NO, one(D, still(level(20)), id_twonn_surrogate=still(level(20)))), unclear=("the same",)),
    *_cases("linear_blocks", ("0.99", YES, one("linearity_held_out", still(level(0.99)))),
            ("0.8", NO, one("linearity_held_out", still(level(0.8))))),
    *_cases("early_collapse", ("fall, rise", YES, one("effective_rank", moving(COLLAPSE))),
            ("rise", NO, one("effective_rank", moving(through((1, 100), (LAST, 400))))),
            ("level", NO, one("effective_rank", moving(FLAT))), unclear=("rise", "level")),
    *_cases("three_phases", ("fall, rise, fall", YES, one("effective_rank", moving(THREE))),
            ("rise, fall", NO, one("effective_rank", moving(through((1, 50), (4000, 500), (LAST, 200))))),
            ("rise, fall, rise", NO, one("effective_rank", moving(UPSIDE_DOWN))),
            unclear=("rise, fall",)),
    *_cases("peak_of_rankme",
            *((name, right, one("effective_rank", moving(values), model="pythia-1b-deduped")) for name, right, values in
              (("at 4000", YES, through((1, 200), (4000, 560), (LAST, 190))),
               ("at 4000, round", YES, 560 * bent(4000, (0.5, -0.5), 0.2)),
               ("at 64", NO, through((1, 200), (64, 560), (LAST, 190))),
               ("at 64, round", NO, 560 * bent(64, (0.5, -0.5), 0.2)),
               ("at 60 000", NO, through((1, 200), (60000, 560), (LAST, 190))),
               ("level", OPEN, FLAT))),
            models={"pythia-1b-deduped": Planted()}, unclear=("at 60 000",)),
    *_cases("bulk_expands", ("rises", YES, one("effective_rank_bulk", moving(through((1, 400), (LAST, 1400))))),
            ("falls by 40 %", NO, one("effective_rank_bulk", moving(through((1, 400), (15000, 1400), (LAST, 840))))),
            ("falls by 20 % at the end", NO, one("effective_rank_bulk", moving(
                through((1, 400), (75000, 1400), (LAST, 1120))))),
            ("level", YES, one("effective_rank_bulk", moving(FLAT))), unclear=("falls by 20 % at the end", "level")),
    *_cases("late_cosine",
            ("0.2 to 0.5", YES, one("mean_cosine", moving(through((1, 0.2), (14000, 0.2), (LAST, 0.5))))),
            ("level", NO, one("mean_cosine", still(level(0.3)))), models={"m": Planted(parameters=1.6e8)}),
    *_cases("isotropic_output", ("0.05", YES, one("mean_cosine", still(level(0.05)))),
            ("0.5", NO, one("mean_cosine", still(level(0.5))))),
)  # fmt: skip
