"""Nearest neighbors against direct differences of all pairs, on data made to break the fast form."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from lmshape.geometry import differences, neighbors
from lmshape.geometry.checks import as_stored_matrix
from lmshape.geometry.neighbors import largest_error, nearest_among, nearest_neighbors

pytestmark = pytest.mark.slow

N, D = 500, 24


def plain(*, n: int = N, d: int = D, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 8)) @ rng.standard_normal((8, d)) + 0.01 * rng.standard_normal((n, d))


def rogue_dimensions(*, n: int = N) -> np.ndarray:
    x = plain(n=n)
    x[:, [2, 5]] = 1500.0, -1500.0
    return x


def near_duplicates(norm: float = 1e4, *, n: int = N) -> np.ndarray:
    """A few of the rows (30, so that a neighborhood fits in) far away and close together."""
    x = plain(n=n)
    x[-30:] = norm / np.sqrt(D) + 1e-2 * x[-30:]
    return x


def ten_percent_copies(*, n: int = N) -> np.ndarray:
    x = plain(n=n)
    x[np.random.default_rng(1).permutation(n)[: n // 10]] = x[:2].repeat(n // 20, axis=0)
    return x


@pytest.fixture(params=["all pairs at once", "strips", "float64 bounds", "compiled"])
def path(request, monkeypatch):
    """Every search of the test along one path."""
    if request.param == "strips":
        monkeypatch.setattr(neighbors, "TABLE_BYTES", 0)
    if request.param == "float64 bounds":
        monkeypatch.setattr(neighbors, "MOST_CANDIDATES", 0)
    if request.param == "compiled":
        monkeypatch.setattr(differences, "MOST_COLUMNS", 0)
    return request.param


def all_paths(test):
    return pytest.mark.usefixtures("path")(test)


def bfloat16(x: np.ndarray) -> np.ndarray:
    """The values that bfloat16 keeps: the upper half of a float32."""
    return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


CLOUDS = {
    "plain": plain(),
    "float32": plain().astype(np.float32),
    "rogue dimensions": rogue_dimensions(),
    "near duplicates at norm 1e4": near_duplicates(),
    "near duplicates at norm 1e4, float32": near_duplicates().astype(np.float32),
    "near duplicates at norm 1e8": near_duplicates(1e8),
    "near duplicates at norm 1e12": near_duplicates(1e12),
    "shifted by 1000": plain() + 1000.0,
    "near duplicates, shifted by 1000": near_duplicates() + 1000.0,
    "float16 with ties": (plain()[:, :3] + 512).astype(np.float16),  # steps of a half
    "bfloat16 with ties": bfloat16(plain()[:, :3]),
    "bfloat16": bfloat16(plain()),
    "copies": ten_percent_copies(),
    "grid": np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3),
    "line": np.arange(60.0)[:, None],
    "simplex": 3.0 * np.eye(40),
    "tiny": 1e-60 * plain(),
    "huge": 1e60 * plain(),
    "as few rows as neighbors need": plain(n=21),
}


def distance_table(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first occurrences of the rows, and their direct distances with infinity for a row itself."""
    x = np.asarray(x, dtype=np.float64)
    first = list({tuple(row): i for i, row in reversed(list(enumerate((x + 0.0).tolist())))}.values())
    unique = np.sort(first)
    table = cdist(x[unique], x[unique])
    np.fill_diagonal(table, np.inf)
    return unique, table


def assert_nearest(x: np.ndarray, k: int, *, tile: int = 1024) -> neighbors.Neighbors:
    """Assert distances, and that the indices lead to them, once each, never to the row itself."""
    unique, table = distance_table(x)
    found = nearest_neighbors(x, k, tile=tile)
    np.testing.assert_array_equal(found.unique, unique)
    np.testing.assert_allclose(found.distances, np.sort(table, axis=1)[:, :k], rtol=1e-12, atol=0)
    columns = np.searchsorted(unique, found.indices)
    np.testing.assert_array_equal(unique[columns], found.indices)
    np.testing.assert_allclose(found.distances, np.take_along_axis(table, columns, axis=1), rtol=1e-12)
    assert (np.diff(np.sort(columns, axis=1), axis=1) > 0).all()
    assert found.distances.dtype == np.float64
    assert found.indices.dtype == found.unique.dtype == np.int64
    return found


