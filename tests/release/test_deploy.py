"""What `snakedeploy deploy-workflow` writes, from a clone with a tag: it plans the embedded study, and runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
WHERE = os.pathsep.join([str(REPOSITORY / ".release/bin"), os.environ["PATH"]])

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The last commit, under the tag v0."""
    clone = tmp_path / "lmshape"
    for command in (["clone", "--quiet", REPOSITORY, clone], ["-C", clone, "tag", "v0"]):
        subprocess.run(["git", *command], check=True)
    return clone


def test_what_snakedeploy_writes_plans_the_study_and_runs(clone: Path, tmp_path: Path) -> None:
    snakedeploy = shutil.which("snakedeploy", path=WHERE)
    if snakedeploy is None:
        pytest.skip("snakedeploy is not installed: `make release-check` installs it")
    study = tmp_path / "study"
    subprocess.run([snakedeploy, "deploy-workflow", clone, study, "--tag", "v0"], check=True)
    # of a clone on this machine it names a path in the clone; of a hosted repository the tag, as here
    snakefile = study / "workflow/Snakefile"
    written = snakefile.read_text()
    assert '"workflow/Snakefile"' in written
    snakefile.write_text(
        written.replace('"workflow/Snakefile"', f'"git+file://{clone}/workflow/Snakefile@v0"')
    )
    environment = {**os.environ, "PYTHONPATH": str(clone / "workflow")}
    for arguments, told in (
        (["--dry-run"], "\nmeasure "),
        (["results/texts/enwik8-excerpt.txt"], "1 of 1 steps"),
    ):
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
        run = subprocess.run(command, cwd=study, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0 and told in run.stdout + run.stderr, run.stdout + run.stderr
    assert (study / "results/texts/enwik8-excerpt.txt").stat().st_size
