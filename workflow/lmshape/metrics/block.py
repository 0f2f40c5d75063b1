"""From the activations of one cell to statistics archives: a block of layers, one family of metrics in each.

The driver of all families, site by site: it looks over the rows, leaves out the sink rows where asked,
flags rows that no statistic can be taken of, and writes what the family makes of the rest. An archive that would be
made the same is left as it is.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import repeat, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lmshape.errors import InputError, unknown
from lmshape.fingerprint import code_fingerprint, source_fingerprint
from lmshape.geometry.arrays import Device, computing_device, is_out_of_memory
from lmshape.metrics.layer import Found, Layer, Measured
from lmshape.metrics.own import measured_own
from lmshape.metrics.registry import MEASURED, OWN_FAMILY
from lmshape.metrics.rows import ROWS, Choices, Survey, choices, most_rows, near_sinks, sinks_by_name, survey
from lmshape.metrics.skdim import SKDIM, measured_skdim
from lmshape.paths import BLOCK, layers
from lmshape.progress import site_by_site
from lmshape.site import Site
from lmshape.store.activations import Activations, HeldActivations, Rows, open_activations
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import LayerStatistics, new_statistics, read_statistics

LOG = logging.getLogger(__name__)

ALONE = {
    "before": "no layer before: {} compares a block's output with the one before it (embedding and final norm)",
    "final": "the final checkpoint itself: {} compares the others with it",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A site, its rows, and what is known of them."""

    site: Site
    rows: Rows
    survey: Survey


@dataclass(frozen=True, slots=True)
class Archive:
    """What is measured into one file: a family, and what the file shall say of itself besides.

    The family is an argument and no name, so that the fingerprint of what measures does not lead on to all families.
    """

    path: Path
    family: Measured
    made_of: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Task:
    """A family, the choices of rows that concern it, and how an entry is written."""

    family: Measured
    names: Sequence[str]
    rows_per_draw: int | None
    write: Callable[[LayerStatistics], None]


@dataclass(slots=True)
class _Job:
    """What is measured at every site; `final` are the activations of the final checkpoint."""

    activations: Activations
    final: Activations | None
    tasks: list[_Task]
    device: Device  # None from where the GPU had no room


def measure(
    source: Path | HeldActivations, output_path: str | Path, *, family: Measured, **options: Any
) -> None:
    """Write the statistics of one family; `options` are those of `measure_together`."""
    measure_together(source, [Archive(Path(output_path), family)], **options)


def measure_together(
    source: Path | HeldActivations,
    archives: Sequence[Archive],
    *,
    first: int,
    last: int,
    rows: Sequence[str] = ROWS,
    rows_per_draw: int | None = None,
    device: Device = None,
    final: Path | None = None,
) -> None:
    """Write the statistics of families for the layers first … last of one cell, site by site.

    Two pieces of a layer, 64 MiB each, the sums that families share, and what one family keeps are in memory at a time;
    the next piece is read while the last is worked on. The final norm goes with the last block, whose layer number it
    carries.

    Parameters
    ----------
    source : activation store of the cell, or its activations in memory
    archives : what to write; a file appears when it is whole
    first, last : layers, both included; 0 is the embedding
    rows : which rows, of those that concern a family: "all"; "no_sink" without those that
        `lmshape.geometry.rows.sink_rows` finds, in a paired family in either of the two clouds; "one_per_type": of each
        token id one row of every draw, chosen at random by the seed of the store, the same for every layer and
        checkpoint
    rows_per_draw : unique rows that a capped family takes of each draw; None: all that every draw has
    device : torch device of the network that the activations are of. On a CUDA GPU sums, spectra, linearity and
        searches are made there, in float64, while it has room; elsewhere, and with None, in memory
    final : activation store of the final checkpoint, of the same tokens; None where this is it, or there is no other
    """
    for name in rows:
        if name not in ROWS:
            raise unknown("choice of rows", name, ROWS)
    if rows_per_draw is not None and rows_per_draw < 1:
        raise InputError(f"`rows_per_draw` is {rows_per_draw}; it must be at least 1, or None for all rows.")
    with ExitStack() as stack:
        activations = stack.enter_context(open_activations(source))
        last_one = stack.enter_context(Activations(final)) if final else None
        sites = sites_between(activations.sites, first, last)
        job = _Job(activations, last_one, [], computing_device(device))
        # what several families share is held until the last that is not paired
        for archive in sorted(archives, key=lambda archive: bool(archive.family.paired)):
            family = archive.family
            most = rows_per_draw if family.capped else None
            # HDF5 has no None: 0 stands for all rows
            own: Attributes = {
                "family": family.name,
                "first": first,
                "last": last,
                "rows_per_draw": most or 0,
            }
            attributes = {**activations.attributes, **own, **archive.made_of}
            file = new_statistics(archive.path, attributes=attributes, axes=family.axes)
            job.tasks.append(_Task(family, family.chosen_rows(rows), most, stack.enter_context(file)))
        families = ", ".join(archive.family.name for archive in archives)
        finished = stack.enter_context(site_by_site(len(sites), family=families))
        for place, others in _places_with_others(job, sites):
            _measure_site(job, place, others)
            finished(place.site.path)


