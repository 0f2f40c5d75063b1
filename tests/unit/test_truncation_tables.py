"""The tables of truncations: paired differences, least ranks with intervals, and what stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from lmshape.checkpoints import Checkpoint
from lmshape.truncation.tables import (
    DIMENSIONS_BESIDE,
    RANKS_COLUMNS,
    TRUNCATION_COLUMNS,
    TruncatedLoss,
    Truncation,
    read_truncation,
    write_truncation,
    write_truncation_tables,
)

WHOLE = (4.0, 5.0, 4.5)
CELL = {
    "model": "m",
    "kind": "decoder",
    "checkpoint": "step9",
    "step": 9,
    "dataset": "wiki",
    "blocks": 2,
    "width": 4,
}
OWN = (Checkpoint("step9", 9, Path()),)
# increases of each draw by rank: the least ranks are 4, 2 and 1
CURVE = {
    0: (2.0, 3.0, 2.5),
    1: (0.5, 0.7, 0.9),
    2: (0.02, 0.03, 0.01),
    3: (0.02, 0.015, 0.01),
    4: (0.0, 0.0, 0.0),
}


def measured(curve: dict[int, tuple[float, ...]] = CURVE, **place: object) -> list[TruncatedLoss]:
    place = {"layer": 1, "rows": "all", "variant": "keep", **place}
    return [
        TruncatedLoss(**{"rank": rank, "losses": tuple(np.add(WHOLE, increase)), **place})
        for rank, increase in curve.items()
    ]


def truncation(*curves: list[TruncatedLoss], **attributes: object) -> Truncation:
    every = tuple(one for curve in curves for one in curve)
    return Truncation(attributes={**CELL, **attributes}, tokens=(10, 10, 10), whole=WHOLE, measured=every)


def metrics(**values: float) -> pd.DataFrame:
    cell = {
        "model": "m",
        "checkpoint": "step9",
        "dataset": "wiki",
        "site": "block",
        "layer": 1,
        "rows": "all",
    }
    other = {"metric": "id_twonn", "value": 99.0}
    rows = [{**cell, "metric": name, "value": value} for name, value in values.items()]
    decoys = [{**cell, **other, "site": "final_norm"}, {**cell, **other, "rows": "no_sink"}]
    return pd.DataFrame([*rows, *decoys, {**cell, **other, "layer": 2}, {**cell, **other, "dataset": "else"}])


def tables(
    tmp_path: Path, *cells: Truncation, known: pd.DataFrame | None = None, names: Sequence[Checkpoint] = OWN
) -> tuple[pd.DataFrame, pd.DataFrame]:
    files = [tmp_path / f"{number}.parquet" for number, _ in enumerate(cells)]
    for path, cell in zip(files, cells, strict=True):
        write_truncation(path, cell)
    beside = {"participation_ratio": 2.5, "effective_rank": 3.5, "id_twonn": 1.5}
    (metrics(**beside) if known is None else known).to_parquet(tmp_path / "metrics.parquet")
    write_truncation_tables(dict.fromkeys(files, names), tmp_path / "metrics.parquet", tmp_path, study="s")
    return tuple(pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("truncation", "truncation_ranks"))


def test_increases_are_paired_by_draw(tmp_path: Path) -> None:
    table, _ = tables(tmp_path, truncation(measured(), measured(variant="remove", rows="no_sink")))
    assert list(table.columns) == TRUNCATION_COLUMNS.names
    row = table.query("variant == 'keep' and rank == 1").iloc[0]
    differences = np.array(CURVE[1])
    low, high = stats.t.interval(0.95, 2, differences.mean(), stats.sem(differences))
    assert row["loss_increase"] == pytest.approx(0.7)
    assert (row["loss_increase_low"], row["loss_increase_high"]) == pytest.approx((low, high))
    assert row["loss"] == pytest.approx(4.5 + 0.7) and row["whole_loss"] == pytest.approx(4.5)
    assert (row["study"], row["depth"], row["d"], row["draws"], row["tokens"]) == ("s", 0.5, 4, 3, 30)
    assert len(table) == 10 and set(table["flag"]) == {""}


def test_checkpoints_with_the_same_weights_have_the_same_rows(tmp_path: Path) -> None:
    both = (*OWN, Checkpoint("step10", 10, Path(), same_as="step9"))
    for table in tables(tmp_path, truncation(measured()), names=both):
        one, other = (table.query("step == @step").reset_index(drop=True) for step in (9, 10))
        assert len(one) == len(other) > 0 and set(other["checkpoint"]) == {"step10"}
        ignored = ["checkpoint", "step", *DIMENSIONS_BESIDE, "flag"]  # of the metrics of each name
        pd.testing.assert_frame_equal(
            one.drop(columns=ignored, errors="ignore"), other.drop(columns=ignored, errors="ignore")
        )


def test_least_ranks_with_what_stands_beside(tmp_path: Path) -> None:
    _, ranks = tables(tmp_path, truncation(measured()))
    assert list(ranks.columns) == RANKS_COLUMNS.names
    assert list(ranks["tolerance"]) == [0.01, 0.1, 1.0]
    assert list(ranks["rank"]) == [4, 2, 1]
    assert list(ranks["share_of_d"]) == [1.0, 0.5, 0.25]
    # the band at 1 is 0.2 to 1.2: within 1 nat or not; at 2, 0.02 ± 0.025, and at 3, 0.015 ± 0.012
    assert list(ranks["rank_low"]) == [2, 2, 1]
    assert list(ranks["rank_high"]) == [4, 2, 2]
    for name, value in {"participation_ratio": 2.5, "effective_rank": 3.5, "id_twonn": 1.5}.items():
        assert set(ranks[name]) == {value}
    assert set(ranks["flag"]) == {""}


def test_what_is_no_number_says_why(tmp_path: Path) -> None:
    lost = measured(dict.fromkeys(CURVE, (nan, nan, nan)), flag="not finite: 3 of 9 rows")
    some = measured({**CURVE, 1: (nan, 0.1, 0.1)}, layer=2)
    some = [
        one if one.rank != 1 else TruncatedLoss(**{**fields(one), "flag": "not finite: loss"}) for one in some
    ]
    table, ranks = tables(tmp_path, truncation(lost, some), known=metrics(id_twonn=nan))
    assert table["loss_increase"].isna().sum() == 6 == (table["flag"] != "").sum()
    without = ranks.query("layer == 1")
    assert without[["rank", "rank_low", "rank_high", "share_of_d"]].isna().all(axis=None)
    assert set(without["flag"]) == {
        "not finite: 3 of 9 rows; no number: participation_ratio, effective_rank, id_twonn"
    }
    partly = ranks.query("layer == 2 and tolerance == 1.0").iloc[0]
    assert (partly["rank"], partly["rank_high"]) == (2, 2)
    assert partly["flag"] == "not finite: loss; no number: participation_ratio, effective_rank"


def fields(one: TruncatedLoss) -> dict[str, object]:
    return {name: getattr(one, name) for name in TruncatedLoss.__dataclass_fields__}


def test_without_decoders_there_are_columns_and_no_rows(tmp_path: Path) -> None:
    for frame, columns in zip(tables(tmp_path), (TRUNCATION_COLUMNS, RANKS_COLUMNS), strict=True):
        assert frame.empty and list(frame.columns) == columns.names
    assert pq.read_schema(tmp_path / "truncation.parquet").equals(TRUNCATION_COLUMNS)
    assert (tmp_path / "truncation_ranks.csv").read_text() == ",".join(RANKS_COLUMNS.names) + "\n"


def test_the_file_keeps_what_json_cannot_spell(tmp_path: Path) -> None:
    cell = Truncation(attributes={**CELL, "tokens_seen": nan}, tokens=(1, 2), whole=(nan, 1.0), measured=())
    write_truncation(tmp_path / "one.parquet", cell)
    found = read_truncation(tmp_path / "one.parquet")
    assert np.isnan(found.attributes["tokens_seen"]) and np.isnan(found.whole[0]) and found.whole[1] == 1.0
