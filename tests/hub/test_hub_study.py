"""A study of a published run: weights come and go, and what is new runs, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hub_models import at_step, decoder, model_files
from hub_process import HubProcess
from runs import ENTRY, STEPS, lmshape, published
from snakemake_output import jobs_of
from studies import HubStudy, make_study

TARGET = "results/metrics/tiny.parquet"
TABLES = "results/tables/metrics.parquet"
TRUNCATION = {"sequences": 1, "ranks": [4], "removed": [1]}  # of the last checkpoint on wiki
CELL = "measure_cell_3_layers"  # the rule of a cell whose activations are not kept
TOKEN = "hf_neverToBeSeenAnywhere"
MEASURED = (0, 2, 4, 16)  # step 1 has the weights of step 0, step 8 those of step 4
COMPLETE = {
    **ENTRY,
    "steps": list(STEPS),
    "architecture": "gpt_neox",
    "blocks": 2,
    "width": 16,
    "vocabulary": 304,
    "context": 64,
}


@pytest.fixture(scope="module")
def shared_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A gated run with two equal steps, the second of which is so by mistake."""
    hub = HubProcess(tmp_path_factory.mktemp("hub"))
    published(hub, same_as={1: 0, 8: 4})
    hub.gate("tiny/run", TOKEN)
    yield hub
    hub.stop()


@pytest.fixture(scope="module")
def done(shared_hub: HubProcess, tmp_path_factory: pytest.TempPathFactory) -> HubStudy:
    """The study, run once with a token; tests must leave it as it is."""
    folder = tmp_path_factory.mktemp("done") / "study"
    study = make_study(folder, shared_hub.endpoint, {"tiny": ENTRY}, HF_TOKEN=TOKEN)
    study.configure(datasets=["wiki", "wiki-random"], keep_activations=False, truncation=TRUNCATION)
    (folder.parent / "output").write_text(study.run(TABLES))
    return study


@pytest.fixture
def copy(done: HubStudy, shared_hub: HubProcess, tmp_path: Path) -> HubStudy:
    shutil.copytree(done.path, tmp_path / "study", symlinks=True)
    return HubStudy(tmp_path / "study", shared_hub.endpoint, HF_TOKEN=TOKEN)


def metrics(study: HubStudy) -> pd.DataFrame:
    return pd.read_parquet(study.path / TABLES)


def test_every_checkpoint_of_the_hub_is_in_the_tables_with_its_verdict(done: HubStudy) -> None:
    table = pd.read_parquet(done.path / "results/tables/checkpoints.parquet").query("dataset == 'wiki'")
    assert list(table["step"]) == list(STEPS)
    assert list(table["verdict"]) == ["duplicate", "duplicate", "ok", "duplicate", "duplicate", "ok"]
    assert list(table["same_weights_as"]) == ["step1", "step0", "", "step8", "step4", ""]
    assert table["commit"].str.len().eq(40).all()
    assert set(table["repository"]) == {"tiny/run"}
    assert table["commit"].nunique() == table["revision"].nunique() == len(STEPS)  # each its own
    assert list(table["duplicate_of"]) == ["", "step0", "", "", "step4", ""]
    assert list(table["note"]) == ["", "measured as step0", "", "", "measured as step4", ""]


def test_equal_weights_are_downloaded_and_measured_once(done: HubStudy, shared_hub: HubProcess) -> None:
    weights = shared_hub.downloads("safetensors")
    assert len(weights) == len({request.path for request in weights}) == len(MEASURED)
    names = ["checkpoint", "step", "tokens_seen"]
    changes = ["change", "change_low", "change_high", "verdict"]
    for name in ("metrics", "audit", "spectra"):
        table = pd.read_parquet(done.path / f"results/tables/{name}.parquet")
        for first, second in ((0, 1), (4, 8)):
            one, other = (table.query("step == @step").reset_index(drop=True) for step in (first, second))
            assert len(one) > 2 and set(other["checkpoint"]) == {f"step{second}"}
            ignored = [column for column in (*names, *changes) if column in table]
            pd.testing.assert_frame_equal(one.drop(columns=ignored), other.drop(columns=ignored))
    loss = metrics(done).query("metric == 'loss' and dataset == 'wiki'").set_index("step")
    assert (loss["tokens_seen"] == loss.index * 2048).all()


