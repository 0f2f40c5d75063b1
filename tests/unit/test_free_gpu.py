"""Jobs beside each other take different GPUs, as processes do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TAKE = """
import sys
from pathlib import Path
from lmshape.models.network import free_gpu
print(free_gpu(int(sys.argv[1]), visible=sys.argv[2] or None, folder=Path(sys.argv[3])), flush=True)
sys.stdin.read()  # the GPU is held until the input ends
"""


def taker(folder: Path, count: int = 2, visible: str = "") -> tuple[subprocess.Popen, int]:
    command = [sys.executable, "-c", TAKE, str(count), visible, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def end(process: subprocess.Popen, *, kill: bool = False) -> None:
    if kill:
        process.kill()
    process.communicate()


def test_each_process_takes_another_gpu_and_a_killed_one_gives_its_own_back(tmp_path: Path) -> None:
    (first, one), (second, two) = taker(tmp_path), taker(tmp_path)
    assert (one, two) == (0, 1)
    shared, three = taker(tmp_path)
    assert three in (0, 1)
    end(shared)
    end(first, kill=True)
    again, number = taker(tmp_path)
    assert number == 0
    end(again)
    end(second)


def test_gpus_are_known_by_their_names(tmp_path: Path) -> None:
    """Of GPUs 2 and 3 of the machine the first is 0 to the process; one that sees 3 and 2 has the same two."""
    first, one = taker(tmp_path, visible="2,3")
    second, two = taker(tmp_path, visible="3,2")
    third, three = taker(tmp_path, visible="2, 3")
    assert (one, two) == (0, 0)
    assert three in (0, 1)
    for process in (first, second, third):
        end(process)
