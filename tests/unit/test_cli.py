"""The command line: wrong input is a sentence and exit code 2, and the table of metrics is printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmshape.cli import app, main
from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.jobs import RULES
from lmshape.metrics.registry import METRIC_FAMILIES, METRICS

pytestmark = pytest.mark.slow


def lmshape(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, in a folder."""
    out, err = StringIO(), StringIO()
    with chdir(cwd), redirect_stdout(out), redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lmshape", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), err.getvalue())


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lmshape", *arguments], cwd=cwd, text=True, capture_output=True, check=False
    )


def test_wrong_input_is_a_sentence_and_not_a_traceback(tmp_path: Path) -> None:
    run = process("missing", "--configfile", "nowhere.yaml", cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: `--configfile nowhere.yaml`: no such file")
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_rule_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    run = lmshape("run", "mesure", cwd=tmp_path)
    assert run.returncode == 2
    assert "mesure" in run.stderr and "measure" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cell", "wiki-decoder/wiki"], "is not MODEL/CHECKPOINT/DATASET"),
        (["--layers", "all"], "is not a block of layers"),
    ],
)
def test_a_job_that_is_misspelt_is_refused(options: list[str], words: str, tmp_path: Path) -> None:
    run = lmshape("run", "measure", *options, cwd=tmp_path)
    assert run.returncode == 2
    assert run.stderr.startswith("error: ") and words in run.stderr


def test_a_job_can_be_run_by_hand(tmp_path: Path) -> None:
    """As the rule runs it, in the folder of the study."""
    run = process("run", "fetch_text", "--text", "enwik8-excerpt", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "results/texts/enwik8-excerpt.txt").stat().st_size > 10**6


def test_what_a_study_lacks_ends_with_the_command_that_makes_it(tmp_path: Path) -> None:
    study = ["--configfile", "config/studies/pythia.yaml", "--directory", str(tmp_path)]
    words = lmshape("missing", *study, cwd=tmp_path).stdout.splitlines()
    assert "cells are missing" in words[0]
    assert words[-1] == f"  snakemake --cores all {' '.join(study)}"


def test_a_verb_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    run = lmshape("mesure", cwd=tmp_path)
    assert run.returncode == 2
    assert "No such command 'mesure'" in run.stderr


def test_help_opens_with_a_sentence_for_its_reader(tmp_path: Path) -> None:
    run = lmshape("--help", cwd=tmp_path)
    words = " ".join(run.stdout.split())
    assert "Measure the shape of a language model's activations" in words and "torch" not in words
    verbs = "plan profile audit lock metrics figure explore spikes missing run".split()
    assert sorted(verbs, key=lambda verb: words.index(f"│ {verb} ")) == verbs
    assert words.index("Before a run") < words.index("After a run") < words.index("Used by the workflow")


def test_the_version_is_told() -> None:
    from lmshape import __version__

    assert CliRunner().invoke(app, ["--version"]).stdout == f"lmshape {__version__}\n"


@pytest.mark.parametrize("verb", ["plan", "missing", "lock", "audit", "explore"])
def test_a_missing_configuration_is_one_sentence_for_every_verb(verb: str) -> None:
    with pytest.raises(InputError, match=r"^`--configfile nowhere.yaml`: no such file\. .*examples\.$"):
        CliRunner().invoke(app, [verb, "--configfile", "nowhere.yaml"], catch_exceptions=False)


def test_every_verb_about_a_study_takes_the_same_two_options() -> None:
    for verb in ("plan", "missing", "lock", "audit", "explore", "figure", "metrics", "spikes"):
        words = CliRunner().invoke(app, [verb, "--help"]).stdout
        assert "--configfile" in words and "--directory" in words, verb


@pytest.mark.parametrize(
    ("verb", "names"),
    [
        ("audit", ["pythia-14m", "smollm2-135m"]),
        ("lock", ["pythia-14m", "smollm2-135m"]),
        ("profile", [*METRIC_FAMILIES, *METRICS]),
        ("figure", FIGURES),
        ("run", RULES),
    ],
)
def test_the_help_of_a_verb_lists_the_names_that_it_takes(verb: str, names: Iterable[str]) -> None:
    words = set(re.findall(r"[\w.-]+[\w]", CliRunner().invoke(app, [verb, "--help"]).stdout))
    assert set(names) <= words


def test_the_spikes_of_a_study_are_those_of_its_logs(tmp_path: Path) -> None:
    losses = [4.0 - step / 1000 + step % 7 / 100 for step in range(800)]
    losses[500:530] = [9.0] * 30
    log = tmp_path / "mine.csv"
    log.write_text("step,loss\n" + "".join(f"{step},{loss}\n" for step, loss in enumerate(losses)))
    study = tmp_path / "study.yaml"
    study.write_text("models: [smollm2-135m-final]\ndatasets: [wiki]\nloss_logs: {mine: mine.csv}\n")
    told = lmshape("spikes", "--configfile", "study.yaml", cwd=tmp_path)
    assert told.stdout.splitlines()[1].split()[:3] == ["mine", "1", "500"], told.stderr
    alone = lmshape("spikes", "mine.csv", cwd=tmp_path).stdout
    assert alone.split() == told.stdout.replace("mine ", "mine.csv ").split()


def test_metrics_are_listed_with_their_sources(tmp_path: Path) -> None:
    run = lmshape("metrics", cwd=tmp_path)
    assert run.returncode == 0
    for name, metric in METRICS.items():
        assert f"{name}  ({metric.family})" in run.stdout
        assert metric.source in run.stdout


def test_own_metrics_are_listed_last(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('def mine(x):\n    """A number of mine."""\n    return 1\n')
    study, base = tmp_path / "study.yaml", "models: [pythia-14m]\ndatasets: [wiki]\n"
    study.write_text(f"{base}own_metrics: mine.py\nmetrics: [own, skdim.lPCA(ver=Kaiser), skdim.lPCA]\n")
    run = lmshape("metrics", "--configfile", "study.yaml", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.partition("mine  (own)")[2].split("\n")[1] == "    definition A number of mine."
    assert run.stdout.count("skdim.lPCA  (") == run.stdout.count("skdim.lPCA(ver=Kaiser)  (") == 1
    study.write_text(f"{base}own_metrics: none.py\n")
    missing = lmshape("metrics", "--configfile", "study.yaml", cwd=tmp_path)
    assert missing.returncode == 2
    assert (
        missing.stderr == f"error: `own_metrics` = 'none.py': no such file in {tmp_path}. Correct the path.\n"
    )
