"""Wrong input ends before the first job, and the message says what to change; a diverged checkpoint is flagged."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest
from conftest import CONFIG, DATASETS, MODELS, StudyFolder, run_python
from safetensors.torch import load_file, save_file

from lmshape.errors import InputError
from lmshape.study.study import study_of


def refused(study: StudyFolder, *fragments: str) -> None:
    with pytest.raises(InputError) as error:
        study_of(study.path / "config.yaml", study.path)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_what_is_refused_ends_the_run_before_its_first_job(new_study: StudyFolder) -> None:
    new_study.configure(models=["small-decodr"])
    run = new_study.snakemake("--cores", "1")
    assert run.returncode != 0
    assert "`models[0]` = 'small-decodr': unknown model" in run.stdout, run.stdout
    assert "Traceback" not in run.stdout
    assert not (new_study.path / "results").exists()


def test_snakemake_tells_what_is_wrong_with_a_file_of_yaml(new_study: StudyFolder) -> None:
    """With the line, where Snakemake names none; a key that stands twice, of which Snakemake takes the last."""
    with (new_study.path / "config.yaml").open("a") as config:
        config.write("study: other\n")
    run = new_study.snakemake("--dry-run")
    assert run.returncode != 0 and "the key `study` appears twice, the second time on line" in run.stdout
    (new_study.path / "config").mkdir()
    (new_study.path / "config/config.yaml").write_text("models: [mine\ndatasets: [wiki]\n")
    command = [word for word in new_study.command("--dry-run") if "config" not in word]
    run = run_python(*command, cwd=new_study.path)
    assert run.returncode != 0 and "on line 2, `datasets: [wiki]`" in run.stdout, run.stdout


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"models": ["small-decodr"]}, ["small-decodr", "small-decoder"]),
        ({"datasets": ["wikki"]}, ["wikki", "wiki"]),
        ({"metrics": ["anisotrpy"]}, ["anisotrpy", "anisotropy"]),
        ({"sampeling": {"window": 32}}, ["sampeling", "sampling"]),
        ({"checkpoints": [0, 5]}, ["`5`", "Nearest steps that exist: 2, 4, 8"]),
        ({"sampling": {**CONFIG["sampling"], "draws": -3}}, ["sampling.draws", "-3"]),
        ({"sampling": {**CONFIG["sampling"], "window": 64}}, ["sampling.window", "64", "32"]),
        ({"sampling": {**CONFIG["sampling"], "rows_per_draw": 10**6}}, ["wikipedia", "bytes"]),
    ],
)
def test_a_wrong_configuration_is_refused(
    changes: dict[str, object], fragments: list[str], new_study: StudyFolder
) -> None:
    new_study.configure(**changes)
    refused(new_study, *fragments)


def test_an_empty_text_is_refused(new_study: StudyFolder) -> None:
    (new_study.path / "wikipedia.txt").write_text("")
    refused(new_study, "wikipedia.txt is empty")


def test_a_missing_text_is_refused(new_study: StudyFolder) -> None:
    new_study.write("datasets.yaml", {**DATASETS, "texts": {"wikipedia": {"path": "wikipedai.txt"}}})
    refused(new_study, "wikipedai.txt", "no such file")


def test_a_folder_without_checkpoints_is_refused(new_study: StudyFolder) -> None:
    (new_study.path / "my-run/notes").mkdir(parents=True)
    new_study.write("models.yaml", {**MODELS, "mine": {"kind": "decoder", "folder": "my-run"}})
    new_study.configure(models=["mine"])
    refused(new_study, "my-run", "checkpoint-", "notes")


def test_a_diverged_checkpoint_becomes_flagged_rows(study_copy: StudyFolder) -> None:
    run = study_copy.path / "my run's"
    for step in (4, 16):
        shutil.copytree(
            study_copy.path / f"results/pretrained/small-decoder/checkpoint-{step}",
            run / f"checkpoint-{step}",
        )
    weights = load_file(run / "checkpoint-16/model.safetensors")
    weights["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"][:] = float("nan")
    save_file(weights, run / "checkpoint-16/model.safetensors", metadata={"format": "pt"})
    study_copy.write("models.yaml", {**MODELS, "mine": {"kind": "decoder", "folder": "my run's"}})
    study_copy.configure(models=["mine"], datasets=["wiki"], checkpoints="all")
    finished = study_copy.snakemake("--cores", "2")
    assert finished.returncode == 0, finished.stdout
    metrics = pd.read_parquet(study_copy.path / "results/tables/metrics.parquet")
    diverged = metrics[(metrics["step"] == 16) & (metrics["layer"] == 2)]
    assert len(diverged) > 0
    assert diverged["value"].isna().all()
    assert diverged["flag"].str.startswith("not finite").all()
    metrics = metrics[metrics["metric"] != "effective_rank_bulk"]  # of rows of more than 32 columns
    assert metrics[metrics["step"] == 4]["value"].notna().all()
    assert metrics[(metrics["step"] == 16) & (metrics["layer"] < 2)]["value"].notna().all()
