"""The rows of a layer sorted into parts, so that one pass over them serves every choice of rows and every draw.

A part is the rows of one draw that the same choices keep: the sums of `all` are those of the rows in `no_sink` and
of the sinks, and the sums without a draw those of the parts of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lmshape.store import Rows

CENTER_ROWS = 101  # a few sinks among them do not move their median


@dataclass(frozen=True, slots=True)
class Parts:
    """Which part each row is in, and which parts a choice of rows consists of.

    Parameters
    ----------
    label : (n,) integers, the part of each row from 0; −1 for rows that no choice keeps
    members : name of the choice → for each of its draws, in ascending order, the parts of it
    """

    label: np.ndarray
    members: Mapping[str, list[list[int]]]

    @property
    def count(self) -> int:
        """Number of parts."""
        return int(self.label.max(initial=-1)) + 1

    def subsets(self, name: str) -> list[list[int]]:
        """Return the parts of a choice: of all of its draws, then without each of them."""
        draws = self.members[name]
        everything = [part for draw in draws for part in draw]
        return [everything, *([part for part in everything if part not in draw] for draw in draws)]

    def blocks(self, rows: Rows, entries: int) -> Iterator[tuple[int, slice | np.ndarray, np.ndarray]]:
        """Yield part, which rows (a slice or an index), and these rows in the stored dtype: every kept row once.

        entries : a block has about as many, and at least one row
        """
        step = max(1, entries // rows.shape[1])
        for piece, chunk in rows.chunks():
            for start in range(0, len(chunk), step):
                block = chunk[start : start + step]
                first = piece.start + start
                label = self.label[first : first + len(block)]
                if label[0] >= 0 and (label == label[0]).all():
                    yield int(label[0]), slice(first, first + len(block)), block
                    continue
                for part in np.unique(label[label >= 0]):
                    own = np.flatnonzero(label == part)
                    yield int(part), first + own, block[own]


def parts_of(draw: np.ndarray, kept: Mapping[str, np.ndarray]) -> Parts:
    """Sort rows into parts.

    Parameters
    ----------
    draw : (n,) integers, the draw of each row
    kept : name of the choice → (n,) bool
    """
    # one bit for each choice: rows of the same bits and draw are one part
    choices = np.zeros(len(draw), dtype=np.int64)
    for bit, mask in enumerate(kept.values()):
        choices |= mask.astype(np.int64) << bit
    draws, ordinal = np.unique(draw, return_inverse=True)
    taken = np.flatnonzero(choices)
    keys, inverse = np.unique((ordinal << len(kept) | choices)[taken], return_inverse=True)
    label = np.full(len(draw), -1)
    label[taken] = inverse
    members = {
        name: [own for j in range(len(draws)) if (own := _members(keys, len(kept), draw=j, bit=bit))]
        for bit, name in enumerate(kept)
    }
    return Parts(label, members)


def _members(keys: np.ndarray, bits: int, *, draw: int, bit: int) -> list[int]:
    """Return the parts of a draw that a choice keeps."""
    return np.flatnonzero((keys >> bits == draw) & (keys >> bit & 1 == 1)).tolist()


def robust_center(rows: Rows, kept: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a point (d,) amid the rows that no far row has moved, to take sums about: float64.

    The median, coordinate by coordinate, of the first rows that every choice keeps; of those that any keeps where
    there are none.
    """
    masks = list(kept.values())
    common = np.logical_and.reduce(masks)
    index = np.flatnonzero(common if common.any() else np.logical_or.reduce(masks))[:CENTER_ROWS]
    return np.median(rows.take(index).astype(np.float64), axis=0)
