"""When something fails, the rest is done, and the last lines say what is missing, why, and what makes it."""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import StudyFolder, make_study
from safetensors.torch import load_file, save_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from lmshape.texts.tokenizer import write_tokenizer

STEPS = (0, 4)
GOOD = {"kind": "decoder", "folder": "runs/good"}
BROKEN = {"kind": "decoder", "folder": "runs/broken"}
TARGET = "results/tables/metrics.parquet"
MEGABYTE = 1 << 20
ROOM_BYTES = 24 * MEGABYTE // 10  # for text and tokens, and for one of two activation stores of a megabyte


def write_run(folder: Path, text: str) -> None:
    """Write a training run of two checkpoints of random weights."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GPTNeoXConfig(
        vocab_size=400,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        **shape,
    )
    for step in STEPS:
        torch.manual_seed(step)
        checkpoint = folder / f"checkpoint-{step}"
        GPTNeoXForCausalLM(config).save_pretrained(checkpoint)
        write_tokenizer(text, folder / "tokenizer", vocabulary=400)
        shutil.copytree(folder / "tokenizer", checkpoint, dirs_exist_ok=True)


def local_study(path: Path, models: dict[str, object], **changes: object) -> StudyFolder:
    """A study of local runs: nothing is trained."""
    study = make_study(path)
    text = (path / "wikipedia.txt").read_text(errors="ignore")[:50_000]
    for name in models:
        write_run(path / "runs" / name, text)
    study.write("models.yaml", models)
    shape = {"window": 32, "draws": 3, "rows_per_draw": 700, "seed": 0}
    study.configure(
        **{
            "models": list(models),
            "datasets": ["wiki"],
            "checkpoints": list(STEPS),
            "metrics": ["spectral", "loss"],
            "rows": ["all"],
            "sampling": shape,
            **changes,
        }
    )
    return study


def last_words(output: str) -> str:
    """What stands below Snakemake's own last line."""
    marker = "At least one job did not complete successfully.\n"
    assert marker in output, output
    return output.rpartition(marker)[2]


def missing(study: StudyFolder) -> list[dict[str, str]]:
    with (study.path / "results/missing.tsv").open(newline="") as file:
        return list(csv.DictReader(file, dialect="excel-tab"))


def run_the_printed_command(words: str, study: StudyFolder) -> subprocess.CompletedProcess[str]:
    """Type what the last line says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        words.rstrip().splitlines()[-1].strip(),
        shell=True,
        cwd=study.path,
        env={**os.environ, "PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, str]:
    """A study of which one checkpoint of one model lacks a tensor, and the last words of its run."""
    study = local_study(tmp_path_factory.mktemp("broken") / "study", {"good": GOOD, "broken": BROKEN})
    weights = study.path / "runs/broken/checkpoint-4/model.safetensors"
    tensors = load_file(weights)
    del tensors["gpt_neox.layers.1.mlp.dense_4h_to_h.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    run = study.snakemake("--cores", "2", "--retries", "1", TARGET)
    assert run.returncode == 1, run.stdout
    return study, last_words(run.stdout)


def test_broken_weights_miss_their_own_cells_and_nothing_else(broken: tuple[StudyFolder, str]) -> None:
    study, words = broken
    losses = {
        str(path.parent.relative_to(study.path)) for path in study.path.glob("results/losses/*/*/*.json")
    }
    done = ("good/checkpoint-0", "good/checkpoint-4", "broken/checkpoint-0")
    assert losses == {f"results/losses/{cell}" for cell in done}
    assert (study.path / "results/metrics/good.parquet").exists()
    assert "1 of 4 cells is missing" in words
    assert "  broken: checkpoint-4 on wiki\n" in words
    assert (
        "extract failed 2 times: the weights of `runs/broken/checkpoint-4` do not fill its network" in words
    )
    assert "log: results/logs/extract/broken/checkpoint-4/wiki.log" in words
    assert "Not made: metrics of broken, tables." in words


def test_the_list_of_missing_cells_has_attempts_reason_and_log(broken: tuple[StudyFolder, str]) -> None:
    study, _ = broken
    (row,) = missing(study)
    reason = row.pop("why")
    assert reason.startswith("the weights of `runs/broken/checkpoint-4` do not fill its network")
    assert row == {
        "model": "broken",
        "checkpoint": "checkpoint-4",
        "dataset": "wiki",
        "failed": "extract",
        "attempts": "2",
        "log": "results/logs/extract/broken/checkpoint-4/wiki.log",
    }


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={64 * MEGABYTE}", "lmshape-test", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_named_and_with_room_the_printed_command_ends_the_study(
    broken: tuple[StudyFolder, str], small_disk: Path
) -> None:
    study = local_study(small_disk / "study", {"good": GOOD})
    target = "results/metrics/good.parquet"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - ROOM_BYTES))
    run = study.snakemake("--cores", "2", "--retries", "0", target)
    assert run.returncode == 1, run.stdout
    words = last_words(run.stdout)
    assert "    extract failed: No space left on device: " in words
    assert "Free space on the disk" in words
    assert "disk_budget_gb" in words
    assert "good: checkpoint-" in words
    assert not list(study.path.rglob("*.partial-*")), "what a failed job had written half still takes room"
    ballast.unlink()
    again = run_the_printed_command(words, study)
    assert again.returncode == 0, again.stdout
    assert not (study.path / "results/missing.tsv").exists()
    columns = ["checkpoint", "layer", "rows", "metric", "value", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(
        pd.read_parquet(study.path / target)[columns],
        pd.read_parquet(broken[0].path / target)[columns],
    )


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not file.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.05)


def test_a_second_run_is_refused_and_an_interrupted_one_says_so(tmp_path: Path) -> None:
    study = local_study(tmp_path / "study", {"good": GOOD})
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--snakefile", str(Path(__file__).parents[2] / "Snakefile")]
        + ["--directory", str(study.path), "--configfile", str(study.path / "config.yaml")]
        + ["--cores", "1", "results/metrics/good.parquet"],
        cwd=study.path,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for(study.path / "results/logs/extract/good/checkpoint-0/wiki.log", process)
        os.killpg(process.pid, signal.SIGSTOP)  # else it may be done before a slow machine has looked at it
        second = study.snakemake("--cores", "1")
        assert second.returncode == 1
        assert f"This study is being run (process {process.pid} on " in second.stdout
        assert "Do not use `--unlock`" in second.stdout.splitlines()[-1]
        unlocking = study.snakemake("--unlock")
        assert unlocking.returncode == 1
        assert "`--unlock` is refused: this study is being run" in unlocking.stdout
        assert list((study.path / ".snakemake/locks").iterdir()), "the lock of the first run is gone"
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    words = last_words(output)
    assert words.startswith("\nThe run was interrupted. 2 of 2 cells are missing")
    assert "  good: checkpoint-0, checkpoint-4 on wiki (2 cells)\n    interrupted, or not begun\n" in words
    assert "failed" not in words.partition("Not made")[0]