@all_paths
@pytest.mark.parametrize("k", [1, 2, 20])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_agrees_with_direct_differences_of_all_pairs(cloud, k):
    assert_nearest(CLOUDS[cloud], k)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_tile_changes_nothing(cloud, path):
    whole = nearest_neighbors(CLOUDS[cloud], 5)
    for tile in (13, 64, 1000):
        tiled = nearest_neighbors(CLOUDS[cloud], 5, tile=tile)
        np.testing.assert_array_equal(tiled.distances, whole.distances)
        np.testing.assert_array_equal(tiled.indices, whole.indices)


@pytest.mark.parametrize("leading", [0, 2, 30])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_columns_that_count_by_their_norm_change_nothing(cloud, leading):
    expected = nearest_neighbors(CLOUDS[cloud], 2)
    found = nearest_neighbors(CLOUDS[cloud], 2, leading=leading)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.indices, expected.indices)


@all_paths
@pytest.mark.parametrize("cloud", ["grid", "line", "simplex", "float16 with ties", "bfloat16 with ties"])
def test_equal_distances_come_in_the_order_of_the_rows(cloud):
    unique, table = distance_table(CLOUDS[cloud])
    assert (np.diff(np.sort(table, axis=1)[:, :20], axis=1) == 0).any()
    found = nearest_neighbors(CLOUDS[cloud], 20)
    np.testing.assert_array_equal(found.indices, unique[np.argsort(table, axis=1, kind="stable")[:, :20]])


@pytest.mark.parametrize("cloud", ["grid", "simplex"])
def test_ties_beyond_the_candidates_are_searched_again(cloud):
    assert nearest_neighbors(CLOUDS[cloud], 20).recomputed > 0


def test_ordinary_data_needs_no_second_search():
    for cloud in ("plain", "rogue dimensions", "shifted by 1000"):
        assert nearest_neighbors(CLOUDS[cloud], 20).recomputed <= 2
    assert nearest_neighbors(CLOUDS["near duplicates at norm 1e4"], 20).recomputed <= 30


def test_the_certificate_sees_where_the_expansion_fails():
    """At norm 1e8 the expanded squares of near duplicates are noise: only these rows are searched again."""
    x = near_duplicates(1e8)
    centered = x - x.mean(axis=0)
    squares = (centered**2).sum(axis=1)
    expanded = squares[:, None] + squares - 2 * centered @ centered.T
    np.fill_diagonal(expanded, np.inf)
    _, table = distance_table(x)
    chosen = np.take_along_axis(table, expanded.argsort(axis=1)[:, :2], axis=1)
    wrong = chosen.max(axis=1) > np.sort(table, axis=1)[:, 1] * 1.01
    assert wrong[-30:].mean() > 0.5 and not wrong[:-30].any()
    assert assert_nearest(x, 2).recomputed == 30


@settings(max_examples=150, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.integers(-3, 3)),
    st.integers(1, 6),
    st.sampled_from([0.0, 2.0**40]),
    st.integers(1, 30),
)
def test_whole_numbers_with_copies_and_ties_agree_to_the_last_bit(x, k, offset, tile):
    unique, table = distance_table(x)
    k = min(k, len(unique) - 1)
    if k < 1:
        return
    found = nearest_neighbors(x + offset, k, tile=tile)
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.unique, unique)
    np.testing.assert_array_equal(found.distances, np.take_along_axis(table, order, axis=1))
    np.testing.assert_array_equal(found.indices, unique[order])


# entries whose squares do not leave float64 at its lower end
entries = (st.floats(-1e12, 1e12) | st.floats(-1, 1)).filter(lambda value: value == 0 or abs(value) > 1e-100)


