"""From the activations of one cell to a statistics archive: a block of layers, one family of metrics.

The driver of all families: it chooses the layers, leaves out the sink rows where asked, flags rows that no
statistic can be taken of, and writes what the family module makes of the rest. A family is a module of this
package, found by its name, so that adding or changing one touches no other: `Family` says what it provides.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from tqdm import tqdm

from lmshape.errors import InputError, unknown
from lmshape.geometry.occurrences import one_per_type
from lmshape.geometry.sinks import sink_rows
from lmshape.store import Activations, LayerStatistics, Site, write_statistics
from lmshape.tokens import Tokens

ROWS = ("all", "no_sink", "one_per_type")
ONE_FAMILY = {"one_per_type": "neighbor"}  # choices of rows that only one family takes; the others pass over

Arrays = dict[str, np.ndarray]


class Family(Protocol):
    """What a family module provides."""

    FAMILY: str

    def statistics(
        self, x: np.ndarray, draw: np.ndarray, *, rows_per_draw: int | None
    ) -> tuple[Arrays, dict[str, str | int]]:
        """Return arrays and attributes, `flag` among them, of finite rows x (n, d) in draws (n,)."""

    def missing(self, *, rows: int, width: int, draws: int, rows_per_draw: int | None) -> Arrays:
        """Return the same arrays, NaN, for rows that have no statistics."""


def families() -> list[str]:
    """Name the families that can be measured: the modules of this package."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def family_module(family: str) -> Family:
    """Import the module of a family; an unknown name is refused with the nearest ones."""
    if family not in families():
        raise unknown("metric family", family, families())
    return cast(Family, importlib.import_module(f"{__name__}.{family}"))


def measure(
    activations_path: str | Path,
    output_path: str | Path,
    *,
    family: str,
    first: int,
    last: int,
    rows: Sequence[str] = ROWS,
    rows_per_draw: int | None = None,
) -> None:
    """Write the statistics of one family for the layers first … last of one cell.

    One layer is in memory at a time. The final norm goes with the last block, whose layer number it carries.

    Parameters
    ----------
    activations_path : activation store of the cell
    output_path : statistics archive to write; it appears when it is whole
    family : name of a module of this package
    first, last : layers, both included; 0 is the embedding
    rows : which rows: "all"; "no_sink" without those that `lmshape.geometry.sinks.sink_rows` finds;
        "one_per_type", for the neighbor family alone: of each token id one row of every draw, chosen at random
        by the seed of the store, the same for every layer and checkpoint
    rows_per_draw : unique rows that the neighbor family takes of each draw; None: all that every draw has
    """
    module = family_module(family)
    for name in rows:
        if name not in ROWS:
            raise unknown("choice of rows", name, ROWS)
    if rows_per_draw is not None and rows_per_draw < 1:
        raise InputError(f"`rows_per_draw` is {rows_per_draw}; it must be at least 1, or None for all rows.")
    # HDF5 has no None: 0 stands for all rows
    own = {"family": family, "first": first, "last": last, "rows_per_draw": rows_per_draw or 0}
    with Activations(activations_path) as activations:
        sites = _sites_between(activations.sites, first, last)
        layers = _layers(activations, sites, module, rows=rows, rows_per_draw=rows_per_draw)
        write_statistics(output_path, attributes={**activations.attributes, **own}, layers=layers)


def _sites_between(sites: Sequence[Site], first: int, last: int) -> list[Site]:
    chosen = [site for site in sites if first <= site.layer <= last]
    if not chosen:
        layers = [site.layer for site in sites]
        raise InputError(
            f"no layer of the store, {min(layers)} to {max(layers)}, lies in `first`={first} … `last`={last}."
        )
    return chosen


def _layers(
    activations: Activations,
    sites: Sequence[Site],
    module: Family,
    *,
    rows: Sequence[str],
    rows_per_draw: int | None,
) -> Iterator[LayerStatistics]:
    tokens = activations.tokens
    seed = int(activations.attributes.get("seed", 0))
    rows = [name for name in rows if ONE_FAMILY.get(name, module.FAMILY) == module.FAMILY]
    for site in tqdm(sites, desc=module.FAMILY, unit="layer", disable=not sys.stderr.isatty()):
        x = activations.read(site)
        finite = np.isfinite(x).all(axis=1)
        for name in rows:
            kept = _kept(name, x, tokens, finite=finite, seed=seed)
            wanted = _most_rows(rows_per_draw, tokens.draw[kept]) if name in ONE_FAMILY else rows_per_draw
            arrays, attributes = _statistics(
                module, x[kept], tokens.draw[kept], finite=finite[kept], rows_per_draw=wanted
            )
            yield LayerStatistics(site=site, rows=name, arrays=arrays, attributes=attributes)


def _kept(name: str, x: np.ndarray, tokens: Tokens, *, finite: np.ndarray, seed: int) -> np.ndarray:
    """Return which rows of a layer belong to a choice of rows."""
    if name == "one_per_type":
        return one_per_type(tokens.ids, tokens.draw, seed=seed)
    if name == "no_sink" and finite.all():  # else no median norm to find sinks by: flagged either way
        return ~sink_rows(x, tokens.position)
    return np.ones(len(x), dtype=bool)


def _most_rows(rows_per_draw: int | None, draw: np.ndarray) -> int | None:
    """Return what can be asked of draws with fewer rows than others have, so that only copies flag them."""
    fewest = int(np.unique(draw, return_counts=True)[1].min())
    return fewest if rows_per_draw is None else min(rows_per_draw, fewest)


def _statistics(
    module: Family, x: np.ndarray, draw: np.ndarray, *, finite: np.ndarray, rows_per_draw: int | None
) -> tuple[Arrays, dict[str, str | int]]:
    """Return what the family makes of the rows, or NaN arrays and the reason."""
    rows, width = x.shape
    draws = len(np.unique(draw))
    attributes = {"n_rows": rows, "n_unique": _unique_count(x, draw), "d": width, "draws": draws}
    flag = _refusal(draw, finite)
    if flag:
        arrays = module.missing(rows=rows, width=width, draws=max(draws, 1), rows_per_draw=rows_per_draw)
        return arrays, {**attributes, "flag": flag}
    arrays, more = module.statistics(x, draw, rows_per_draw=rows_per_draw)
    return arrays, {**attributes, **more}


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


def _unique_count(x: np.ndarray, draw: np.ndarray) -> int:
    """Count the rows that repeat none of their own draw."""
    positive_zero = x + np.zeros((), x.dtype)  # -0.0 + 0.0 is 0.0: equal rows get equal bytes
    return len({(j, row.tobytes()) for j, row in zip(draw.tolist(), positive_zero, strict=True)})
