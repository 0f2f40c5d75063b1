"""The tables of loss spikes: from files of runs to the four tables."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from spiking_runs import metrics_of, write_run

from lmshape.cli import spikes
from lmshape.errors import InputError
from lmshape.tables.loss_spikes import (
    ALARM_COLUMNS,
    BEFORE_COLUMNS,
    SPIKE_COLUMNS,
    WARNING_COLUMNS,
    read_geometry,
    write_spikes,
)

SCHEMAS = {
    "spikes": SPIKE_COLUMNS,
    "warnings": WARNING_COLUMNS,
    "alarms": ALARM_COLUMNS,
    "before_spikes": BEFORE_COLUMNS,
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        f"unstable-{seed}": write_run(folder, f"unstable-{seed}", spikes=3, seed=seed) for seed in range(3)
    }
    return runs | {"stable": write_run(folder, "stable", spikes=0, seed=9)}


@pytest.fixture(scope="module")
def tables(files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    metrics_of({"unstable-0": (0, 8, 64, 256), "unmeasured": (0,)}).to_parquet(folder / "metrics.parquet")
    write_spikes(
        folder,
        study="made-up",
        losses={name: one["losses"] for name, one in files.items()},
        logs={"mine": files["unstable-1"]["losses"]},
        geometry={name: one["geometry"] for name, one in files.items()},
        metrics=folder / "metrics.parquet",
        datasets=["wiki", "other"],
    )
    return folder


def read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet")


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_table_has_its_columns(tables: Path, name: str) -> None:
    assert pq.read_schema(tables / f"{name}.parquet").equals(SCHEMAS[name])
    assert all(field.metadata[b"description"] for field in SCHEMAS[name])
    frame = read(tables, name)
    assert len(frame) == len(pd.read_csv(tables / f"{name}.csv")) > 0
    assert set(frame["study"]) == {"made-up"}


def test_each_spike_has_a_row_and_so_has_a_run_without(tables: Path) -> None:
    spikes = read(tables, "spikes")
    counts = spikes.groupby("run", sort=False)["spike"].agg(list).to_dict()
    assert counts == {f"unstable-{seed}": [1, 2, 3] for seed in range(3)} | {"stable": [0], "mine": [1, 2, 3]}
    calm = spikes[spikes["run"] == "stable"].iloc[0]
    assert (
        calm["flag"] == "no spike"
        and calm[["onset", "height", "steps"]].isna().all()
        and calm["logged"] == 600
    )
    found = spikes[spikes["spike"] > 0]
    assert (found["height"] == found["peak_loss"] - found["baseline"]).all()
    assert (found["steps"] == found["recovery_step"] - found["onset"]).all()
    assert (found["onset"] <= found["peak_step"]).all() and (found["height"] > found["threshold"]).all()
    assert spikes.set_index("run")["source"].to_dict() == dict.fromkeys(counts, "pretraining") | {
        "mine": "log"
    }


def test_every_series_has_a_row(tables: Path) -> None:
    warnings = read(tables, "warnings")
    probe = warnings[warnings["source"] == "probe"]
    assert set(probe["blocks"]) == {2} and (probe["spikes"] + probe["unscored"]).eq(9).all()
    layered = probe[probe["layer"].notna()]
    assert len(layered) == 3 * 2 and len(probe) == 6 + 6  # loss on held-out tokens and the log's five
    assert (probe["p_adjusted"].isna() == (probe["kind"] == "baseline")).all()
    dimension = probe[probe["metric"] == "id_twonn"]
    assert (dimension["auc"] > 0.8).all() and (dimension["move_before_low"] > 0).all()
    assert set(dimension["best_baseline"]) == {"loss_held_out"}


def test_checkpoints_say_what_they_cannot_tell(tables: Path) -> None:
    coarse = read(tables, "warnings").query("source == 'checkpoints'")
    assert set(coarse["metric"]) >= {"id_twonn", "id_twonn_types", "loss_level"}
    reason = "not measurable: no spike has 13 values before it, one every 56 steps"
    assert set(coarse["flag"]) == {reason} and coarse["auc"].isna().all()


def test_the_curves_belong_to_the_series(tables: Path) -> None:
    warnings, alarms, courses = (read(tables, name) for name in ("warnings", "alarms", "before_spikes"))
    key = ["source", "blocks", "metric", "layer"]
    measured = warnings.loc[warnings["auc"].notna(), key].apply(tuple, axis=1)
    assert set(alarms[key].fillna(-1).apply(tuple, axis=1)) == set(
        warnings.loc[warnings["auc"].notna(), key].fillna(-1).apply(tuple, axis=1)
    )
    assert len(measured)
    ahead = courses[(courses["metric"] == "id_twonn") & courses["offset"].between(-4, -1)]
    assert (ahead["change"] > ahead["quiet_high"]).mean() > 0.8 and (
        ahead["steps"] == 2 * ahead["offset"]
    ).all()


def test_a_study_without_runs_has_empty_tables(tmp_path: Path) -> None:
    write_spikes(tmp_path, study="none", losses={}, logs={}, geometry={})
    for name, schema in SCHEMAS.items():
        assert pq.read_schema(tmp_path / f"{name}.parquet").equals(schema)
        assert read(tmp_path, name).empty and (tmp_path / f"{name}.csv").read_text().startswith("study,")


def test_a_run_that_was_not_watched_has_its_spikes(files, tmp_path: Path) -> None:
    (tmp_path / "geometry.csv").write_text("step,layer,metric,value\n")
    losses = {"run": files["unstable-0"]["losses"]}
    write_spikes(tmp_path, study="s", losses=losses, logs={}, geometry={"run": tmp_path / "geometry.csv"})
    assert len(read(tmp_path, "spikes")) == 3 and read(tmp_path, "warnings").empty


def test_equal_files_give_equal_bytes(tables: Path, files, tmp_path: Path) -> None:
    names = {"losses", "geometry"}
    given = {kind: {name: one[kind] for name, one in files.items()} for kind in names}
    log = {"mine": files["unstable-1"]["losses"]}
    metrics = {"metrics": tables / "metrics.parquet", "datasets": ["wiki", "other"]}
    write_spikes(tmp_path, study="made-up", logs=log, **given, **metrics)
    for name in SCHEMAS:
        assert (tmp_path / f"{name}.csv").read_bytes() == (tables / f"{name}.csv").read_bytes()


def test_a_geometry_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("step,value\n1,2\n")
    with pytest.raises(InputError, match=r"has the columns step, value, not step, layer, metric, value"):
        read_geometry(tmp_path / "other.csv")
    with pytest.raises(InputError, match="cannot be read as CSV"):
        read_geometry(tmp_path / "absent.csv")


def test_a_log_that_breaks_after_the_plan_costs_its_own_row(files, tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text("half a li")
    logs = {"fine": files["unstable-0"]["losses"], "broken": tmp_path / "broken.csv"}
    write_spikes(tmp_path, study="s", losses={}, logs=logs, geometry={})
    table = read(tmp_path, "spikes")
    assert table["run"].tolist() == ["fine"] * 3 + ["broken"]
    assert table["flag"].iloc[3].startswith("not read: ") and table["spike"].iloc[3] == 0


@pytest.mark.parametrize("spike", [False, True])
def test_the_end_of_a_run_that_diverged_is_told(files, spike: bool, tmp_path: Path) -> None:
    """Two steps are too few for a spike."""
    name = "unstable-0" if spike else "stable"
    losses = pd.read_csv(files[name]["losses"])
    losses.loc[len(losses) - 2 :, "loss"] = float("nan")
    losses.to_csv(tmp_path / "loss.csv", index=False)
    write_spikes(tmp_path, study="s", losses={"run": tmp_path / "loss.csv"}, logs={}, geometry={})
    flags = read(tmp_path, "spikes")["flag"].tolist()
    assert flags[-1].endswith(f"the run ends without a finite loss: from step {losses['step'].iloc[-2]:g} on")
    assert len(flags) == (3 if spike else 1) and not any("ends" in flag for flag in flags[:-1])


def test_a_run_that_rose_too_slowly_for_a_spike_says_where_it_ends(tmp_path: Path) -> None:
    steps = range(0, 4000, 2)
    rising = pd.DataFrame(
        {"step": steps, "loss": [4 + max(0, step - 1000) / 2000 + step % 7 / 50 for step in steps]}
    )
    rising.to_csv(tmp_path / "loss.csv", index=False)
    write_spikes(tmp_path, study="s", losses={"run": tmp_path / "loss.csv"}, logs={}, geometry={})
    assert read(tmp_path, "spikes")["flag"].tolist() == [
        "no spike; the run ends 1.5 nats over its lowest level"
    ]


def test_logs_alone_are_listed_without_any_study(
    files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spikes([files["unstable-0"]["losses"], files["stable"]["losses"]])
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:4] == ["run", "spike", "onset", "peak_step"]
    assert [row[1] for row in rows] == ["1", "2", "3", "0"] and rows[3][-2:] == ["no", "spike"]
    (tmp_path / "play.txt").write_text("First Citizen:\n")
    with pytest.raises(InputError, match="play.txt`: has no column for the loss"):
        spikes([tmp_path / "play.txt"])
