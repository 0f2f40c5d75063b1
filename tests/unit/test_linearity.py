"""The linearity of a map between two clouds against least squares in float64, closed forms and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from lmshape.geometry.linearity import grown, in_sample, least_squares, linearity
from lmshape.geometry.pairs import PairSums, joined, merged, serves, white_coordinates

N, D = 600, 12
HALVES = np.arange(N) // 10 % 2


def in_sample_reference(x: np.ndarray, target: np.ndarray) -> float:
    """Share of the centered target in the span of the left singular vectors of the centered x."""
    x, target = (rows.astype(np.float64) - rows[0].astype(np.float64) for rows in (x, target))
    x, target = x - x.mean(axis=0), target - target.mean(axis=0)
    u, sigma, _ = np.linalg.svd(x / np.linalg.norm(x, axis=0), full_matrices=False)
    u = u[:, sigma > 1e-9 * sigma[0]]
    return float((np.linalg.norm(u.T @ target) / np.linalg.norm(target)) ** 2)


def held_out_reference(x: np.ndarray, target: np.ndarray, halves: np.ndarray) -> float:
    scores = []
    for half in (0, 1):
        fit, scored = halves == half, halves != half
        scales = x[fit].std(axis=0, dtype=np.float64)  # for the conditioning of the reference alone
        mean = x[fit].mean(axis=0, dtype=np.float64)
        model = LinearRegression().fit((x[fit] - mean) / scales, target[fit])
        predicted = model.predict((x[scored] - mean) / scales)
        scores.append(r2_score(target[scored], predicted, multioutput="variance_weighted"))
    return float(np.mean(scores))


def block(x: np.ndarray, *, seed: int = 1) -> np.ndarray:
    """What a block may make of x, in float64: skip connection, a nonlinear update, noise."""
    rng = np.random.default_rng(seed)
    x = np.asarray(x, dtype=np.float64)
    standard = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-300)
    mixed = standard @ rng.standard_normal((x.shape[1],) * 2) / np.sqrt(x.shape[1])
    return x + np.tanh(mixed) + 0.5 * rng.standard_normal(x.shape)


def rotation(d: int = D, *, seed: int = 5) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def skewed(smallest: float = 1e-2) -> np.ndarray:
    rows = np.random.default_rng(0).standard_normal((N, D)) * np.geomspace(1, smallest, D)
    return rows @ rotation()


def rogue() -> np.ndarray:
    x = skewed()
    x[:, 1] += 1500.0
    x[::51, 3] += 3e4  # 51: massive rows in both halves
    return x


def massive() -> np.ndarray:
    x = skewed()
    x[::51] = 1e4 / np.sqrt(D) + 1e-2 * x[::51]
    return x


CLOUDS = {
    "plain": skewed(0.5),
    "skewed": skewed(),
    "hardly any variance": skewed(1e-5),
    "rogue dimensions": rogue(),
    "massive rows": massive(),
    "shifted": skewed() + 1000.0,
    "float32": skewed().astype(np.float32),
    "float16": skewed(0.5).astype(np.float16),
}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_linearity_is_that_of_least_squares(cloud: str, residual: bool) -> None:
    x = CLOUDS[cloud]
    y = block(x)
    target = y - x if residual else y
    # sums of squares of rows 1e4 long leave 8 digits of what lies across them: 1.2e-8 off on one processor, where
    # a projection in 80 bits agrees with the reference to 1e-15
    tolerance = 1e-7 if cloud == "massive rows" else 1e-8
    found = linearity(x, y, residual=residual)
    assert found == pytest.approx(in_sample_reference(x, target), rel=tolerance)
    expected = held_out_reference(x, target, HALVES)
    assert linearity(x, y, residual=residual, held_out=HALVES) == pytest.approx(expected, rel=1e-7)


def test_the_direction_of_least_variance_counts() -> None:
    x = skewed(1e-6)  # variances from 1 to 1e-12: sums in the coordinates of x know the last to 1e-4
    weakest = x @ rotation().T[:, -1:]
    y = np.repeat(weakest / weakest.std(), D, axis=1) + np.random.default_rng(2).standard_normal((N, D))
    assert linearity(x, y) == pytest.approx(in_sample_reference(x, y), rel=1e-8)
    assert linearity(x, y) > 0.4


def test_well_conditioned_rows_take_one_pass() -> None:
    parts = [PairSums()]
    parts[0].add(rogue(), block(rogue()))
    assert white_coordinates(parts) is None


@pytest.mark.parametrize(("massive", "served"), [(1.0, True), (1e4, True), (1e7, False)])
def test_a_fit_grows_by_a_few_rows(massive: float, served: bool) -> None:
    x = skewed(0.5)
    x[:5] *= massive
    y = block(skewed(0.5)) + x - skewed(0.5)
    part, rows = PairSums(), PairSums()
    part.add(x[5:], y[5:])
    rows.add_rows(x[:5], y[:5])
    fit = least_squares([part])
    moments, more, _ = joined(fit.moments, [rows])
    assert serves(fit.factor, moments, more) == served
    expected = in_sample_reference(x, y), in_sample_reference(x, y - x)
    # the update is a difference: it keeps the rounding of y and x, which are as massive as their rows
    assert in_sample(grown(fit, [rows])) == pytest.approx(expected, rel=1e-15 * max(1e3, massive))


def low_rank(rank: int = 4) -> np.ndarray:
    """Rows of a low rank but for the rounding of their products in float32."""
    rng = np.random.default_rng(3)
    factors = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((1000, rank), (rank, 40), (1000, 40))
    )
    left, right, _ = factors
    return left @ right


def released_linearity(x: np.ndarray, y: np.ndarray) -> float:
    """The authors' procrustes similarity: a pseudo-inverse without a cut, in float32."""
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    u, sigma, v = np.linalg.svd(x, full_matrices=False)
    return float(1 - np.linalg.norm(x @ (v.T * (1 / sigma)) @ (u.T @ y) - y) ** 2)