def test_changes_are_counted_between_checkpoints_that_are_trusted(done: HubStudy) -> None:
    loss = metrics(done).query("metric == 'loss' and dataset == 'wiki'").set_index("step")
    assert list(loss.index[loss["change"].notna()]) == [16]
    assert loss.loc[16, "change"] == pytest.approx(loss.loc[16, "value"] - loss.loc[2, "value"])


def test_weights_and_activations_are_gone_and_the_plan_is_empty(done: HubStudy) -> None:
    assert not list(done.path.glob("results/weights/**/*.safetensors"))
    assert not list(done.path.glob("results/activations/**/*.h5"))
    assert done.planned(TABLES) == {}


def test_the_token_is_nowhere(done: HubStudy) -> None:
    files = [path for path in done.path.parent.rglob("*") if path.is_file()]
    assert len(files) > 50
    assert not [path for path in files if TOKEN.encode() in path.read_bytes()]


def test_a_new_dataset_downloads_again_and_extracts_only_itself(copy: HubStudy) -> None:
    datasets = yaml.safe_load((copy.path / "datasets.yaml").read_text())
    datasets["datasets"]["wiki-shuffled"] = {"text": "text", "order": "shuffled"}
    (copy.path / "datasets.yaml").write_text(yaml.safe_dump(datasets))
    copy.configure(datasets=["wiki", "wiki-random", "wiki-shuffled"])
    n = len(MEASURED)
    releases = 3 * n + 1  # by each dataset, and by the truncation
    expected = {"tokenize": 1, "download": n, CELL: n, "release": releases, "gather": 1}
    assert jobs_of(copy.run(TARGET)) == expected
    assert not list(copy.path.glob("results/weights/**/*.safetensors"))
    assert copy.planned(TARGET) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"datasets": ["wiki"], "truncation": False},
        {"metrics": ["anisotropy", "rankme", "loss"]},  # over statistics that are kept
    ],
)
def test_what_is_there_downloads_nothing(changes: dict[str, object], copy: HubStudy) -> None:
    copy.configure(**changes)
    assert copy.planned(TARGET) == {"gather": 1}


def test_a_new_metric_family_extracts_again_since_activations_are_gone(copy: HubStudy) -> None:
    copy.configure(metrics=["spectral", "angular", "loss"])
    n = len(MEASURED)
    assert copy.planned(TARGET) == {"download": n, CELL: 2 * n, "release": 2 * n + 1, "gather": 1}


def test_truncations_download_again_and_extract_nothing(copy: HubStudy) -> None:
    copy.configure(truncation={**TRUNCATION, "checkpoints": "all"})
    n = len(MEASURED) - 1
    assert copy.planned(TARGET) == {"download": n, "release": 3 * n, "truncate": n, "gather": 1}


def test_a_fault_that_becomes_known_gathers_anew_and_nothing_more(copy: HubStudy) -> None:
    issue = {
        "models": ["tiny"],
        "steps": [2],
        "verdict": "wrong_weights",
        "reason": "Mixed up",
        "source": "x#1",
    }
    (copy.path / "issues.yaml").write_text(yaml.safe_dump([issue]))
    assert jobs_of(copy.run(TABLES)) == {"gather": 1, "tables": 1}
    row = metrics(copy).query("step == 2").iloc[0]
    assert row["verdict"] == "wrong_weights"


