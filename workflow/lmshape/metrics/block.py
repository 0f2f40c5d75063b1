"""From the activations of one cell to a statistics archive: a block of layers, one family of metrics.

The driver of all families: it chooses the layers and looks over their rows, leaves out the sink rows where asked,
flags rows that no statistic can be taken of, and writes what the family module makes of the rest. A family is a
module of this package, found by its name, so that adding or changing one touches no other: `Family` says what it
provides.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from lmshape.errors import InputError, unknown
from lmshape.fingerprint import code_fingerprint, source_fingerprint
from lmshape.metrics import angular, leading, linearity, neighbor, own, released, released_linearity, spectral
from lmshape.metrics.families import OWN_FAMILY, RELEASED_FAMILIES
from lmshape.metrics.metric import Layer
from lmshape.metrics.rows import ROWS, Survey, choices, most_rows, sinks_by_name, survey
from lmshape.paths import BLOCK, layers
from lmshape.progress import site_by_site
from lmshape.site import Site
from lmshape.store.activations import Activations, Rows
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import LayerStatistics, read_statistics_attributes, write_statistics
from lmshape.writing import replaced_when_whole

ONE_FAMILY = {"one_per_type": "neighbor"}  # choices of rows that only one family takes; the others pass over
NO_LAYER_BEFORE = (
    "no layer before: linearity compares a block's output with the one before it (embedding and final norm)"
)

Arrays = dict[str, np.ndarray]


class Family(Protocol):
    """What a family module provides; with `PAIRED = True`, too, it is measured on a block and the site before."""

    FAMILY: str

    def statistics(self, layer: Layer) -> dict[str, tuple[Arrays, Attributes]]:
        """Return arrays and attributes, `flag` among them, for every name in `layer.kept`."""

    def missing(self, *, rows: int, width: int, draws: int, rows_per_draw: int | None) -> Arrays:
        """Return the same arrays, NaN, for rows that have no statistics."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A site, its rows, and what is known of them."""

    site: Site
    rows: Rows
    survey: Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is measured at every site, and with what."""

    activations: Activations
    module: Family
    names: Sequence[str]
    rows_per_draw: int | None

    @property
    def paired(self) -> bool:
        return getattr(self.module, "PAIRED", False)


MODULES = {
    module.FAMILY: module
    for module in (spectral, angular, leading, neighbor, linearity, released, released_linearity, own)
}


def families() -> list[str]:
    """Name the families that can be measured."""
    return sorted(MODULES)


def family_module(family: str, own_metrics: Path | None = None) -> Family:
    """Import the module of a family, `own` with its file; an unknown name is refused with the nearest ones."""
    if family not in families():
        raise unknown("metric family", family, families())
    module = MODULES[family]
    return cast(Family, module.of_file(own_metrics) if hasattr(module, "of_file") else module)


def chosen_rows(family: str, rows: Sequence[str]) -> list[str]:
    """Choices of rows that concern a family."""
    return [name for name in rows if ONE_FAMILY.get(name, family) == family]


def measure(
    activations_path: str | Path,
    output_path: str | Path,
    *,
    family: str,
    first: int,
    last: int,
    rows: Sequence[str] = ROWS,
    rows_per_draw: int | None = None,
    own_metrics: Path | None = None,
    made_of: Attributes | None = None,
) -> None:
    """Write the statistics of one family for the layers first … last of one cell.

    Two pieces of a layer, 64 MiB each, and what the family keeps are in memory at a time; the next piece is read
    while the last is worked on. The final norm goes with the last block, whose layer number it carries.

    Parameters
    ----------
    activations_path : activation store of the cell
    output_path : statistics archive to write; it appears when it is whole
    family : name of a module of this package
    first, last : layers, both included; 0 is the embedding
    rows : which rows: "all"; "no_sink" without those that `lmshape.geometry.rows.sink_rows` finds, in a paired family
        at either of the two sites; "one_per_type", for the neighbor family alone: of each token id one row of every
        draw, chosen at random by the seed of the store, the same for every layer and checkpoint
    rows_per_draw : unique rows that the neighbor family takes of each draw; None: all that every draw has
    own_metrics : the file of the family `own`: `lmshape.metrics.own`
    made_of : what the archive shall say of itself besides
    """
    module = family_module(family, own_metrics)
    for name in rows:
        if name not in ROWS:
            raise unknown("choice of rows", name, ROWS)
    if rows_per_draw is not None and rows_per_draw < 1:
        raise InputError(f"`rows_per_draw` is {rows_per_draw}; it must be at least 1, or None for all rows.")
    names = chosen_rows(family, rows)
    # HDF5 has no None: 0 stands for all rows
    own = {"family": family, "first": first, "last": last, "rows_per_draw": rows_per_draw or 0}
    own |= made_of or {}
    with Activations(activations_path) as activations:
        job = _Job(activations=activations, module=module, names=names, rows_per_draw=rows_per_draw)
        layers = _layers(job, sites_between(activations.sites, first, last))
        write_statistics(output_path, attributes={**activations.attributes, **own}, layers=layers)


def sites_between(sites: Sequence[Site], first: int, last: int) -> list[Site]:
    """Sites of the layers first … last, both included; `InputError` where there is none."""
    chosen = [site for site in sites if first <= site.layer <= last]
    if not chosen:
        layers = [site.layer for site in sites]
        raise InputError(
            f"no layer of the store, {min(layers)} to {max(layers)}, lies in `first`={first} … `last`={last}."
        )
    return chosen


def _layers(job: _Job, sites: Sequence[Site]) -> Iterator[LayerStatistics]:
    """Yield the entries of the archive, site by site."""
    earlier = [site for site in job.activations.sites if job.paired and site == _before(sites[0])]
    before = None
    with site_by_site(len(sites), family=job.module.FAMILY) as finished:
        for place in _places(job.activations, [*earlier, *sites]):
            if place.site in sites:
                known = job.paired and before is not None and before.site == _before(place.site)
                yield from _entries(job, place, before if known else None)
                finished(place.site.path)
            before = place


def _before(site: Site) -> Site | None:
    """Return the site of the residual stream whose output a block takes; None where there is no such block."""
    if site.name != "block":
        return None
    return Site("block", site.layer - 1) if site.layer > 1 else Site("embedding", 0)


def _places(activations: Activations, sites: Sequence[Site]) -> Iterator[_Place]:
    """Yield the sites with what a first look tells; the next small one is read while the last is worked on."""
    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(activations.rows, sites[0])
        for site, following in zip_longest(sites, sites[1:]):
            rows = ahead.result()
            if following is not None:
                ahead = reader.submit(activations.rows, following)
            yield _Place(site, rows, survey(rows))


def _entries(job: _Job, place: _Place, before: _Place | None) -> Iterator[LayerStatistics]:
    """Yield the entries of a site, one for each choice of rows."""
    tokens = job.activations.tokens
    surveys = [place.survey] if before is None else [place.survey, before.survey]
    seed = int(job.activations.attributes.get("seed", 0))
    chosen = choices(job.names, surveys, tokens, seed=seed)
    if job.paired and before is None:
        chosen = replace(chosen, refused=dict.fromkeys(chosen.kept, NO_LAYER_BEFORE))
    wanted = {name: _wanted(job, name, tokens.draw[mask]) for name, mask in chosen.kept.items()}
    layer = Layer(
        rows=place.rows,
        before=None if before is None else before.rows,
        draw=tokens.draw,
        sequence=tokens.sequence,
        kept=chosen.accepted,
        rows_per_draw=wanted,
        tokens=tokens,
        sinks=chosen.sinks,
    )
    found = job.module.statistics(layer) if layer.kept else {}
    for name, mask in chosen.kept.items():
        counts = _counts(place, mask, tokens.draw)
        arrays, attributes = found.get(name) or _refused(job, counts, wanted[name], chosen.refused[name])
        audit = {"duplicates": counts["n_rows"] - counts["n_unique"], **sinks_by_name(chosen.sinks, tokens)}
        yield LayerStatistics(place.site, name, arrays, {**counts, **audit, **attributes})


def _wanted(job: _Job, name: str, draw: np.ndarray) -> int | None:
    return most_rows(job.rows_per_draw, draw) if name in ONE_FAMILY else job.rows_per_draw


def _counts(place: _Place, kept: np.ndarray, draw: np.ndarray) -> dict[str, int]:
    return {
        "n_rows": int(np.count_nonzero(kept)),
        "n_unique": place.survey.unique(draw, kept),
        "d": place.rows.shape[1],
        "draws": len(np.unique(draw[kept])),
    }


def _refused(
    job: _Job, counts: dict[str, int], rows_per_draw: int | None, flag: str
) -> tuple[Arrays, Attributes]:
    """Return the arrays of rows without statistics, and the reason."""
    rows, width, draws = counts["n_rows"], counts["d"], max(counts["draws"], 1)
    arrays = job.module.missing(rows=rows, width=width, draws=draws, rows_per_draw=rows_per_draw)
    return arrays, {"flag": flag}


LOG = logging.getLogger(__name__)


def measure_block(
    activations: Path,
    folder: Path,
    *,
    families: Sequence[str],
    first: int,
    last: int,
    rows: Sequence[str],
    rows_per_draw: int | None = None,
    own_metrics: Path | None = None,
) -> list[str]:
    """Write the statistics archives of a block that are not there yet.

    Parameters
    ----------
    activations : activation store of the cell
    folder : of the cell's statistics; archives lie at `{family}/layers-{first}-{last}.h5` below it
    families : metric families
    first, last, rows, rows_per_draw, own_metrics : as `lmshape.metrics.block.measure` takes them; each
    family takes those
        rows that concern it

    Returns
    -------
    The families that were measured; those of the others are there again, of these activations.
    """
    source = _source(activations, first, last)
    measured = []
    for family in families:
        chosen = ["all"] if family in RELEASED_FAMILIES else chosen_rows(family, rows)
        made_of = {**source, "rows": " ".join(chosen), "code": family_code(family, own_metrics)}
        most = rows_per_draw if family == "neighbor" else None
        archive = folder / BLOCK.format(family=family, **layers(first, last))
        kept = kept_name(archive)
        if _is_current(kept, {**made_of, "family": family, "rows_per_draw": most or 0}):
            LOG.info("`%s` is there already, of this code and these activations.", archive)
            os.utime(kept)  # newer than what it was made of, whenever that was made again
        else:
            measure(
                activations,
                kept,
                family=family,
                first=first,
                last=last,
                rows=chosen,
                rows_per_draw=most,
                own_metrics=own_metrics if family == OWN_FAMILY else None,
                made_of=made_of,
            )
            measured.append(family)
        _give_name(kept, archive)
    return measured


def kept_name(archive: Path) -> Path:
    """Name the same archive where Snakemake does not look for it."""
    return archive.with_name(f".{archive.name}")


def _give_name(kept: Path, archive: Path) -> None:
    """Let an archive appear under its own name: the same file, a copy where the file system has no hard links."""
    if archive.exists() and archive.samefile(kept):
        return  # renaming one name of a file to another does nothing
    with replaced_when_whole(archive) as partial:
        try:
            os.link(kept, partial)
        except OSError:
            shutil.copy2(kept, partial)


def family_code(family: str, own_metrics: Path | None = None) -> str:
    """Return the fingerprint of what computes a family: its module, what drives all of them, the user's file."""
    own = source_fingerprint(own_metrics) if family == OWN_FAMILY and own_metrics else ""
    return code_fingerprint("lmshape.metrics.block", f"lmshape.metrics.block.{family}") + own


def _source(path: Path, first: int, last: int) -> Attributes:
    """What the activations say of themselves, and the digest of the block's layers and of the one before it."""
    with Activations(path) as activations:
        sites: list[Site] = sites_between(activations.sites, max(first - 1, 0), last)
        return {**activations.attributes, "source": activations.digest(sites)}


def _is_current(archive: Path, wanted: Attributes) -> bool:
    """Whether an archive is there and was made as it would be made now."""
    if not archive.exists():
        return False
    try:
        found = read_statistics_attributes(archive)
    except InputError as error:
        LOG.warning("%s It is measured again.", error)
        return False
    return all(_is_same(found.get(key), value) for key, value in wanted.items())


def _is_same(one: object, other: object) -> bool:
    """Whether two attributes are equal; NaN, which tokens seen are where nobody knows a step's, equals NaN here."""
    return one == other or (one != one and other != other)
