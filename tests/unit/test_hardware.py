"""GPUs are counted by their device files, as far as the environment lets them be seen."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmshape.jobs.machine import visible_gpus


@pytest.mark.parametrize(
    ("visible", "count"),
    [
        (None, 4),
        ("", 0),
        ("-1", 0),
        ("0", 1),
        ("2,3", 2),
        ("GPU-8932f937", 1),
        ("1,-1,2", 1),
        ("0,1,2,3,4,5", 4),
    ],
)
def test_gpus_that_may_be_used(tmp_path: Path, visible: str | None, count: int) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert visible_gpus(tmp_path, visible) == count


def test_a_machine_without_gpus(tmp_path: Path) -> None:
    assert visible_gpus(tmp_path, None) == visible_gpus(tmp_path, "0,1") == 0
