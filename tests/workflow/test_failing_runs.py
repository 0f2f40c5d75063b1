"""When something fails, the rest is done, and the last lines say what is missing, why, and what makes it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, Running, StudyFolder, copy_of, make_study
from safetensors.torch import load_file, save_file
from snakemake_output import told_missing
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
from warm_python import run_python, warm_variables

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


def run_the_printed_command(words: str, study: StudyFolder) -> subprocess.CompletedProcess[str]:
    """Type what the last line says."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", words.rstrip().splitlines()[-1].strip()],
        cwd=study.path,
        env={**os.environ, "PATH": path, **warm_variables()},
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
    return study, told_missing(run.stdout)


def test_broken_weights_miss_their_own_cells_and_nothing_else(broken: tuple[StudyFolder, str]) -> None:
    study, words = broken
    losses = {
        str(path.parent.relative_to(study.path)) for path in study.path.glob("results/losses/*/*/*.json")
    }
    done = ("good/checkpoint-0", "good/checkpoint-4", "broken/checkpoint-0")
    assert losses == {f"results/losses/{cell}" for cell in done}
    assert (study.path / "results/metrics/good.parquet").exists()
    assert words.startswith("1 of 4 cells is missing")
    assert "  broken: checkpoint-4 on wiki\n" in words
    assert "    extract: the weights of `runs/broken/checkpoint-4` do not fill its network" in words
    assert "    log: results/logs/extract/broken/checkpoint-4/wiki.log" in words
    assert re.search(r"^  Not made: \d+ results \(.*results/index\.html\)\.$", words, re.M)
    command = words.splitlines()[-1].strip()
    assert command.startswith("python -m snakemake --snakefile ")
    assert command.endswith(f" --cores 2 --retries 1 {TARGET}")


def test_what_is_missing_can_be_asked_for_afterwards(broken: tuple[StudyFolder, str]) -> None:
    study, words = broken
    command = ["-m", "lmshape", "missing", "--configfile", "config.yaml"]
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow")}
    told = run_python(*command, cwd=study.path, env=path).stdout
    assert told.splitlines()[:-1] == words.splitlines()[:-1]
    assert told.splitlines()[-1] == "  snakemake --cores all --configfile config.yaml"


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
    # one job at a time: while two fill the disk, Snakemake may fail to write its own records and end at once
    run = study.snakemake("--cores", "1", "--retries", "0", target)
    assert run.returncode == 1, run.stdout
    words = told_missing(run.stdout)
    assert re.search(
        r"    extract: `results/activations/\S+: No space left on device. Make room there", words
    )
    assert "Free space on the disk" in words
    assert "disk_budget_gb" in words
    assert "good: checkpoint-" in words
    assert not list(study.path.rglob("*.partial-*")), "what a failed job had written half still takes room"
    ballast.unlink()
    again = run_the_printed_command(words, study)
    assert again.returncode == 0, again.stdout
    columns = ["checkpoint", "layer", "rows", "metric", "value", "ci_low", "ci_high"]
    pd.testing.assert_frame_equal(
        pd.read_parquet(study.path / target)[columns],
        pd.read_parquet(broken[0].path / target)[columns],
    )


def test_an_interrupted_run_says_what_is_missing(tmp_path: Path) -> None:
    study = local_study(tmp_path / "study", {"good": GOOD})
    with Running(study, "--cores", "1", "results/metrics/good.parquet") as running:
        running.stop_at("results/logs/extract/good/checkpoint-0/wiki.log")
        output = running.end(signal.SIGINT)
    assert running.process.returncode == 1
    words = told_missing(output)
    assert words.startswith("2 of 2 cells are missing")
    assert "  good: checkpoint-4 on wiki\n    not reached" in words
    assert "Traceback" not in words and "    log: " not in words.partition("not reached")[2]
    assert run_the_printed_command(f"{words} --dry-run", study).returncode == 0


def test_a_killed_job_is_told_as_that(broken: tuple[StudyFolder, str], tmp_path: Path) -> None:
    """The machine kills processes that need too much memory; their logs do not know."""
    study = copy_of(broken[0], tmp_path / "study")
    log = study.path / "results/logs/extract/broken/checkpoint-4/wiki.log"
    log.unlink()
    with Running(study, "--cores", "1", "--retries", "0", TARGET) as running:
        running.stop_at(str(log.relative_to(study.path)))
        jobs = subprocess.run(
            ["pgrep", "-f", "lmshape run extract"], capture_output=True, text=True, check=True
        )
        for job in jobs.stdout.split():
            if (
                os.getpgid(int(job)) == running.process.pid
                and "python" in Path(f"/proc/{job}/comm").read_text()
            ):
                os.kill(int(job), signal.SIGKILL)
        output = running.end(signal.SIGCONT)
    words = told_missing(output)
    assert "    extract: it was killed (SIGKILL)\n    If memory ran out, take fewer jobs at once" in words
