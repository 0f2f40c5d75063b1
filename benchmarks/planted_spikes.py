"""Runs whose spikes, and whose warnings of them, are known: planted into noise, each run another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from lmshape.dynamics.early_warning import Name, Watched
from lmshape.dynamics.spikes import find_spikes

STEPS, EVERY = 600, 2
MEMORY = 0.7  # of the noise of a series from one value to the next
NOISES = {
    "normal": lambda rng, size: rng.standard_normal(size),
    "t, 3 degrees": lambda rng, size: rng.standard_t(3, size) / 1.73,
    "Gumbel": lambda rng, size: (rng.gumbel(0, 1, size) - 0.577) / 1.283,
    "memory 0.9": lambda rng, size: _autoregressive(rng, size, 0.9),
    "memory 0.99": lambda rng, size: _autoregressive(rng, size, 0.99),
    "mean of 20": lambda rng, size: _moving_average(rng, size, 20),
    "mean of 100": lambda rng, size: _moving_average(rng, size, 100),
}


def _autoregressive(rng: np.random.Generator, size: int, memory: float) -> np.ndarray:
    """Noise of variance 1 whose correlation falls by `memory` from one step to the next."""
    before = round(10 / (1 - memory))
    shocks = rng.standard_normal(size + before) * np.sqrt(1 - memory**2)
    return lfilter([1], [1, -memory], shocks)[before:]


def _moving_average(rng: np.random.Generator, size: int, over: int) -> np.ndarray:
    """Noise of variance 1 as a log that was smoothed has it."""
    return np.convolve(rng.standard_normal(size + over), np.ones(over), "valid")[:size] / np.sqrt(over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Precursor:
    """What a series does before a spike: it moves by `size` standard deviations of its noise, `lead` steps ahead.

    `unheeded` is how often in a run it does so and no spike comes.
    """

    size: float = 0.0
    lead: int = 10
    unheeded: int = 0


def planted_loss(
    rng: np.random.Generator,
    onsets: list[int],
    *,
    steps: int = STEPS,
    noise: float = 0.08,
    height: float = 1.5,
    kind: str = "normal",
) -> pd.DataFrame:
    """A falling loss with a spike at each onset: up within 4 steps, back within about 40."""
    step = np.arange(steps)
    loss = 5.0 + 2.5 * np.exp(-step / 50) + noise * NOISES[kind](rng, steps)
    for onset in onsets:
        after = step - onset
        rise = np.minimum(1, (after + 1) / 4) * np.exp(-np.maximum(0, after - 4) / 10)
        loss += np.where(after >= 0, height * rise, 0)
    return pd.DataFrame({"step": step, "loss": loss})


def planted_onsets(rng: np.random.Generator, count: int) -> list[int]:
    """Onsets far enough from each other and from the ends that values lie before each."""
    first, room = 110, (STEPS - 140) // max(count, 1)
    return [int(first + place * room + rng.integers(0, max(1, room - 110))) for place in range(count)]


def planted_series(
    rng: np.random.Generator,
    onsets: list[int],
    precursor: Precursor,
) -> np.ndarray:
    """Noise with a memory and a drift of the run's own, and the precursor before each onset, stronger in some runs."""
    steps = np.arange(0, STEPS, EVERY)
    values = np.zeros(len(steps))
    for place, shock in enumerate(rng.standard_normal(len(steps)) * np.sqrt(1 - MEMORY**2)):
        values[place] = MEMORY * values[place - 1] + shock if place else shock
    values += rng.normal(0, 0.5) * steps / STEPS
    size = precursor.size * np.exp(rng.normal(0, 0.3))
    elsewhere = [int(rng.integers(60, STEPS - 60)) for _ in range(precursor.unheeded)]
    for end in [*onsets, *elsewhere]:
        values += size * ((steps >= end - precursor.lead) & (steps < end))
    return values


def planted_runs(
    rng: np.random.Generator,
    series: dict[Name, Precursor],
    *,
    spiking: int = 6,
    calm: int = 2,
    spikes: int = 3,
) -> list[Watched]:
    """Runs with `spikes` spikes each, then calm ones, all with the same series; spikes are found, not given."""
    found = []
    for number in range(spiking + calm):
        onsets = planted_onsets(rng, spikes) if number < spiking else []
        loss = planted_loss(rng, onsets)
        own = {name: planted_series(rng, onsets, precursor) for name, precursor in series.items()}
        steps = np.arange(0.0, STEPS, EVERY)
        found.append(Watched(steps=steps, series=own, spikes=find_spikes(loss), last_step=STEPS - 1.0))
    return found