@pytest.mark.parametrize(("dtype", "leading"), [(np.float32, None), (np.float32, 1), (np.float64, None)])
@settings(max_examples=60, deadline=None)
@given(x=arrays(np.float64, st.tuples(st.integers(2, 6), st.integers(1, 5)), elements=entries))
def test_the_bounds_lie_below_the_exact_squares_in_rational_arithmetic(dtype, leading, x):
    cloud = neighbors.BoundedCloud(x, dtype, leading=leading)
    bounds = cloud.lower_bounds(np.arange(len(x)))
    scale = Fraction(float(cloud.scale))
    for i, a in enumerate(x):
        assert bounds[i, i] == np.inf
        for j, b in enumerate(x):
            square = sum((scale * (Fraction(s) - Fraction(t))) ** 2 for s, t in zip(a, b, strict=True))
            assert i == j or Fraction(float(bounds[i, j])) <= square
            assert (
                Fraction(float(cloud.limits(np.array([np.sqrt(float(square)) / float(scale)]))[0])) >= square
            )


@all_paths
@pytest.mark.parametrize("cloud", ["plain", "near duplicates at norm 1e4", "grid", "copies"])
def test_row_order_changes_only_the_numbering(cloud):
    x = CLOUDS[cloud]
    order = np.random.default_rng(3).permutation(len(x))
    found, moved = nearest_neighbors(x, 6), nearest_neighbors(x[order], 6)
    by_row = {tuple(x[i]): distances for i, distances in zip(found.unique, found.distances, strict=True)}
    for i, distances in zip(moved.unique, moved.distances, strict=True):
        np.testing.assert_array_equal(distances, by_row[tuple(x[order][i])])


@all_paths
@pytest.mark.parametrize("scale", [2.0**-30, 1e-3, 1 / 3, 1e6])
def test_scale_multiplies_distances(scale):
    found, scaled = nearest_neighbors(plain(), 20), nearest_neighbors(scale * plain(), 20)
    np.testing.assert_allclose(scaled.distances, scale * found.distances, rtol=1e-13)
    np.testing.assert_array_equal(scaled.indices, found.indices)


@all_paths
def test_rotation_and_translation_change_nothing():
    x = plain()
    rotation = np.linalg.qr(np.random.default_rng(4).standard_normal((D, D)))[0]
    found, moved = nearest_neighbors(x, 20), nearest_neighbors(x @ rotation + 1000.0, 20)
    # the input itself was rounded at 1000: 1e-13 of an entry, beside distances of about 1
    np.testing.assert_allclose(moved.distances, found.distances, rtol=1e-11)
    np.testing.assert_array_equal(moved.indices, found.indices)


@all_paths
def test_constant_columns_change_nothing():
    found = nearest_neighbors(plain(), 5)
    widened = nearest_neighbors(np.column_stack([plain(), np.full(N, 1e5), np.zeros(N)]), 5)
    np.testing.assert_allclose(widened.distances, found.distances, rtol=1e-14)
    np.testing.assert_array_equal(widened.indices, found.indices)


