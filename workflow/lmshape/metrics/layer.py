"""The interface of a family: it gets the rows of a layer, and returns the arrays to store."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from lmshape.geometry.arrays import Device
from lmshape.geometry.threads import product_threads_of
from lmshape.store.activations import Rows
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens

Arrays = Mapping[str, np.ndarray]
Found = tuple[Arrays, Attributes]  # what is kept of one choice of rows

ONE_THREAD = 256  # up to this width BLAS threads wait for each other longer than they work


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """The rows of one site, and which of them each choice of rows keeps.

    Parameters
    ----------
    rows : n rows of width d, finite in every choice of `kept`
    other : the rows of the same tokens that a paired family compares these with; None where there are none
    draw : (n,) integers, the draw of each row
    sequence : (n,) integers, the sequence of each row
    kept : name of the choice (`all`, `no_sink`, `one_per_type`) → (n,) bool; at least 2 draws in each
    rows_per_draw : name of the choice → unique rows that a capped family takes of each draw; None: all
    tokens : the n tokens; None where a family that does not ask for them is given arrays alone
    sinks : (n,) bool, the sink rows of the site; None as `tokens`
    device : torch device on which families sum, decompose and search; None: in memory
    made : by key, what was made of the rows of the site for all families that are not paired
    """

    rows: Rows
    other: Rows | None
    draw: np.ndarray
    sequence: np.ndarray
    kept: Mapping[str, np.ndarray]
    rows_per_draw: Mapping[str, int | None]
    tokens: Tokens | None = None
    sinks: np.ndarray | None = None
    device: Device = None
    made: dict[Hashable, Any] = field(default_factory=dict)

    def compared(self) -> Rows:
        """Return `other`, which a paired family needs."""
        if self.other is None:
            raise ValueError("`other` is None; a paired family compares two sites of the same tokens.")
        return self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Computation of the archives of a family.

    Parameters
    ----------
    name : name of the family
    statistics : Layer → for every name in `layer.kept` its arrays and attributes, `flag` among them
    missing : (rows=, width=, draws=, rows_per_draw=) → the same arrays, NaN, for so many rows of a width without
        statistics
    paired : what a site is compared with: "before", a block's output with the one before it; "final", the site with
        itself at the final checkpoint; "", with nothing
    rows : choices of rows that concern the family
    only : choices of rows that are measured whatever the study takes; none: those of `rows` that it takes
    capped : whether `rows_per_draw` bounds the rows
    axes : array → names of its axes; of arrays with one axis, over draws, none
    inputs : what the numbers depend on beside rows and code, for the archive's fingerprint
    """

    name: str
    statistics: Callable[..., Mapping[str, Found]]
    missing: Callable[..., Arrays]
    paired: Literal["", "before", "final"] = ""
    rows: tuple[str, ...] = ("all", "no_sink")
    only: tuple[str, ...] = ()
    capped: bool = False
    axes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    inputs: str = ""

    def chosen_rows(self, rows: Sequence[str]) -> list[str]:
        """Return the choices of rows that the family is measured on in a study with `rows`."""
        return list(self.only) or [name for name in rows if name in self.rows]

    def given(self, inputs: str, **arguments: object) -> Measured:
        """Return the family with keyword arguments of both its functions filled in."""
        statistics, missing = partial(self.statistics, **arguments), partial(self.missing, **arguments)
        return replace(self, statistics=statistics, missing=missing, inputs=inputs)


def blas_threads(width: int) -> AbstractContextManager:
    """Return a context in which products of matrices of a width use as many threads as pay."""
    return product_threads_of(1 if width <= ONE_THREAD else None)
