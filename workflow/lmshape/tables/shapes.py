"""From statistics archives to two tables that show a layer's shape: its spectrum, and a few of its points.

`shapes` takes both from the archives of one model, on its first dataset, for the blocks that stand for the network;
`combine_shapes` puts the models together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lmshape.errors import InputError
from lmshape.store import LayerStatistics, read_statistics, read_statistics_attributes
from lmshape.tables.cloud_points import ARRAYS as CLOUD_ARRAYS
from lmshape.tables.cloud_points import CLOUD_COLUMNS, chosen_entry, cloud_rows, seen_checkpoints
from lmshape.tables.cloud_points import FAMILY as CLOUD_FAMILY
from lmshape.tables.columns import Value
from lmshape.tables.files import write_table
from lmshape.tables.shape_columns import named_sites, place_of
from lmshape.tables.spectra import ARRAYS as SPECTRUM_ARRAYS
from lmshape.tables.spectra import FAMILY as SPECTRUM_FAMILY
from lmshape.tables.spectra import SPECTRA_COLUMNS, spectrum_rows
from lmshape.writing.atomic import replaced_when_whole

TABLES = {"spectra": SPECTRA_COLUMNS, "clouds": CLOUD_COLUMNS}

Row = dict[str, Value | None]
Attributes = Mapping[str, Value]


def shapes(statistics: Sequence[Path], output_dir: Path, *, study: str) -> None:
    """Write `spectra.parquet` and `clouds.parquet` of one model; one archive is in memory at a time.

    Parameters
    ----------
    statistics : archives of the families `spectral` and `leading` of one model and dataset, in any order; those
        of other families are passed over. Without any the tables are empty
    output_dir : folder of the two files
    study : name of the study

    Raises
    ------
    InputError
        For a file that is no statistics archive, and for archives of several models or datasets.
    """
    attributes = {Path(path): read_statistics_attributes(path) for path in statistics}
    for name in ("model", "dataset"):
        found = sorted({str(own[name]) for own in attributes.values()})
        if len(found) > 1:
            raise InputError(
                f"`statistics` are of more than one {name}: {', '.join(found)}; give those of one."
            )
    ordered = dict(sorted(attributes.items(), key=lambda item: (item[1]["step"], item[1]["first"])))
    rows = {
        "spectra": list(_spectra(_of_family(ordered, SPECTRUM_FAMILY), study)),
        "clouds": list(_clouds(_of_family(ordered, CLOUD_FAMILY), study)),
    }
    for name, columns in TABLES.items():
        with replaced_when_whole(Path(output_dir) / f"{name}.parquet") as partial:
            pq.write_table(pa.Table.from_pylist(rows[name], schema=columns), partial)


def combine_shapes(folders: Sequence[Path], output_dir: Path) -> None:
    """Write `spectra` and `clouds` of all models as .parquet and .csv; the models keep their order.

    Parameters
    ----------
    folders : what `shapes` wrote, a folder for each model
    output_dir : folder of the tables; each file is replaced when the new one is whole

    Raises
    ------
    InputError
        For a table that is not there, or not what `shapes` writes.
    """
    for name, columns in TABLES.items():
        tables = [_read(Path(folder) / f"{name}.parquet", columns) for folder in folders]
        write_table(pa.concat_tables([columns.empty_table(), *tables]), columns, Path(output_dir) / name)


def _of_family(attributes: Mapping[Path, Attributes], family: str) -> dict[Path, Attributes]:
    return {path: own for path, own in attributes.items() if own["family"] == family}


def _spectra(archives: Mapping[Path, Attributes], study: str) -> Iterator[Row]:
    for path, own in archives.items():
        sites = named_sites(own)
        for entry in _entries(path, own, SPECTRUM_ARRAYS):
            place = place_of(study, own, entry, sites[entry.site])
            yield from ({**place, **row} for row in spectrum_rows(entry))


def _clouds(archives: Mapping[Path, Attributes], study: str) -> Iterator[Row]:
    seen = seen_checkpoints({str(own["checkpoint"]): int(own["step"]) for own in archives.values()})
    for path, own in archives.items():
        if own["checkpoint"] not in seen:
            continue
        sites = named_sites(own)
        for site, entries in groupby(_entries(path, own, CLOUD_ARRAYS), key=lambda entry: entry.site):
            entry = chosen_entry(list(entries))
            place = place_of(study, own, entry, sites[site])
            yield from ({**place, **row} for row in cloud_rows(entry))


def _entries(path: Path, attributes: Attributes, arrays: Sequence[str]) -> list[LayerStatistics]:
    """Read what is needed of the blocks that stand for the network, if the archive has any."""
    _, entries = read_statistics(path, sites=named_sites(attributes), arrays=arrays)
    return entries


def _read(path: Path, columns: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"`{path}` cannot be read as Parquet ({error}); make it again.") from error
    if not table.schema.equals(columns):
        raise InputError(f"`{path}` is not a table as this lmshape writes it; make it again.")
    return table
