"""A truncation reads the weights of a published run as well: they stay until it has, and go with the last reader.

What is planned for that stands in `test_hub_study`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lmshape.hub.budget import Reservation, _evict_failed, mark, release

READERS = ["wiki", "wiki-random", "wiki@truncation"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results/weights/tiny/step0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize("last", READERS)
def test_the_last_reader_deletes_them_whichever_it_is(folder: Path, last: str) -> None:
    for reader in [name for name in READERS if name != last]:
        release(folder, reader, of=READERS, keep=False)
        assert (folder / "model.safetensors").exists()
    release(folder, last, of=READERS, keep=False)
    assert not (folder / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("read", "failed", "goes"),
    [
        ([], ["wiki", "wiki-random"], True),  # the truncation waits for the extraction of wiki, in vain
        (["wiki-random"], ["wiki"], True),
        (["wiki", "wiki-random"], ["wiki@truncation"], True),
        (["wiki", "wiki-random"], [], False),
        (["wiki"], ["wiki-random"], False),
        ([], ["wiki"], False),
    ],
)
def test_weights_make_room_when_whoever_has_not_read_them_has_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, read: list[str], failed: list[str], goes: bool
) -> None:
    monkeypatch.chdir(folder.parents[3])
    for word, names in (("read", read), ("failed", failed)):
        for name in names:
            mark(folder, word, name).touch()
    room = Reservation(folder="results/weights/tiny/step0", weights_bytes=5, datasets=READERS)
    assert _evict_failed([room]) is goes
    assert (folder / "model.safetensors").exists() is not goes