def sites_between(sites: Sequence[Site], first: int, last: int) -> list[Site]:
    """Sites of the layers first … last, both included; `InputError` where there is none."""
    chosen = [site for site in sites if first <= site.layer <= last]
    if not chosen:
        layers = [site.layer for site in sites]
        raise InputError(
            f"no layer of the store, {min(layers)} to {max(layers)}, lies in `first`={first} … `last`={last}."
        )
    return chosen


def _places_with_others(
    job: _Job, sites: Sequence[Site]
) -> Iterator[tuple[_Place, dict[str, _Place | None]]]:
    """Yield each site, and what paired families compare it with, where there is that, by `Measured.paired`."""
    paired = {task.family.paired for task in job.tasks}
    earlier = [site for site in job.activations.sites if "before" in paired and site == _before(sites[0])]
    finals = _places(job.final, sites) if job.final and "final" in paired else repeat(None)
    before = None
    for place in _places(job.activations, [*earlier, *sites]):
        if place.site in sites:
            known = before is not None and before.site == _before(place.site)
            yield place, {"": None, "before": before if known else None, "final": next(finals)}
        before = place if "before" in paired else None


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


def _measure_site(job: _Job, place: _Place, others: Mapping[str, _Place | None]) -> None:
    """Write the entries of a site, one for each family and choice of rows."""
    made: dict[Hashable, Any] = {}
    for task in job.tasks:
        other = others[task.family.paired]
        chosen = _chosen(job, task, place, other)
        layer = _layer(job, task, chosen, place, other)
        if task.family.paired:
            made.clear()  # the sums over pairs need the memory
        else:
            layer = replace(layer, made=made)
        for entry in _entries(job, task, place, chosen, layer):
            task.write(entry)


def _chosen(job: _Job, task: _Task, place: _Place, other: _Place | None) -> Choices:
    surveys = [place.survey] if other is None else [place.survey, other.survey]
    seed = int(job.activations.attributes.get("seed", 0))
    chosen = choices(task.names, surveys, job.activations.tokens, seed=seed)
    if task.family.paired and other is None:
        reason = ALONE[task.family.paired].format(task.family.name)
        return replace(chosen, refused=dict.fromkeys(chosen.kept, reason))
    return chosen


def _layer(job: _Job, task: _Task, chosen: Choices, place: _Place, other: _Place | None) -> Layer:
    tokens = job.activations.tokens
    wanted = {name: task.rows_per_draw for name in chosen.kept}
    if "one_per_type" in wanted:
        wanted["one_per_type"] = most_rows(task.rows_per_draw, tokens.draw[chosen.kept["one_per_type"]])
    return Layer(
        rows=place.rows,
        other=None if other is None else other.rows,
        draw=tokens.draw,
        sequence=tokens.sequence,
        kept=chosen.accepted,
        rows_per_draw=wanted,
        tokens=tokens,
        sinks=chosen.sinks,
        device=job.device,
    )


def _statistics(job: _Job, family: Measured, layer: Layer) -> Mapping[str, Found]:
    """Measure a family, on the CPU from where the GPU has no room."""
    try:
        return family.statistics(layer)
    except RuntimeError as error:
        if layer.device is None or not is_out_of_memory(error):
            raise
        LOG.warning("the GPU has no room to measure `%s`: measured on the CPU instead", family.name)
    job.device = None
    layer.made.clear()  # it lies on the GPU
    return family.statistics(replace(layer, device=None))


def _entries(
    job: _Job, task: _Task, place: _Place, chosen: Choices, layer: Layer
) -> Iterator[LayerStatistics]:
    """Measure a family at a site and yield an entry for each choice of rows."""
    found = _statistics(job, task.family, layer) if layer.kept else {}
    tokens = job.activations.tokens
    for name, mask in chosen.kept.items():
        counts = _counts(place, mask, tokens.draw)
        arrays, attributes = found.get(name) or _refused(
            task.family, counts, layer.rows_per_draw[name], chosen.refused[name]
        )
        audit = {
            "duplicates": counts["n_rows"] - counts["n_unique"],
            "near_sink_rows": near_sinks(place.survey.norms, chosen.sinks),
            **sinks_by_name(chosen.sinks, tokens),
        }
        yield LayerStatistics(place.site, name, dict(arrays), {**counts, **audit, **attributes})


def _counts(place: _Place, kept: np.ndarray, draw: np.ndarray) -> dict[str, int]:
    return {
        "n_rows": int(np.count_nonzero(kept)),
        "n_unique": place.survey.unique(draw, kept),
        "d": place.rows.shape[1],
        "draws": len(np.unique(draw[kept])),
    }