def test_memory_is_bounded_by_the_tile(monkeypatch):
    x = plain(n=3000, d=4)
    monkeypatch.setattr(neighbors, "TILE_ENTRIES", 2**18)
    monkeypatch.setattr(neighbors, "TABLE_BYTES", 2**20)
    tracemalloc.start()
    nearest_neighbors(x, 2, tile=3000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * 2**20 < 3000 * 3000 * 8 / 6


@all_paths
def test_the_input_is_left_alone():
    x = ten_percent_copies()
    x[0, 0] = -0.0
    before = x.tobytes()
    nearest_neighbors(x, 3)
    assert x.tobytes() == before


def test_tensors_are_clouds_too():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(plain()).to(torch.bfloat16).requires_grad_()
    found = nearest_neighbors(tensor, 3)
    expected = nearest_neighbors(tensor.detach().double().numpy(), 3)
    np.testing.assert_array_equal(found.distances, expected.distances)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nearest_neighbors(plain(n=20), 20), "20 unique rows of 20; 20 neighbors need at least 21"),
        (lambda: nearest_neighbors(np.ones((9, 2)), 1), "1 unique rows of 9; 1 neighbors need at least 2"),
        (lambda: nearest_neighbors(plain(), 0), "`k` is 0 and `tile` 512; both must be at least 1"),
        (lambda: nearest_neighbors(plain(), 2, tile=0), "`k` is 2 and `tile` 0; both must be at least 1"),
        (lambda: nearest_neighbors(plain(), 2.0), "`k` is 2.0; a whole number is needed. Pass an int"),
        (lambda: nearest_neighbors(plain(), 2, tile=64.0), "`tile` is 64.0; a whole number is needed"),
        (
            lambda: nearest_neighbors(plain(), 2, leading=-1),
            "`leading` is -1; a number of columns is at least 0",
        ),
        (lambda: nearest_neighbors([[1.0], [np.inf]], 1), "`x` is not finite in 1 of 2 rows"),
    ],
)
def test_clouds_without_neighbors_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def spectral_cloud(n: int = 700, d: int = 96) -> np.ndarray:
    """A falling spectrum, two rogue dimensions and massive rows: what a layer of a language model looks like."""
    rng = np.random.default_rng(5)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    x = (rng.standard_normal((n, d)) * np.arange(1, d + 1) ** -0.6) @ rotation
    x[:, [3, 8]] += 1500.0, -1500.0
    x[:3] += 300 * rng.standard_normal(d)
    return x


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(3, 40), st.integers(1, 5)), elements=entries),
    st.integers(1, 8),
    st.integers(1, 16),
)
def test_no_neighbor_is_missing_whatever_the_entries(x, k, tile):
    if len(np.unique(x + 0.0, axis=0)) > k:
        assert_nearest(x, k, tile=tile)


def test_rows_that_float32_cannot_tell_apart_are_searched_in_float64():
    """Two clusters 1e6 radii apart: in float32 all of one are candidates; one row far off: all rows."""
    rng = np.random.default_rng(8)
    clusters = rng.standard_normal((600, 48)) + rng.choice([-1e6, 1e6], size=(600, 1))
    too_far = rng.standard_normal((600, 48))
    too_far[0] = 1e20
    assert 300 <= assert_nearest(clusters, 3).recomputed
    assert assert_nearest(too_far, 3).recomputed >= 599


def test_a_search_takes_as_many_threads_as_products(monkeypatch):
    limits = pytest.importorskip("threadpoolctl").threadpool_limits
    pools = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads):
            pools.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(neighbors, "ThreadPoolExecutor", Pool)
    with limits(2, user_api="blas"):
        nearest_neighbors(plain(), 5)
    with limits(1, user_api="blas"):
        nearest_neighbors(plain(), 5)
    assert pools == [2, 1]


