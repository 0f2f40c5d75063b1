"""What a metric family is given of one site of the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lmshape.store.rows import Rows
from lmshape.texts.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The rows of one site, and which of them each choice of rows keeps.

    Parameters
    ----------
    rows : n rows of width d, finite in every choice of `kept`
    before : the rows of the same tokens one block earlier; None at the embedding and at the final norm
    draw : (n,) integers, the draw of each row
    sequence : (n,) integers, the sequence of each row
    kept : name of the choice (`all`, `no_sink`, `one_per_type`) → (n,) bool; at least 2 draws in each
    rows_per_draw : name of the choice → unique rows that the neighbor family takes of each draw; None: all
    tokens : the n tokens; None where a family that does not ask for them is given arrays alone
    sinks : (n,) bool, the sink rows of the site; None as `tokens`
    """

    rows: Rows
    before: Rows | None
    draw: np.ndarray
    sequence: np.ndarray
    kept: Mapping[str, np.ndarray]
    rows_per_draw: Mapping[str, int | None]
    tokens: Tokens | None = None
    sinks: np.ndarray | None = None
