"""A block of layers of one cell: measure the metric families whose archive is not there, or not of this code and data.

One job measures all families of a block, so that a study is few, long jobs. What such a job finds from before it
keeps if it would make the same: a family that is added, or whose code changes, is measured alone.

Snakemake deletes the outputs of a job before it runs, and of one that fails. So each archive has a second name, a
hidden one that Snakemake does not know of: what it deletes is a name, and only this module says whether the archive
may have it again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lmshape.errors import InputError
from lmshape.families import OWN_FAMILY, RELEASED_FAMILIES
from lmshape.fingerprint import code_fingerprint, source_fingerprint
from lmshape.measure import chosen_rows, measure, sites_between
from lmshape.paths import BLOCK, layers
from lmshape.store import Activations, Attributes, Site, read_statistics_attributes
from lmshape.writing.atomic import replaced_when_whole

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
    first, last, rows, rows_per_draw, own_metrics : as `lmshape.measure.measure` takes them; each family takes those
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
    return code_fingerprint("lmshape.measure", f"lmshape.measure.{family}") + own


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
