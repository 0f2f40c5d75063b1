"""Files written in $TMPDIR first: the same bytes, one copy, and nothing left anywhere when it goes wrong."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from layers import write_statistics
from tiny_models import make_tokens

from lmshape import cli
from lmshape import writing as scratch_module
from lmshape.errors import InputError
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.statistics import LayerStatistics
from lmshape.store.tokens import write_tokens
from lmshape.writing import VARIABLE, scratch_folder, working_folder, written_on_scratch

TOKENS = make_tokens([12] * 6)
SITE = Site("embedding", 0)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for scratch that jobs of this process use."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, "tmpdir")
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def write_everything(folder: Path) -> dict[str, bytes]:
    """Write a file of each HDF5 format and return their bytes."""
    rows = np.arange(3.0 * len(TOKENS.ids), dtype=np.float32).reshape(-1, 3)
    write_tokens(folder / "tokens.h5", TOKENS)
    with ActivationWriter(folder / "a.h5", sites=[SITE], width=3, tokens=TOKENS, attributes={}) as writer:
        writer.write(SITE, 0, rows)
    statistics = [LayerStatistics(SITE, "all", {"spectrum": rows[0].astype(np.float64)}, {"draws": 2})]
    write_statistics(folder / "s.h5", attributes={"model": "tiny"}, layers=statistics)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_bytes_are_those_of_files_written_in_their_place(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_scratch = write_everything(tmp_path / "on_scratch")
    monkeypatch.setenv(VARIABLE, "none")
    assert on_scratch == write_everything(tmp_path / "in_place")
    assert on_scratch.keys() == {"tokens.h5", "a.h5", "s.h5"}
    assert list(scratch.iterdir()) == []


def test_the_destination_sees_nothing_before_the_file_is_whole(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "cell" / "a.h5"
    with written_on_scratch(path) as written:
        written.write_bytes(b"whole")
        assert scratch in written.parents
        assert list(path.parent.iterdir()) == []
    assert path.read_bytes() == b"whole"
    assert list(path.parent.iterdir()) == [path]
    assert list(scratch.iterdir()) == []


def test_only_its_owner_may_look_into_scratch(scratch: Path, tmp_path: Path) -> None:
    with written_on_scratch(tmp_path / "a.h5") as written:
        assert written.parent.stat().st_mode & 0o777 == 0o700
        written.touch()


def test_an_error_leaves_the_old_file_and_empty_scratch(scratch: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="no pass"), written_on_scratch(path) as written:
        written.write_text("half")
        raise RuntimeError("no pass")
    assert path.read_text() == "old"
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_destination_keeps_nothing(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def half(source: Path, destination: Path) -> None:
        destination.write_bytes(source.read_bytes()[:2])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shutil, "copyfile", half)
    path = tmp_path / "cell" / "a.h5"
    with (
        pytest.raises(
            InputError, match=r"a.h5`: no room on its disk for 5 B \(.*\). Nothing of it was kept; "
        ),
        written_on_scratch(path) as written,
    ):
        written.write_bytes(b"whole")
    assert list(path.parent.iterdir()) == list(scratch.iterdir()) == []


def test_another_fault_of_the_copy_is_told_as_it_is(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, destination: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(OSError, match="Input/output"), written_on_scratch(tmp_path / "a.h5") as written:
        written.touch()


@pytest.mark.parametrize("write", [write_everything, lambda folder: working(folder)])
def test_scratch_that_is_full_is_one_sentence(
    write: Callable[[Path], object],
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A real file system of 64 kB, filled to the last byte; the command line ends as a job does."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "lmshape-test", str(scratch)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: that needs root")
    try:
        with suppress(OSError), (scratch / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(bytes(4096)):
                pass
        monkeypatch.setattr(cli, "app", lambda: write(tmp_path / "study"))
        with pytest.raises(SystemExit, match="2"):
            cli.main()
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and str(scratch) in said, said
        assert (
            "no room left. Name a larger folder" in said or "No space left on device. Make room there" in said
        )
        assert [path.name for path in scratch.iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", "--lazy", str(scratch)], check=True)


def working(folder: Path) -> None:
    with working_folder(folder / "a.h5", "weights") as place:
        (place / "shard").write_bytes(bytes(4096))


def test_scratch_that_is_too_small_is_refused_before_the_first_pass(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(scratch_module.shutil, "disk_usage", lambda path: usage(2, 1, 1))
    writer = ActivationWriter(tmp_path / "a.h5", sites=[SITE], width=3, tokens=TOKENS, attributes={})
    with pytest.raises(InputError) as error, writer:
        pytest.fail("it was let in")
    assert str(error.value).startswith(
        f"`{tmp_path}/a.h5` is written on scratch first, and $TMPDIR, `{scratch}`, has 1 B free of the "
    )
    assert str(error.value).endswith(
        "that it takes. Name a larger folder under `default-resources` of the profile, `tmpdir: …`, or set "
        "`scratch: none` in the study's configuration."
    )


def test_scratch_that_fills_up_is_named(scratch: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=f"`{scratch}`, has no room left. Name a larger folder"),
        written_on_scratch(tmp_path / "a.h5"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("named", ["", "nowhere", "a file"])
def test_a_tmpdir_that_is_no_folder_is_refused(
    scratch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    monkeypatch.setenv("TMPDIR", named)
    with pytest.raises(InputError) as error:
        write_tokens(tmp_path / "tokens.h5", TOKENS)
    assert str(error.value) == (
        f"`scratch: tmpdir` and $TMPDIR is `{named}`, which is not a writable folder. Name one "
        "under `default-resources` of the profile, `tmpdir: …`, or set `scratch: none` in the study's configuration."
    )


def test_without_the_variable_there_is_no_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert scratch_folder() is None


KILLED = """
import os, signal, sys
from lmshape.writing import written_on_scratch
with written_on_scratch(sys.argv[1]) as written:
    written.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_next_writer_removes_what_a_killed_one_left(scratch: Path, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "a.h5"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(scratch.glob("lmshape-scratch-*/a.h5"))) == 1
    (scratch / "of somebody else").touch()
    write_tokens(tmp_path / "b.h5", TOKENS)
    assert [path.name for path in scratch.iterdir()] == ["of somebody else"]
    assert not (tmp_path / "a.h5").exists()


def test_weights_that_do_not_fit_into_memory_go_to_scratch(scratch: Path, tmp_path: Path) -> None:
    with working_folder(tmp_path / "cell" / "a.h5", "weights") as folder:
        assert folder.parent == scratch
    assert list(scratch.iterdir()) == []


def test_or_beside_the_output_where_a_killed_ones_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    output = tmp_path / "cell" / "a.h5"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with working_folder(output, "weights") as folder:
        name = folder.name
        assert folder.parent == output.parent
    left = output.parent / name.replace(f"-{os.getpid()}.", f"-{dead.pid}.")
    left.mkdir()
    (left / "layer.dat").touch()
    with working_folder(output, "weights") as folder:
        assert list(output.parent.iterdir()) == [folder]
