"""What claims are decided from: the tables of a study, and metrics as curves over blocks and steps, draw by draw."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import leave_one_out
from lmshape.geometry.resample import Estimate, jackknife
from lmshape.hub.integrity import DISTRUSTED
from lmshape.tables.rows import final_checkpoints, trajectories

BEGUN = 0.1  # of the whole fall of the loss


@dataclass(frozen=True, slots=True)
class Curves:
    """A metric over the blocks and the steps of a model, as it is and with each draw left out.

    Attributes
    ----------
    values : (K + 1, steps, layers) float64: with all K draws, then without each; NaN where there is no number
    steps : (steps,) training steps, rising; −1 for a single checkpoint of unknown step
    layers, depth : (layers,) of the blocks, rising
    width : dimension of the residual stream
    """

    values: np.ndarray
    steps: np.ndarray
    layers: np.ndarray
    depth: np.ndarray
    width: int

    @property
    def last(self) -> np.ndarray:
        """(K + 1, layers): the last step."""
        return self.values[:, -1]

    @property
    def middle(self) -> np.ndarray:
        """(layers,) bool: the middle half of the blocks."""
        return (self.depth > 0.25) & (self.depth <= 0.75)

    @property
    def draws(self) -> int:
        """Draws behind each number."""
        return max(len(self.values) - 1, 1)


def estimated(statistic: np.ndarray) -> Estimate:
    """Estimate a statistic from its K + 1 values: with all draws, then without each (delete-one-draw jackknife)."""
    statistic = np.asarray(statistic, dtype=np.float64)
    if len(statistic) < 3 or not np.isfinite(statistic).all():
        return Estimate(float(statistic[0]), nan, nan, max(len(statistic) - 1, 1))
    return jackknife(statistic[0], statistic[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What the tables of a study say of a model beside its numbers.

    Attributes
    ----------
    kind, family, parameters : decoder or encoder, architecture, size
    checkpoints : trusted ones of a known step
    steps, tokens : most at a trusted checkpoint; NaN where none is known
    losses : step → loss on its first dataset; one entry where no step is known
    datasets : in the study's order, its text first
    rows : metric → choices of rows that it was measured with
    """

    kind: str
    family: str
    parameters: float
    checkpoints: int
    steps: float
    tokens: float
    losses: Mapping[int, float]
    datasets: Sequence[str]
    rows: Mapping[str, Sequence[str]]

    @property
    def begin(self) -> float:
        """Step from which a trajectory counts: the first after step 0 at which a tenth of the fall of the loss is done.

        Before, the weights are those of the random start, and so is their geometry. Without a loss that falls it is the
        first one after step 0.
        """
        losses = list(self.losses.values())
        if len(losses) < 2 or losses[-1] >= losses[0]:
            return 1.0
        begun = losses[0] - BEGUN * (losses[0] - losses[-1])
        return max(1.0, float(next(step for step, loss in self.losses.items() if loss <= begun)))


