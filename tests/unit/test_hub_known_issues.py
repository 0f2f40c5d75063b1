"""The cited list of known faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.hub.integrity import Issue, issues_of, read_issues
from lmshape.study.registry import REPOSITORY

ISSUE = """
- models: [pythia-12b, "olmo-*"]
  steps: [0, {from: 1000, to: 3000, every: 1000}]
  verdict: doubtful
  reason: Something is wrong.
  source: someone#1
"""
OF_RUN_A = Issue(("run*",), frozenset({0}), "expected_duplicate", "The rate is 0", "run#1")


def test_the_list_of_known_faults(tmp_path: Path) -> None:
    (tmp_path / "issues.yaml").write_text(ISSUE)
    [one] = read_issues(tmp_path / "issues.yaml")
    steps = frozenset({0, 1000, 2000, 3000})
    assert one == Issue(("pythia-12b", "olmo-*"), steps, "doubtful", "Something is wrong", "someone#1")
    assert [
        bool(issues_of([one], name)) for name in ("pythia-12b", "pythia-12b-deduped", "olmo-1b", "Olmo-1b")
    ] == [
        True,
        False,
        True,
        False,
    ]
    assert issues_of([one, OF_RUN_A], "run-a") == (OF_RUN_A,)
    assert read_issues(REPOSITORY / "config" / "known_issues.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("doubtful", "doubtfull", "`[0].verdict` = 'doubtfull': unknown verdict. Nearest: doubtful."),
        (
            "doubtful",
            "duplicate",
            "`[0].verdict` = 'duplicate': unknown verdict. Nearest: expected_duplicate.",
        ),
        ("  source: someone#1", "", "`[0].source`: this key is missing."),
        ("reason", "reasn", "`[0].reasn`: unknown key. Nearest: reason."),
        ("every: 1000", "every: 0", "`[0].steps[1].every` = 0: must be at least 1."),
    ],
)
def test_a_list_with_a_fault(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "issues.yaml").write_text(ISSUE.replace(old, new))
    with pytest.raises(InputError) as error:
        read_issues(tmp_path / "issues.yaml")
    assert f"{tmp_path / 'issues.yaml'}: {message}" in str(error.value)


def test_a_list_whose_steps_do_not_ascend(tmp_path: Path) -> None:
    (tmp_path / "issues.yaml").write_text(ISSUE.replace("from: 1000", "from: 9000"))
    with pytest.raises(InputError, match=r"`known_issues.steps`: from 9000 to 3000 there is no step."):
        read_issues(tmp_path / "issues.yaml")
