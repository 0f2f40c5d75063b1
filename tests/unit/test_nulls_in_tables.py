"""What is missing is null in the files, for every tool, and in memory what the code computes with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from other_readers import reader

from lmshape.tables.columns import category, declare, integer, read_table, real, with_nulls, write_table

COLUMNS = declare(
    category("name", ""), integer("step", ""), integer("d", ""), integer("layer", ""), real("value", "")
)
ROWS = [
    {"name": "a", "step": 3, "d": 8, "layer": 0, "value": 1.0},
    {"name": "b", "step": -1, "d": 0, "layer": 1, "value": np.nan},
    {"name": "c", "step": 0, "d": 8, "layer": 2, "value": 2.0},
]


@pytest.fixture(params=["frame", "table"])
def stem(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    made = pd.DataFrame(ROWS) if request.param == "frame" else pa.Table.from_pylist(ROWS, schema=COLUMNS)
    write_table(made, COLUMNS, tmp_path / "table")
    return tmp_path / "table"


def test_a_file_has_null_and_neither_nan_nor_a_number_that_stands_for_it(stem: Path) -> None:
    table = pq.read_table(stem.with_suffix(".parquet"))
    assert table.column("value").to_pylist() == [1.0, None, 2.0]
    assert table.column("step").to_pylist() == [3, None, 0]
    assert table.column("d").to_pylist() == [8, None, 8]
    assert table.schema.field("step").type == pa.int64()
    assert pc.mean(table.column("value")).as_py() == 1.5
    assert stem.with_suffix(".csv").read_text().splitlines()[2] == "b,,,1,"


def test_a_list_of_numbers_has_null_and_not_nan() -> None:
    table = pa.table({"replicates": [[1.0, np.nan], None, [np.inf]]})
    assert with_nulls(table)["replicates"].to_pylist() == [[1.0, None], None, [np.inf]]


def test_a_frame_without_rows_or_without_a_column_has_all_columns(tmp_path: Path) -> None:
    for number, frame in enumerate((pd.DataFrame(), pd.DataFrame({"layer": [1]}))):
        write_table(frame, COLUMNS, tmp_path / f"{number}")
        assert pq.read_schema(tmp_path / f"{number}.parquet").equals(COLUMNS)


def test_a_name_with_a_point_is_kept_whole(tmp_path: Path) -> None:
    write_table(pd.DataFrame(ROWS), COLUMNS, tmp_path / "pythia-1.4b")
    assert {path.name for path in tmp_path.iterdir()} == {"pythia-1.4b.parquet", "pythia-1.4b.csv"}


def test_categories_are_kept_for_other_tools_and_text_in_our_own_code(stem: Path) -> None:
    file = stem.with_suffix(".parquet")
    assert isinstance(pd.read_parquet(file)["name"].dtype, pd.CategoricalDtype)
    assert read_table(file)["name"].dtype == "str"
    assert read_table(file, metrics=()).groupby(["name", "d"]).ngroups == 3


def test_code_reads_what_was_written(stem: Path) -> None:
    pd.testing.assert_frame_equal(
        read_table(stem.with_suffix(".parquet")), pd.DataFrame(ROWS), check_dtype=False
    )
    assert read_table(stem.with_suffix(".parquet"))["step"].dtype == np.int64


def test_other_tools_leave_out_what_is_missing(stem: Path) -> None:
    file = str(stem.with_suffix(".parquet"))
    polars = reader("polars")
    assert polars.read_parquet(file)["value"].mean() == 1.5
    duckdb = reader("duckdb")
    assert duckdb.sql(f"select avg(value), avg(step) from '{file}'").fetchall() == [(1.5, 1.5)]
