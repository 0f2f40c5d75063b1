"""The linearity of a site: its archive against the library's numbers, its flags, its intervals."""

from __future__ import annotations

import numpy as np
import pytest

from lmshape.geometry.linearity import linearity
from lmshape.metrics.layer import Layer
from lmshape.metrics.linearity import LINEARITY, halves, missing, statistics
from lmshape.store.activations import Rows

DRAWS, SEQUENCES, WINDOW, D = 3, 6, 20, 8
N = DRAWS * SEQUENCES * WINDOW
SCORES = {
    "linearity": {},
    "linearity_residual": {"residual": True},
    "linearity_held_out": {"held_out": True},
    "linearity_residual_held_out": {"residual": True, "held_out": True},
}


def layer_of(
    x: np.ndarray,
    y: np.ndarray,
    *,
    window: int = WINDOW,
    draws: int = DRAWS,
    kept: dict[str, np.ndarray] | None = None,
    chunk_rows: int = 10**6,
) -> Layer:
    n = len(x)
    sequence = np.arange(n) // window
    return Layer(
        rows=Rows(y, chunk_bytes=chunk_rows * y.itemsize * y.shape[1]),
        other=Rows(x, chunk_bytes=chunk_rows * x.itemsize * x.shape[1]),
        draw=sequence * draws // (n // window),
        sequence=sequence,
        kept={"all": np.ones(n, dtype=bool)} if kept is None else kept,
        rows_per_draw={},
    )


def clouds(n: int = N, d: int = D, *, smallest: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((n, d)) * np.geomspace(1, smallest, d)).astype(np.float32)
    x[::WINDOW, 3] += 3000 + rng.standard_normal(len(x[::WINDOW])).astype(np.float32)
    return x, (x + np.tanh(3 * x[:, ::-1]) + 0.3 * rng.standard_normal(x.shape)).astype(np.float32)


def choices(n: int = N) -> dict[str, np.ndarray]:
    return {"all": np.ones(n, dtype=bool), "no_sink": np.arange(n) % WINDOW > 0}


def assert_library_numbers(layer: Layer, x: np.ndarray, y: np.ndarray, *, second_pass: int = 0) -> None:
    half = halves(layer.draw, layer.sequence)
    found = statistics(layer)
    assert list(found) == list(layer.kept)
    for name, mask in layer.kept.items():
        arrays, attributes = found[name]
        assert attributes == {"flag": "", "second_pass": second_pass}
        for j in range(DRAWS + 1):
            rows = mask & (layer.draw != j - 1)
            assert arrays["rows"][j] == rows.sum()
            assert arrays["rank"][j] == x.shape[1]
            for score, how in SCORES.items():
                options = {**how, "held_out": half[rows] if "held_out" in how else None}
                expected = linearity(x[rows], y[rows], **options)
                assert arrays[score][j] == pytest.approx(expected, rel=1e-9), (name, j, score)


@pytest.mark.parametrize("chunk_rows", [1, 37, N])
def test_entries_are_the_library_on_the_rows(chunk_rows: int) -> None:
    x, y = clouds()
    assert_library_numbers(layer_of(x, y, kept=choices(), chunk_rows=chunk_rows), x, y)


@pytest.mark.parametrize(
    "massive", [0.0, 1e3, 1e7]
)  # beside the last the other rows are too small to share a fit
def test_choices_that_differ_in_few_rows_share_a_pass(massive: float) -> None:
    x, y = (rows.astype(np.float64) for rows in clouds())
    for rows in (x, y):
        rows[[0, 7, 130, 200], 5] += massive * np.array([1.0, 1.2, 0.9, 1.1])
    kept = {"all": np.ones(N, dtype=bool), "no_sink": ~np.isin(np.arange(N), [0, 7, 130, 200])}
    assert_library_numbers(layer_of(x, y, kept=kept, chunk_rows=100), x, y)


def test_small_directions_take_a_second_pass() -> None:
    x, y = (rows.astype(np.float64) for rows in clouds(smallest=1.0))
    x[:, 5] = x[:, 6] + 1e-6 * x[:, 5]
    y = y + 1e6 * (x[:, 5:6] - x[:, 6:7])
    assert_library_numbers(layer_of(x, y, kept=choices(), chunk_rows=100), x, y, second_pass=1)


def test_a_missing_direction_is_told_by_the_rank() -> None:
    x, y = clouds()
    x[:, 2] = x[:, 4]
    arrays, attributes = statistics(layer_of(x, y))["all"]
    assert (arrays["rank"] == D - 1).all()
    null = next(metric for metric in LINEARITY.metrics if metric.name == "linearity_null")
    assert null.compute(arrays).value == pytest.approx((D - 1) / N)