def test_a_renewed_lock_runs_the_checkpoints_whose_weights_have_changed(
    copy: HubStudy, shared_hub: HubProcess, tmp_path: Path
) -> None:
    hub = HubProcess(Path(shutil.copytree(shared_hub.folder, tmp_path / "hub")))
    try:
        copy.environment["HF_ENDPOINT"] = hub.endpoint
        hub.commit("tiny/run", model_files(at_step(decoder(), 77)), "step4")
        hub.commit("tiny/run", {**model_files(at_step(decoder(), 2)), "README.md": b"new words"}, "step2")
        assert copy.planned(TARGET) == {}  # the lock stays where it was
        lock = [
            "lock",
            "tiny",
            "--update",
            "--configfile",
            copy.path / "config.yaml",
            "--directory",
            copy.path,
        ]
        done = lmshape(*lock, cwd=copy.path, HF_ENDPOINT=hub.endpoint, HF_TOKEN=TOKEN)
        assert done.returncode == 0, done.stderr
        # and step8, which no longer has weights that are measured
        assert jobs_of(copy.run(TARGET)) == {"download": 2, CELL: 4, "release": 4, "gather": 1}
        assert copy.planned(TARGET) == {}
    finally:
        hub.stop()


def test_a_lost_lock_is_told_and_made_again(copy: HubStudy) -> None:
    before = metrics(copy)
    (copy.path / "results/revisions/tiny.tsv").unlink()
    told = "`tiny`: results/revisions/tiny.tsv is gone, and its results are still there. Restore a copy"
    hub, copy.environment["HF_ENDPOINT"] = copy.environment["HF_ENDPOINT"], "http://127.0.0.1:9"
    refused = copy.snakemake("--dry-run", TARGET)
    assert (
        refused.returncode != 0
        and told in refused.stdout
        and "http://127.0.0.1:9 cannot be" in refused.stdout
    )
    copy.environment["HF_ENDPOINT"] = hub
    assert told in copy.run(TABLES)
    pd.testing.assert_frame_equal(metrics(copy), before)


def test_with_its_shape_in_the_registry_a_study_is_planned_without_a_network(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", "http://127.0.0.1:9", {"tiny": COMPLETE})
    n = len(STEPS)
    plan = study.planned(TARGET)
    assert plan == {
        "fetch_text": 1,
        "resolve": 1,
        "fetch_tokenizer": 1,
        "tokenize": 1,
        "download": n,
        "extract": n,
        "release": n,
        "measure": n,
        "gather": 1,
    }


def test_without_it_the_hub_is_asked_and_a_dead_one_is_named(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", "http://127.0.0.1:9", {"tiny": ENTRY})
    plan = study.snakemake("--dry-run", TARGET)
    assert plan.returncode != 0
    assert "http://127.0.0.1:9 cannot be used after 7 attempts" in plan.stdout


def test_missing_checkpoints_end_the_study_before_anything_is_downloaded(
    shared_hub: HubProcess, tmp_path: Path
) -> None:
    entry = {**COMPLETE, "steps": [0, 1, 2, 3, 4, 5, 8, 16]}
    study = make_study(tmp_path / "study", shared_hub.endpoint, {"tiny": entry}, HF_TOKEN=TOKEN)
    run = study.snakemake("--cores", "2", TARGET)
    assert run.returncode != 0
    assert (
        "the hub's answer changes the plan: without step3, step5; step1 equals step0; step8 equals step4. Nothing"
        in run.stdout
    )
    assert not list(study.path.glob("results/weights/**/*.safetensors"))
    assert study.planned(TARGET)["download"] == len(
        MEASURED
    )  # the same command goes on with those that there are


def test_a_choice_that_the_audit_changes_is_told_before_anything_is_downloaded(
    shared_hub: HubProcess, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", shared_hub.endpoint, {"tiny": COMPLETE}, HF_TOKEN=TOKEN)
    study.configure(checkpoints={"every": 1})
    run = study.snakemake("--cores", "2", TARGET)
    assert "the hub's answer changes the plan: without step0, step1, step4, step8. Nothing was" in run.stdout
    assert not list(study.path.glob("results/weights/**/*.safetensors"))
    study.run(TARGET)
    assert set(pd.read_parquet(study.path / TARGET)["checkpoint"]) == {"step2", "step16"}