def test_rounding_of_float32_is_no_direction() -> None:
    x = low_rank()
    signal = x.astype(np.float64)[:, :1] / x[:, 0].std()
    y = (0.5 * signal + np.random.default_rng(4).standard_normal(x.shape)).astype(np.float32)
    exact = x.astype(np.float64)
    u = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)[0][:, :4]
    target = y.astype(np.float64) - y.mean(axis=0, dtype=np.float64)
    expected = np.linalg.norm(u.T @ target) ** 2 / np.linalg.norm(target) ** 2
    assert linearity(x, y) == pytest.approx(expected, rel=1e-6)
    assert abs(released_linearity(x, y) - expected) > 0.01  # what the cut is for


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rank_of_float32_products_is_that_of_their_factors(offset: float) -> None:
    x = low_rank()
    parts = PairSums()
    parts.add(x + np.float32(offset), x)
    assert least_squares([parts]).factor.rank == 4


def test_constant_and_repeated_columns_are_no_directions() -> None:
    x, y = skewed(), block(skewed())
    x[:, 2] = 0.1
    x[:, 5] = x[:, 7]
    without = np.delete(x, [2, 5], axis=1)
    centered = y - y.mean(axis=0)
    u = np.linalg.svd(without - without.mean(axis=0), full_matrices=False)[0]
    expected = np.linalg.norm(u.T @ centered) ** 2 / np.linalg.norm(centered) ** 2
    assert linearity(x, y) == pytest.approx(expected, rel=1e-10)
    pair = PairSums()
    pair.add(x, y)
    assert least_squares([pair]).factor.rank == D - 2


def test_a_direction_that_only_one_half_has() -> None:
    x = skewed(0.5)
    x[:, 2] = np.where(HALVES == 1, x[:, 2], 0.7)
    y = block(x)
    expected = {False: [], True: []}
    for half in (0, 1):
        fit, scored = HALVES == half, HALVES != half
        for residual, target in ((False, y), (True, y - x)):
            mean, level = x[fit].mean(axis=0), target[fit].mean(axis=0)
            coefficients = np.linalg.lstsq(x[fit] - mean, target[fit] - level, rcond=1e-9)[0]
            error = target[scored] - level - (x[scored] - mean) @ coefficients
            spread = target[scored] - target[scored].mean(axis=0)
            expected[residual].append(1 - (error**2).sum() / (spread**2).sum())
    for residual, scores in expected.items():
        value = linearity(x, y, residual=residual, held_out=HALVES)
        assert value == pytest.approx(np.mean(scores), rel=1e-9)


def test_a_linear_map_scores_1() -> None:
    x = rogue()
    y = x @ np.random.default_rng(6).standard_normal((D, D)) + 7.0
    for residual in (False, True):
        assert linearity(x, y, residual=residual) == pytest.approx(1.0, abs=1e-12)
        assert linearity(x, y, residual=residual, held_out=HALVES) == pytest.approx(1.0, abs=1e-9)


def test_independent_noise_scores_the_null() -> None:
    n, d = 3000, 60
    x, y = np.random.default_rng(7).standard_normal((2, n, d))
    # R² of one column of noise is Beta(d/2, (n - 1 - d)/2); 60 columns are averaged
    spread = np.sqrt(2 * d * (n - 1 - d) / ((n - 1) ** 2 * (n + 1)) / d)
    assert linearity(x, y) == pytest.approx(d / (n - 1), abs=5 * spread)
    held_out = linearity(x, y, held_out=np.arange(n) % 2)
    assert held_out == pytest.approx(-d / (n / 2 - d - 1), abs=0.01)


