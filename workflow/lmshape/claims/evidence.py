"""What claims are decided from: the tables of a study, and metrics as curves over blocks and steps, draw by draw."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lmshape.dynamics.noise import leave_one_out
from lmshape.geometry.resample import Estimate, jackknife
from lmshape.hub.integrity import DISTRUSTED
from lmshape.tables.columns import read_table
from lmshape.tables.rows import final_checkpoints, trajectories

NEEDED_METRICS = (
    "anisotropy",
    "anisotropy_null",
    "effective_rank",
    "effective_rank_bulk",
    "id_twonn",
    "id_twonn_surrogate",
    "linearity_held_out",
    "loss",
    "mean_cosine",
)
NEEDED_TABLES = ("phases", "checkpoints", "warnings", "truncation_ranks")
_COLUMNS = (
    "study model family kind parameters checkpoint step tokens_seen dataset site layer depth rows metric value d flag "
    "verdict interval replicates"
).split()
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
        """Step from which a course counts: the first after step 0 at which a tenth of the fall of the loss is done.

        Before, the weights are those of the random start, and so is their geometry. Without a loss that falls it is the
        first one after step 0.
        """
        losses = list(self.losses.values())
        if len(losses) < 2 or losses[-1] >= losses[0]:
            return 1.0
        begun = losses[0] - BEGUN * (losses[0] - losses[-1])
        return max(1.0, float(next(step for step, loss in self.losses.items() if loss <= begun)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """The tables of a study that claims are decided from.

    Attributes
    ----------
    metrics : rows of the models' own tables, with `interval` and `replicates`
    tables : name → table of the study
    orders : dataset → text, shuffled or random; in the study's order, its text first
    unstable : models that were trained to fail, and stand for no kind: only claims about spikes look at them
    entropies : model → entropy of the token frequencies of its text, nats; without those of which it is not known
    """

    metrics: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    orders: Mapping[str, str]
    unstable: Collection[str] = ()
    entropies: Mapping[str, float] = field(default_factory=dict)
    _models: dict[str, Examined] = field(default_factory=dict)
    _curves: dict[tuple[str, ...], Curves | None] = field(default_factory=dict)

    @classmethod
    def read(cls, metric_files: Sequence[Path], tables_dir: Path, **known: Any) -> Evidence:
        """Read the models' own tables, of the metrics that claims need, and the study's `NEEDED_TABLES`."""
        parts = [read_table(Path(path), NEEDED_METRICS, columns=_COLUMNS) for path in metric_files]
        tables = {name: read_table(Path(tables_dir) / f"{name}.parquet") for name in NEEDED_TABLES}
        return cls(pd.concat(parts, ignore_index=True), tables, **known)

    @property
    def known(self) -> Mapping[str, Examined]:
        """Models that stand for their kind, in the study's order."""
        if not self._models:
            for name, own in self.metrics.groupby("model", sort=False):
                self._models[str(name)] = self._describe(own)
        return {name: model for name, model in self._models.items() if name not in self.unstable}

    def models(self, kind: str = "", family: str = "") -> list[str]:
        """Names of the models that stand for their kind: of one kind and family, or of all."""
        return [
            name
            for name, model in self.known.items()
            if kind in ("", model.kind) and family in ("", model.family)
        ]

    def rows(self, model: str, metric: str) -> Sequence[str]:
        """Choices of rows that a metric was measured with."""
        return self.known[model].rows.get(metric, ())

    def curves(
        self, model: str, metric: str, *, rows: str = "all", dataset: str | None = None
    ) -> Curves | None:
        """Return a metric over blocks and trusted steps; None where it was not measured."""
        key = (model, metric, rows, dataset or self.known[model].datasets[0])
        if key not in self._curves:
            self._curves[key] = self._make(*key) if rows in self.rows(model, metric) else None
        return self._curves[key]

    def table(self, name: str, **values: str | int) -> pd.DataFrame:
        """Rows of one of the study's tables whose columns have these values; empty where there is no such table."""
        frame = self.tables.get(name, pd.DataFrame(columns=list(values)))
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame

    def largest(self) -> float:
        """Parameters of the largest model of all, unstable ones as well."""
        return float(self.metrics["parameters"].max()) if len(self.metrics) else inf

    def _describe(self, own: pd.DataFrame) -> Examined:
        first, trusted = own.iloc[0], _trusted(own)
        followed = trusted[trusted["step"].fillna(-1) >= 0]
        datasets = [name for name in self.orders if name in set(own["dataset"])]
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

    def _make(self, model: str, metric: str, rows: str, dataset: str) -> Curves | None:
        frame = self.metrics[self.metrics["model"] == model]
        frame = frame[(frame["metric"] == metric) & (frame["rows"] == rows) & (frame["dataset"] == dataset)]
        frame = _trusted(frame[frame["site"] == "block"])
        if frame.empty:
            return None
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


def measured(
    evidence: Evidence, metric: str, models: Sequence[str], rows: Sequence[str] = ()
) -> Iterator[tuple[str, str, Curves]]:
    """Yield model, choice of rows and curves on each model's first dataset, of some rows or all that were measured."""
    for model in models:
        for choice in rows or evidence.rows(model, metric):
            curves = evidence.curves(model, metric, rows=choice)
            if curves is not None:
                yield model, choice, curves
