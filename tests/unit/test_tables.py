"""The study's tables: what is combined, and who shares weights with whom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lmshape.dynamics.contrasts import CONTRAST_COLUMNS
from lmshape.dynamics.phases import PHASE_COLUMNS
from lmshape.dynamics.profiles import PROFILE_COLUMNS
from lmshape.errors import InputError
from lmshape.site import Site
from lmshape.tables.columns import (
    AUDITS_KEY,
    CHECKPOINTS_KEY,
    COLUMNS,
    MODEL_COLUMNS,
    read_parquet,
    read_table,
)
from lmshape.tables.gather import AUDIT_COLUMNS, audits
from lmshape.tables.study_tables import CHECKPOINT_COLUMNS, combine

CELL = {
    "study": "test",
    "family": "bert",
    "kind": "encoder",
    "parameters": 10,
    "tokens_seen": float("nan"),
    "draws": 5,
    "n_rows": 100,
    "n_unique": 90,
    "d": 8,
    "seed": 0,
    "flag": "",
    "rows": "all",
    "metric": "anisotropy",
    "dataset": "wiki",
    "model": "m",
    "checkpoint": "step1",
    "step": 1,
    "ci_low": 0.0,
    "ci_high": 1.0,
}

AUDIT = {
    "n_rows": 30,
    "n_unique": 28,
    "sink_rows": 3,
    "near_sink_rows": 0,
    "sink_positions": '{"0": 3}',
    "sink_tokens": '{"\'<s>\'": 2, "17": 1}',
    "flag": "not finite: 1 of 30 rows",
}


def curve(values: list[float], half_width: float = 0.01, **cell: str | int) -> list[dict]:
    """Rows of anisotropy by layer: the embedding, the blocks, and a final norm far above them all."""
    blocks = len(values) - 1
    rows = [
        {
            **CELL,
            "site": "block" if layer else "embedding",
            "layer": layer,
            "depth": layer / blocks,
            "value": value,
            "ci_low": value - half_width,
            "ci_high": value + half_width,
            "flag": "not finite: 3 of 100 rows" if np.isnan(value) else "",
            "interval": "jackknife",
            "replicates": [value + 0.001 * (layer % 3 - 1) * draw for draw in (0, 1, -1, 2, -2, 0)],
            **cell,
        }
        for layer, value in enumerate(values)
    ]
    return [*rows, {**rows[-1], "site": "final_norm", "value": 1.0, "flag": ""}]


def loss(value: float, **cell: str | int) -> dict:
    low, high = value - 0.1, value + 0.1
    flag = "" if np.isfinite(value) else "not finite: loss"
    place = {"site": "output", "layer": 3, "depth": 1.0, "metric": "loss"}
    return {**CELL, **place, "value": value, "ci_low": low, "ci_high": high, "flag": flag, **cell}


def metric_file(
    path: Path, rows: list[dict], weights: dict[str, str], told: dict[str, dict[str, str]] | None = None
) -> Path:
    """As `gather` writes it: weights are fingerprints by checkpoint, `told` what the hub says beside them."""
    identity = {
        name: {"commit": f"c-{sha}", "weights_sha256": sha, "verdict": ""} for name, sha in weights.items()
    }
    for name, more in (told or {}).items():
        identity[name] |= more
    table = pa.Table.from_pylist(rows, schema=MODEL_COLUMNS)
    own = rows[0]
    cell, other = own | {"family": "neighbor"}, {**AUDIT, "audit_error": 2e-15, "recomputed": 3, "flag": ""}
    audited = audits(
        "test", [(cell, Site("embedding", 0), "all", AUDIT), (cell, Site("block", 1), "all", other)]
    )
    metadata = {CHECKPOINTS_KEY: json.dumps(identity), AUDITS_KEY: json.dumps(audited)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.fixture
def study(tmp_path: Path) -> dict[str, pd.DataFrame]:
    steps = {"step0": 0, "step1": 1, "step2": 2, "step9": 9}
    weights = {"step0": "aa", "step1": "aa", "step2": "bb", "step9": "aa"}
    rows = [
        row
        for checkpoint, step in steps.items()
        for row in (
            *curve([0.1, 0.2, 0.8, 0.4], checkpoint=checkpoint, step=step),
            loss(float("nan") if step == 2 else 3.0 - step / 9, checkpoint=checkpoint, step=step),
        )
    ]
    other = [
        row
        for dataset in ("wiki", "random")
        for row in curve([0.1, np.nan, 0.8, 0.4], model="another", dataset=dataset)
    ]
    files = [
        metric_file(tmp_path / "m.parquet", rows, weights),
        metric_file(tmp_path / "another.parquet", other, {"step1": "aa"}),
    ]
    combine(files, tmp_path / "tables")
    return {
        name: pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        for name in ("metrics", "checkpoints", "profiles", "phases", "contrasts", "audit")
    }


def test_metrics_are_those_of_all_models_in_the_given_order(study: dict[str, pd.DataFrame]) -> None:
    assert list(study["metrics"].columns) == COLUMNS.names
    assert list(study["metrics"]["model"].drop_duplicates()) == ["m", "another"]
    assert len(study["metrics"]) == 4 * 6 + 2 * 5


def test_a_checkpoint_with_the_weights_of_an_earlier_one_names_it(study: dict[str, pd.DataFrame]) -> None:
    table = study["checkpoints"]
    assert list(table.columns) == CHECKPOINT_COLUMNS.names
    assert list(table["duplicate_of"]) == ["", "step0", "", "step0", "", ""]
    assert list(table["flag"]) == [
        "",
        "same weights as step0",
        "not finite: loss",
        "same weights as step0",
        "loss not gathered",
        "loss not gathered",
    ]
    assert list(table["commit"]) == ["c-aa", "c-aa", "c-bb", "c-aa", "c-aa", "c-aa"]
    assert list(table["dataset"]) == ["wiki"] * 5 + ["random"]


def test_checkpoints_carry_their_loss(study: dict[str, pd.DataFrame]) -> None:
    table = study["checkpoints"].set_index(["model", "step"])
    assert table.loc[("m", 0), ["loss", "loss_low", "loss_high"]].tolist() == pytest.approx([3.0, 2.9, 3.1])
    assert table.loc[("m", 9), "loss"].item() == pytest.approx(2.0)
    assert np.isnan(table.loc[("m", 2), "loss"])


def test_profiles_of_all_cells(study: dict[str, pd.DataFrame]) -> None:
    table = study["profiles"]
    assert list(table.columns) == PROFILE_COLUMNS.names
    assert list(table["peak_layer"][:4]) == [2] * 4 and table["peak_layer"][4:].isna().all()
    assert (table["flag"] == ["", "", "", "", *["layer 1: not finite: 3 of 100 rows"] * 2]).all()


def test_courses_over_training_and_contrasts_of_kinds(study: dict[str, pd.DataFrame]) -> None:
    phases, contrasts = study["phases"], study["contrasts"]
    assert list(phases.columns) == PHASE_COLUMNS.names
    of_model = phases[phases["model"] == "m"]
    assert list(of_model["band"]) == ["early", "middle", "last"] and set(of_model["shape"]) == {"flat"}
    assert list(of_model["layer"]) == [1, 2, 3] and set(of_model["metric"]) == {"anisotropy"}
    assert set(phases.loc[phases["model"] == "another", "shape"]) == {""}
    assert list(contrasts.columns) == CONTRAST_COLUMNS.names
    assert set(contrasts["flag"]) == {"no decoder with a whole profile"} | {
        "no decoder and no encoder with a whole profile"
    }


def test_audits_of_all_models(study: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    table = study["audit"]
    assert list(table.columns) == AUDIT_COLUMNS.names
    assert list(table["model"]) == ["m", "m", "another", "another"]
    assert list(table["layer"]) == [0, 1, 0, 1] and list(table["duplicates"]) == [2] * 4
    assert table["audit_error"].isna().tolist() == [True, False] * 2 and table["audit_error"][1] == 2e-15
    assert list(table["flag"]) == ["not finite: 1 of 30 rows", ""] * 2
    assert json.loads(table["sink_tokens"][0]) == {"'<s>'": 2, "17": 1}
    text = pd.read_csv(tmp_path / "tables" / "audit.csv", dtype=str, keep_default_na=False)
    assert list(text["recomputed"]) == ["", "3"] * 2 and list(text["sink_tokens"]) == list(
        table["sink_tokens"]
    )


def test_of_equal_checkpoints_the_trusted_one_is_the_first(tmp_path: Path) -> None:
    rows = [row for step in (0, 9) for row in curve([0.1, 0.2], checkpoint=f"step{step}", step=step)]
    told = {"step0": {"verdict": "same_as_main"}, "step9": {"verdict": "ok"}}
    combine([metric_file(tmp_path / "m.parquet", rows, {"step0": "a", "step9": "a"}, told)], tmp_path)
    assert list(pd.read_parquet(tmp_path / "checkpoints.parquet")["duplicate_of"]) == ["step9", ""]


def test_unknown_weights_are_no_duplicates(tmp_path: Path) -> None:
    rows = [row for step in (0, 1) for row in curve([0.1] * 4, checkpoint=f"step{step}", step=step)]
    combine([metric_file(tmp_path / "m.parquet", rows, {"step0": "", "step1": ""})], tmp_path)
    assert list(pd.read_parquet(tmp_path / "checkpoints.parquet")["duplicate_of"]) == ["", ""]


def test_the_hubs_word_stands_beside_each_checkpoint(tmp_path: Path) -> None:
    told = {
        "repository": "some/run",
        "revision": "stage1/step1",
        "verdict": "wrong_weights",
        "same_weights_as": "step2, main",
        "note": "The branch serves the weights of main (some#1)",
    }
    rows = [row for step in (1, 2) for row in curve([0.1] * 4, checkpoint=f"step{step}", step=step)]
    file = metric_file(tmp_path / "m.parquet", rows, {"step1": "aa", "step2": "bb"}, {"step1": told})
    combine([file], tmp_path)
    table = pd.read_csv(tmp_path / "checkpoints.csv", keep_default_na=False)
    assert dict(table.loc[0, list(told)]) == told
    assert dict(table.loc[1, list(told)]) == dict.fromkeys(told, "")
    assert list(pd.read_parquet(tmp_path / "checkpoints.parquet").columns) == CHECKPOINT_COLUMNS.names


def test_a_run_that_was_trained_to_fail_is_no_example_of_its_kind(tmp_path: Path) -> None:
    files = [
        metric_file(tmp_path / f"{model}.parquet", curve(values, model=model, kind=kind), {"step1": "aa"})
        for model, kind, values in (
            ("sound", "decoder", [0.1, 0.2, 0.3, 0.2]),
            ("broken", "decoder", [0.1, 0.9, 0.9, 0.9]),
            ("encoder", "encoder", [0.1, 0.2, 0.2, 0.2]),
        )
    ]
    for unstable, decoders, difference in (((), 2, 0.4), (("broken",), 1, 0.1)):
        combine(files, tmp_path, unstable=unstable)
        table = pd.read_parquet(tmp_path / "contrasts.parquet").set_index("quantity")
        assert table.loc["height", "decoders"] == decoders
        assert table.loc["height", "difference"] == pytest.approx(difference)
        assert "broken" in set(pd.read_parquet(tmp_path / "profiles.parquet")["model"])


def test_a_study_without_anisotropy_has_empty_profiles(tmp_path: Path) -> None:
    combine([metric_file(tmp_path / "m.parquet", [loss(2.0)], {"step1": "aa"})], tmp_path)
    columns = {"profiles": PROFILE_COLUMNS, "phases": PHASE_COLUMNS, "contrasts": CONTRAST_COLUMNS}
    for name, declared in columns.items():
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert table.empty and list(table.columns) == declared.names


def test_csv_says_what_parquet_says(study: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    for name, table in study.items():
        text = pd.read_csv(tmp_path / "tables" / f"{name}.csv", keep_default_na=False)
        assert list(text.columns) == list(table.columns)
        assert len(text) == len(table)
    layers = pd.read_csv(tmp_path / "tables" / "profiles.csv", dtype=str, keep_default_na=False)["peak_layer"]
    assert list(layers) == ["2"] * 4 + [""] * 2
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == sorted(
        f"{name}.{ending}" for name in study for ending in ("csv", "parquet")
    )


def test_a_damaged_table_is_named_with_what_makes_it_again(tmp_path: Path) -> None:
    damaged = tmp_path / "metrics.parquet"
    damaged.write_bytes(b"PAR1 and then nothing")
    for read in (read_table, read_parquet):
        with pytest.raises(InputError, match=r"metrics.parquet` cannot be read .*Delete it; the next run"):
            read(damaged)
    pq.write_table(pa.table({"step": [1]}), damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read_parquet(damaged, columns=["value"])
