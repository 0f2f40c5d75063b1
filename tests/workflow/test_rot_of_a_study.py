"""A flipped bit in a result of a finished study: what is made of it is the same, or a message names the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import StudyFolder, copy_of

from lmshape.errors import InputError
from lmshape.jobs import Jobs, Wildcards
from lmshape.jobs.rule import Given
from lmshape.study.study import study_of

FLIPS = int(os.environ.get("LMSHAPE_FLIPS", "12"))  # `make soak` asks for more
FOLDERS = ("activations", "tokens", "statistics", "losses", "metrics", "shapes")
TABLE = Path("results/tables/metrics.parquet")
MODELS = ("small-decoder", "small-encoder")


@pytest.fixture
def jobs(
    finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Jobs]:
    study = copy_of(finished_study, tmp_path_factory.mktemp("rot") / "study")
    monkeypatch.chdir(study.path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as extraction sets it, for as long as this test runs
    yield Jobs(study_of(study.path / "config.yaml", study.path))
    shutil.rmtree(study.path)


def made_of(flipped: Path, jobs: Jobs) -> pd.DataFrame:
    """Make again what is made of a file, up to the tidy table, and leave everything else as it was."""
    kind, given = flipped.parts[1], Given()
    if kind == "tokens":
        jobs.rules["extract"].run(Wildcards(**cell(flipped, checkpoint="checkpoint-16")), given)
    if kind in ("tokens", "activations"):
        names = cell(flipped, checkpoint="checkpoint-16")
        shutil.rmtree(Path("results/statistics", *names.values()))
        for first, last in jobs.study.blocks_of(names["model"]):
            jobs.rules["measure"].run(Wildcards(**names, first=f"{first:02d}", last=f"{last:02d}"), given)
    if kind not in ("metrics", "shapes"):
        for model in MODELS:
            jobs.rules["gather"].run(Wildcards(model=model), given)
    jobs.rules["tables"].run(Wildcards(), given)
    return pd.read_parquet(TABLE)


def cell(file: Path, *, checkpoint: str) -> dict[str, str]:
    """The cell of an activation store, or one that reads a file of tokens."""
    parts = file.parts[2:-1]
    return {"model": parts[0], "checkpoint": [*parts, checkpoint][1], "dataset": file.stem}


def test_no_other_number(jobs: Jobs) -> None:
    shutil.copytree("results", "whole")
    expected = pd.read_parquet(TABLE)
    rng, told = np.random.default_rng(0), 0
    for number in range(FLIPS):
        kind = FOLDERS[number % len(FOLDERS)]
        path = rng.choice(sorted(path for path in Path("results", kind).rglob("*.*") if path.is_file()))
        content = bytearray(path.read_bytes())
        bit = int(rng.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found = made_of(path, jobs)
        except InputError as error:
            assert path.name in str(error) and "elete" in str(error), f"{path}, bit {bit}: {error}"
            told += 1
        else:
            pd.testing.assert_frame_equal(found, expected, obj=f"{path}, bit {bit}")
        shutil.copytree("whole", "results", dirs_exist_ok=True)
    assert told >= FLIPS / 3


def test_a_trained_run_is_checked_by_what_reads_it(jobs: Jobs) -> None:
    run = Path("results/pretrained/small-decoder")
    job = Wildcards(model="small-decoder", checkpoint="checkpoint-16", dataset="wiki", run="small-decoder")
    for file, rules in {
        run / "loss.csv": ["spikes"],
        run / "geometry.csv": ["spikes"],
        run / "summary.json": ["index"],
        run / "checkpoint-16/model.safetensors": ["extract", "truncate"],
        run / "checkpoint-16/config.json": ["extract", "truncate"],
        run.parent / "tokenizer/tokenizer.json": ["pretrain", "tokenize"],
    }.items():
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        for rule in rules:
            with pytest.raises(InputError, match=f"`{file}` has changed since it was written: .* Delete `"):
                jobs.rules[rule].run(job, Given())
        file.write_bytes(whole)
