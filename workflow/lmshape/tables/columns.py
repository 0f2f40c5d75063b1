"""The tidy tables: columns, each declared once with its type and what it means; and the files that hold them.

A table is Parquet with the declared columns for programs, and CSV for people; each file is whole or absent. It depends
on what its columns are called, not on how they are computed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lmshape.checkpoints import NO_STEP
from lmshape.errors import InputError, first_line
from lmshape.writing import replaced_when_whole

Row = dict[str, Any]  # column → value

# Of the key-value metadata of a model's own table: where its weights came from, and the audit of its sites.
CHECKPOINTS_KEY = b"lmshape.checkpoints"
AUDITS_KEY = b"lmshape.audits"


def text(name: str, meaning: str) -> pa.Field:
    """Declare a column of text."""
    return _column(name, meaning, pa.string())


def category(name: str, meaning: str) -> pa.Field:
    """Declare a column of few different texts: a category in pandas and Polars, a factor in R."""
    return _column(name, meaning, pa.dictionary(pa.int32(), pa.string()))


def integer(name: str, meaning: str) -> pa.Field:
    """Declare a column of whole numbers."""
    return _column(name, meaning, pa.int64())


def real(name: str, meaning: str) -> pa.Field:
    """Declare a column of real numbers."""
    return _column(name, meaning, pa.float64())


def interval(
    declare_one: Callable[[str, str], pa.Field], name: str, meaning: str, note: str = ""
) -> list[pa.Field]:
    """Declare a column of numbers with its 95 % interval: `name`, `name`_low and `name`_high."""
    ends = {"low": "lower", "high": "upper"}
    bounds = [
        declare_one(f"{name}_{end}", f"{word} end of its 95 % interval{note}") for end, word in ends.items()
    ]
    return [declare_one(name, meaning), *bounds]


def interval_of(name: str, value: Any, low: Any, high: Any) -> Row:
    """Fill the three columns that `interval` declares."""
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def declare(*columns: pa.Field) -> pa.Schema:
    """Declare a table."""
    return pa.schema(columns)


def _column(name: str, meaning: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, metadata={"description": meaning})


def joined(*reasons: str) -> str:
    """Write the reasons of a flag one behind the other, without empty ones."""
    return "; ".join(filter(None, reasons))


COLUMNS = declare(
    category("study", "name of the study, from the config"),
    category("model", "name of the model, from the registry"),
    category("family", "architecture of the model"),
    category("kind", "decoder or encoder"),
    integer("parameters", "number of parameters of the model"),
    category("checkpoint", "name of the checkpoint"),
    integer("step", "training steps before the checkpoint; empty when unknown"),
    real("tokens_seen", "training tokens before the checkpoint; empty when unknown"),
    category("dataset", "name of the dataset, from the registry"),
    category("site", "embedding, block, final_norm; output for the loss"),
    integer("layer", "0 for the embedding, l after block l; the number of blocks for final_norm and output"),
    real("depth", "layer / number of blocks"),
    category(
        "rows", "all; no_sink: without the attention sinks; one_per_type: a row of each token id in a draw"
    ),
    category("metric", "name of the metric: `lmshape metrics`"),
    real("value", "the estimate; empty never without a reason in flag"),
    real("ci_low", "lower end of the 95 % interval; empty where there is none"),
    real("ci_high", "upper end of the 95 % interval; empty where there is none"),
    real(
        "change",
        "value less that of the trusted checkpoint before; empty at the first, and where either has no value",
    ),
    real(
        "change_low",
        "lower end of its 95 % interval, of differences taken draw by draw; empty where there is none",
    ),
    real("change_high", "upper end of its 95 % interval; empty where there is none"),
    integer("draws", "number of independent draws of sequences behind the interval"),
    integer("n_rows", "number of token rows over all draws; for the loss, tokens that have one"),
    integer("n_unique", "rows that repeat none of their own draw; empty for the loss"),
    integer("d", "width of a row; empty for the loss"),
    integer("seed", "seed of the choice of tokens"),
    text("flag", "the reason of an empty value, or of a doubt about the value; empty when fine"),
    category(
        "verdict",
        "what the audit says of the checkpoint's weights: `lmshape audit`; of local folders `duplicate` or empty",
    ),
)
GONE = "gone"  # of a checkpoint of which only the tables are left: how its `note` begins
CHANGES = ("change", "change_low", "change_high")
SITES = ("embedding", "block", "final_norm", "output")  # in the order of the network

# Of a model's own table alone, for what is computed over layers and steps draw by draw: `lmshape.dynamics`.
MODEL_COLUMNS = declare(
    *COLUMNS,
    category("interval", "how the interval is made: jackknife, draws, or none"),
    _column(
        "replicates",
        "the numbers behind it: over all rows, then without each draw; for `draws`, of each draw",
        pa.list_(pa.float64()),
    ),
)


def shared(names: str) -> list[pa.Field]:
    """Return columns of the metrics, by their names with spaces between, that another table has too."""
    return [COLUMNS.field(name) for name in names.split()]


# Whole numbers have no NaN: what stands in memory, in these columns, for what a file has as null.
UNKNOWN_NUMBER = {"step": NO_STEP, "n_unique": 0, "d": 0}


def with_nulls(table: pa.Table) -> pa.Table:
    """Put null where a number is NaN, or unknown: the means of DuckDB and Polars leave out null, and not NaN."""
    for place, field in enumerate(table.schema):
        table = table.set_column(place, field, _with_nulls(table.column(place), field))
    return table


def _with_nulls(column: pa.ChunkedArray, field: pa.Field) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_list(field.type):
        lists = column.combine_chunks()
        numbers = pc.if_else(pc.is_nan(lists.values), None, lists.values)
        return pa.ListArray.from_arrays(lists.offsets, numbers, mask=lists.is_null())
    if pa.types.is_floating(field.type):
        return pc.if_else(pc.is_nan(column), None, column)
    if pa.types.is_integer(field.type) and field.name in UNKNOWN_NUMBER:
        return pc.if_else(pc.equal(column, UNKNOWN_NUMBER[field.name]), None, column)
    return column


def without_categories(table: pa.Table) -> pa.Table:
    """Make text of categories: groups of a data frame would hold combinations that no row has."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.string()))
    return table


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return a table for computing: null is NaN, and in the columns `UNKNOWN_NUMBER` their own word for it."""
    table = without_categories(table)
    for place, field in enumerate(table.schema):
        if pa.types.is_integer(field.type) and field.name in UNKNOWN_NUMBER:
            whole = pc.fill_null(table.column(place), UNKNOWN_NUMBER[field.name])
            table = table.set_column(place, field, whole)
    return table.to_pandas()


def write_table(frame: pd.DataFrame | pa.Table, columns: pa.Schema, stem: Path) -> None:
    """Write a table as `stem` + .parquet and + .csv.

    Parameters
    ----------
    frame : the rows; columns that `columns` does not name are left out, those that it lacks are empty
    columns : names, types and descriptions of the columns, in order
    stem : path of the two files without their suffix
    """
    table = frame
    if isinstance(frame, pd.DataFrame):
        texts = [field.name for field in columns if pa.types.is_dictionary(field.type)]
        frame = frame.reindex(columns=columns.names).astype(
            dict.fromkeys(texts, object)
        )  # else absent ones are reals
        table = pa.Table.from_pandas(frame, columns, preserve_index=False)
    table = with_nulls(table)
    # not `with_suffix`, which would take the end of pythia-1.4b off
    write_parquet(table, stem.with_name(f"{stem.name}.parquet"))
    with replaced_when_whole(stem.with_name(f"{stem.name}.csv")) as partial:
        # nullable integers: one absent peak must not turn all layers into real numbers
        table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get).to_csv(partial, index=False)


# In the metadata, before eight digits: of the whole file, with zeros in their place.
CHECK = b"lmshape-crc32:"
CHECK_DIGITS = 8


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a Parquet file of the study, whole or not at all, with a checksum of all of its bytes."""
    metadata = {**(table.schema.metadata or {}), b"check": CHECK + b"0" * CHECK_DIGITS}
    with replaced_when_whole(path) as partial:
        pq.write_table(table.replace_schema_metadata(metadata), partial)
        content = bytearray(partial.read_bytes())
        place = content.rindex(CHECK) + len(CHECK)
        content[place : place + CHECK_DIGITS] = b"%08x" % zlib.crc32(content)
        partial.write_bytes(content)