def test_threads_change_nothing(monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(neighbors, "product_threads", lambda threads=threads: threads)
        found.append(nearest_neighbors(spectral_cloud(), 5, tile=64))
    np.testing.assert_array_equal(found[0].distances, found[1].distances)
    np.testing.assert_array_equal(found[0].indices, found[1].indices)


@all_paths
@pytest.mark.parametrize("share", [0.98, 0.5, 0.1])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_neighbors_among_some_rows_are_those_of_a_search_of_their_own(cloud, share):
    x = CLOUDS[cloud]
    among_all = nearest_neighbors(x, min(20, len(np.unique(x + 0.0, axis=0)) - 1))
    some = np.random.default_rng(2).random(len(among_all.unique)) < share
    kept = among_all.unique[some]
    k = min(12, len(kept) - 1)
    if k < 1:
        return
    found, own = nearest_among(x, among_all, kept, k), nearest_neighbors(x[kept], k)
    np.testing.assert_array_equal(found.distances, own.distances)
    np.testing.assert_array_equal(found.indices, kept[own.indices])
    np.testing.assert_array_equal(found.unique, kept)
    assert found.recomputed <= len(kept)
    assert largest_error(x, found) < 1e-12


def test_only_rows_that_run_out_of_known_neighbors_are_searched_again():
    x = plain()
    among_all, kept = nearest_neighbors(x, 24), np.arange(10, N)
    assert nearest_among(x, among_all, kept, 20).recomputed < N / 100
    assert nearest_among(x, among_all, kept, 24).recomputed > N / 10


@pytest.mark.parametrize(
    ("kept", "k", "message"),
    [
        ([0, 1, 2], 3, "`k` is 3 and `kept` has 3 rows; k must be at least 1, and below them"),
        ([0, 1, 2], 0, "`k` is 0 and `kept` has 3 rows"),
        ([0, 1, N], 1, "`kept` has rows that `neighbors` does not know"),
        ([0, 1, 7], 1, "`kept` has rows that `neighbors` does not know"),
    ],
)
def test_rows_without_known_neighbors_are_refused(kept, k, message):
    x = plain()
    x[7] = x[3]
    with pytest.raises(ValueError, match=message):
        nearest_among(x, nearest_neighbors(x, 5), kept, k)


def test_compiled_and_plain_differences_agree(monkeypatch):
    rng = np.random.default_rng(4)
    rows, others = rng.integers(0, N, (2, 3000))
    for x in (spectral_cloud(n=N), spectral_cloud(n=N).astype(np.float32)):
        plainly = differences.distances_of_pairs(x, rows, others)
        with monkeypatch.context() as patch:
            patch.setattr(differences, "MOST_COLUMNS", 0)
            compiled = differences.distances_of_pairs(x, rows, others)
            patch.setattr(differences, "_compiled", lambda: None)
            np.testing.assert_array_equal(differences.distances_of_pairs(x, rows, others), plainly)
        np.testing.assert_allclose(compiled, plainly, rtol=1e-14)


@pytest.mark.parametrize("bytes_held", [1, 2**13, 2**40])
def test_a_cloud_that_is_centered_piece_by_piece_has_the_same_neighbors(bytes_held, monkeypatch):
    x = spectral_cloud(n=300).astype(np.float32)
    expected = nearest_neighbors(x, 5)
    monkeypatch.setattr(neighbors, "FACTOR_BYTES", bytes_held)
    found = nearest_neighbors(x, 5)
    np.testing.assert_array_equal(found.distances, expected.distances)
    np.testing.assert_array_equal(found.indices, expected.indices)


def test_the_audit_finds_the_error_that_was_made(monkeypatch):
    x = plain(n=400)
    x[7] = x[3]
    found = nearest_neighbors(x, 5)
    assert largest_error(x, found) < 1e-14
    wrong = found.distances.copy()
    wrong[:, 4] *= 1 + 1e-5  # in every row, so that any choice of rows finds it
    assert largest_error(x, replace(found, distances=wrong)) == pytest.approx(1e-5, rel=1e-6)
    missed = replace(found, distances=np.column_stack([found.distances[:, 1:], found.distances[:, -1]]))
    assert largest_error(x, missed, rows=20) > 1e-3
    monkeypatch.setattr(neighbors, "AUDITED_BYTES", 1)
    assert largest_error(x, found, rows=20) < 1e-14


def test_an_audit_of_another_cloud_or_of_no_rows_is_refused():
    x = plain(n=60)
    found = nearest_neighbors(x, np.int64(3))
    with pytest.raises(ValueError, match="`x` has 59 rows, and `neighbors` are of row 59, counted from 0"):
        largest_error(x[:-1], found)
    with pytest.raises(ValueError, match="`rows` is 0; at least 1 row must be checked"):
        largest_error(x, found, rows=0)
    with pytest.raises(ValueError, match="`rows` is 2.0; a whole number is needed"):
        largest_error(x, found, rows=2.0)


def test_float32_is_not_copied_to_float64_and_gives_the_same_numbers(path):
    x = spectral_cloud(n=300).astype(np.float32)
    assert as_stored_matrix(x) is x
    single, double = nearest_neighbors(x, 5), nearest_neighbors(x.astype(np.float64), 5)
    np.testing.assert_array_equal(single.distances, double.distances)
    np.testing.assert_array_equal(single.indices, double.indices)
