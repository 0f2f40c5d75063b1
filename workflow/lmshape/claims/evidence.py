"""What claims are decided from: each model's curves by layer and step, draw by draw, and the study's tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from lmshape.claims.claim import Finding
from lmshape.dynamics.replicates import leave_one_out
from lmshape.errors import InputError
from lmshape.geometry.resample import Estimate, jackknife
from lmshape.tables.rows import final_checkpoints, in_order, trajectories

METRICS = (
    "anisotropy",
    "anisotropy_null",
    "id_twonn",
    "id_twonn_surrogate",
    "id_mle",
    "id_gride_16",
    "effective_rank_bulk",
    "mean_cosine",
    "mean_cosine_centered",
    "linearity_held_out",
)
_COLUMNS = (
    "study model family kind parameters checkpoint step dataset site layer depth rows metric value d flag "
    "verdict interval replicates"
).split()


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
    def draws(self) -> int:
        """Draws behind each number."""
        return max(len(self.values) - 1, 1)

    def whole(self) -> bool:
        """Whether every layer of the last step has a number."""
        return bool(np.isfinite(self.last[0]).all())


def estimated(statistic: np.ndarray) -> Estimate:
    """Estimate a statistic from its K + 1 values: with all draws, then without each (delete-one-draw jackknife)."""
    statistic = np.asarray(statistic, dtype=np.float64)
    if len(statistic) < 3 or not np.isfinite(statistic).all():
        return Estimate(float(statistic[0]), np.nan, np.nan, max(len(statistic) - 1, 1))
    return jackknife(statistic[0], statistic[1:])


@dataclass(frozen=True, slots=True)
class Evidence:
    """The tables of a study that claims are decided from.

    Attributes
    ----------
    metrics : rows of the models' own tables, with `interval` and `replicates`
    tables : name → table of the study
    orders : dataset → text, shuffled or random; in the study's order, its text first
    """

    metrics: pd.DataFrame
    tables: Mapping[str, pd.DataFrame]
    orders: Mapping[str, str]
    _curves: dict[tuple[str, ...], Curves | None] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        metric_files: Sequence[Path],
        tables_dir: Path,
        *,
        names: Sequence[str],
        orders: Mapping[str, str],
    ) -> Evidence:
        """Read the models' own tables, of the metrics that claims need, and the study's `names`."""
        parts = [_read(path, columns=_COLUMNS, filters=[("metric", "in", METRICS)]) for path in metric_files]
        tables = {name: _read(Path(tables_dir) / f"{name}.parquet") for name in names}
        return cls(pd.concat(parts, ignore_index=True), tables, orders)

    def models(self, kind: str | None = None) -> list[str]:
        """Models in the study's order, of one kind or all."""
        chosen = self.metrics if kind is None else self.metrics[self.metrics["kind"] == kind]
        return in_order(chosen["model"])

    def family(self, model: str) -> str:
        """Architecture of a model."""
        return str(self._of(model)["family"].iloc[0])

    def parameters(self, model: str) -> float:
        """Parameters of a model."""
        return float(self._of(model)["parameters"].iloc[0])

    def last_step(self, model: str) -> float:
        """Last trusted step of a model; 0 for a name that is none, such as a recipe's over its seeds."""
        steps = trajectories(self._of(model))["step"]
        return float(steps.max()) if len(steps) else 0.0

    def datasets(self, model: str) -> list[str]:
        """Datasets of a model in the study's order: its text first."""
        own = set(self._of(model)["dataset"])
        return [name for name in self.orders if name in own]

    def rows(self, model: str, metric: str) -> list[str]:
        """Choices of rows that a metric was measured with."""
        of_model = self._of(model)
        return in_order(of_model.loc[of_model["metric"] == metric, "rows"])

    def curves(
        self, model: str, metric: str, *, rows: str = "all", dataset: str | None = None
    ) -> Curves | None:
        """Return a metric over blocks and trusted steps; None where it was not measured."""
        key = (model, metric, rows, dataset or self.datasets(model)[0])
        if key not in self._curves:
            self._curves[key] = self._make(*key)
        return self._curves[key]

    def table(self, name: str, **values: str | int) -> pd.DataFrame:
        """Rows of one of the study's tables whose columns have these values; empty where there is no such table."""
        frame = self.tables.get(name, pd.DataFrame(columns=list(values)))
        for column, value in values.items():
            frame = frame[frame[column] == value]
        return frame

    def _of(self, model: str) -> pd.DataFrame:
        return self.metrics[self.metrics["model"] == model]

    def _make(self, model: str, metric: str, rows: str, dataset: str) -> Curves | None:
        frame = self._of(model)
        frame = frame[(frame["metric"] == metric) & (frame["rows"] == rows) & (frame["dataset"] == dataset)]
        frame = frame[frame["site"] == "block"]
        followed = trajectories(frame)
        frame = followed if len(followed) else final_checkpoints(frame)
        if frame.empty:
            return None
        steps, layers = np.unique(frame["step"]), np.unique(frame["layer"])
        made_of = zip(frame["value"], frame["interval"], frame["replicates"], strict=True)
        left_out = [_with_and_without(*parts) for parts in made_of]
        draws = max(map(len, left_out))
        values = np.full((draws, len(steps), len(layers)), np.nan)
        place = np.searchsorted(steps, frame["step"]), np.searchsorted(layers, frame["layer"])
        for step, layer, numbers in zip(*place, left_out, strict=True):
            values[: len(numbers), step, layer] = numbers
        depth = frame.drop_duplicates("layer").sort_values("layer")["depth"].to_numpy()
        return Curves(values, steps, layers, depth, int(frame["d"].max()))


def measured(
    evidence: Evidence, metric: str, *, kind: str | None = None, rows: Sequence[str] | None = None
) -> Iterator[tuple[Finding, Curves]]:
    """Yield a metric of each model on its first dataset, for each choice of rows or those given, where there is one."""
    for model in evidence.models(kind):
        for choice in evidence.rows(model, metric) if rows is None else rows:
            curves = evidence.curves(model, metric, rows=choice)
            if curves is not None:
                yield Finding(model=model, dataset=evidence.datasets(model)[0], rows=choice), curves


def _with_and_without(value: float, interval: str, replicates: np.ndarray) -> np.ndarray:
    """Return a number with all K draws and without each, (K + 1,) float64; alone where none can be left out."""
    return np.concatenate([[value], leave_one_out(interval, replicates)])


def _read(path: Path, **options: object) -> pd.DataFrame:
    if not Path(path).is_file():
        raise InputError(f"`{path}` does not exist; claims need it. Make the tables first: `lmshape tables`.")
    return pq.read_table(path, **options).to_pandas()