def test_halves_alternate_within_each_draw() -> None:
    sequence = np.repeat([4, 9, 2, 7, 1, 8, 3], 2)
    draw = np.repeat([0, 0, 0, 5, 5, 5, 5], 2)
    # ranks in draw 0: 2 < 4 < 9; in draw 5: 1 < 3 < 7 < 8
    np.testing.assert_array_equal(halves(draw, sequence), np.repeat([1, 0, 0, 0, 0, 1, 1], 2))
    # a number used in two draws is a sequence of each
    np.testing.assert_array_equal(halves(np.array([0, 0, 1, 1]), np.array([3, 5, 5, 3])), [0, 1, 1, 0])


def test_too_few_rows_are_flagged() -> None:
    x, y = clouds(30, 15)
    arrays, attributes = statistics(layer_of(x, y, window=2))["all"]
    assert attributes["flag"] == "too few rows: 30 of 31, 2d + 1, that linearity needs"
    assert all(np.isnan(array).all() and array.shape == (DRAWS + 1,) for array in arrays.values())


def test_an_interval_that_does_not_exist_is_flagged() -> None:
    x, y = clouds(360, 130)  # 240 rows without a draw, 261 needed
    arrays, attributes = statistics(layer_of(x, y))["all"]
    expected = "too few rows: 240 of 261, 2d + 1, that linearity needs with one draw left out"
    assert attributes["flag"] == expected
    assert arrays["linearity"][0] == pytest.approx(linearity(x, y), rel=1e-9)
    assert np.isnan(arrays["linearity"][1:]).all()


def test_without_its_only_draw_a_choice_has_no_rows() -> None:
    x, y = clouds()
    layer = layer_of(x, y)
    layer.kept["no_sink"] = layer.draw == 1  # all rows of the other draws are sinks
    arrays, attributes = statistics(layer)["no_sink"]
    assert "too few rows: 0 of 17" in attributes["flag"]
    assert arrays["rows"].tolist() == [N / DRAWS, 0]
    assert np.isfinite(arrays["linearity"][0])
    assert np.isnan(arrays["linearity"][1])


def test_clouds_without_variance_are_undefined() -> None:
    x, y = clouds()
    constant = np.full_like(x, 0.1)
    undefined = {
        "before": (constant, y, set(SCORES)),
        "after": (x, constant, {"linearity", "linearity_held_out"}),
        "update": (x, x, {"linearity_residual", "linearity_residual_held_out"}),
    }
    for before, after, names in undefined.values():
        arrays, _ = statistics(layer_of(before, after))["all"]
        assert {name for name in SCORES if np.isnan(arrays[name]).all()} == names
        assert {name for name in SCORES if np.isfinite(arrays[name]).all()} == set(SCORES) - names


def test_one_sequence_a_draw_has_no_other_half() -> None:
    x, y = clouds(3 * 60, D)
    arrays, _ = statistics(layer_of(x, y, window=60))["all"]
    assert np.isnan(arrays["linearity_held_out"]).all()
    assert np.isfinite(arrays["linearity"]).all()


def test_missing_arrays_are_those_of_statistics() -> None:
    x, y = clouds()
    arrays, _ = statistics(layer_of(x, y))["all"]
    empty = missing(rows=N, width=D, draws=DRAWS, rows_per_draw=None)
    assert {name: array.shape for name, array in empty.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert all(np.isnan(array).all() for array in empty.values())
    for metric in LINEARITY.metrics:
        assert np.isnan(metric.compute(empty).value)


def test_a_site_without_one_before_is_refused() -> None:
    x, y = clouds()
    layer = layer_of(x, y)
    alone = Layer(
        rows=layer.rows,
        other=None,
        draw=layer.draw,
        sequence=layer.sequence,
        kept=layer.kept,
        rows_per_draw={},
    )
    with pytest.raises(ValueError, match="`other` is None"):
        statistics(alone)


def sampled(seed: int, *, sequences: int = 16, draws: int = 5, window: int = 8, d: int = 8) -> Layer:
    """Clouds whose tokens depend on each other within a sequence; half of the variance is the sequence's."""
    rng = np.random.default_rng(seed)
    count = draws * sequences
    mixing = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    of_sequences = rng.standard_normal((2, count, d)).repeat(window, axis=1)
    x, noise = (of_sequences + rng.standard_normal(of_sequences.shape)) / np.sqrt(2)
    amplitude = np.exp(0.5 * rng.standard_normal(count)).repeat(window)[:, None]
    return layer_of(x, x + np.tanh(x @ mixing) + 0.7 * amplitude * noise, window=window, draws=draws)


def test_intervals_cover_their_value() -> None:
    seeds = 240
    archives = [statistics(sampled(seed))["all"][0] for seed in range(seeds)]
    for metric in LINEARITY.metrics:
        if metric.name == "linearity_null":
            continue
        estimates = [metric.compute(arrays) for arrays in archives]
        expected = np.mean([estimate.value for estimate in estimates])
        covered = np.mean([estimate.low <= expected <= estimate.high for estimate in estimates])
        assert 0.90 <= covered <= 0.99, (metric.name, covered)
