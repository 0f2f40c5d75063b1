"""Which rows of a site each choice of rows keeps, and why some choices have no statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmshape.geometry.occurrences import one_per_type
from lmshape.geometry.sinks import sinks_by_norm
from lmshape.statistics.survey import Survey
from lmshape.texts.tokens import Tokens

ROWS = ("all", "no_sink", "one_per_type")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices of rows of one site.

    Parameters
    ----------
    kept : name → (n,) bool, the rows that belong to it
    refused : name → why no statistic exists of these rows, for the choices without one
    sinks : (n,) bool, the rows that `no_sink` leaves out
    """

    kept: Mapping[str, np.ndarray]
    refused: Mapping[str, str]
    sinks: np.ndarray

    @property
    def accepted(self) -> dict[str, np.ndarray]:
        """The choices that statistics can be taken of."""
        return {name: mask for name, mask in self.kept.items() if name not in self.refused}


def choices(names: Sequence[str], surveys: Sequence[Survey], tokens: Tokens, *, seed: int) -> Choices:
    """Choose the rows of a site.

    Parameters
    ----------
    names : of `ROWS`
    surveys : of the site, and of each other site that the same tokens are needed of: a sink of one is left out
    tokens : the n tokens
    seed : of the choice of one row per type
    """
    finite = np.logical_and.reduce([survey.finite for survey in surveys])
    sinks = np.logical_or.reduce([sinks_by_norm(survey.norms, tokens.position) for survey in surveys])
    everything = np.ones(len(finite), dtype=bool)
    masks = {
        "all": lambda: everything,
        # else no median norm to find sinks by: flagged either way
        "no_sink": lambda: ~sinks if finite.all() else everything,
        "one_per_type": lambda: one_per_type(tokens.ids, tokens.draw, seed=seed),
    }
    kept = {name: masks[name]() for name in names}
    reasons = {name: _refusal(tokens.draw[mask], finite[mask]) for name, mask in kept.items()}
    return Choices(kept, {name: reason for name, reason in reasons.items() if reason}, sinks)


def most_rows(rows_per_draw: int | None, draw: np.ndarray) -> int | None:
    """Return what can be asked of draws with fewer rows than others have, so that only copies flag them."""
    fewest = int(np.unique(draw, return_counts=True)[1].min(initial=rows_per_draw or len(draw)))
    return fewest if rows_per_draw is None else min(rows_per_draw, fewest)


def _refusal(draw: np.ndarray, finite: np.ndarray) -> str:
    """Return why no statistic exists of these rows; empty when one does."""
    if not finite.all():
        return f"not finite: {np.count_nonzero(~finite)} of {len(finite)} rows"
    _, counts = np.unique(draw, return_counts=True)
    if len(counts) < 2:
        return f"too few draws: {len(counts)}; an interval needs 2"
    fewest = int(counts.sum() - counts.max())
    if fewest < 2:
        return f"too few rows: {fewest} with one draw left out; 2 needed"
    return ""
