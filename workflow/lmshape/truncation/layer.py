"""Truncations at one layer: the grid of ranks, then those that make each least rank exact."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np
import torch
from torch import Tensor

from lmshape.truncation.file import Measured
from lmshape.truncation.principal_axes import MomentsByDraw, PrincipalAxes, principal_axes
from lmshape.truncation.projection import VARIANTS, Projections, Variant
from lmshape.truncation.ranks import kept_ranks, next_rank, removed_ranks
from lmshape.truncation.rest_of_network import Losses, Sequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What is tried at every layer.

    Attributes
    ----------
    rows : which rows are projected: `all`, `no_sink`
    ranks, removed : ranks of the projection, and numbers of leading axes that are taken out; None: see `ranks`
    """

    rows: Sequence[str]
    ranks: Sequence[int] | None = None
    removed: Sequence[int] | None = None

    def grid(self, variant: Variant, width: int) -> list[int]:
        """Ranks that are measured whatever comes of them."""
        return kept_ranks(width, self.ranks) if variant == "keep" else removed_ranks(width, self.removed)


def truncated_layer(
    losses: Losses,
    moments: MomentsByDraw,
    *,
    layer: int,
    sinks: np.ndarray,
    trial: Trial,
    device: torch.device,
) -> Iterator[Measured]:
    """Yield the losses at every rank; `losses` has turned to the layer.

    Parameters
    ----------
    losses : of the network behind the layer
    moments : of the layer's rows
    layer : for the results
    sinks : (n,) bool: rows that `no_sink` neither fits axes on nor projects
    trial : what is tried
    device : where matrices are diagonalized
    """
    for rows in trial.rows:
        projected = ~sinks if rows == "no_sink" else np.ones_like(sinks)
        fitted = {draw: principal_axes(moments.without(draw, rows), device) for draw in losses.draws}
        yield from _Curve(losses, projected, fitted, layer=layer, rows=rows).measured(trial)


def not_measured(trial: Trial, *, layer: int, width: int, draws: int, reason: str) -> Iterator[Measured]:
    """Yield the ranks of the grid without numbers, and why."""
    for rows in trial.rows:
        for variant in VARIANTS:
            for rank in trial.grid(variant, width):
                place = {"layer": layer, "rows": rows, "variant": variant, "rank": rank}
                yield Measured(**place, losses=(nan,) * draws, flag=reason)


class _Curve:
    """Losses over ranks at one layer for one choice of rows."""

    def __init__(
        self,
        losses: Losses,
        projected: np.ndarray,
        fitted: dict[int, PrincipalAxes],
        *,
        layer: int,
        rows: str,
    ) -> None:
        self._losses, self._projected = losses, projected
        self._width = len(next(iter(fitted.values())).mean)
        self._fewest = min(one.rows for one in fitted.values())
        self._projections = Projections.of(fitted, losses.device)
        self._place = {"layer": layer, "rows": rows}

    def measured(self, trial: Trial) -> Iterator[Measured]:
        """Yield the grid of both variants, and between the ranks that are kept those that are asked for."""
        flag = self._doubt()
        if self._fewest < 2:
            place = {"layer": self._place["layer"], "width": self._width, "draws": len(self._losses.draws)}
            only = Trial(rows=[self._place["rows"]], ranks=trial.ranks, removed=trial.removed)
            yield from not_measured(only, **place, reason=flag)
            return
        increases: dict[int, float] = {}
        waiting = trial.grid("keep", self._width)
        while waiting:
            rank = waiting.pop()
            losses = self._at("keep", rank)
            increases[rank] = float(np.mean(losses - self._losses.whole))
            yield self._row("keep", rank, losses, flag)
            if not waiting and (following := next_rank(increases)) is not None:
                waiting.append(following)
        for rank in trial.grid("remove", self._width):
            yield self._row("remove", rank, self._at("remove", rank), flag)

    def _at(self, variant: Variant, rank: int) -> np.ndarray:
        if variant == "keep" and rank == self._width:
            return self._losses.whole  # nothing is left out
        return self._losses.changed(lambda hidden, one: self._applied(hidden, one, variant, rank))

    def _applied(self, hidden: Tensor, one: Sequences, variant: Variant, rank: int) -> Tensor:
        rows = torch.as_tensor(self._projected[one.index], device=hidden.device)
        draw = torch.as_tensor(one.draw, device=hidden.device)
        return self._projections.applied(hidden, draw, rows, variant=variant, rank=rank)

    def _row(self, variant: Variant, rank: int, losses: np.ndarray, flag: str) -> Measured:
        wrong = "" if all(map(isfinite, losses)) else "not finite: loss"
        reasons = "; ".join(filter(None, [wrong, flag]))
        numbers = tuple(map(float, losses))
        return Measured(**self._place, variant=variant, rank=rank, losses=numbers, flag=reasons)

    def _doubt(self) -> str:
        if self._fewest < 2:
            return f"too few rows: {self._fewest} to fit axes on; 2 needed"
        if self._fewest <= self._width:
            return f"few rows: axes beyond {self._fewest - 1} are arbitrary, fitted on {self._fewest} rows"
        return ""
