"""What killed processes left: of this host judged by the process, of another by its age on the file system's clock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from socket import gethostname

import pytest

from lmshape import writing as leftovers_module
from lmshape.writing import ABANDONED_SECONDS, is_abandoned, remove_leftovers, replaced_when_whole

HERE, ELSEWHERE = gethostname(), "node-17.cluster"


@pytest.fixture(scope="module")
def dead() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(folder: Path, name: str, *, age: float = 0.0) -> Path:
    """Leave a file behind that was written some seconds ago."""
    path = folder / name
    path.write_text("half")
    os.utime(path, (path.stat().st_mtime - age,) * 2)
    return path


def test_of_this_host_the_process_decides(tmp_path: Path, dead: int) -> None:
    kept = left(tmp_path, f".a.partial-{HERE}-{os.getppid()}", age=2 * ABANDONED_SECONDS)
    left(tmp_path, f".a.partial-{HERE}-{dead}")
    remove_leftovers(tmp_path, ".a.partial-")
    assert list(tmp_path.iterdir()) == [kept]


def test_what_another_host_writes_stays_though_its_process_is_none_of_ours(tmp_path: Path, dead: int) -> None:
    kept = left(tmp_path, f".a.partial-{ELSEWHERE}-{dead}", age=0.9 * ABANDONED_SECONDS)
    left(tmp_path, f".a.partial-{ELSEWHERE}-{os.getppid()}", age=1.1 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path, ".a.partial-")
    assert list(tmp_path.iterdir()) == [kept]


def test_names_without_a_host_are_an_older_lmshapes(tmp_path: Path, dead: int) -> None:
    kept = left(tmp_path, f".a.partial-{dead}")
    left(tmp_path, f".a.partial-{dead + 1}", age=1.1 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path, ".a.partial-")
    assert list(tmp_path.iterdir()) == [kept]


def test_the_clock_is_the_file_systems(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = left(tmp_path, f".a.partial-{ELSEWHERE}-{dead}")
    for clock in ("time", "monotonic"):
        monkeypatch.setattr(f"time.{clock}", lambda: pytest.fail("the clock of this machine was read"))
    remove_leftovers(tmp_path, ".a.partial-")
    assert list(tmp_path.iterdir()) == [kept]


def test_a_folder_is_as_young_as_its_youngest_file(tmp_path: Path, dead: int) -> None:
    folder = tmp_path / f"x-{ELSEWHERE}-{dead}.k3_q"
    folder.mkdir()
    left(folder, "old", age=1.2 * ABANDONED_SECONDS)
    young = left(folder, "young", age=0.5 * ABANDONED_SECONDS)
    os.utime(folder, (folder.stat().st_mtime - 1.1 * ABANDONED_SECONDS,) * 2)
    remove_leftovers(tmp_path, "x-")
    assert young.exists()
    young.unlink()
    os.utime(folder, (folder.stat().st_mtime - 1.1 * ABANDONED_SECONDS,) * 2)
    remove_leftovers(tmp_path, "x-")
    assert list(tmp_path.iterdir()) == []


def test_what_is_named_otherwise_is_not_ours(tmp_path: Path) -> None:
    for name in (".a.partial-of-somebody", ".a.partial", ".ab.partial-1"):
        left(tmp_path, name, age=2 * ABANDONED_SECONDS)
    remove_leftovers(tmp_path, ".a.partial-")
    assert len(list(tmp_path.iterdir())) == 3


def test_what_may_not_be_removed_stays(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = left(tmp_path, f"x-{HERE}-{dead}")

    def refuse(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_leftovers(tmp_path, "x-")
    assert kept.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_nobody_has_waited_for_has_ended(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # now a zombie, as some containers leave them
    assert is_abandoned(left(tmp_path, "half"), process.pid, HERE)
    process.wait()


def test_something_that_goes_meanwhile_is_not_abandoned(tmp_path: Path) -> None:
    assert not is_abandoned(tmp_path / "gone", 1, ELSEWHERE)


def test_two_hosts_with_the_same_process_number_write_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table"
    with replaced_when_whole(path) as ours:
        ours.write_text("ours")
        with monkeypatch.context() as there:
            there.setattr(leftovers_module, "gethostname", lambda: ELSEWHERE)
            with replaced_when_whole(path) as theirs:
                theirs.write_text("theirs")
                assert ours.name == f".table.partial-{HERE}-{os.getpid()}"
                assert theirs.name == f".table.partial-{ELSEWHERE}-{os.getpid()}"
            assert path.read_text() == "theirs"
    assert path.read_text() == "ours"
    assert list(tmp_path.iterdir()) == [path]
