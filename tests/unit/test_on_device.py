"""What is measured on a device equals what is measured in memory: on the CPU's tensors here, on a GPU where one is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import clouds, stored

from lmshape.geometry import arrays, largest_error, nearest_neighbors, neighbors, spectrum
from lmshape.geometry import leading as axes
from lmshape.metrics import leading, linearity, neighbor, spectral
from lmshape.metrics.block import measure_block
from lmshape.metrics.layer import Found, Layer
from lmshape.store import activations as store
from lmshape.store.activations import HeldRows, Rows
from lmshape.store.statistics import read_statistics
from lmshape.store.tokens import Tokens

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
DRAWS, WINDOW = 3, 20


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(arrays, "COMPUTED_ON", frozenset(DEVICES))  # the CPU's tensors stand in for a GPU's
    return torch.device(request.param)


def layer_of(x: np.ndarray, y: np.ndarray) -> Layer:
    n = len(x)
    sequence, position = np.divmod(np.arange(n), WINDOW)
    draw, sinks = sequence * DRAWS // (n // WINDOW), position == 0
    tokens = Tokens(
        ids=np.arange(n) % 50,
        sequence=sequence,
        position=position,
        draw=draw,
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.full(n // WINDOW, WINDOW),
        texts={},
        attributes={},
    )
    kept = {"all": np.ones(n, dtype=bool), "no_sink": ~sinks}
    rows = {
        "rows": Rows(y, chunk_bytes=y.itemsize * y.shape[1] * 130),
        "other": Rows(x, chunk_bytes=x.itemsize * x.shape[1] * 130),
    }
    return Layer(
        **rows,
        draw=draw,
        sequence=sequence,
        kept=kept,
        rows_per_draw=dict.fromkeys(kept, 100),
        tokens=tokens,
        sinks=sinks,
    )


def ordinary(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((n, d), dtype=np.float32) * np.geomspace(1, 0.1, d, dtype=np.float32)
    x[::WINDOW, 3] += 3000
    return x, x + np.tanh(x[:, ::-1]) + 0.3 * rng.standard_normal((n, d), dtype=np.float32)


def of_lower_rank(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = ordinary(rng, n, d)
    x[:, 2], x[:, 5] = x[:, 4], 7.0
    return x, y


def nearly_of_lower_rank(rng: np.random.Generator, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (rows.astype(np.float64) for rows in ordinary(rng, n, d))
    x[:, 5] = x[:, 6] + 1e-6 * x[:, 5]
    return x, y


# Units of float64 that are lost: two columns differ by a millionth of their size, and linearity is of the difference.
LOST = {(linearity, nearly_of_lower_rank): 1e6}


@pytest.mark.parametrize(
    "family", [spectral, leading, linearity, neighbor], ids=lambda family: family.__name__
)
@pytest.mark.parametrize(
    ("clouds", "n", "d", "widest"),
    [
        (ordinary, 600, 24, 512),
        (ordinary, 600, 24, 16),  # from this width on a few eigenvalues come from an iteration
        (of_lower_rank, 600, 24, 512),
        (nearly_of_lower_rank, 600, 24, 512),
        (ordinary, 180, 200, 512),
        (ordinary, 600, 40, 512),
    ],
    ids=["ordinary", "iterated", "lower rank", "nearly lower rank", "fewer rows than columns", "few sinks"],
)
def test_families_are_the_same_on_a_device(
    device: torch.device,
    family: object,
    clouds: Callable[..., tuple[np.ndarray, np.ndarray]],
    n: int,
    d: int,
    widest: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (spectrum, axes):
        monkeypatch.setattr(module, "ITERATED_WIDTH", widest)
    layer = layer_of(*clouds(np.random.default_rng(0), n, d))
    there = replace(layer, device=device, made={})
    assert_same(family.statistics(there), family.statistics(layer), lost=LOST.get((family, clouds), 1))


@pytest.mark.parametrize(
    "family", [spectral, leading, linearity, neighbor], ids=lambda family: family.__name__
)
@pytest.mark.parametrize(
    ("clouds", "n", "d"),
    [(ordinary, 600, 24), (ordinary, 600, 40), (of_lower_rank, 600, 24), (ordinary, 180, 200)],
    ids=["ordinary", "few sinks", "lower rank", "fewer rows than columns"],
)
def test_families_are_the_same_of_rows_that_are_held_on_a_device(
    device: torch.device,
    family: object,
    clouds: Callable[..., tuple[np.ndarray, np.ndarray]],
    n: int,
    d: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(store, "PIECE_BYTES", 4 * d * 130)
    x, y = (rows.astype(np.float32) for rows in clouds(np.random.default_rng(0), n, d))
    layer = layer_of(x, y)
    held = {"rows": y, "other": x}
    held = {name: HeldRows(torch.as_tensor(rows, device=device)) for name, rows in held.items()}
    expected = family.statistics(layer)
    monkeypatch.setattr(
        torch.Tensor, "__array__", lambda tensor, *_: pytest.fail("NumPy reads no GPU's tensor")
    )
    assert_same(family.statistics(replace(layer, **held, device=device, made={})), expected)


def assert_same(found: Mapping[str, Found], expected: Mapping[str, Found], *, lost: float = 1) -> None:
    """Compare statistics to 1e-12, or to as many units of float64 as are `lost`; what is float32 to one unit."""
    for name, (arrays_of, attributes) in expected.items():
        got, noted = found[name]
        assert {key: noted[key] for key in attributes if key not in ("audit_error", "recomputed")} == {
            key: attributes[key] for key in attributes if key not in ("audit_error", "recomputed")
        }
        for key, array in arrays_of.items():
            single = array.dtype == np.float32
            tolerance = np.finfo(np.float32).eps if single else max(1e-12, lost * np.finfo(np.float64).eps)
            scale = 0 if single else np.nanmax(np.abs(array), initial=0)
            np.testing.assert_allclose(
                got[key], array, rtol=tolerance, atol=tolerance * scale, err_msg=f"{name} {key}"
            )


CLOUDS = {
    "ordinary": lambda rng: rng.standard_normal((700, 30)),
    "far from the origin": lambda rng: rng.standard_normal((300, 30)) + 1e6,
    "one massive row": lambda rng: np.vstack([1e5 * np.ones((1, 30)), rng.standard_normal((300, 30))]),
    "whole numbers, many ties": lambda rng: rng.integers(0, 3, (400, 8)).astype(float),
    "copies": lambda rng: np.repeat(rng.standard_normal((150, 5)), 2, axis=0),
    "pairs 1e-9 apart": lambda rng: (
        np.repeat(rng.standard_normal((150, 5)), 2, axis=0) + 1e-9 * rng.standard_normal((300, 5))
    ),
    "float32": lambda rng: rng.standard_normal((300, 30), dtype=np.float32),
    "fewer rows than candidates": lambda rng: rng.standard_normal((7, 3)),
}


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("entries", [2**26, 2**15])
def test_neighbors_are_the_same_on_a_device(
    device: torch.device, cloud: str, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbors, "DEVICE_ENTRIES", entries)
    x = CLOUDS[cloud](np.random.default_rng(0))
    expected = nearest_neighbors(x, 5)
    for found in (
        nearest_neighbors(x, 5, device=device),
        nearest_neighbors(torch.as_tensor(x, device=device), 5),
    ):
        np.testing.assert_allclose(found.distances, expected.distances, rtol=1e-12)
        np.testing.assert_array_equal(found.unique, expected.unique)
        moved = found.indices != expected.indices  # ties within rounding may change places, and nothing else
        np.testing.assert_allclose(found.distances[moved], expected.distances[moved], rtol=1e-12)
    found = nearest_neighbors(x, 5, device=device)
    assert largest_error(x, found, device=device) < 1e-13
    found.distances[3, 2] *= 1.25
    assert largest_error(x, found, rows=len(x), device=device) == pytest.approx(0.25)


def test_only_devices_with_float64_are_computed_on() -> None:
    assert arrays.computing_device(torch.device("cuda:1")) == torch.device("cuda:1")
    assert [arrays.computing_device(place) for place in (None, torch.device("cpu"), torch.device("mps"))] == [
        None
    ] * 3
    assert arrays.device_of(torch.zeros(3)) is None and arrays.device_of(np.zeros(3)) is None


def test_a_search_on_a_device_is_made_there(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((300, 20))
    monkeypatch.setattr(neighbors, "_search", lambda *arguments: pytest.fail("searched in memory"))
    assert nearest_neighbors(x, 5, device=device).recomputed == 0


def test_a_block_is_measured_on_the_device(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stored(tmp_path / "activations.h5", clouds())
    options = {"families": ["spectral", "linearity"], "first": 0, "last": 2, "rows": ["all"]}
    measure_block(source, tmp_path / "memory", **options)
    moved, move = [], arrays.on
    monkeypatch.setattr(spectrum, "on", lambda x, place: (moved.append(place), move(x, place))[1])
    measure_block(source, tmp_path / "device", **options, device=device)
    assert set(moved) == {device}
    for family in options["families"]:
        both = (tmp_path / where / family / "layers-00-02.h5" for where in ("memory", "device"))
        for one, other in zip(*(read_statistics(path)[1] for path in both), strict=True):
            for name, array in one.arrays.items():
                np.testing.assert_allclose(
                    other.arrays[name], array, rtol=1e-12, atol=1e-12 * np.abs(array).max()
                )


def test_a_gpu_without_room_leaves_the_measuring_to_the_cpu(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source = stored(tmp_path / "a.h5", clouds())
    options = {
        "families": ["spectral", "leading"],
        "first": 0,
        "last": 2,
        "rows": ["all"],
        "rows_per_draw": 64,
    }
    measure_block(source, tmp_path / "memory", **options)
    asked = []

    def full(x: arrays.Array) -> np.ndarray:
        asked.append(x)
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    of_memory = arrays.eigenvalues_of
    monkeypatch.setattr(
        spectrum, "eigenvalues_of", lambda x: of_memory(x) if isinstance(x, np.ndarray) else full(x)
    )
    measured = measure_block(source, tmp_path / "device", **options, device=device)
    assert measured == options["families"] and len(asked) == 1  # one try, and the CPU for all that follows
    assert "the GPU has no room to measure `spectral`: measured on the CPU instead" in caplog.text
    for name in options["families"]:
        one, other = (
            read_statistics(tmp_path / folder / f"{name}/layers-00-02.h5")[1]
            for folder in ("memory", "device")
        )
        assert [layer.arrays.keys() for layer in one] == [layer.arrays.keys() for layer in other]
        for before, after in zip(one, other, strict=True):
            for array in before.arrays:
                np.testing.assert_array_equal(before.arrays[array], after.arrays[array])