def _refused(family: Measured, counts: dict[str, int], rows_per_draw: int | None, flag: str) -> Found:
    """Return the arrays of rows without statistics, and the reason."""
    rows, width, draws = counts["n_rows"], counts["d"], max(counts["draws"], 1)
    arrays = family.missing(rows=rows, width=width, draws=draws, rows_per_draw=rows_per_draw)
    return arrays, {"flag": flag}


def measure_block(
    activations: Path | HeldActivations,
    folder: Path,
    *,
    families: Sequence[str],
    first: int,
    last: int,
    rows: Sequence[str],
    rows_per_draw: int | None = None,
    own_metrics: Path | None = None,
    skdim: Sequence[str] = (),
    device: Device = None,
    final: Path | None = None,
) -> list[str]:
    """Write the statistics archives of a block that are not there, or would be made otherwise.

    Parameters
    ----------
    activations : activation store of the cell, or its activations in memory
    folder : of the cell's statistics; archives lie at `{family}/layers-{first}-{last}.h5` below it
    families : names of families
    first, last, rows, rows_per_draw, device, final : as `measure_together` takes them; each family takes those rows
        that concern it
    own_metrics : the file of the family `own`
    skdim : names of the metrics of the family `skdim`; others in the list are ignored

    Returns
    -------
    The families that were measured; the archives of the others are left as they are.
    """
    source = _source(activations, first, last)
    due: list[Archive] = []
    for name in families:
        family = measured_family(name, own_metrics=own_metrics, skdim=skdim)
        code = family_code(name) + family.inputs
        made_of = {**source, "rows": " ".join(family.chosen_rows(rows)), "code": code}
        if family.paired == "final":
            told = _source(final, first, last) if final else {"checkpoint": "", "source": ""}
            made_of |= {"final_checkpoint": told["checkpoint"], "final_source": told["source"]}
        archive = folder / BLOCK.format(family=name, **layers(first, last))
        most = rows_per_draw if family.capped else None
        if _is_current(archive, {**made_of, "family": name, "rows_per_draw": most or 0}):
            LOG.info("`%s` is there already, from this code and these activations.", archive)
            os.utime(archive)  # Snakemake takes an archive that is older than its activations for outdated
        else:
            due.append(Archive(archive, family, made_of))
    if due:
        measure_together(
            activations,
            due,
            first=first,
            last=last,
            rows=rows,
            rows_per_draw=rows_per_draw,
            device=device,
            final=final if any(archive.family.paired == "final" for archive in due) else None,
        )
    return [archive.family.name for archive in due]


def measured_family(name: str, *, own_metrics: Path | None = None, skdim: Sequence[str] = ()) -> Measured:
    """Return how a family is measured: `own` with its file, which is run, `skdim` with its estimators.

    An unknown name is refused with the nearest ones.
    """
    if name not in MEASURED:
        raise unknown("metric family", name, MEASURED)
    if name == OWN_FAMILY:
        return measured_own(own_metrics)
    return measured_skdim(skdim) if name == SKDIM.name else MEASURED[name]


def family_code(family: str, own_metrics: Path | None = None) -> str:
    """Return the fingerprint of what measures a family: its functions, what drives all of them, the user's file.

    It does not cover the entries of the family's metrics, which gathering computes from the archive.
    """
    own = source_fingerprint(own_metrics) if family == OWN_FAMILY and own_metrics else ""
    return code_fingerprint(*_definitions(MEASURED[family])) + own


def families_code() -> str:
    """Return the fingerprint of what measures all families of the library."""
    library = [family for name, family in MEASURED.items() if name != OWN_FAMILY]
    return code_fingerprint(*(name for family in library for name in _definitions(family)))


def _definitions(family: Measured) -> list[str]:
    """Name the functions whose change makes other archives of a family."""
    functions = (measure, family.statistics, family.missing)
    return [f"{function.__module__}.{function.__qualname__}" for function in functions]


def _source(source: Path | HeldActivations, first: int, last: int) -> Attributes:
    """Attributes of the activations, and the digest of the block's layers and of the layer before it."""
    with open_activations(source) as activations:
        sites: list[Site] = sites_between(activations.sites, max(first - 1, 0), last)
        return {**activations.attributes, "source": activations.digest(sites)}


def _is_current(archive: Path, wanted: Attributes) -> bool:
    """Whether an archive exists and the same code and activations would give it again."""
    if not archive.exists():
        return False
    try:
        found, _ = read_statistics(archive)  # all of it: what is reused must not be damaged
    except InputError as error:
        LOG.warning("%s It is measured again.", error)
        return False
    return all(_is_same(found.get(key), value) for key, value in wanted.items())


def _is_same(one: object, other: object) -> bool:
    """Whether two attributes are equal; NaN, which stands for an unknown number of tokens seen, equals NaN here."""
    return one == other or (one != one and other != other)
