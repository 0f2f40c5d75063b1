"""Texts in rows: of a JSON Lines or Parquet file, or of a hub dataset."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lmshape.errors import InputError, unknown
from lmshape.texts.corpus import DOCUMENT_END
from lmshape.writing import replaced_when_whole

ROW_FILES = (".jsonl", ".parquet")
BEHIND = f"\n\n{DOCUMENT_END}"  # each row


def write_rows_of(source: Path, destination: Path, *, column: str) -> None:
    """Write the column of a JSON Lines or Parquet file as a text, an empty line and `DOCUMENT_END` behind each row.

    Raises
    ------
    InputError
        When the file is not one of these, or has no such column of text.
    """
    read = _of_parquet if source.suffix == ".parquet" else _of_json_lines
    _write(read(source, column), destination, of=f"`{source}`", most=None)


def write_hub_dataset(
    path: str, destination: Path, *, name: str | None, split: str, column: str, megabytes: float
) -> None:
    """Write the first rows of a dataset of the hub as a text, as `write_rows_of` does; only these are downloaded.

    Parameters
    ----------
    path, name, split : as `datasets.load_dataset` takes them
    destination : file to write; it appears when it is whole
    column : of the text
    megabytes : of text, after which no further row is taken

    Raises
    ------
    InputError
        Without the package `datasets`; when the hub has no such dataset, or that no such column.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            f"the text is the dataset `{path}` of the hub, and `datasets` is not installed: pip install datasets"
        ) from None
    try:
        rows = datasets.load_dataset(path, name, split=split, streaming=True)
    except (OSError, ValueError) as error:  # the hub's refusals are of these kinds
        raise InputError(f"the dataset `{path}` cannot be loaded: {error}") from error
    texts = (_text(row, column, of=f"`{path}`") for row in rows)
    _write(texts, destination, of=f"`{path}`", most=megabytes * 10**6)


def _of_json_lines(source: Path, column: str) -> Iterator[str]:
    with source.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise InputError(
                        f"`{source}`, line {number}, is not JSON ({error}). Correct the file."
                    ) from error
                yield _text(row, column, of=f"`{source}`, line {number},")


def _of_parquet(source: Path, column: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"`{source}` cannot be read as Parquet ({error}).") from error
    if column not in file.schema_arrow.names:
        raise unknown(f"column of `{source}`", column, file.schema_arrow.names)
    for batch in file.iter_batches(columns=[column]):
        yield from (_text({column: value}, column, of=f"`{source}`") for value in batch.column(0).to_pylist())


def _text(row: Mapping[str, Any], column: str, *, of: str) -> str:
    value = row.get(column) if isinstance(row, Mapping) else None
    if not isinstance(value, str):
        names = ", ".join(row) if isinstance(row, Mapping) else "none"
        raise InputError(f"{of} has no text under `column` = '{column}'; its columns: {names}.")
    return value


def _write(texts: Iterable[str], destination: Path, *, of: str, most: float | None) -> None:
    destination.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_whole(destination) as partial, partial.open("wb") as output:
        for text in texts:
            if text.strip():
                output.write((text.strip("\n") + BEHIND).encode())
            if most is not None and output.tell() >= most:
                break
        if not output.tell():
            raise InputError(f"{of} has no text in it. Name another file, column or split.")