Key = tuple[str, str, str, str]  # model, metric, choice of rows, dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What claims are decided from.

    Attributes
    ----------
    models : all of the study, in its order
    of_blocks : curves of what was measured at the blocks
    tables : name → table of the study
    orders : dataset → text, shuffled or random; in the study's order, its text first
    unstable : models that were trained to fail, and stand for no kind: only claims about spikes look at them
    entropies : model → entropy of the token frequencies of its text, nats; without those of which it is not known
    """

    models: Mapping[str, Examined]
    of_blocks: Mapping[Key, Curves]
    tables: Mapping[str, pd.DataFrame]
    orders: Mapping[str, str]
    unstable: Collection[str] = ()
    entropies: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, metrics: pd.DataFrame, *, orders: Mapping[str, str], **known: Any) -> Evidence:
        """Take it from rows of the models' own tables and from what else is `known`."""
        models = {str(name): _examined(own, orders) for name, own in metrics.groupby("model", sort=False)}
        blocks = metrics[metrics["site"] == "block"].groupby(
            ["model", "metric", "rows", "dataset"], sort=False
        )
        curves = {key: _curves(trusted) for key, own in blocks if len(trusted := _trusted(own))}
        return cls(models=models, of_blocks=curves, orders=orders, **known)

    @property
    def known(self) -> Mapping[str, Examined]:
        """Models that stand for their kind."""
        return {name: model for name, model in self.models.items() if name not in self.unstable}

    @property
    def largest(self) -> float:
        """Parameters of the largest model of all, unstable ones as well."""
        return max((model.parameters for model in self.models.values()), default=inf)

    def rows(self, model: str, metric: str) -> Sequence[str]:
        """Choices of rows that a metric was measured with."""
        return self.known[model].rows.get(metric, ())

    def curves(
        self, model: str, metric: str, *, rows: str = "all", dataset: str | None = None
    ) -> Curves | None:
        """Return a metric on a dataset, by default the model's first one; None where it was not measured."""
        return self.of_blocks.get((model, metric, rows, dataset or self.known[model].datasets[0]))

    def measured(
        self, metric: str, models: Iterable[str], rows: Sequence[str] = ()
    ) -> Iterator[tuple[str, str, Curves]]:
        """Yield model, choice of rows and curves on each model's first dataset, of some rows or all that there are."""
        for model in models:
            for choice in rows or self.rows(model, metric):
                curves = self.curves(model, metric, rows=choice)
                if curves is not None:
                    yield model, choice, curves

    def table(self, name: str, **values: str | float) -> pd.DataFrame:
        """Rows of one of the study's tables whose columns have these values; empty where there is no such table."""
        frame = self.tables.get(name, pd.DataFrame(columns=list(values)))
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame


def _examined(own: pd.DataFrame, orders: Mapping[str, str]) -> Examined:
    """Examine the rows of one model."""
    first, trusted = own.iloc[0], _trusted(own)
    followed = trusted[trusted["step"].fillna(-1) >= 0]
    datasets = [name for name in orders if name in set(own["dataset"])]
    loss = own[(own["metric"] == "loss") & (own["dataset"] == datasets[0]) & np.isfinite(own["value"])]
    loss = _trusted(loss)
    metrics = own[["metric", "rows"]].drop_duplicates()
    return Examined(
        kind=str(first["kind"]),
        family=str(first["family"]),
        parameters=float(first["parameters"]),
        checkpoints=int(followed["step"].nunique()),
        steps=float(followed["step"].max()) if len(followed) else nan,
        tokens=float(trusted["tokens_seen"].max()),
        losses=dict(zip(loss["step"], loss["value"], strict=True)),
        datasets=datasets,
        rows={str(name): list(of["rows"]) for name, of in metrics.groupby("metric", sort=False)},
    )


def _curves(frame: pd.DataFrame) -> Curves:
    """Arrange the rows of one metric by step and layer."""
    steps, layers = np.unique(frame["step"]), np.unique(frame["layer"])
    left_out = [leave_one_out(*pair) for pair in zip(frame["interval"], frame["replicates"], strict=True)]
    values = np.full((1 + max(map(len, left_out)), len(steps), len(layers)), np.nan)
    place = np.searchsorted(steps, frame["step"]), np.searchsorted(layers, frame["layer"])
    values[0][place] = frame["value"]
    for step, layer, numbers in zip(*place, left_out, strict=True):
        values[1 : 1 + len(numbers), step, layer] = numbers
    depth = frame.drop_duplicates("layer").sort_values("layer")["depth"].to_numpy()
    return Curves(values, steps, layers, depth, int(frame["d"].max()))


def _trusted(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of checkpoints that are what they are called: of a known step, or the last one where none has a step."""
    followed = trajectories(frame)
    return followed if len(followed) else final_checkpoints(frame[~frame["verdict"].isin(DISTRUSTED)])
