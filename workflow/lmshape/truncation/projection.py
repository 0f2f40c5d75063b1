"""The residual stream projected on its leading principal axes, or without them, draw by draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lmshape.geometry.spectrum import CovarianceSums
from lmshape.models.extract import next_token_nll, predictable, read_all
from lmshape.models.network import Network, memory_ran_out
from lmshape.models.residual import ResidualStream, Shortcut, Take, replaced, run
from lmshape.site import Site
from lmshape.store.tokens import Tokens


@dataclass(frozen=True, slots=True, eq=False)
class PrincipalAxes:
    """Where a cloud lies, and its directions by variance.

    Attributes
    ----------
    mean : (d,) float64
    axes : (d, d) float64, orthonormal columns, largest variance first; with fewer than d + 1 rows the last ones are any
        that are orthogonal to the rest
    rows : number of rows that they were fitted on
    """

    mean: np.ndarray
    axes: np.ndarray
    rows: int


def principal_axes(sums: CovarianceSums, device: torch.device) -> PrincipalAxes:
    """Diagonalize a scatter matrix in float64, O(d³), on a CUDA GPU if that is the device."""
    scatter = torch.as_tensor(sums.scatter, device=device if device.type == "cuda" else "cpu")
    _, axes = torch.linalg.eigh(scatter)
    return PrincipalAxes(sums.mean, axes.flip(1).cpu().numpy(), sums.count)


class MomentsByDraw:
    """Sums over the rows of a layer, draw by draw, sinks apart: 2 K matrices (d, d) in float64.

    Parameters
    ----------
    width : d
    draw : (n,) integers, the draw of each row
    sinks : (n,) bool
    """

    def __init__(self, width: int, draw: np.ndarray, sinks: np.ndarray) -> None:
        self._width = width
        self._part = 2 * draw.astype(np.int64) + sinks
        self._sums: dict[int, CovarianceSums] = {}

    def update(self, index: np.ndarray, rows: np.ndarray) -> None:
        """Add finite rows (m, d); `index` (m,) says which of the n they are."""
        part = self._part[index]
        for one in np.unique(part):
            self._sums.setdefault(int(one), CovarianceSums(self._width)).update(rows[part == one])

    def without(self, draw: int, rows: str) -> CovarianceSums:
        """Return the sums over the rows of all other draws: `all`, or `no_sink`."""
        others = (
            sums
            for part, sums in sorted(self._sums.items())
            if part // 2 != draw and (rows == "all" or part % 2 == 0)
        )
        return CovarianceSums.merged(others, self._width)


Variant = Literal["keep", "remove"]
VARIANTS: tuple[Variant, ...] = ("keep", "remove")


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

        def brought(numbers: np.ndarray) -> Tensor:
            return torch.as_tensor(numbers).to(device=device, dtype=torch.float32)

        return cls(
            {draw: brought(one.mean) for draw, one in fitted.items()},
            {draw: brought(one.axes) for draw, one in fitted.items()},
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


SHORTCUT_ROUNDING = 1e-5  # nats a token: what another way of computing the same may change

# What a later block may raise that misses something of an earlier one.
IN_VAIN = (RuntimeError, ValueError, TypeError, AttributeError, LookupError)

Changed = Callable[[Tensor, "Sequences"], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Sequences:
    """A batch: sequences of one length that fit into memory.

    Attributes
    ----------
    index : (sequences, length), which of the n tokens they are
    ids : (sequences, length) int64, where the network takes them
    predicted : (sequences, length) bool: tokens whose loss counts
    draw : (sequences,) the draw of each
    """

    index: np.ndarray
    ids: Tensor
    predicted: np.ndarray
    draw: np.ndarray


class Losses:
    """Losses of a network on some sequences, by draw.

    Parameters
    ----------
    network, stream : a decoder and its residual stream
    tokens : all n tokens of a cell
    chosen : (n,) bool: tokens of the sequences that are read, whole ones
    batch_tokens : most tokens of a batch; where memory runs out in the first pass, batches are smaller

    Attributes
    ----------
    device : of the ids
    tokens : (K,) predicted tokens of each draw
    whole : (K,) loss of each draw, the network being as it is
    """

    def __init__(
        self,
        network: Network,
        stream: ResidualStream,
        tokens: Tokens,
        *,
        chosen: np.ndarray,
        batch_tokens: int,
    ) -> None:
        self._network, self._stream, self.device = network, stream, network.device
        self._draws = np.unique(tokens.draw)
        self._batches = self._fitting(tokens, np.flatnonzero(chosen), batch_tokens)
        self._shortcut = Shortcut.of(stream, network.model, self._batches[0].ids[:1])
        self._site = stream.sites[0]
        self._states: list[Tensor] = []
        self._is_short = False
        counts = [np.bincount(_draws_of(one), minlength=self._draws[-1] + 1) for one in self._batches]
        self.tokens = np.sum(counts, axis=0)[self._draws]
        self.whole = self._by_draw(self._nll)

    @property
    def draws(self) -> list[int]:
        """The K draws, ascending."""
        return self._draws.tolist()

    def behind(self, site: Site) -> bool:
        """Turn to a site, in a pass; return whether the way from there is the short one."""
        self._site = site
        self._states = []  # those of the site before go first, so that never two layers' are held
        self._states = [self._state(one) for one in self._batches]
        self._is_short = True
        self._is_short = self._gives_the_whole()
        if not self._is_short:
            self._states = []
        return self._is_short

    def _gives_the_whole(self) -> bool:
        """Whether the short pass with an unchanged state gives the loss of the whole pass."""
        try:
            short = self.changed(lambda hidden, one: hidden.clone())
        except IN_VAIN as error:
            if memory_ran_out(error):
                raise
            return False
        return bool(np.allclose(short, self.whole, rtol=0, atol=SHORTCUT_ROUNDING, equal_nan=True))

    def changed(self, change: Changed) -> np.ndarray:
        """Return the loss of each draw, (K,) nats a token, with another state behind the site.

        `change` makes a new tensor of a hidden state and its batch.
        """
        if not self._is_short:
            return self._by_draw(lambda one: self._nll_through(one, change))
        states = dict(zip(map(id, self._batches), self._states, strict=True))
        return self._by_draw(lambda one: self._nll_from(one, change(states[id(one)], one)))

    def _nll_from(self, one: Sequences, state: Tensor) -> Tensor:
        with self._shortcut.resumed(self._site, state):
            return self._nll(one)

    def _nll_through(self, one: Sequences, change: Changed) -> Tensor:
        with replaced(self._stream, self._site, lambda hidden: change(hidden, one)):
            return self._nll(one)

    def _nll(self, one: Sequences) -> Tensor:
        return next_token_nll(run(self._network.model, one.ids).logits, one.ids)

    def _state(self, one: Sequences) -> Tensor:
        kept: list[Tensor] = []

        def take(site: Site, hidden: Tensor) -> None:
            if site == self._site:
                kept.append(hidden.clone())

        with torch.inference_mode(), self._stream.observed(take):
            run(self._network.model.base_model, one.ids)
        return kept[0]

    @torch.inference_mode()
    def _by_draw(self, nll: Callable[[Sequences], Tensor]) -> np.ndarray:
        sums = np.zeros(self._draws[-1] + 1)
        for one in self._batches:
            values = nll(one).cpu().numpy()[one.predicted].astype(np.float64)
            sums += np.bincount(_draws_of(one), weights=values, minlength=len(sums))
        return sums[self._draws] / self.tokens

    def _fitting(self, tokens: Tokens, rows: np.ndarray, batch_tokens: int) -> list[Sequences]:
        """Batches that a whole pass gets through."""
        read: list[Sequences] = []
        predicted = predictable(tokens)

        def attempt(index: np.ndarray, take: Take) -> None:
            index = rows[index]
            ids = torch.as_tensor(tokens.ids[index], dtype=torch.int64, device=self._network.device)
            one = Sequences(index, ids, predicted[index], tokens.draw[index[:, 0]])
            with torch.inference_mode():
                self._nll(one)
            read.append(one)

        some = _only(tokens, rows)
        keep_nothing = lambda rows, site, hidden: None  # noqa: E731
        read_all(some, batch_tokens, read=attempt, write=keep_nothing, device=self._network.device)
        return read


def _draws_of(one: Sequences) -> np.ndarray:
    """Return the draw of each token that counts."""
    return np.broadcast_to(one.draw[:, None], one.predicted.shape)[one.predicted]


def _only(tokens: Tokens, rows: np.ndarray) -> Tokens:
    """Tokens of some rows, for their lengths and order."""
    columns = {
        name: getattr(tokens, name)[rows] for name in ("ids", "sequence", "position", "draw", "special")
    }
    return Tokens(**columns, sequence_bytes=tokens.sequence_bytes, attributes=tokens.attributes)


def first_sequences(tokens: Tokens, most: int) -> np.ndarray:
    """(n,) bool: the first sequences of each draw, at most so many."""
    sequence, starts = np.unique(tokens.sequence, return_index=True)
    draw = tokens.draw[starts]
    firsts = [sequence[draw == one][:most] for one in np.unique(draw)]
    return np.isin(tokens.sequence, np.concatenate(firsts))
