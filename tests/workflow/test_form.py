"""The workflow reads as its engineers promise: its rules say what `lmshape.jobs` says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

import pytest
from conftest import REPOSITORY, SEVERAL, StudyFolder, jobs_agree

from lmshape.jobs import RULES

RULES_FOLDER = REPOSITORY / "workflow/rules"
FILES = sorted(RULES_FOLDER.glob("*.smk"))
BODY = re.compile(r"^( *)rule ?(\w*):\n((?:\1    .*\n|\n)+)", re.MULTILINE)
DERIVED = re.compile(r"^ *use rule \w+ as (\w+) with:", re.MULTILINE)
ALIKE = re.compile(
    r'^for name, message in \{\n((?:    "\w+": ".*",\n)+)\}\.items\(\):\n((?:    .*\n|\n)+)', re.MULTILINE
)
NAMED = re.compile(r'name:\s*f"(\w+)_\{layout\}"')


def spelled_out(rules: str) -> str:
    """Write each rule of those that are alike by itself."""

    def each(found: re.Match[str]) -> str:
        bodies = {name: dedent(found[2]) for name in re.findall(r'"(\w+)":', found[1])}
        return "".join(
            body.replace("rule:", f"rule {name}:")
            .replace("(name)", f'("{name}")')
            .replace("=name,", f'="{name}",')
            .replace("{name}", name)
            for name, body in bodies.items()
        )

    return ALIKE.sub(each, rules)


def bodies() -> Iterator[tuple[str, str, str]]:
    for path in FILES:
        for _, name, body in BODY.findall(spelled_out(path.read_text()) + "\n"):
            yield path.name, name or NAMED.findall(body)[0], body


@pytest.mark.parametrize(("file", "name", "body"), list(bodies()), ids=[name for _, name, _ in bodies()])
def test_a_rule_declares_what_it_needs_and_takes_it_from_its_namesake(
    file: str, name: str, body: str
) -> None:
    for directive in ("log:", "benchmark:", "conda:", "**jobs.resources(", "message:", "shell:", "output:"):
        assert directive in body, f"{file}: rule {name} has no {directive}"
    asked = re.findall(r'jobs\.(\w+)\("(\w+)"\)', body)
    assert {rule for _, rule in asked} == {name}
    assert {method for method, _ in asked} <= {"inputs", "resources", "digest", "priority", "threads"}
    derived = dict(
        re.findall(r"^ *use rule (\w+) as (\w+) with:", (RULES_FOLDER / file).read_text(), re.MULTILINE)
    )
    # a derived rule has the command of the first, and runs its own job where it is a rule of the library
    runs = "{params.job}" if derived.get(name) in RULES or 'job="' in body else name
    assert re.findall(r'job_command\(\s*"(\S+) ', body) == [runs]
    # What no code makes needs no digest of it: bytes that are verified against the hub's.
    assert ("params:" in body) == (f'digest=jobs.digest("{name}")' in body) == (name != "fetch_tokenizer")
    assert set(re.findall(r'job="(\w+)"', body)) <= {name}
    assert "lambda" not in body


def test_every_rule_of_the_library_is_one_of_the_workflow() -> None:
    derived = {name for path in FILES for name in DERIVED.findall(path.read_text())}
    named = {name for _, name, _ in bodies()} | {SEVERAL.get(name, name) for name in derived}
    assert named == RULES.keys()


def test_jobs_read_and_write_what_the_library_says(
    finished_study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished_study.path)
    names = jobs_agree(finished_study)
    assert {"extract", "measure", "truncate", "pretrain", "gather", "spikes", "index"} <= names
    assert {"figures", "model_figures"} <= names


def test_a_pipe_fails_with_its_first_command() -> None:
    """A prefix takes the place of Snakemake's own `set -euo pipefail`; `… | tee {log}` needs it."""
    common = (REPOSITORY / "workflow/rules/common.smk").read_text()
    assert re.search(r"shell\.prefix\(\s*f?\"set -euo pipefail; ", common)


def test_a_block_of_layers_can_be_asked_for_by_name(new_study: StudyFolder) -> None:
    new_study.configure(layers_per_job=1)
    target = "results/statistics/small-decoder/checkpoint-4/wiki/neighbor/layers-02-02.h5"
    planned = new_study.planned(target)
    assert planned["measure"] == 1
    assert planned["extract"] == 1
