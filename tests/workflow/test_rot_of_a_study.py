"""A flipped bit in a result of a finished study: what is made of it is the same, or a message names the file."""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import StudyFolder, copy_of

from lmshape.errors import InputError
from lmshape.jobs import Jobs, Step, Wildcards
from lmshape.jobs.rule import Given, list_of
from lmshape.study.study import study_of

FLIPS = int(
    os.environ.get("LMSHAPE_FLIPS", "0")
)  # at least one of each kind of file; `make soak` asks for more
# Folders below results/ whose files say that they are damaged.
READ = {
    "activations",
    "tokens",
    "statistics",
    "losses",
    "metrics",
    "shapes",
    "pretrained",
    "tables",
    "texts",
    "truncation",
}
SLOW = (
    "pretrain",
    "truncate",
    "measure",
)  # rules that run on files that others read, or none, only in `make soak`


@pytest.fixture
def jobs(
    finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Jobs]:
    study = copy_of(finished_study, tmp_path_factory.mktemp("rot") / "study")
    monkeypatch.chdir(study.path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as extraction sets it, for as long as this test runs
    yield Jobs(study_of(study.path / "config.yaml", study.path))
    shutil.rmtree(study.path)


def kind_of(file: Path) -> tuple[str, ...]:
    """The folder below results/, and the name, without what differs between cells, layers and figures."""
    folder = file.parts[1] if len(file.parts) > 2 else ""
    named = folder in ("pretrained", "shapes")
    return (
        folder,
        re.sub(r"layers-[\d-]+", "", file.parts[-2]) if folder == "statistics" else "",
        (file.name if named else "".join(file.suffixes)),
    )


def readers_of(file: Path, jobs: Jobs) -> list[Step]:
    """The jobs that read a file or what it is the note of."""
    noted = file.with_name(file.name.removeprefix(".").removesuffix(".sha256"))
    given = {(name, job): jobs.rules[name].inputs(job).values() for name, job in finished(jobs)}
    return [
        step
        for step, files in given.items()
        if any(reads(Path(one), noted) for some in files for one in list_of(some))
    ]


def reads(given: Path, file: Path) -> bool:
    """Whether who is given a file or folder reads a file: what lies beside weights, too."""
    return (
        given == file
        or given in file.parents
        or (given.suffix == ".safetensors" and given.parent == file.parent)
    )


def finished(jobs: Jobs) -> list[Step]:
    """The jobs whose outputs are there; a download's and the report's are not."""
    return [
        (name, job) for name, job in jobs.every() if all(map(os.path.exists, jobs.rules[name].outputs(job)))
    ]


def files_of(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.stat().st_size)


def test_no_other_number(jobs: Jobs) -> None:
    """What reads a file with a flipped bit, any below results/, makes the same bytes or names the file."""
    shutil.copytree("results", "whole/results")
    rng, told, kinds = np.random.default_rng(FLIPS), set(), defaultdict(list)
    for file in files_of("results"):
        kinds[kind_of(file)].append(file)
    for number in range(max(FLIPS, len(kinds))):
        kind = list(kinds)[number % len(kinds)]
        file = kinds[kind][rng.integers(len(kinds[kind]))]
        readers = readers_of(file, jobs)  # of what nobody reads, any job must make the same
        chosen = [step for step in readers or finished(jobs) if FLIPS or step[0] not in SLOW] or readers
        name, job = chosen[rng.integers(len(chosen))]
        content = bytearray(file.read_bytes())
        bit = int(rng.integers(8 * len(content)))
        content[bit // 8] ^= 1 << bit % 8
        outputs = list(map(Path, jobs.rules[name].outputs(job)))
        for output in outputs:
            shutil.rmtree(output) if output.is_dir() else output.unlink()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        case = f"{file}, bit {bit}, read by {name} {job}"
        try:
            jobs.rules[name].run(job, Given())
        except InputError as error:
            assert file.name.removeprefix(".").removesuffix(".sha256") in str(error), f"{case}: {error}"
            assert re.search("[Dd]elete|Move `.*` elsewhere, and run again", str(error)), f"{case}: {error}"
            told.add(kind)
        else:
            for made in (
                path for output in outputs for path in ([output] if output.is_file() else files_of(output))
            ):
                assert made == file or made.read_bytes() == Path("whole", made).read_bytes(), (
                    f"{case}: {made}"
                )
        for path in (file, *outputs):
            whole = Path("whole", path)
            if whole.is_dir():
                shutil.copytree(whole, path, dirs_exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(whole, path)
    assert len({folder for folder, *_ in told} & READ) > len(READ) / 2, sorted(told)


def test_a_trained_run_is_checked_by_what_reads_it(jobs: Jobs) -> None:
    run = Path("results/pretrained/small-decoder")
    job = Wildcards(model="small-decoder", checkpoint="checkpoint-16", dataset="wiki", run="small-decoder")
    for file, rules in {
        run / "loss.csv": ["spikes"],
        run / "geometry.csv": ["spikes"],
        run / "summary.json": ["index"],
        run / "checkpoint-16/model.safetensors": ["extract", "truncate"],
        run / "checkpoint-16/config.json": ["extract", "truncate"],
        Path("results/figures/controls.svg"): ["index"],
        run.parent / "tokenizer/tokenizer.json": ["pretrain", "tokenize"],
        run.parent / "tokenizer/tokenizer_config.json": ["pretrain", "tokenize"],
    }.items():
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        for rule in rules:
            with pytest.raises(
                InputError, match=f"`{file}` has changed since it was written: .* Move `.*` elsewhere"
            ):
                jobs.rules[rule].run(job, Given())
        file.write_bytes(whole)