def test_the_skip_connection_hides_the_update() -> None:
    x = skewed(0.5)
    y = x + 0.05 * np.random.default_rng(8).standard_normal(x.shape)
    assert linearity(x, y) > 0.99
    assert linearity(x, y, residual=True) < 0.05
    assert linearity(x, y, residual=True, held_out=HALVES) < 0.0


@pytest.mark.parametrize("held_out", [None, HALVES])
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(1e-3, 1e3),
    offset=st.floats(-1e3, 1e3),
)
def test_moving_the_clouds_changes_nothing(
    held_out: np.ndarray | None, seed: int, scale: float, offset: float
) -> None:
    x, y = skewed(), block(skewed())
    expected = linearity(x, y, held_out=held_out)
    mixing = rotation(seed=seed) * np.geomspace(1, 30, D) @ rotation(seed=seed + 1)
    turned = rotation(seed=seed + 2)
    moved = linearity(x @ mixing + offset, scale * y @ turned - offset, held_out=held_out)
    assert moved == pytest.approx(expected, rel=1e-8)
    update = linearity(x, y, residual=True, held_out=held_out)
    both = linearity(
        scale * x @ turned + offset, scale * y @ turned - offset, residual=True, held_out=held_out
    )
    assert both == pytest.approx(update, rel=1e-8, abs=1e-9)


def test_order_of_rows_and_names_of_halves_change_nothing() -> None:
    x, y = skewed(), block(skewed())
    order = np.random.default_rng(9).permutation(N)
    assert linearity(x[order], y[order]) == pytest.approx(linearity(x, y), rel=1e-12)
    expected = linearity(x, y, held_out=HALVES)
    assert linearity(x[order], y[order], held_out=HALVES[order]) == pytest.approx(expected, rel=1e-10)
    assert linearity(x, y, held_out=HALVES == 0) == pytest.approx(expected, rel=1e-12)


def test_tensors_are_taken() -> None:
    x = skewed().astype(np.float32)
    y = block(x).astype(np.float32)
    assert linearity(torch.from_numpy(x), torch.from_numpy(y)) == linearity(x, y)


@pytest.mark.parametrize("size", [1, 7, 600])
def test_sums_are_those_of_all_rows_whatever_the_batches(size: int) -> None:
    x = massive()
    y = block(x)
    part, rest = PairSums(), PairSums()
    for start in range(0, 560, size):
        part.add(x[start : min(start + size, 560)], y[start : min(start + size, 560)])
    rest.add_rows(x[560:], y[560:])
    moments = merged([part, rest])
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    norms = np.linalg.norm(cx, axis=0)
    np.testing.assert_allclose(moments.gram, cx.T @ cx, atol=1e-13 * norms.max() ** 2)
    np.testing.assert_allclose(
        moments.cross, cx.T @ cy, atol=1e-13 * norms.max() * np.linalg.norm(cy, axis=0).max()
    )
    spreads = (moments.spread_x, moments.spread_y, moments.spread_update)
    np.testing.assert_allclose(spreads, [(c**2).sum() for c in (cx, cy, cy - cx)], rtol=1e-9)
    assert moments.count == N


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[: 2 * D], y[: 2 * D], {}), "too few rows: 24 of 25"),
        (lambda x, y: (x, y[:-1], {}), r"`x` has shape \(600, 12\), `y` \(599, 12\)"),
        (lambda x, y: (x, y * 0 + 0.1, {}), "`y` has zero variance"),
        (lambda x, y: (x * 0 + 0.1, y, {}), "`x` has zero variance"),
        (lambda x, y: (x, x + 0.1, {"residual": True}), "`y - x` has zero variance"),
        (lambda x, y: (x, y, {"held_out": np.zeros(N, dtype=int)}), r"parts of \[600\] rows"),
        (lambda x, y: (x, y, {"held_out": np.arange(N) < D}), r"parts of \[588, 12\] rows"),
        (lambda x, y: (x, y, {"held_out": HALVES[1:]}), r"`held_out` has shape \(599,\)"),
        (lambda x, y: (np.where(HALVES[:, None], x, 1.0), y, {"held_out": HALVES}), "a half of `x` or `y`"),
        (lambda x, y: (x, np.where(x > 5, np.nan, y) * np.nan, {}), "`y` is not finite in 600"),
    ],
)
def test_what_has_no_linearity_is_refused(change, message: str) -> None:
    x, y, options = change(skewed(), block(skewed()))
    with pytest.raises(ValueError, match=message):
        linearity(x, y, **options)
