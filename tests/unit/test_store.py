"""Round trips, the layout as bytes on disk, and files that are not what they seem."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from layers import write_statistics
from other_readers import reader

from lmshape.errors import InputError
from lmshape.site import Site
from lmshape.store.activations import Activations, ActivationWriter
from lmshape.store.statistics import (
    DrawLoss,
    LayerStatistics,
    read_statistics,
    write_loss_card,
)
from lmshape.store.tokens import Tokens, read_tokens, write_tokens
from lmshape.writing import replaced_when_whole

EMBEDDING, FIRST, SECOND, FINAL = (
    Site("embedding", 0),
    Site("block", 1),
    Site("block", 2),
    Site("final_norm", 2),
)
SITES = [EMBEDDING, FIRST, SECOND, FINAL]
ATTRIBUTES = {"model": "tiny", "step": 8, "tokens_seen": math.inf, "sampling": '{"window": 4}'}
WIDTH = 3


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(
        ids=np.array([5, 6, 7, 8, 9], dtype=np.int32),
        sequence=np.array([0, 0, 0, 1, 1], dtype=np.int32),
        position=np.array([0, 1, 2, 0, 1], dtype=np.int32),
        draw=np.array([0, 0, 0, 1, 1], dtype=np.int32),
        special=np.array([True, False, False, True, False]),
        sequence_bytes=np.array([7, 3], dtype=np.int32),
        attributes={"tokenizer_sha256": "abc", "seed": 0},
        texts={5: "[CLS]", 6: " the", 7: "\n", 8: "\x00", 9: '"ß\ufffd'},
    )


@pytest.fixture
def clouds() -> dict[Site, np.ndarray]:
    """One cloud a site, with the values that a diverged or an outlying network gives."""
    rng = np.random.default_rng(0)
    clouds = {site: rng.standard_normal((5, WIDTH)).astype(np.float32) for site in SITES}
    clouds[FIRST][0] = [np.nan, np.inf, -np.inf]
    clouds[SECOND][0] = [3e38, 1e-45, -0.0]
    return clouds


@pytest.fixture
def store(tmp_path: Path, tokens: Tokens, clouds: dict[Site, np.ndarray]) -> Path:
    path = tmp_path / "cell" / "wiki.h5"
    with ActivationWriter(path, sites=SITES, width=WIDTH, tokens=tokens, attributes=ATTRIBUTES) as writer:
        for site, cloud in clouds.items():
            writer.write(site, 3, cloud[3:])
            writer.write(site, 0, cloud[:3])
        writer.write_nll(1, np.array([0.5, 1.5], dtype=np.float32))
    return path


def assert_same_tokens(found: Tokens, expected: Tokens) -> None:
    for field in ("ids", "sequence", "position", "draw", "special", "sequence_bytes"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
        assert getattr(found, field).dtype == getattr(expected, field).dtype
    assert found.attributes == expected.attributes
    assert found.texts == expected.texts


def test_tokens_round_trip(tmp_path: Path, tokens: Tokens) -> None:
    write_tokens(tmp_path / "wiki.h5", tokens)
    assert_same_tokens(read_tokens(tmp_path / "wiki.h5"), tokens)


def test_activations_round_trip(store: Path, tokens: Tokens, clouds: dict[Site, np.ndarray]) -> None:
    with Activations(store) as activations:
        assert activations.sites == SITES
        assert activations.width == WIDTH
        assert activations.attributes == ATTRIBUTES
        assert_same_tokens(activations.tokens, tokens)
        np.testing.assert_array_equal(activations.nll, np.array([np.nan, 0.5, 1.5, np.nan, np.nan], "f4"))
        for site, cloud in clouds.items():
            assert activations.read(site).tobytes() == cloud.tobytes()


@pytest.mark.parametrize("most", [0, 5 * WIDTH * 4])
def test_rows_of_a_site_are_those_of_the_file(
    store: Path, clouds: dict[Site, np.ndarray], monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr("lmshape.store.activations.PIECE_BYTES", most)  # read at once, or in pieces
    with Activations(store) as activations:
        rows = activations.rows(SECOND)
        assert rows.shape == (5, WIDTH)
        assert np.concatenate([piece for _, piece in rows.chunks()]).tobytes() == clouds[SECOND].tobytes()
    with Activations(store) as activations:
        rows = activations.rows(SECOND)
    if most:  # all of it was read while the file was open
        assert rows.take(np.array([1, 4])).tobytes() == clouds[SECOND][[1, 4]].tobytes()


def in_bytes(attributes: dict[str, object]) -> dict[str, object]:
    """Text as attributes of fixed length hold it: HDF5 has no checksum of any other."""
    return {key: value.encode() if isinstance(value, str) else value for key, value in attributes.items()}


def test_layout_of_activations(store: Path) -> None:
    """The names, types and shapes that other programs rely on."""
    with h5py.File(store, "r") as file:
        told = {"format": b"lmshape-activations", "format_version": 1, **in_bytes(ATTRIBUTES)}
        assert dict(file.attrs) == told
        found = {}
        file.visititems(lambda name, item: found.update({name: item}))
        arrays = {name: item for name, item in found.items() if isinstance(item, h5py.Dataset)}
        scales = {name: arrays.pop(name).shape[0] for name in [*arrays] if arrays[name].is_scale}
        assert scales == {"row": 5, "entry": WIDTH, "sequences": 2, "types": 5}
        layout = {name: (str(item.dtype), item.shape) for name, item in arrays.items()}
        assert layout == {
            "tokens/id": ("int32", (5,)),
            "tokens/sequence": ("int32", (5,)),
            "tokens/position": ("int32", (5,)),
            "tokens/draw": ("int32", (5,)),
            "tokens/special": ("bool", (5,)),
            "tokens/nll": ("float32", (5,)),
            "tokens/sequence_bytes": ("int32", (2,)),
            "tokens/type_id": ("int32", (5,)),
            "tokens/type_text": ("|S9", (5,)),
            "layers/00": ("float32", (5, WIDTH)),
            "layers/01": ("float32", (5, WIDTH)),
            "layers/02": ("float32", (5, WIDTH)),
            "final_norm": ("float32", (5, WIDTH)),
        }
        for name, site, layer in (("final_norm", b"final_norm", 2), ("layers/00", b"embedding", 0)):
            axes = arrays[name].attrs["DIMENSION_LIST"]
            assert [file[one[0]].name for one in axes] == ["/row", "/entry"]
            assert (arrays[name].attrs["site"], arrays[name].attrs["layer"]) == (site, layer)
        assert dict(file["tokens"].attrs) == {"tokenizer_sha256": b"abc", "seed": 0}
        assert file["layers/01"].compression is None
        texts = ['"[CLS]"', '" the"', r'"\n"', r'"\u0000"', r'"\"ß' + '\ufffd"']
        assert file["tokens/type_text"].asstr()[:].tolist() == texts


@pytest.mark.parametrize("group", [None, "layers", "tokens"])
def test_xarray_names_the_axes(store: Path, group: str | None) -> None:
    xarray = reader("xarray")
    reader("h5netcdf")
    axes = xarray.open_dataset(store, engine="h5netcdf", group=group).sizes
    assert dict(axes).items() <= {"row": 5, "entry": WIDTH, "sequences": 2, "types": 5}.items()


def test_chunks_on_disk_are_about_a_mebibyte(tmp_path: Path) -> None:
    n, width = 5000, 256
    zeros = np.zeros(n, dtype=np.int32)
    tokens = Tokens(zeros, zeros, zeros, zeros, zeros > 0, zeros[:1], {})
    with ActivationWriter(
        tmp_path / "a.h5", sites=[EMBEDDING], width=width, tokens=tokens, attributes={}
    ) as writer:
        writer.write(EMBEDDING, 0, np.zeros((n, width), dtype=np.float32))
    with h5py.File(tmp_path / "a.h5", "r") as file:
        assert file["layers/00"].chunks == (1024, width)


def test_same_content_is_the_same_file(tmp_path: Path, tokens: Tokens) -> None:
    for name in ("a.h5", "b.h5"):
        write_tokens(tmp_path / name, tokens)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def dated(path: Path) -> list[str]:
    """Names of what says in a file when it was made: with that, same content would be another file a second later."""
    found = []

    def look(name: str, one: h5py.Group | h5py.Dataset) -> None:
        known = h5py.h5o.get_info(one.id)
        if any((known.atime, known.btime, known.ctime, known.mtime)):
            found.append(name)

    with h5py.File(path) as file:
        file.visititems(look)
    return found


def test_no_file_says_when_it_was_made(tmp_path: Path, store: Path, tokens: Tokens) -> None:
    write_tokens(tmp_path / "tokens.h5", tokens)
    write_statistics(tmp_path / "statistics.h5", attributes=ATTRIBUTES, layers=layers(), axes=AXES)
    for path in (store, tmp_path / "tokens.h5", tmp_path / "statistics.h5"):
        assert dated(path) == []
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("plain", data=[1])
        file.create_dataset("dated", data=[1], track_times=True)
    assert dated(tmp_path / "other.h5") == ["dated"]


AXES = {"eigenvalues": ("left_out", "component")}


def layers() -> Iterator[LayerStatistics]:
    fine = {"n_rows": 5, "n_unique": 4, "d": 3, "draws": 2, "flag": ""}
    yield LayerStatistics(FINAL, "no_sink", {"eigenvalues": np.eye(2)}, fine)
    for rows in ("no_sink", "all"):
        arrays = {"eigenvalues": np.array([[np.nan, 1.0]]), "mean_cosine": np.arange(3.0)}
        yield LayerStatistics(FIRST, rows, arrays, {**fine, "flag": "not finite: 1 of 5 rows"})


def test_statistics_round_trip(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.h5", attributes=ATTRIBUTES, layers=layers(), axes=AXES)
    attributes, found = read_statistics(tmp_path / "s.h5")
    assert attributes == ATTRIBUTES
    assert [(entry.site, entry.rows) for entry in found] == [
        (FIRST, "all"),
        (FIRST, "no_sink"),
        (FINAL, "no_sink"),
    ]
    expected = {(entry.site, entry.rows): entry for entry in layers()}
    for entry in found:
        given = expected[entry.site, entry.rows]
        assert entry.attributes == given.attributes
        assert entry.arrays.keys() == given.arrays.keys()
        for name, array in entry.arrays.items():
            np.testing.assert_array_equal(array, given.arrays[name])


def test_layout_of_statistics(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.h5", attributes={"family": "spectral"}, layers=layers(), axes=AXES)
    with h5py.File(tmp_path / "s.h5", "r") as file:
        told = {"format": b"lmshape-statistics", "format_version": 1, "family": b"spectral"}
        assert dict(file.attrs) == told
        assert file["layers/01/all/mean_cosine"].dtype == np.float64
        assert file["final_norm/no_sink/eigenvalues"].shape == (2, 2)
        assert file["layers/01/all"].attrs["flag"] == b"not finite: 1 of 5 rows"


def test_loss_card(tmp_path: Path) -> None:
    draws = [DrawLoss(0, 10, 25.5, 40.0), DrawLoss(1, 10, math.nan, 41.0)]
    write_loss_card(tmp_path / "wiki.json", attributes={**ATTRIBUTES, "seed": 1}, draws=draws)
    card = json.loads((tmp_path / "wiki.json").read_text(), parse_constant=pytest.fail)
    assert card["attributes"] == {**ATTRIBUTES, "tokens_seen": None, "seed": 1}
    assert card["draws"] == [
        {"draw": 0, "tokens": 10, "nats": 25.5, "bytes": 40.0},
        {"draw": 1, "tokens": 10, "nats": None, "bytes": 41.0},
    ]


def test_an_incomplete_store_does_not_appear(tmp_path: Path, tokens: Tokens) -> None:
    path = tmp_path / "wiki.h5"
    with (
        pytest.raises(ValueError, match="is not whole: 2 rows of layers/00, 5 rows of layers/01"),
        ActivationWriter(path, sites=[EMBEDDING, FIRST], width=WIDTH, tokens=tokens, attributes={}) as writer,
    ):
        writer.write(EMBEDDING, 0, np.zeros((3, WIDTH), dtype=np.float32))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="disk"), replaced_when_whole(path) as partial:
        partial.write_text("half of the new")
        raise RuntimeError("disk")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("read", [Activations, read_statistics, read_tokens])
def test_files_that_are_not_there_or_not_hdf5(tmp_path: Path, read: type) -> None:
    with pytest.raises(InputError, match="none.h5` does not exist; run the job that makes it"):
        read(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("not a file of ours")
    with pytest.raises(
        InputError, match="text.h5` cannot be read as HDF5 .*truncated or not HDF5. Delete it"
    ):
        read(tmp_path / "text.h5")


def test_a_partial_file_is_not_taken_for_whole(store: Path) -> None:
    whole = store.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        store.write_bytes(whole[:size])
        with pytest.raises(InputError, match="truncated"):
            Activations(store)


def test_other_formats_and_versions_are_refused_by_name(store: Path) -> None:
    with pytest.raises(
        InputError, match="has the format `lmshape-activations`; `lmshape-statistics` is needed"
    ):
        read_statistics(store)
    with h5py.File(store, "r+") as file:
        file.attrs["format_version"] = 7
    with pytest.raises(InputError, match="`lmshape-activations` version 7; this lmshape reads version 1"):
        Activations(store)
    with h5py.File(store, "w"):
        pass
    with pytest.raises(InputError, match="has no format; `lmshape-tokens` is needed"):
        read_tokens(store)


KILLED = """
import os, signal, sys
import numpy as np
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.tokens import read_tokens
site, tokens = Site("embedding", 0), read_tokens(sys.argv[1])
with ActivationWriter(sys.argv[2], sites=[site], width=3, tokens=tokens, attributes={}) as writer:
    writer.write(site, 0, np.zeros((5, 3), dtype=np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_no_file_and_the_next_one_sweeps_up(tmp_path: Path, tokens: Tokens) -> None:
    write_tokens(tmp_path / "tokens.h5", tokens)
    path = tmp_path / "cell" / "wiki.h5"
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "tokens.h5", path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not path.exists()
    (left,) = path.parent.iterdir()
    assert left.name.startswith(".wiki.h5.partial-")
    beside = path.parent / f".wiki.h5.partial-{os.getppid()}"
    beside.write_text("of a process that is alive")
    write_tokens(path, tokens)
    assert set(path.parent.iterdir()) == {path, beside}


HOLDING = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_file_that_another_process_has_locked_can_be_read(
    store: Path, clouds: dict[Site, np.ndarray]
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "open\n"
    with Activations(store) as activations:
        assert activations.read(FINAL).tobytes() == clouds[FINAL].tobytes()
    holder.communicate()
    assert holder.returncode == 0


CUT_SHORT = """
import resource, sys
import numpy as np
from lmshape.store.hdf5 import new_file, write_array
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
try:
    with new_file("a.h5", "a format") as file:
        for number in range(9):
            write_array(file.create_group(f"layers/{number}"), "values", np.arange(1000.0))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 10_000, 30_000, 60_000])
def test_what_the_disk_refuses_half_way_is_one_error_of_the_system(room: int, tmp_path: Path) -> None:
    """Closing a file then fails as well, in words of HDF5."""
    run = subprocess.run(
        [sys.executable, "-c", CUT_SHORT, str(room)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"\[Errno 27\] File too large: '\.a\.h5\.partial-\S+'\n", run.stdout), run.stdout
    assert list(tmp_path.iterdir()) == []
