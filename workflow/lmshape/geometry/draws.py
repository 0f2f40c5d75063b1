"""Draws of sequences as sets of rows: all, and all but one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import as_labels

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def leave_one_out_masks(draw: ArrayLike, count: int) -> list[np.ndarray]:
    """Return which rows take part: all of them, then all but those of each draw in ascending order.

    Parameters
    ----------
    draw : (count,) integers, the draw of each row
    count : number of rows

    Returns
    -------
    K + 1 Boolean arrays (count,).

    Raises
    ------
    ValueError
        When there are fewer than 2 draws, or fewer than 2 rows without one of them.
    """
    draw = as_labels(draw, count, name="draw")
    labels = np.unique(draw)
    if len(labels) < 2:
        raise ValueError(f"`draw` names {len(labels)} draw; an interval needs at least 2. Sample more draws.")
    masks = [np.ones(count, dtype=bool), *(draw != label for label in labels)]
    fewest = min(int(mask.sum()) for mask in masks)
    if fewest < 2:
        raise ValueError(
            f"`draw` leaves {fewest} row without one of its draws; at least 2 are needed. Add rows."
        )
    return masks
