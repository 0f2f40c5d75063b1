"""What the spectral and angular families keep of a layer beside spectra and cosines, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from layers import measured

from lmshape.metrics import angular, spectral
from lmshape.metrics.registry import select

DRAWS, ROWS, WIDTH = 3, 70, 24
DRAW = np.repeat(np.arange(DRAWS), ROWS)


@pytest.fixture
def x() -> np.ndarray:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((DRAWS * ROWS, WIDTH)) * np.geomspace(1, 30, WIDTH) + 100).astype(np.float32)
    rows[::35, 3] += 30_000  # massive activations, as trained decoders have them
    rows[11] = 0
    return rows


def parts(x: np.ndarray) -> list[np.ndarray]:
    x = x.astype(np.float64)
    return [x, *(x[DRAW != j] for j in range(DRAWS))]


def test_standardized_spectra_equal_those_of_the_correlation(x: np.ndarray) -> None:
    arrays, _ = measured(spectral, x, DRAW)
    for j, part in enumerate(parts(x)):
        expected = np.linalg.eigvalsh(np.corrcoef(part.T))
        leading = [expected.max(), expected.sum()]
        np.testing.assert_allclose(arrays["leading_standardized"][j], leading, rtol=1e-10)
        np.testing.assert_allclose(arrays["variances"][j], part.var(axis=0, ddof=1), rtol=1e-12)
        lengths = np.linalg.norm(part - part.mean(axis=0), axis=1)
        assert arrays["fourth_moment"][j] == pytest.approx((lengths**4).sum() / (len(part) - 1), rel=1e-12)
    assert list(arrays["rows"]) == [210, 140, 140, 140]


def test_norms_equal_those_of_numpy(x: np.ndarray) -> None:
    arrays, attributes = measured(angular, x, DRAW)
    for j, part in enumerate(parts(x)):
        lengths, size = np.linalg.norm(part, axis=1), np.abs(part)
        assert arrays["norm_median"][j] == pytest.approx(np.median(lengths), rel=1e-13)
        assert arrays["norm_max"][j] == pytest.approx(lengths.max(), rel=1e-13)
        assert arrays["activation_max"][j] == size.max()
        massive = (size > 100) & (size > 1000 * np.median(size))
        assert arrays["massive_count"][j] == massive.sum()
    assert attributes == {"flag": "", "zero_rows": 1, "flag_mean_cosine": "1 zero rows left out"}
    assert list(arrays["rows"]) == [210, 140, 140, 140]


@pytest.mark.parametrize("family", [spectral, angular])
@pytest.mark.parametrize(("rows", "width"), [(210, 24), (30, 24), (24, 24), (20, 24)])
def test_rows_without_statistics_have_arrays_of_the_same_shapes(family, rows: int, width: int) -> None:
    rng = np.random.default_rng(0)
    arrays, _ = measured(family, rng.standard_normal((rows, width)), np.arange(rows) % DRAWS)
    missing = family.missing(rows=rows, width=width, draws=DRAWS)
    shapes = {name: array.shape for name, array in arrays.items()}
    assert {name: array.shape for name, array in missing.items()} == shapes


def test_a_layer_of_a_large_model_takes_less_than_a_megabyte() -> None:
    arrays = spectral.missing(rows=200_000, width=4096, draws=5) | angular.missing(
        rows=9, width=4096, draws=5
    )
    assert sum(array.nbytes for array in arrays.values()) < 1e6


def test_adding_a_vector_changes_what_is_not_centered_alone(x: np.ndarray) -> None:
    moved = x.astype(np.float64) + 1000
    before, after = measured(spectral, x, DRAW)[0], measured(spectral, moved, DRAW)[0]
    for metric in select(["spectral"]):
        same = metric.compute(after).value == pytest.approx(
            metric.compute(before).value, rel=1e-9, nan_ok=True
        )
        assert same != (metric.name == "anisotropy_uncentered"), metric.name
