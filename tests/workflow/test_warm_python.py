"""A fork of the warm process is to whoever starts it what an ordinary process is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from warm_python import run_python, warm_variables

MODULE = """
import os, sys
import lmshape
print(os.getcwd(), os.environ["WORD"], sys.argv[1:], __name__, lmshape.PLACE, flush=True)
print("an error", file=sys.stderr)
{end}
"""


@pytest.mark.parametrize(
    ("end", "status"),
    [("", 0), ("sys.exit(3)", 3), ("raise ValueError('wrong')", 1), ("os.kill(os.getpid(), 9)", 137)],
)
def test_folder_environment_output_and_status_are_those_of_a_process(
    end: str, status: int, tmp_path: Path
) -> None:
    (tmp_path / "library").mkdir()
    (tmp_path / "library/lmshape.py").write_text("PLACE = 'of another clone'\n")
    (tmp_path / "module.py").write_text(MODULE.format(end=end))
    environment = {**os.environ, "WORD": "spoken", "PYTHONPATH": str(tmp_path / "library")}
    command = ["-m", "module", "a b", "--c"]
    warm = run_python(*command, cwd=tmp_path, env=environment)
    assert warm.returncode == status
    ordinary = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert warm.stdout.startswith(ordinary.stdout + "an error\n")
    assert warm.stdout.splitlines()[-1] == ordinary.stderr.splitlines()[-1]


def test_in_a_shell_python_is_a_fork(tmp_path: Path) -> None:
    told = subprocess.run(
        ["bash", "-c", "python -m this | head -1; python -c 'print(1)'"],
        env={**os.environ, **warm_variables()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "The Zen of Python, by Tim Peters\n1\n"
