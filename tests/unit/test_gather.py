"""Archives become rows: nothing lost, nothing mixed, no NaN without its reason."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from layers import ROOT, SITES, write_statistics
from scipy import stats

from lmshape.errors import InputError
from lmshape.figures import FIGURES, render
from lmshape.hub.integrity import DISTRUSTED
from lmshape.metrics.block import measure
from lmshape.metrics.registry import MEASURED, METRIC_FAMILIES, METRICS, metric_names
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.statistics import DrawLoss, LayerStatistics, write_loss_card
from lmshape.store.tokens import Tokens
from lmshape.tables.columns import (
    AUDITS_KEY,
    CHANGES,
    CHECKPOINTS_KEY,
    COLUMNS,
    MODEL_COLUMNS,
)
from lmshape.tables.gather import add_changes, gather

COSINES = ("mean_cosine", "mean_cosine_centered")
DRAWS, WINDOW, WIDTH = 3, 90, 24


def archive(path: Path, values: dict[tuple[Site, str], float] | None = None, **attributes: str | int) -> Path:
    """Write an archive of the angular family with the given pooled cosines, the same without each draw."""
    values = values if values is not None else {(site, "all"): 0.1 * site.layer for site in SITES}
    counts = {"n_rows": 30, "n_unique": 29, "d": 8, "draws": 3}
    layers = [
        LayerStatistics(
            site,
            rows,
            {name: np.full(4, value) for name in COSINES},
            {**counts, "flag": "not finite: 1 of 30 rows" if np.isnan(value) else ""},
        )
        for (site, rows), value in values.items()
    ]
    write_statistics(path, attributes={**ROOT, "family": "angular", **attributes}, layers=layers)
    return path


def card(path: Path, nats: tuple[float, ...] = (20.0, 30.0), **attributes: str | int | float) -> Path:
    draws = [DrawLoss(draw=j, tokens=10, nats=value, bytes=40.0) for j, value in enumerate(nats)]
    write_loss_card(path, attributes={**ROOT, **attributes}, draws=draws)
    return path


def gathered(
    folder: Path,
    statistics: list[Path],
    losses: list[Path] | None = None,
    metrics: tuple[str, ...] = COSINES,
) -> pd.DataFrame:
    gather(statistics, losses or [], folder / "tiny.parquet", study="test", metrics=metrics)
    return pq.read_table(folder / "tiny.parquet").to_pandas()


@pytest.fixture(scope="module")
def activations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    n = DRAWS * WINDOW
    tokens = Tokens(
        ids=np.arange(n),
        sequence=np.repeat(np.arange(DRAWS), WINDOW),
        position=np.tile(np.arange(WINDOW), DRAWS),
        draw=np.repeat(np.arange(DRAWS), WINDOW),
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.full(DRAWS, 100),
        attributes={},
    )
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("store") / "activations.h5"
    with ActivationWriter(path, sites=SITES, width=WIDTH, tokens=tokens, attributes=ROOT) as writer:
        for site in SITES:
            writer.write(site, 0, rng.standard_normal((n, WIDTH)).astype(np.float32))
    return path


def test_blocks_of_layers_give_the_same_table_as_all_layers_at_once(
    tmp_path: Path, activations: Path
) -> None:
    families, blocks = ("angular", "neighbor", "spectral"), ((0, 2), (0, 0), (1, 2))
    for family in families:
        for first, last in blocks:
            output = tmp_path / family / f"{first}-{last}.h5"
            measure(activations, output, family=MEASURED[family], first=first, last=last, rows_per_draw=80)
    whole = [tmp_path / family / "0-2.h5" for family in families]
    in_blocks = [tmp_path / family / name for name in ("1-2.h5", "0-0.h5") for family in families[::-1]]
    losses = [card(tmp_path / "loss.json")]
    chosen = ("spectral", "angular", "neighbor", "loss")
    table = gathered(tmp_path, whole, losses, chosen)
    pd.testing.assert_frame_equal(gathered(tmp_path, in_blocks, losses, chosen), table)
    names = metric_names(chosen)
    of_layers = 2 * (len(names) - 2) + len(METRIC_FAMILIES["neighbor"])  # one_per_type is theirs alone
    assert len(table) == len(SITES) * of_layers + 2
    assert set(table["metric"]) == set(names)
    without = table["flag"].str.startswith("no interval: ")
    assert set(table.loc[without, "metric"]) == {name for name in names if METRICS[name].no_interval}
    narrow = table["metric"] == "effective_rank_bulk"  # of rows of more than 32 columns
    assert (
        table.loc[without, ["ci_low", "ci_high"]].isna().all(axis=None)
        and table["value"].notna()[~narrow].all()
    )
    assert set(table.loc[narrow, "flag"]) == {"no variance past the 32nd eigenvalue"}
    assert (table["value"].between(table["ci_low"], table["ci_high"]) | without | narrow).all()
    assert not table.duplicated(["site", "layer", "rows", "metric"]).any()


def test_zero_rows_are_told_beside_the_mean_cosine_and_in_the_audit(tmp_path: Path) -> None:
    tokens = Tokens(
        ids=np.arange(90),
        sequence=np.repeat(np.arange(3), 30),
        position=np.tile(np.arange(30), 3),
        draw=np.repeat(np.arange(3), 30),
        special=np.zeros(90, dtype=bool),
        sequence_bytes=np.full(3, 100),
        attributes={},
    )
    x = np.random.default_rng(0).standard_normal((90, 8)).astype(np.float32)
    x[[5, 40]] = 0
    path = tmp_path / "activations.h5"
    with ActivationWriter(path, sites=SITES[:1], width=8, tokens=tokens, attributes=ROOT) as writer:
        writer.write(SITES[0], 0, x)
    measure(path, tmp_path / "angular.h5", family=MEASURED["angular"], first=0, last=0, rows=["all"])
    table = gathered(tmp_path, [tmp_path / "angular.h5"]).set_index("metric")
    assert table["flag"].to_dict() == {COSINES[0]: "2 zero rows left out", COSINES[1]: ""}
    assert np.isfinite(table["value"]).all()
    [row] = json.loads(pq.read_schema(tmp_path / "tiny.parquet").metadata[AUDITS_KEY])
    assert row["zero_rows"] == 2


def test_the_file_carries_the_audit_of_every_site(tmp_path: Path) -> None:
    gathered(tmp_path, [archive(tmp_path / "a.h5")], [card(tmp_path / "loss.json")])
    rows = json.loads(pq.read_schema(tmp_path / "tiny.parquet").metadata[AUDITS_KEY])
    assert [(row["site"], row["layer"], row["rows"]) for row in rows] == [
        (site.name, site.layer, "all") for site in SITES
    ]
    assert {(row["study"], row["checkpoint"], row["duplicates"]) for row in rows} == {("test", "step4", 1)}
    assert {row["flag"] for row in rows} == {"neighbors not measured"}


def test_rows_carry_their_cell_and_place(tmp_path: Path) -> None:
    table = gathered(
        tmp_path, [archive(tmp_path / "a.h5")], [card(tmp_path / "l.json")], ("mean_cosine", "loss")
    )
    assert list(table.columns) == MODEL_COLUMNS.names == [*COLUMNS.names, "interval", "replicates"]
    row = table.iloc[2].to_dict()
    assert row.pop("interval") == "jackknife"
    assert row["value"] == row.pop("replicates")[0]
    assert all(np.isnan(row.pop(name)) for name in CHANGES)  # nothing comes before the first checkpoint
    assert row == {
        "study": "test",
        "model": "tiny",
        "family": "gpt_neox",
        "kind": "decoder",
        "parameters": 1234,
        "checkpoint": "step4",
        "step": 4,
        "tokens_seen": 2048.0,
        "dataset": "wiki",
        "site": "block",
        "layer": 2,
        "depth": 1.0,
        "rows": "all",
        "metric": "mean_cosine",
        "value": pytest.approx(0.2),
        "ci_low": pytest.approx(0.2),
        "ci_high": pytest.approx(0.2),
        "draws": 3,
        "n_rows": 30,
        "n_unique": 29,
        "d": 8,
        "seed": 7,
        "flag": "",
        "verdict": "",
    }
    assert list(table["site"]) == ["embedding", "block", "block", "final_norm", "output", "output"]
    loss = table[table["metric"] == "loss"].iloc[0]
    assert (loss["site"], loss["layer"], loss["depth"], loss["rows"]) == ("output", 2, 1.0, "all")
    assert (loss["value"], loss["draws"], loss["n_rows"]) == (2.5, 2, 20)


def test_rows_are_sorted_and_datasets_keep_the_order_of_the_files(tmp_path: Path) -> None:
    files = [
        archive(
            tmp_path / f"{step}-{dataset}.h5",
            checkpoint=f"step{step}",
            step=step,
            dataset=dataset,
            weights_sha256=str(step),
        )
        for dataset in ("wiki", "shuffled")
        for step in (16, 2)
    ]
    table = gathered(tmp_path, files)
    assert table["change"].isna().equals(table["step"] == 2)
    cells = list(table[["step", "dataset"]].drop_duplicates().itertuples(index=False, name=None))
    assert cells == [(2, "wiki"), (2, "shuffled"), (16, "wiki"), (16, "shuffled")]
    bytes_before = (tmp_path / "tiny.parquet").read_bytes()
    gathered(tmp_path, files)
    assert (tmp_path / "tiny.parquet").read_bytes() == bytes_before


def test_nan_never_stands_without_its_reason(tmp_path: Path) -> None:
    values = {(SITES[0], "all"): np.nan, (SITES[1], "all"): 0.5}
    source = archive(tmp_path / "a.h5", values)
    table = gathered(tmp_path, [source], [card(tmp_path / "l.json", (20.0, np.inf))], (*COSINES, "loss"))
    missing = table["value"].isna()
    assert list(table.loc[missing, "flag"]) == ["not finite: 1 of 30 rows"] * 2 + ["not finite: loss"] * 2
    assert table.loc[missing, ["ci_low", "ci_high"]].isna().all(axis=None)
    assert (table.loc[~missing, "flag"] == "").all()


def test_a_checkpoint_without_a_head_has_no_loss_and_says_why(tmp_path: Path) -> None:
    reason = "no language-model head: the checkpoint lacks 5 of its tensors, cls.predictions.bias first"
    draws = [DrawLoss(draw, 0, np.nan, 0.0) for draw in range(2)]
    write_loss_card(tmp_path / "l.json", attributes={**ROOT, "flag": reason}, draws=draws)
    table = gathered(tmp_path, [archive(tmp_path / "a.h5")], [tmp_path / "l.json"], (*COSINES, "loss"))
    loss = table[table["site"] == "output"]
    assert list(loss["metric"]) == ["loss", "bits_per_byte"]
    assert loss[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert list(loss["flag"]) == [reason] * 2
    assert list(loss["n_rows"]) == [0, 0]
    assert (table.loc[table["site"] != "output", "flag"] == "").all()


def test_draws_that_share_documents_are_flagged_where_there_is_an_interval(tmp_path: Path) -> None:
    doubt = "draws share documents: the text has 3"
    values = {(SITES[1], "all"): 0.1, (SITES[2], "all"): np.nan}
    table = gathered(
        tmp_path,
        [archive(tmp_path / "a.h5", values, shared_documents=doubt)],
        [card(tmp_path / "l.json", shared_documents=doubt)],
        ("angular", "loss"),
    )
    flagged = table["flag"].str.endswith(doubt)
    assert (flagged == table["ci_low"].notna()).all() and flagged.any() and not flagged.all()
    assert flagged[table["metric"] == "loss"].all()


def test_a_text_that_is_not_spelled_has_a_loss_and_no_bits_per_byte(tmp_path: Path) -> None:
    doubt = "unspelled: 2.8% of the text's bytes have no token"
    draws = [DrawLoss(draw, 10, 20.0, np.nan) for draw in range(2)]
    write_loss_card(tmp_path / "l.json", attributes={**ROOT, "flag": doubt}, draws=draws)
    table = gathered(tmp_path, [archive(tmp_path / "a.h5")], [tmp_path / "l.json"], (*COSINES, "loss"))
    loss = table[table["site"] == "output"].set_index("metric")
    assert loss.loc["loss", "value"] == 2.0 and np.isnan(loss.loc["bits_per_byte", "value"])
    assert loss["flag"].str.startswith(doubt).all()


def test_two_steps_of_a_local_run_with_equal_weights_are_duplicates(tmp_path: Path) -> None:
    """No change is counted from one to the other, and neither is of any trajectory."""
    archives = [
        archive(tmp_path / f"{step}.h5", checkpoint=f"step{step}", step=step, weights_sha256=weights)
        for step, weights in ((4, "a"), (8, "a"), (12, "b"))
    ]
    table = gathered(tmp_path, archives)
    verdicts = table.groupby("checkpoint")["verdict"].unique().map(list).to_dict()
    assert verdicts == {"step4": ["duplicate"], "step8": ["duplicate"], "step12": [""]}
    assert table["change"].isna().all()
    said = json.loads(pq.read_schema(tmp_path / "tiny.parquet").metadata[CHECKPOINTS_KEY])
    assert {one: row["same_weights_as"] for one, row in said.items()} == {
        "step4": "step8",
        "step8": "step4",
        "step12": "",
    }


def test_a_value_that_is_not_defined_says_why(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    layers = [
        LayerStatistics(
            SITES[1],
            "all",
            {name: np.full(4, np.nan) for name in COSINES},
            {"n_rows": 30, "n_unique": 1, "d": 8, "draws": 3, "flag": ""},
        )
    ]
    write_statistics(path, attributes={**ROOT, "family": "angular"}, layers=layers)
    assert list(gathered(tmp_path, [path])["flag"]) == [
        "fewer than two rows that are not zero",
        "fewer than two rows that differ from the mean",
    ]


def test_a_value_without_interval_says_why(tmp_path: Path) -> None:
    found = {"mean_cosine": np.array([0.5, 0.4, np.nan, 0.6]), "norm_max": np.array([9.0, 9.0, 8.0, 9.0])}
    doubt = {"n_rows": 30, "n_unique": 29, "d": 8, "draws": 3, "flag": "a doubt: 1 of 30 rows"}
    layers = [
        LayerStatistics(SITES[1], "all", found, {**doubt, "flag": ""}),
        LayerStatistics(SITES[2], "all", found, doubt),
    ]
    write_statistics(tmp_path / "a.h5", attributes={**ROOT, "family": "angular"}, layers=layers)
    table = gathered(tmp_path, [tmp_path / "a.h5"], metrics=("mean_cosine", "norm_max"))
    assert list(table["value"]) == [0.5, 9.0] * 2
    assert table[["ci_low", "ci_high"]].isna().all(axis=None)
    assert list(table["flag"]) == [
        "no interval: not defined without one of its draws",
        "no interval: a maximum of a sample has none",
        "a doubt: 1 of 30 rows; no interval: not defined without one of its draws",
        "a doubt: 1 of 30 rows; no interval: a maximum of a sample has none",
    ]


def test_the_file_carries_commit_and_fingerprint_of_the_weights(tmp_path: Path) -> None:
    files = [
        archive(tmp_path / "a.h5"),
        archive(tmp_path / "b.h5", checkpoint="step8", step=8, commit="abc", weights_sha256="w8"),
    ]
    gathered(tmp_path, files)
    metadata = pq.read_schema(tmp_path / "tiny.parquet").metadata
    unaudited = {"verdict": "", "same_weights_as": "", "note": "", "repository": "", "revision": ""}
    assert json.loads(metadata[CHECKPOINTS_KEY]) == {
        "step4": {"commit": "", "weights_sha256": "w4", **unaudited},
        "step8": {"commit": "abc", "weights_sha256": "w8", **unaudited},
    }


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"model": "other", "dataset": "b"}, "odd.h5` has `model` other"),
        ({"blocks": 3, "checkpoint": "step8"}, "odd.h5` has `blocks` 3"),
        ({"weights_sha256": "x", "dataset": "b"}, "odd.h5` has `weights_sha256` x, `.*a.h5` has w4"),
        ({"step": 5, "dataset": "b"}, "odd.h5` has `step` 5"),
        ({"sampling": "x", "checkpoint": "step8"}, "odd.h5` has `sampling` x, `.*a.h5` has {}"),
        (
            {"text_sha256": "x", "checkpoint": "step8"},
            "odd.h5` has `text_sha256` x.* if the weights .* are gone",
        ),
        ({"seed": 1, "checkpoint": "step8"}, "odd.h5` has `seed` 1.* made from different activations"),
    ],
)
def test_a_file_that_contradicts_the_others_is_named(tmp_path: Path, attributes: dict, message: str) -> None:
    usual = {**ROOT, **{key: attributes[key] for key in ("dataset", "checkpoint") if key in attributes}}
    odd = archive(tmp_path / "odd.h5", {(SITES[0], "all"): 0.1}, **attributes)
    a = archive(tmp_path / "a.h5", {(SITES[1], "all"): 0.1}, **usual)
    b = archive(tmp_path / "b.h5", {(SITES[2], "all"): 0.1})
    with pytest.raises(InputError, match=message):
        gathered(tmp_path, [odd, a, b])
    assert not (tmp_path / "tiny.parquet").exists()


def test_a_loss_card_of_other_weights_is_named(tmp_path: Path) -> None:
    odd = card(tmp_path / "odd.json", weights_sha256="x")
    files = [
        archive(tmp_path / "a.h5", {(SITES[0], "all"): 0.1}),
        archive(tmp_path / "b.h5", {(SITES[1], "all"): 0.1}),
    ]
    with pytest.raises(InputError, match="odd.json` has `weights_sha256` x"):
        gathered(tmp_path, files, [odd], (*COSINES, "loss"))


def test_unknown_training_tokens_agree_with_each_other(tmp_path: Path) -> None:
    source = archive(tmp_path / "a.h5", tokens_seen=np.nan)
    table = gathered(tmp_path, [source], [card(tmp_path / "l.json", tokens_seen=np.nan)], (*COSINES, "loss"))
    assert table["tokens_seen"].isna().all()


def test_every_column_is_described_and_typed() -> None:
    assert all(field.metadata[b"description"] for field in MODEL_COLUMNS)
    assert COLUMNS.field("step").type == "int64" and COLUMNS.field("value").type == "double"


# Changes from checkpoint to checkpoint, draw by draw, against the same done by hand


def line(step: int, metric: str, *, layer: int = 3) -> dict[str, str | int | float]:
    return {
        "step": step,
        "dataset": "wiki",
        "site": "block",
        "layer": layer,
        "rows": "all",
        "metric": metric,
    }


def test_a_change_has_the_interval_of_the_differences_and_not_of_the_values():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1.0, 5)  # what the tokens of a draw add to every checkpoint
    before, after = (10 + shared + rng.normal(0, 0.01, 5), 12 + shared + rng.normal(0, 0.01, 5))
    rows = [(line(0, "id_twonn"), before), (line(8, "id_twonn"), after)]
    add_changes(rows, METRICS)
    first, second = (found for found, _ in rows)
    assert all(np.isnan(first[name]) for name in CHANGES)
    difference = after - before
    assert second["change"] == pytest.approx(difference.mean(), rel=1e-12)
    low, high = stats.t.interval(0.95, 4, difference.mean(), stats.sem(difference))
    assert (second["change_low"], second["change_high"]) == pytest.approx((low, high), rel=1e-9)
    of_values = METRICS["id_twonn"].estimate(after)
    assert second["change_high"] - second["change_low"] < (of_values.high - of_values.low) / 20


def test_a_jackknifed_change_is_the_jackknife_of_the_differences_and_may_be_negative():
    before, after = np.array([0.6, 0.61, 0.58, 0.6, 0.63]), np.array([0.2, 0.22, 0.18, 0.19, 0.22])
    rows = [(line(0, "anisotropy"), before), (line(1, "anisotropy"), after)]
    add_changes(rows, METRICS)
    found = rows[1][0]
    left_out = (after - before)[1:]
    error = np.sqrt(3 / 4 * np.square(left_out - left_out.mean()).sum())
    half = stats.t.ppf(0.975, 3) * error
    assert found["change"] == pytest.approx(-0.4)
    assert (found["change_low"], found["change_high"]) == pytest.approx((-0.4 - half, -0.4 + half))


def test_lines_are_kept_apart_and_what_has_no_value_has_no_change():
    rows = [
        (line(0, "id_twonn"), np.full(5, 3.0)),
        (line(0, "id_twonn", layer=4), np.full(5, 7.0)),
        (line(1, "id_twonn"), np.full(5, np.nan)),
        (line(1, "id_twonn", layer=4), np.full(5, 9.0)),
        (line(2, "id_twonn"), np.full(5, 4.0)),
        (line(2, "norm_max"), np.ones(6)),
        (line(3, "norm_max"), np.ones(6) + 1),
    ]
    add_changes(rows, METRICS)
    changes = [found["change"] for found, _ in rows]
    np.testing.assert_array_equal(changes, [np.nan, np.nan, np.nan, 2.0, np.nan, np.nan, 1.0])
    assert np.isnan(rows[-1][0]["change_low"])  # the maximum of a sample has no interval


def test_a_distrusted_checkpoint_has_no_change_and_none_is_counted_from_it():
    verdicts = ["ok", "wrong_weights", "doubtful", "duplicate", "expected_duplicate", ""]
    values = [1.0, 100.0, 3.0, 200.0, 6.0, 10.0]
    rows = [
        (line(step, "id_twonn") | {"verdict": verdict}, np.full(5, value))
        for step, (verdict, value) in enumerate(zip(verdicts, values, strict=True))
    ]
    add_changes(rows, METRICS)
    changes = [found["change"] for found, _ in rows]
    np.testing.assert_array_equal(changes, [np.nan, np.nan, 2.0, np.nan, 3.0, 4.0])
    assert all(np.isnan(rows[3][0][name]) for name in CHANGES)


@pytest.mark.parametrize("verdict", DISTRUSTED)
def test_a_run_whose_first_checkpoint_is_distrusted_begins_with_the_second(verdict: str):
    rows = [
        (line(step, "norm_max") | {"verdict": verdict if step == 0 else "ok"}, np.ones(1))
        for step in (0, 1, 2)
    ]
    add_changes(rows, METRICS)
    np.testing.assert_array_equal([found["change"] for found, _ in rows], [np.nan, np.nan, 0.0])


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if figure.of_each_model])
def test_a_model_of_which_nothing_is_measured_that_a_figure_shows_has_an_empty_one(
    tmp_path: Path, name: str
) -> None:
    """Not even a loss: the table has no row of what the figure reads."""
    gathered(tmp_path, [archive(tmp_path / "angular.h5")])
    told = {"losses": {}, "datasets": ["wiki"]}
    files = render(name, tmp_path / "tiny.parquet", output_stem=tmp_path / name, **told)
    assert pd.read_csv(files[-1]).empty
