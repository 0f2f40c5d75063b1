"""The workflow reads as its engineers promise: lint, format, and what every rule declares."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, StudyFolder

RULE = re.compile(r"^rule (\w+):\n((?:[ \t].*\n|\n)+)", re.MULTILINE)
RULES = [
    (path.name, *match.groups())
    for path in sorted((REPOSITORY / "workflow/rules").glob("*.smk"))
    for match in RULE.finditer(path.read_text() + "\n")
]
# What these make does not depend on their code: bytes that are verified against the hub's digests, and marks.
VERIFIED = {"fetch_tokenizer", "download", "release", "release_truncated", "admit"}


@pytest.mark.parametrize(("file", "name", "body"), RULES, ids=[name for _, name, _ in RULES])
def test_every_rule_declares_what_it_needs(file: str, name: str, body: str) -> None:
    for directive in ("log:", "benchmark:", "conda:", "threads:", "mem_mb", "runtime", "disk_mb", "message:"):
        assert directive in body, f"{file}: rule {name} has no {directive}"
    assert ("code=" in body) != (name in VERIFIED), f"{file}: rule {name} and the fingerprint of its code"
    assert "shell:" in body
    assert "lambda" not in body


def test_a_pipe_fails_with_its_first_command() -> None:
    """A prefix takes the place of Snakemake's own `set -euo pipefail`; `… | tee {log}` needs it."""
    common = (REPOSITORY / "workflow/rules/common.smk").read_text()
    assert re.search(r"shell\.prefix\(\s*f?\"set -euo pipefail; ", common)


def test_there_are_rules() -> None:
    assert len(RULES) >= 10


def test_lint_is_clean() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", "--lint"],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_format_is_clean() -> None:
    files = [REPOSITORY / "Snakefile", REPOSITORY / "workflow/rules"]
    command = [Path(sys.executable).with_name("snakefmt"), "--check", *files]
    run = subprocess.run(command, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_dry_run_tells_the_study_in_words(new_study: StudyFolder) -> None:
    plan = new_study.snakemake("--dry-run").stdout
    for sentence in (
        "Pretrain small-decoder from scratch",
        "Extract activations of small-decoder at checkpoint-4 on wiki-random",
        "Measure the statistics of layers 00-02: small-encoder at checkpoint-16 on wiki",
        "Gather the metrics of small-encoder",
        "Test the published claims on this study",
        "Write the page of the findings",
        "Write Snakemake's report",
    ):
        assert sentence in plan


def test_a_block_of_layers_can_be_asked_for_by_name(new_study: StudyFolder) -> None:
    new_study.configure(layers_per_job=1)
    target = "results/statistics/small-decoder/checkpoint-4/wiki/neighbor/layers-02-02.h5"
    planned = new_study.planned(target)
    assert planned["measure"] == 1
    assert planned["extract"] == 1
