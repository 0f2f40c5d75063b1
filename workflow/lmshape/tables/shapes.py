"""Two tables of a layer's shape from its statistics: its spectrum, and a few of its points.

`shapes` takes both from the archives of one model, on its first dataset, for the blocks that stand for the network;
`combine_shapes` puts the models together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa

from lmshape.checkpoints import Checkpoint, log_spaced, under_each_name
from lmshape.geometry.nulls import spectrum_null
from lmshape.geometry.resample import jackknife
from lmshape.metrics.leading import GROUPS
from lmshape.site import Site, named_layers
from lmshape.store.hdf5 import Attributes
from lmshape.store.statistics import LayerStatistics, read_statistics, read_statistics_attributes
from lmshape.tables.columns import (
    Row,
    declare,
    integer,
    joined,
    read_parquet,
    real,
    shared,
    text,
    write_parquet,
    write_table,
)

# family → what of its archives is read
ARRAYS = {
    "spectral": ["eigenvalues"],
    "leading": (
        "eigenvalues total sample_coordinates sample_group sample_position sample_token sample_draw sample_weight"
    ).split(),
}
CLOUD_ROWS = ("all", "no_sink")  # of a cloud: the first of them that an archive has
MOST_CHECKPOINTS = 5
MOST_RANKS = 60

_PLACE = (
    *shared("study model kind checkpoint step dataset site layer depth"),
    text("band", "early, middle or last: a quarter and half of the way up, and the last block"),
    *shared("rows"),
)
SPECTRA_COLUMNS = declare(
    *_PLACE,
    integer("rank", "of the eigenvalue, 1 the largest; about 60 ranks, evenly spread on a logarithmic axis"),
    real("share", "λ_rank / Σλ of the covariance: the share of the variance along this principal axis"),
    real("ci_low", "lower end of its 95 % interval; empty where there is none"),
    real("ci_high", "upper end of its 95 % interval; empty where there is none"),
    real("null", "share of this rank in isotropic rows of this number and width: Marchenko-Pastur"),
    *shared("draws"),
    integer("n_rows", "number of token rows over all draws"),
    integer("d", "width of a row"),
    text("flag", "the reason of an empty value; empty when fine"),
)
CLOUD_COLUMNS = declare(
    *_PLACE,
    integer("draw", "draw of sequences that the token is in"),
    integer("position", "of the token in its sequence, from 0"),
    integer("token", "id of the token"),
    text("text", "the token's text, in quotes; empty where it is not known"),
    text("group", "position_0; other_sink: norm over 10 × the site's median; rest"),
    real("weight", "rows of its group that this one stands for; 1 where all of them are here"),
    *(
        real(f"axis_{k}", f"coordinate on principal axis {k}, from the mean, in units of the rows")
        for k in (1, 2, 3)
    ),
    *(real(f"share_{k}", f"λ{k} / Σλ: the share of the variance along axis {k}") for k in (1, 2, 3)),
    integer("n_rows", "number of token rows that the axes were taken of"),
    integer("d", "width of a row"),
    text("flag", "the reason of an empty value; empty when fine"),
)
SHAPE_SCHEMAS = {"spectra": SPECTRA_COLUMNS, "clouds": CLOUD_COLUMNS}


def shapes(
    statistics: Sequence[Path],
    output_dir: Path,
    *,
    study: str,
    same: Mapping[str, Sequence[Checkpoint]] | None = None,
) -> None:
    """Write `spectra.parquet` and `clouds.parquet` of one model; one archive is in memory at a time.

    Parameters
    ----------
    statistics : archives of the families `spectral` and `leading` of one model and dataset, in any order; those
        of other families are passed over. Without any the tables are empty
    output_dir : folder of the two files
    study : name of the study
    same : checkpoint → others with its weights, which get their rows from its archives
    """
    archives = [
        (Path(path), own)
        for path in statistics
        for own in under_each_name(read_statistics_attributes(path), same or {})
    ]
    archives.sort(key=lambda archive: (archive[1]["step"], archive[1]["first"]))
    spectral, leading = ([one for one in archives if one[1]["family"] == family] for family in ARRAYS)
    rows = {"spectra": _spectra(spectral, study), "clouds": _clouds(leading, study)}
    for name, columns in SHAPE_SCHEMAS.items():
        table = pa.Table.from_pylist(list(rows[name]), schema=columns)
        write_parquet(table, Path(output_dir) / f"{name}.parquet")


def combine_shapes(folders: Sequence[Path], output_dir: Path) -> None:
    """Write `spectra` and `clouds` of all models as .parquet and .csv; the models keep their order.

    Parameters
    ----------
    folders : what `shapes` wrote, a folder for each model
    output_dir : folder of the tables; each file is replaced when the new one is whole
    """
    for name, columns in SHAPE_SCHEMAS.items():
        tables = [read_parquet(Path(folder) / f"{name}.parquet") for folder in folders]
        write_table(pa.concat_tables([columns.empty_table(), *tables]), columns, Path(output_dir) / name)


def _spectra(archives: Sequence[tuple[Path, Attributes]], study: str) -> Iterator[Row]:
    for path, own in archives:
        for entry in _entries(path, own):
            place = _place(study, own, entry)
            yield from (place | row for row in spectrum_rows(entry))


def _clouds(archives: Sequence[tuple[Path, Attributes]], study: str) -> Iterator[Row]:
    seen = seen_checkpoints({str(own["checkpoint"]): int(own["step"]) for _, own in archives})
    for path, own in archives:
        if own["checkpoint"] not in seen:
            continue
        for _, entries in groupby(_entries(path, own), key=lambda entry: entry.site):
            entry = min(entries, key=lambda entry: CLOUD_ROWS.index(entry.rows))
            place = _place(study, own, entry)
            yield from (place | row for row in cloud_rows(entry))


def _entries(path: Path, attributes: Attributes) -> list[LayerStatistics]:
    """Read what is needed of the blocks that stand for the network, if the archive has any."""
    sites = {Site("block", layer) for layer in named_layers(int(attributes["blocks"])).values()}
    return read_statistics(path, sites=sites, arrays=ARRAYS[str(attributes["family"])])[1]


def _place(study: str, attributes: Attributes, entry: LayerStatistics) -> Row:
    """Return the columns that say where an entry of an archive was taken."""
    cell = {name: attributes[name] for name in ("model", "kind", "checkpoint", "step", "dataset")}
    layer, blocks = entry.site.layer, int(attributes["blocks"])
    bands = {layer: band for band, layer in named_layers(blocks).items()}
    place = {"site": entry.site.name, "layer": layer, "depth": layer / blocks}
    return {"study": study, **cell, **place, "band": bands[layer], "rows": entry.rows}


def spectrum_rows(entry: LayerStatistics) -> Iterator[Row]:
    """Yield the rows of one entry of a spectral archive; one row with the reason where it has no spectrum."""
    counts = {name: entry.attributes[name] for name in ("draws", "n_rows", "d")}
    eigenvalues, flag = entry.arrays["eigenvalues"], str(entry.attributes["flag"])
    total = eigenvalues.sum(axis=1)
    if not np.isfinite(total[0]) or total[0] <= 0:
        yield {**counts, "rank": 1, "flag": flag or "zero variance"}
        return
    ranks = log_ranks(eigenvalues.shape[1])
    shares = np.divide(
        eigenvalues, total[:, None], out=np.full(eigenvalues.shape, np.nan), where=total[:, None] > 0
    )
    null = spectrum_null(int(counts["n_rows"]), int(counts["d"]), ranks)
    for rank, expected in zip(ranks.tolist(), null.tolist(), strict=True):
        estimate = jackknife(shares[0, rank - 1], shares[1:, rank - 1], bounds=(0.0, 1.0))
        unsure = "" if np.isfinite(estimate.low) else "no interval: not defined without one of its draws"
        yield {
            **counts,
            "rank": rank,
            "share": estimate.value,
            "ci_low": estimate.low,
            "ci_high": estimate.high,
            "null": expected,
            "flag": joined(flag, unsure),
        }


def log_ranks(last: int) -> np.ndarray:
    """Return about 60 whole ranks 1 … `last`: all of the first, and then ever fewer."""
    return np.unique(np.round(np.geomspace(1, last, MOST_RANKS)).astype(np.int64))


def seen_checkpoints(steps: Mapping[str, int]) -> list[str]:
    """Choose checkpoints to look at: the first, the last, and others spaced evenly in ln(1 + step).

    Parameters
    ----------
    steps : checkpoint → step, negative where it is not known

    Returns
    -------
    Names by step; the last name alone where no step is known.
    """
    known = sorted((step, name) for name, step in steps.items() if step >= 0)
    if not known:
        return list(steps)[-1:]
    return [known[i][1] for i in log_spaced([step for step, _ in known], MOST_CHECKPOINTS)]


def cloud_rows(entry: LayerStatistics) -> Iterator[Row]:
    """Yield the sampled rows of one entry of a leading archive; one with the reason where there is no axis."""
    counts = {name: entry.attributes[name] for name in ("n_rows", "d")}
    arrays, flag = entry.arrays, str(entry.attributes["flag"])
    total = arrays["total"][0]
    if not np.isfinite(total) or total <= 0:
        yield {**counts, "flag": flag or "zero variance"}
        return
    texts = json.loads(str(entry.attributes["texts"]))
    shares = {f"share_{k}": value for k, value in enumerate((arrays["eigenvalues"][0] / total).tolist(), 1)}
    for i, coordinates in enumerate(arrays["sample_coordinates"]):
        token = int(arrays["sample_token"][i])
        yield {
            **counts,
            "draw": int(arrays["sample_draw"][i]),
            "position": int(arrays["sample_position"][i]),
            "token": token,
            "text": repr(texts[str(token)]) if str(token) in texts else "",
            "group": GROUPS[arrays["sample_group"][i]],
            "weight": _shortest(arrays["sample_weight"][i]),
            **{f"axis_{k}": _shortest(value) for k, value in enumerate(coordinates, 1)},
            **shares,
            "flag": flag,
        }


def _shortest(value: np.float32) -> float:
    """Return the shortest number that is the same in float32: CSV files are half as long."""
    return float(str(value))
