"""The ranks to try: a grid, then ranks between its points that make the least rank exact.

Imports nothing heavy: the rules ask how much work a truncation is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lmshape.checkpoints import Choice

if TYPE_CHECKING:
    from lmshape.schema import Yaml

TOLERANCES = (0.01, 0.1, 1.0)  # nats a token over the whole loss
MOST_REMOVED = 64  # past these, a decoder predicts no better than chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncating:
    """Settings of the truncation: the ranks to try, on which checkpoints and datasets.

    Attributes
    ----------
    checkpoints : which of a model's checkpoints in the study
    datasets : which of a model's datasets: its `first`, `all`, or those named
    sequences : of each draw, whose loss is measured; the axes come from all tokens of the other draws
    ranks, removed : leading axes that are kept, and taken out; None: `kept_ranks`, `removed_ranks`
    """

    checkpoints: Choice
    datasets: Literal["first", "all"] | tuple[str, ...]
    sequences: int
    ranks: tuple[int, ...] | None
    removed: tuple[int, ...] | None

    def datasets_of(self, measured: tuple[str, ...]) -> tuple[str, ...]:
        """Choose of the datasets that a model is measured on, in their order."""
        if self.datasets == "first":
            return measured[:1]
        return tuple(name for name in measured if self.datasets == "all" or name in self.datasets)


def read_truncating(section: Mapping[str, Yaml] | bool) -> Truncating | None:
    """Build the truncation from its section, checked and with defaults; None where it is `off`."""
    if not isinstance(section, Mapping):
        return None
    chosen = {key: None if section[key] == "auto" else tuple(section[key]) for key in ("ranks", "removed")}
    datasets = section["datasets"]
    return Truncating(
        checkpoints=section["checkpoints"],
        datasets=tuple(datasets) if isinstance(datasets, list) else datasets,
        sequences=section["sequences"],
        **chosen,
    )


def kept_ranks(width: int, chosen: Sequence[int] | None = None) -> list[int]:
    """Ranks of a projection, ascending; two an octave unless some are chosen, 0 and the width always.

    Examples
    --------
    >>> kept_ranks(24)
    [0, 1, 2, 3, 4, 6, 8, 12, 16, 24]
    """
    octaves = range(max(1, width).bit_length())
    grid = {1, *(2**k for k in octaves), *(3 * 2**k for k in octaves)} if chosen is None else set(chosen)
    return sorted({0, width, *(rank for rank in grid if rank < width)})


def removed_ranks(width: int, chosen: Sequence[int] | None = None) -> list[int]:
    """Numbers of leading axes that are taken out, ascending: powers of two up to 64, or those that are chosen.

    Examples
    --------
    >>> removed_ranks(24)
    [1, 2, 4, 8, 16]
    """
    grid = {2**k for k in range(MOST_REMOVED.bit_length())} if chosen is None else set(chosen)
    return sorted(rank for rank in grid if 0 < rank < width)


def least_rank(increases: Mapping[int, float], tolerance: float) -> int | None:
    """Return the least measured rank from which on every measured one stays within a tolerance.

    Parameters
    ----------
    increases : rank → loss less the whole loss; one that is not a number stays within nothing
    tolerance : nats a token

    Returns
    -------
    None where even the largest rank does not.
    """
    least = None
    for rank in sorted(increases, reverse=True):
        if not increases[rank] <= tolerance:
            break
        least = rank
    return least


def next_rank(increases: Mapping[int, float], tolerances: Sequence[float] = TOLERANCES) -> int | None:
    """Return the rank to be measured next, so that each least rank becomes exact; None when all are.

    Between a rank that exceeds a tolerance and the next measured one, which does not, the loss is taken to cross it
    once: halving that interval finds where in log2 of its length.
    """
    for tolerance in tolerances:
        least = least_rank(increases, tolerance)
        if least is None:
            continue
        below = max((rank for rank in increases if rank < least), default=least)
        if least - below > 1:
            return (least + below) // 2
    return None


def rank_interval(
    lows: Mapping[int, float], highs: Mapping[int, float], tolerance: float
) -> tuple[int, int | None]:
    """Return the ranks that the least one may be, from the intervals of the increase at each measured rank.

    A least rank of R means that the loss at R − 1 exceeds the tolerance and at R and all that are larger it does not.
    Ranks at which it exceeds it significantly, low > tolerance, are under R; R is at most the least rank from which on
    it significantly does not, high ≤ tolerance. Ranks that were not measured count as undecided, so that the grid makes
    the interval wider and never narrower.

    Parameters
    ----------
    lows, highs : rank → ends of the 95 % interval of the increase, NaN where there is none
    tolerance : nats a token

    Returns
    -------
    Both ends, included; None for the upper one where no rank stays within significantly.
    """
    over = [rank for rank, low in lows.items() if low > tolerance]
    return max(over, default=-1) + 1, least_rank(highs, tolerance)


MOMENT_BYTES = 2**30


def layer_bytes(width: int, draws: int) -> int:
    """Bytes of the moments of a layer: a matrix in float64 for each draw, sinks apart."""
    return 16 * draws * width**2


def layers_at_once(width: int, draws: int) -> int:
    """Layers whose moments come from one pass: as many as 1 GiB holds, one at least."""
    return max(1, MOMENT_BYTES // layer_bytes(width, draws))