def _is_whole(content: bytes) -> bool:
    """Whether the checksum of a file is that of its bytes; files of an older lmshape have none."""
    place = content.rfind(CHECK)
    if place < 0:
        return True
    start, end = place + len(CHECK), place + len(CHECK) + CHECK_DIGITS
    crc = zlib.crc32(content[end:], zlib.crc32(b"0" * CHECK_DIGITS, zlib.crc32(content[:start])))
    return content[start:end] == b"%08x" % crc


def read_table(path: Path, metrics: Sequence[str] = (), columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table, all of it or some `metrics` and `columns`."""
    filters = [("metric", "in", list(metrics))] if metrics else None
    return frame_of(read_parquet(path, columns=columns, filters=filters))


def read_parquet(path: Path, **options: Any) -> pa.Table:
    """Read a Parquet file of the study with the options of `pyarrow.parquet.read_table`.

    `InputError` for a file that does not exist, is damaged, or lacks a column as one of an older version does.
    """
    if not path.is_file():
        raise InputError(f"`{path}` does not exist. Make it first: `snakemake --cores all {path}`.")
    try:
        content = path.read_bytes()
        if not _is_whole(content):
            raise OSError("its checksum does not match")
        return pq.read_table(pa.BufferReader(content), **options)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"`{path}` cannot be read ({first_line(error)}). Delete it; the next run of `snakemake` makes it again."
        ) from error
