"""Activations in memory are those of a file to the last bit, and go to a file where there is no room."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, BLOCKS, CELL, MASK_TOKEN, make_tokens

from lmshape.geometry import arrays
from lmshape.metrics.block import measure_block
from lmshape.metrics.registry import MEASURED, OWN_FAMILY
from lmshape.models import extract as module
from lmshape.models.extract import Reader, extract
from lmshape.models.opened import Opening
from lmshape.site import Site
from lmshape.store import activations as store
from lmshape.store.activations import Activations, HeldActivations, HeldRows, Rows
from lmshape.store.statistics import read_statistics

TOKENS = replace(
    make_tokens([30] * 40, draws=4, specials=True), texts={token: f"t{token}\0é" for token in range(61)}
)
FAMILIES = [name for name in MEASURED if name != OWN_FAMILY]
ENOUGH = 10**9


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    def folder(name: str) -> Path:
        path = tmp_path_factory.getbasetemp() / f"held-{name}"
        if not path.exists():
            ARCHITECTURES[name].build().save_pretrained(path)
        return path

    return folder


def extraction(folder: Path, output: Path, name: str = "llama", **changes: object) -> Path | HeldActivations:
    opening = Opening(
        kind=ARCHITECTURES[name].kind,
        threads=1,
        device="cpu",
        dtype=changes.pop("dtype", "bfloat16"),
        batch_tokens=200,
    )
    options = {"attributes": CELL, "seed": 5, "mask_token_id": MASK_TOKEN, "progress": False, **changes}
    return extract(
        folder,
        TOKENS,
        opening=opening,
        output=output,
        loss_output=output.with_suffix(".json"),
        **options,
    )


def measured(source: Path | HeldActivations, folder: Path, **changes: object) -> dict[str, bytes]:
    """The archives of a block, whole files."""
    options = {"families": FAMILIES, "first": 1, "last": BLOCKS, "rows": ["all", "no_sink", "one_per_type"]}
    options |= {"rows_per_draw": 200, "skdim": ["skdim.lPCA"], **changes}
    assert measure_block(source, folder, **options) == options["families"]
    return {path.parent.name: path.read_bytes() for path in folder.glob("*/*.h5")}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("llama", "bfloat16"), ("gpt_neox", "float32"), ("bert", "bfloat16"), ("albert_shared", "float32")],
)
def test_archives_of_both_ways_are_equal_to_the_last_byte(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: str, dtype: str
) -> None:
    folder = checkpoint(name)
    file = extraction(folder, tmp_path / "a.h5", name, dtype=dtype)
    held = extraction(folder, tmp_path / "b.h5", name, dtype=dtype, held_bytes=ENOUGH)
    assert file == tmp_path / "a.h5" and isinstance(held, HeldActivations)
    assert not (tmp_path / "b.h5").exists()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    with Activations(file) as read:
        assert read.attributes == held.attributes and read.sites == held.sites
        assert read.nll.tobytes() == held.nll.tobytes()
        assert read.digest(read.sites) == held.digest(held.sites)
        for site in read.sites:
            assert held._clouds[site].dtype == getattr(torch, dtype)
            assert read.read(site).tobytes() == held.read(site).tobytes()
    of_file, of_memory = measured(file, tmp_path / "file"), measured(held, tmp_path / "held")
    assert sorted(of_file) == sorted(FAMILIES)
    assert of_file == of_memory


def test_what_a_file_gave_is_not_measured_again_from_memory(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    measured(extraction(checkpoint("llama"), tmp_path / "a.h5"), tmp_path / "s", families=["spectral"])
    held = extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=ENOUGH)
    options = {"families": ["spectral"], "first": 1, "last": BLOCKS, "rows": ["all", "no_sink"]}
    assert measure_block(held, tmp_path / "s", **options) == []


def test_pieces_are_cut_as_those_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((23, 5)).astype(np.float32)
    monkeypatch.setattr(store, "PIECE_BYTES", 7 * 20)
    for tensor in (torch.as_tensor(x), torch.as_tensor(x).bfloat16()):
        held, expected = HeldRows(tensor), Rows(tensor.float().numpy(), chunk_bytes=7 * 20)
        for (piece, rows), (other, same) in zip(held.chunks(), expected.chunks(), strict=True):
            assert piece == other and rows.dtype == np.float32 and rows.tobytes() == same.tobytes()
        index = np.array([0, 3, 22])
        assert held.take(index).tobytes() == expected.take(index).tobytes()


def test_pieces_that_are_worked_on_on_a_device_stay_there(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(arrays, "COMPUTED_ON", frozenset([place]))  # the CPU's tensors stand in for a GPU's
    device = torch.device(place)
    held = extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=ENOUGH)
    options = {"families": ["spectral", "leading", "linearity"], "rows": ["all", "no_sink"]}
    measured(held, tmp_path / "memory", **options)
    given = []
    read = HeldRows._given
    monkeypatch.setattr(
        HeldRows, "_given", lambda self, rows: (given.append(self._device), read(self, rows))[1]
    )
    measured(held, tmp_path / "device", **options, device=device)
    assert device in given
    for family in options["families"]:
        both = (next((tmp_path / where / family).iterdir()) for where in ("memory", "device"))
        for one, other in zip(*(read_statistics(path)[1] for path in both), strict=True):
            for name, array in one.arrays.items():
                np.testing.assert_allclose(
                    other.arrays[name], array, rtol=1e-12, atol=1e-12 * np.nanmax(np.abs(array), initial=0)
                )


def test_a_roomy_gpu_holds_what_comes_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 200))
    places = [
        module._place_for(size, torch.device(name)).type
        for name, size in [("cuda", 50), ("cuda", 51), ("cpu", 1), ("mps", 1)]
    ]
    assert places == ["cuda", "cpu", "cpu", "cpu"]


def test_what_is_larger_than_was_planned_goes_to_a_file(
    checkpoint: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As hidden states in float32 of a model in bfloat16 would be."""
    size = (BLOCKS + 2) * len(TOKENS.ids) * 24 * 2
    assert isinstance(extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=size), HeldActivations)
    assert extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=size - 1) == tmp_path / "a.h5"
    assert capsys.readouterr().err == (
        "288 kB of activations, and the job may hold 288 kB: they pass through a file\n"
    )


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_that_does_not_suffice_loses_no_cell(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    def refuse(size: int, device: torch.device) -> torch.device:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module, "_place_for", refuse)
        file = extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=ENOUGH)
    assert file == tmp_path / "a.h5" and file.exists()
    assert "and memory does not suffice: they pass through a file" in capsys.readouterr().err


def test_rows_that_no_pass_gave_are_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_last(
        self: Reader, ids: torch.Tensor, predicted: torch.Tensor, take: Callable
    ) -> torch.Tensor:
        return read(
            self, ids, predicted, lambda site, hidden: site.name == "final_norm" or take(site, hidden)
        )

    read = Reader.read
    monkeypatch.setattr(Reader, "read", without_last)
    with pytest.raises(ValueError, match="not whole: 1200 rows of final_norm were not written"):
        extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=ENOUGH)
    assert list(tmp_path.iterdir()) == []


def test_the_weights_are_released_before_anything_is_measured(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks = []
    write = module._write_loss
    monkeypatch.setattr(
        module,
        "_write_loss",
        lambda path, tokens, nll, reading, **known: (
            networks.append(weakref.ref(reading.network.model)),
            write(path, tokens, nll, reading, **known),
        ),
    )
    gc.disable()
    try:
        held = extraction(checkpoint("llama"), tmp_path / "a.h5", held_bytes=ENOUGH)
        assert networks[0]() is None
    finally:
        gc.enable()
    assert held.sites[0] == Site("embedding", 0)
