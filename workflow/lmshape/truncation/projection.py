"""The residual stream projected on its leading principal axes, or without them, draw by draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lmshape.truncation.principal_axes import PrincipalAxes

Variant = Literal["keep", "remove"]
VARIANTS = ("keep", "remove")


@dataclass(frozen=True, slots=True, eq=False)
class Projections:
    """The axes that each draw is projected on, in float32 where the network runs.

    Attributes
    ----------
    means : draw → (d,)
    axes : draw → (d, d), columns by variance, largest first
    """

    means: Mapping[int, Tensor]
    axes: Mapping[int, Tensor]

    @classmethod
    def of(cls, fitted: Mapping[int, PrincipalAxes], device: torch.device) -> Projections:
        """Bring fitted axes to a device."""
        to = {"dtype": torch.float32, "device": device}
        return cls(
            {draw: torch.as_tensor(one.mean).to(**to) for draw, one in fitted.items()},
            {draw: torch.as_tensor(one.axes).to(**to) for draw, one in fitted.items()},
        )

    def applied(self, hidden: Tensor, draw: Tensor, rows: Tensor, *, variant: Variant, rank: int) -> Tensor:
        """Project some rows of a hidden state, each on the axes of its draw.

        Parameters
        ----------
        hidden : (sequences, length, d), any float type; it stays as it is
        draw : (sequences,) the draw of each
        rows : (sequences, length) bool: the rows that are projected; all others are copied bit by bit
        variant, rank : keep the `rank` leading axes, or remove them

        Returns
        -------
        A tensor like `hidden`.
        """
        changed = hidden.clone()
        for one in draw.unique().tolist():
            chosen = rows & (draw == one)[:, None]
            x = hidden[chosen].float()
            # a network that is spread over several places has its layers in all of them
            mean, axes = self.means[one].to(x.device), self.axes[one].to(x.device)
            kept = keep_leading if variant == "keep" else remove_leading
            changed[chosen] = kept(x, mean, axes, rank).to(hidden.dtype)
        return changed


def keep_leading(x: Tensor, mean: Tensor, axes: Tensor, rank: int) -> Tensor:
    """Return μ + P(x − μ), P the projection on the leading axes.

    From the shorter side: with more than half of the axes the others are taken out, so that nothing is left to rounding
    where nothing is removed, and all of them give x itself.

    x : (m, d), mean : (d,), axes : (d, d) columns by variance → (m, d), all of one type
    """
    width = axes.shape[1]
    if 2 * rank > width:
        return _without(x, mean, axes[:, rank:])
    leading = axes[:, :rank]
    return mean + ((x - mean) @ leading) @ leading.T


def remove_leading(x: Tensor, mean: Tensor, axes: Tensor, rank: int) -> Tensor:
    """Return x − P(x − μ), P the projection on the leading axes; shapes as in `keep_leading`."""
    return _without(x, mean, axes[:, :rank])


def _without(x: Tensor, mean: Tensor, axes: Tensor) -> Tensor:
    return x - ((x - mean) @ axes) @ axes.T if axes.shape[1] else x
