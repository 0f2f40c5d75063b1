"""Two clouds of the same points: against brute force, DADApy, Gram matrices, and what is known of the clouds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from test_linearity_family import layer_of

from lmshape.geometry import cka, information_imbalance, neighborhood_overlap, neighborhood_overlap_null
from lmshape.metrics.comparison import COMPARISON


def clouds(n: int = 300, *, seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """A cloud, and another that is a map of part of it, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6)) * np.arange(6, 0, -1)
    y = np.tanh(x[:, :4] @ rng.standard_normal((4, 9))) + noise * rng.standard_normal((n, 9))
    return x, y


def ranks(x: np.ndarray) -> np.ndarray:
    """Rank of each point j by its distance from i, 1 for the nearest other; of the point itself n."""
    distances = cdist(x, x)
    np.fill_diagonal(distances, np.inf)
    return distances.argsort(axis=1).argsort(axis=1) + 1


@pytest.mark.parametrize("k", [1, 5, 30])
def test_overlap_and_imbalance_are_those_of_all_distances(k: int) -> None:
    x, y = clouds()
    first, second = ranks(x), ranks(y)
    shared = np.mean(np.count_nonzero((first <= k) & (second <= k), axis=1) / k)
    assert neighborhood_overlap(x, y, k=k) == pytest.approx(shared, rel=1e-12)
    assert information_imbalance(x, y) == pytest.approx(2 * second[first == 1].mean() / len(x), rel=1e-12)
    assert information_imbalance(y, x) == pytest.approx(2 * first[second == 1].mean() / len(x), rel=1e-12)


def test_overlap_and_imbalance_are_dadapys() -> None:
    """DADApy 0.3.4 on these clouds: `return_data_overlap`, `return_inf_imb_two_selected_coords`."""
    x, y = clouds()
    assert (neighborhood_overlap(x, y), neighborhood_overlap(x, y, k=5)) == pytest.approx(
        (0.484, 0.2), abs=1e-12
    )
    assert information_imbalance(x, y) == pytest.approx(0.12357777777777777, abs=1e-12)
    assert information_imbalance(y, x) == pytest.approx(0.24982222222222225, abs=1e-12)


def test_what_is_a_part_tells_less() -> None:
    x = np.random.default_rng(0).standard_normal((800, 5))
    assert information_imbalance(x, x[:, :1]) > 3 * information_imbalance(x, x[:, :4]) > 0
    assert information_imbalance(x, x[:, :2]) < information_imbalance(x[:, :2], x)


@pytest.mark.parametrize("seed", range(3))
def test_clouds_that_know_nothing_of_each_other_read_the_null(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((600, 20)), rng.standard_normal((600, 50))
    null = neighborhood_overlap_null(600)
    assert neighborhood_overlap(x, y) == pytest.approx(null, abs=5 * np.sqrt(null / 600 / 30))
    assert information_imbalance(x, y) == pytest.approx(1, abs=5 * np.sqrt(1 / 3 / 600))
    assert cka(x, y) == pytest.approx(0, abs=0.015)
    assert cka(x, y, debiased=False) > 0.04  # what the estimate without bias is for


def test_equal_clouds_are_alike_however_turned_moved_and_scaled() -> None:
    x, _ = clouds()
    turned = x @ np.linalg.qr(np.random.default_rng(1).standard_normal((6, 6)))[0] * 50 + 1000
    assert neighborhood_overlap(x, turned) == pytest.approx(1, abs=1e-3)
    assert information_imbalance(x, turned) == pytest.approx(2 / len(x), rel=1e-2)
    assert cka(x, turned) == pytest.approx(1, rel=1e-9) == cka(x, turned, debiased=False)


@pytest.mark.parametrize("n", [5, 60])
def test_cka_is_that_of_gram_matrices(n: int) -> None:
    x, y = clouds(n)
    grams = [rows @ rows.T for rows in (x, y)]
    center = np.eye(n) - 1 / n

    def plain(k: np.ndarray, other: np.ndarray) -> float:
        return float(np.trace(k @ center @ other @ center))

    def unbiased(k: np.ndarray, other: np.ndarray) -> float:  # Song et al. 2012, equation 5
        k, other = (gram - np.diag(np.diag(gram)) for gram in (k, other))
        ones = np.ones(n)
        second = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
        return float(np.trace(k @ other) + second - 2 / (n - 2) * ones @ k @ other @ ones)

    for hsic, debiased in ((plain, False), (unbiased, True)):
        norms = hsic(grams[0], grams[0]) * hsic(grams[1], grams[1])
        assert cka(x, y, debiased=debiased) == pytest.approx(hsic(*grams) / np.sqrt(norms), rel=1e-9)


def test_a_row_that_repeats_in_one_cloud_is_left_out_of_both() -> None:
    x, y = clouds()
    doubled = np.concatenate([x, x[:7]]), np.concatenate([y, y[:7] + 1])
    assert neighborhood_overlap(*doubled) == neighborhood_overlap(x, y)
    assert information_imbalance(*doubled) == information_imbalance(x, y)


def test_a_cloud_without_variance_is_like_none() -> None:
    x, _ = clouds()
    assert np.isnan(cka(x, np.full((300, 3), 0.1)))


@pytest.mark.parametrize("compare", [neighborhood_overlap, information_imbalance, cka])
def test_clouds_of_different_points_are_refused(compare) -> None:
    x, y = clouds()
    with pytest.raises(
        ValueError, match="`x` has 300 rows and `y` 299; row i of both must be the same point"
    ):
        compare(x, y[1:])


def test_a_null_of_too_few_points_is_refused() -> None:
    with pytest.raises(ValueError, match="`k` is 30 and `rows` 30; a point of n has between"):
        neighborhood_overlap_null(30)


def test_the_family_is_the_library_on_the_unique_rows_of_both_layers() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((240, 8)).astype(np.float32)
    x[119] = x[0]  # in the layer before alone: the row is in no comparison
    y = x + 0.3 * rng.standard_normal(x.shape).astype(np.float32)
    layer = layer_of(
        x, y, draws=2, kept={"all": np.ones(240, dtype=bool), "no_sink": np.arange(240) % 120 < 31}
    )
    found = COMPARISON.measured.statistics(layer)
    arrays, attributes = found["all"]
    kept = np.arange(119)
    expected = [neighborhood_overlap(x[kept], y[kept]), neighborhood_overlap(x[120:], y[120:])]
    assert arrays["overlap"] == pytest.approx(expected)
    assert arrays["overlap_null"].tolist() == [30 / 118, 30 / 119]
    assert arrays["imbalance"][1] == information_imbalance(x[120:], y[120:])
    assert arrays["imbalance_back"][1] == information_imbalance(y[120:], x[120:])
    assert arrays["cka"][1] == cka(x[120:], y[120:])
    assert attributes == {"flag": "fewer unique rows: 119 of 120 per draw in the other cloud"}
    arrays, attributes = found["no_sink"]
    assert attributes == {"flag": "too few unique rows: 31 per draw; 30 neighbors need 32"}
    assert np.isnan(list(arrays.values())).all()
