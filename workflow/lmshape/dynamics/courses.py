"""The courses of metrics over training at the named blocks of each model, and of several seeds together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lmshape.bands import named_layers
from lmshape.dynamics.noise import Noise
from lmshape.dynamics.replicates import Replicated
from lmshape.hub.integrity import DISTRUSTED

_LINE = ("dataset", "rows", "metric", "layer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A metric of one block over the trusted checkpoints of a model, or of several seeds of it.

    Attributes
    ----------
    cell : the columns study, model, kind, dataset, rows, metric, band and layer of its row
    steps : (T,) rising
    values : T numbers with what each is without a draw; of several seeds their geometric mean
    copies : (S, T) natural logarithms of each seed; (1, T) for one model
    left_aside : why checkpoints are not in it, with their number; empty where all are
    """

    cell: Mapping[str, str | int]
    steps: np.ndarray
    values: Replicated
    copies: np.ndarray
    left_aside: str = ""

    def noise(self) -> Noise | None:
        """Error of the logarithms: that of the draws and, of several seeds, their spread."""
        drawn = self.values.logarithms().noise()
        if len(self.copies) < 2:
            return drawn
        seeds = Noise.of_copies(self.copies)
        return seeds if drawn is None else seeds + drawn


def courses(metrics: pd.DataFrame, groups: Mapping[str, str] | None = None) -> Iterator[Course]:
    """Yield the course of each model, dataset, choice of rows, metric and named block; then those of groups.

    Parameters
    ----------
    metrics : rows of the models' own tables, of the metrics that are followed
    groups : model → recipe: models that differ in their seed alone. Each with two models or more makes courses of its
        own, over the steps that all of them have, under the recipe's name
    """
    inside = metrics[metrics["site"] == "block"]
    found: dict[tuple[str, ...], list[Course]] = {}
    for model, of_model in inside.groupby("model", sort=False):
        for course in _of_model(of_model):
            yield course
            key = (groups or {}).get(model, ""), *(str(course.cell[name]) for name in (*_LINE[:3], "band"))
            found.setdefault(key, []).append(course)
    for (group, *_), members in found.items():
        if group and len(members) > 1:
            yield together(group, members)


def _of_model(of_model: pd.DataFrame) -> Iterator[Course]:
    bands = {layer: band for band, layer in named_layers(int(of_model["layer"].max())).items()}
    named = of_model[of_model["layer"].isin(bands)].sort_values("step", kind="stable")
    for (dataset, rows, metric, layer), line in named.groupby(list(_LINE), sort=False):
        first = line.iloc[0]
        cell = {name: first[name] for name in ("study", "model", "kind")}
        place = {
            "dataset": dataset,
            "rows": rows,
            "metric": metric,
            "band": bands[layer],
            "layer": int(layer),
        }
        kept, left_aside = _trusted(line)
        values = Replicated.of(kept)
        yield Course(
            cell=cell | place,
            steps=kept["step"].to_numpy(dtype=np.int64),
            values=values,
            copies=_logarithms(values.values)[None],
            left_aside=left_aside,
        )


def _trusted(line: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Keep one checkpoint a step, of those that are what they are called and have a number."""
    reasons = {
        "distrusted": line["verdict"].isin(DISTRUSTED),
        "of unknown step": line["step"].fillna(-1) < 0,
        "without a number": ~np.isfinite(line["value"].to_numpy(dtype=np.float64)),
    }
    kept, told = pd.Series(True, index=line.index), []
    for name, chosen in reasons.items():
        if count := int((chosen & kept).sum()):
            told.append(f"{count} {name}")
        kept &= ~chosen
    left_aside = f"checkpoints left out: {', '.join(told)}" if told else ""
    return line[kept].drop_duplicates("step", keep="last"), left_aside


def together(group: str, members: list[Course]) -> Course:
    """Average seeds in the logarithm, at the steps that all of them have."""
    steps = members[0].steps
    for member in members[1:]:
        steps = np.intersect1d(steps, member.steps)
    values = [member.values.rows(np.searchsorted(member.steps, steps)) for member in members]
    copies = np.array([_logarithms(one.values) for one in values])
    paired = len({one.draws for one in values}) == 1 and values[0].draws >= 2
    left_out = np.exp(np.mean([_logarithms(one.left_out) for one in values], axis=0)) if paired else None
    together = Replicated(
        np.exp(copies.mean(axis=0)), np.empty((len(steps), 0)) if left_out is None else left_out
    )
    cell = dict(members[0].cell) | {"model": group}
    return replace(members[0], cell=cell, steps=steps, values=together, copies=copies, left_aside="")


def _logarithms(values: np.ndarray) -> np.ndarray:
    """Natural logarithms, NaN for what has none."""
    return np.log(np.where(values > 0, values, np.nan))
