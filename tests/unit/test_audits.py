"""The audit of a site is gathered from all families of its archives, whatever their order."""

from __future__ import annotations

import json

import pytest

from lmshape.metrics.rows import most_common
from lmshape.site import Site
from lmshape.tables.gather import AUDIT_COLUMNS, audits

CELL = {"model": "m", "checkpoint": "step4", "step": 4, "dataset": "wiki"}
COUNTS = {"n_rows": 30, "n_unique": 28, "flag": ""}
SINKS = {"sink_rows": 2, "near_sink_rows": 0, "sink_positions": '{"0": 2}', "sink_tokens": '{"5": 2}'}
NEIGHBORS = {"audit_error": 1e-15, "recomputed": 4}


def audited(*entries: tuple[str, dict], rows: str = "all") -> list[dict]:
    site = Site("block", 1)
    return audits(
        "study", [({**CELL, "family": family}, site, rows, attributes) for family, attributes in entries]
    )


@pytest.mark.parametrize("order", [1, -1])
def test_rows_are_counted_by_the_families_of_one_site(order: int) -> None:
    entries = [
        ("linearity", {**COUNTS, **SINKS, "n_rows": 25}),
        ("released", {**COUNTS, **SINKS, "n_rows": 9, "n_unique": 8}),
        ("neighbor", {**COUNTS, **SINKS, **NEIGHBORS}),
        ("angular", {**COUNTS, **SINKS, "zero_rows": 3}),
    ]
    [row] = audited(*entries[::order])
    assert list(row) == AUDIT_COLUMNS.names
    assert row == {
        **{"study": "study", **CELL, "site": "block", "layer": 1, "rows": "all"},
        **{**COUNTS, "duplicates": 2, "zero_rows": 3, **SINKS, **NEIGHBORS},
    }


@pytest.mark.parametrize(
    ("family", "attributes", "flag"),
    [
        ("spectral", {}, "neighbors not measured"),
        ("spectral", {"flag": "not finite: 2 of 30 rows"}, "not finite: 2 of 30 rows"),
        ("neighbor", {}, "neighbors not audited"),
        ("neighbor", {"flag": "too few unique rows"}, "too few unique rows"),
        ("neighbor", {**NEIGHBORS, "flag": "fewer unique rows"}, "fewer unique rows"),
    ],
)
def test_what_is_not_known_has_its_reason(family: str, attributes: dict, flag: str) -> None:
    [row] = audited((family, {**COUNTS, **attributes}))
    assert row["flag"] == flag and row["sink_rows"] is None and row["zero_rows"] is None
    assert (row["audit_error"] is None) == ("audit_error" not in attributes)


@pytest.mark.parametrize(("rows", "told"), [("no_sink", True), ("all", False)])
def test_a_cut_that_runs_among_large_rows_is_told_where_they_are_kept(rows: str, told: bool) -> None:
    [row] = audited(("neighbor", {**COUNTS, **SINKS, **NEIGHBORS, "near_sink_rows": 2}), rows=rows)
    assert row["flag"] == "sinks near the cut: 2 rows of 5 to 10 × the median norm are kept" * told


def test_losses_have_no_rows_to_audit() -> None:
    assert audits("study", [({**CELL, "family": "loss"}, Site("output", 1), "all", COUNTS)]) == []


def test_rows_are_in_the_order_of_the_network() -> None:
    places = [("final_norm", 2), ("block", 2), ("block", 1), ("embedding", 0)]
    entries = [
        ({**CELL, "step": step, "family": "angular"}, Site(site, layer), "all", COUNTS)
        for step in (8, 4)
        for site, layer in places
    ]
    found = [(row["step"], row["site"], row["layer"]) for row in audits("study", entries)]
    assert found == [(step, *place) for step in (4, 8) for place in places[::-1]]


def test_the_rest_of_many_names_is_one_number() -> None:
    names = [name for name in range(30) for _ in range(30 - name)]
    counts = json.loads(most_common(names))
    assert list(counts.items())[:2] == [("0", 30), ("1", 29)] and len(counts) == 21
    assert counts["other"] == sum(range(1, 11))
    assert json.loads(most_common([])) == {} and json.loads(most_common("aab")) == {"a": 2, "b": 1}
