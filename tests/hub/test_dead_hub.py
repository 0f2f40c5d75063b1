"""A hub that dies once it has told what there is: the other models are done, and the last lines say what to do."""

from __future__ import annotations

from pathlib import Path

from hub_models import at_step, decoder, model_files
from hub_process import HubProcess
from runs import ENTRY, published
from studies import make_study

TARGET = "results/tables/metrics.parquet"


def test_the_other_models_are_done_and_the_cells_of_the_published_one_named(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path / "hub")
    published(hub)
    local = {"kind": "decoder", "folder": "my-run"}
    study = make_study(tmp_path / "study", hub.endpoint, {"tiny": ENTRY, "mine": local})
    checkpoint = study.path / "my-run/checkpoint-2"
    checkpoint.mkdir(parents=True)
    for name, content in model_files(at_step(decoder(), 2)).items():
        (checkpoint / name).write_bytes(content)
    published_cells = {"checkpoints": [4, 8, 16], "datasets": ["wiki", "wiki-random"]}
    study.configure(models=[{"tiny": published_cells}, "mine"])
    try:
        study.run(TARGET, "--until", "fetch_tokenizer", "resolve")
    finally:
        hub.stop()
    run = study.snakemake("--cores", "2", "--retries", "0", TARGET)
    assert run.returncode == 1
    words = run.stdout.rpartition("At least one job did not complete successfully.\n")[2]
    assert (study.path / "results/metrics/mine.parquet").exists()
    assert "6 of 7 cells are missing" in words
    assert "  tiny: step4, step8, step16 on wiki, wiki-random (6 cells)\n" in words
    assert "    download failed: " in words
    assert f"of `tiny/run`: {hub.endpoint} cannot be used after 7 attempts" in words
    assert "then run the same command again: what was received is kept" in words
    assert "log: results/logs/download/tiny/step" in words
    assert ".log and 2 more like it" in words
    assert "Not made: metrics of tiny, tables." in words
    assert words.count("\n") < 12
