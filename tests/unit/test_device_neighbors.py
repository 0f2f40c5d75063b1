"""Nearest neighbors on a device: on the processor by every path, and on a GPU where there is one."""

from __future__ import annotations

from functools import partial

import breaking_clouds
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial.distance import cdist

from lmshape.geometry import device, device_cloud, device_neighbors
from lmshape.geometry.device_cloud import DeviceCloud
from lmshape.geometry.device_neighbors import search_on_device, unique_rows_on_device
from lmshape.geometry.neighbors import nearest_neighbors, unique_rows

torch = pytest.importorskip("torch")
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402, behind the line that may skip all

N, D = 300, breaking_clouds.D
plain = partial(breaking_clouds.plain, n=N)
rogue_dimensions = partial(breaking_clouds.rogue_dimensions, n=N)
near_duplicates = partial(breaking_clouds.near_duplicates, n=N)
ten_percent_copies = partial(breaking_clouds.ten_percent_copies, n=N)
CPU = torch.device("cpu")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiles as small as these are slower on two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def force(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(device_neighbors, "product_dtype", lambda _: dtype)


@pytest.fixture(params=["float64", "float32", "no float64"])
def path(request, monkeypatch):
    """Bounds in float64, bounds in float32, and a device that has no float64 at all."""
    force(monkeypatch, torch.float64 if request.param == "float64" else torch.float32)
    if request.param == "no float64":
        monkeypatch.setattr(device_cloud, "has_float64", lambda _: False)
    return request.param


def rounded(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(x).to(dtype)


CLOUDS = {
    "plain": torch.from_numpy(plain()),
    "float32": rounded(plain(), torch.float32),
    "rogue dimensions": torch.from_numpy(rogue_dimensions()),
    "near duplicates at norm 1e4": torch.from_numpy(near_duplicates()),
    "near duplicates at norm 1e8": torch.from_numpy(near_duplicates(1e8)),
    "shifted by 1000": torch.from_numpy(plain() + 1000.0),
    "near duplicates, shifted by 1000": torch.from_numpy(near_duplicates() + 1000.0),
    "float16 with ties": rounded(plain()[:, :3] + 512, torch.float16),  # steps of a half
    "bfloat16 with ties": rounded(plain()[:, :3] + 64, torch.bfloat16),  # of a half too
    "bfloat16": rounded(plain(), torch.bfloat16),
    "copies": torch.from_numpy(ten_percent_copies()),
    "grid": torch.from_numpy(np.stack(np.meshgrid(*[np.arange(5.0)] * 3), axis=-1).reshape(-1, 3)),
    "line": torch.arange(60.0, dtype=torch.float16)[:, None],
    "simplex": 3.0 * torch.eye(40),
    "tiny": torch.from_numpy(1e-60 * plain()),
    "huge": torch.from_numpy(1e60 * plain()),
    "below the normal float32": rounded(1e-39 * plain(), torch.float32),
    "at the end of float32": rounded(plain() * 1e37, torch.float32),
    "one row beyond all": torch.cat([rounded(plain(), torch.float32), torch.full((1, D), 1e30)]),
    "as few rows as neighbors need": torch.from_numpy(plain(n=21)),
}
TIED = ["grid", "line", "simplex", "float16 with ties", "bfloat16 with ties"]


def points_of(cloud: str, path: str) -> torch.Tensor:
    points = CLOUDS[cloud]
    if path == "no float64" and points.dtype == torch.float64:
        if cloud in ("tiny", "huge"):
            pytest.skip("float32 does not hold these, and the device has nothing else")
        points = points.float()
    return points[unique_rows_on_device(points)]


def distance_table(points: torch.Tensor) -> np.ndarray:
    x = points.double().numpy()
    table = cdist(x, x)
    np.fill_diagonal(table, np.inf)
    return table


def assert_nearest(points: torch.Tensor, k: int, *, bytes_free: int | None = None) -> int:
    """Assert distances, and that the indices lead to them, once each, never to the row itself."""
    table = distance_table(points)
    distances, indices, recomputed = search_on_device(points, k, bytes_free=bytes_free)
    np.testing.assert_allclose(distances, np.sort(table, axis=1)[:, :k], rtol=1e-12, atol=0)
    np.testing.assert_allclose(distances, np.take_along_axis(table, indices, axis=1), rtol=1e-12, atol=0)
    assert (np.diff(np.sort(indices, axis=1), axis=1) > 0).all()
    assert distances.dtype == np.float64 and indices.dtype == np.int64
    return recomputed


def assert_same(found: tuple, expected: tuple) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("k", [1, 2, 20])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_agrees_with_direct_differences_of_all_pairs(cloud, k, path):
    assert_nearest(points_of(cloud, path), k)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_neither_tile_nor_dtype_of_the_bounds_changes_a_bit(cloud, path, monkeypatch):
    points = points_of(cloud, path)
    found = search_on_device(points, 5)
    for side in (29, 64):
        monkeypatch.setattr(device_neighbors, "_tile", lambda *_, side=side: side)
        assert_same(
            search_on_device(points, 5, bytes_free=0 if side == 29 else None), found
        )  # 0: nothing is stored
    force(monkeypatch, torch.float64)
    monkeypatch.setattr(device_cloud, "has_float64", lambda _: True)
    assert_same(search_on_device(points, 5), found)


def test_a_single_row_at_a_time_is_enough(path):
    points = points_of("grid", path)[:40]
    assert_same(search_on_device(points, 5, bytes_free=0), search_on_device(points, 5))


@pytest.mark.parametrize("cloud", TIED)
def test_equal_distances_come_in_the_order_of_the_rows(cloud, path):
    points = points_of(cloud, path)
    table = distance_table(points)
    assert (np.diff(np.sort(table, axis=1)[:, :20], axis=1) == 0).any()
    _, indices, _ = search_on_device(points, 20)
    np.testing.assert_array_equal(indices, np.argsort(table, axis=1, kind="stable")[:, :20])


@pytest.mark.parametrize("cloud", ["grid", "simplex"])
def test_ties_beyond_the_candidates_are_searched_again(cloud, path, monkeypatch):
    monkeypatch.setattr(device_neighbors, "SPARE_CANDIDATES", {4: 1, 8: 1})
    assert assert_nearest(points_of(cloud, path), 5) > 0


def test_ordinary_data_needs_no_second_search(path):
    for cloud in ("plain", "rogue dimensions", "shifted by 1000"):
        assert assert_nearest(points_of(cloud, path), 20) <= 2


@pytest.mark.parametrize(("dtype", "norm"), [(torch.float32, 1e4), (torch.float64, 1e8)])
def test_the_certificate_sees_where_the_products_fail(monkeypatch, dtype, norm):
    """Where the expanded squares of near duplicates are noise, only these rows are searched again."""
    force(monkeypatch, dtype)
    assert assert_nearest(torch.from_numpy(near_duplicates(norm)), 2) == 30


def test_agrees_with_the_search_of_arrays(path):
    x = plain(n=900).astype(np.float32)
    distances, indices, _ = search_on_device(torch.from_numpy(x), 7)
    expected = nearest_neighbors(x, 7)
    np.testing.assert_allclose(distances, expected.distances, rtol=1e-14)
    np.testing.assert_array_equal(indices, expected.indices)


@settings(max_examples=150, deadline=None)
@given(
    arrays(
        np.float64, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24), elements=st.integers(-3, 3)
    ),
    st.integers(1, 6),
    st.sampled_from(DTYPES),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from([0.0, 32.0]),
    st.integers(0, 60_000),
)
def test_whole_numbers_with_copies_and_ties_agree_to_the_last_bit(x, k, stored, bounds, offset, bytes_free):
    points = rounded(x + offset, stored)
    unique = unique_rows_on_device(points)
    np.testing.assert_array_equal(unique, unique_rows(x))
    k = min(k, len(unique) - 1)
    if k < 1:
        return
    table = distance_table(points[unique])
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as monkeypatch:
        force(monkeypatch, bounds)
        distances, indices, _ = search_on_device(points[unique], k, bytes_free=bytes_free)
    np.testing.assert_array_equal(distances, np.take_along_axis(table, order, axis=1))
    np.testing.assert_array_equal(indices, order)


# entries whose squares do not leave float64 at its lower end
entries = (st.floats(-1e30, 1e30) | st.floats(-1, 1)).filter(lambda value: value == 0 or abs(value) > 1e-100)
shapes = st.tuples(st.integers(2, 12), st.integers(1, 5))


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float64, shapes, elements=entries),
    st.sampled_from([torch.float32, torch.float64]),
    st.booleans(),
)
def test_no_bound_exceeds_the_limit_of_its_own_distance(x, dtype, has_float64):
    """The certificate: whatever is measured at no more than a radius has a bound of no more than its limit."""
    points = torch.from_numpy(x)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if not has_float64:
            points, dtype = points.float(), torch.float32
            monkeypatch.setattr(device_cloud, "has_float64", lambda _: False)
        assert_certified(points, dtype)


def assert_certified(points: torch.Tensor, dtype: torch.dtype) -> None:
    cloud = DeviceCloud.of(points, device_neighbors._checked_scale(points, 1), dtype)
    rows = torch.arange(len(points))
    query, squares = cloud.queries(rows)
    bounds = cloud.lower_bounds(query, rows, slice(0, len(points)))
    assert (bounds.diagonal() == float("inf")).all()
    for column in rows:
        radii = device_cloud.direct_distances(cloud, rows, column.expand(len(rows)))
        assert (bounds[:, column] <= cloud.limits(squares, radii))[rows != column].all()


def test_the_certificate_holds_where_float32_ends():
    """Squares of 1e-44 have a single digit in float32; without `floor` the bounds exceed the limits here."""
    rng = np.random.default_rng(5)
    x = 1e-22 * rng.standard_normal((81, 3))
    x[1::2] = x[:-1:2] + 1e-25  # pairs
    x[-1] = 1.0
    assert_certified(torch.from_numpy(x), torch.float32)


def test_bounds_are_tight_enough_to_be_of_use():
    """Of ordinary rows the bound lies within a thousandth of the norms below the square, also in float32."""
    points = torch.from_numpy(plain())
    for dtype in (torch.float32, torch.float64):
        cloud = DeviceCloud.of(points, device_neighbors._checked_scale(points, 1), dtype)
        query, squares = cloud.queries(torch.arange(N))
        bounds = cloud.lower_bounds(query, torch.arange(N), slice(0, N)) + squares[:, None]
        exact = (cloud.scale * torch.from_numpy(cdist(plain(), plain()))).square()
        error = (exact - bounds)[~torch.eye(N, dtype=torch.bool)]
        assert 0 <= error.min() and error.max() <= 1e-3 * squares.max()


@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 400)), elements=st.integers(-9, 9)),
    st.integers(1, 12),
)
def test_the_smallest_bounds_are_found_by_groups(bounds, count):
    least, columns = device_cloud._smallest(torch.from_numpy(bounds), count)
    np.testing.assert_array_equal(least, np.sort(bounds, axis=1)[:, :count])
    np.testing.assert_array_equal(np.take_along_axis(bounds, columns.numpy(), axis=1), least)
    assert (np.diff(np.sort(columns, axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("cloud", ["plain", "near duplicates at norm 1e4", "grid", "bfloat16"])
def test_row_order_changes_only_the_numbering(cloud, path):
    points = points_of(cloud, path)
    order = torch.from_numpy(np.random.default_rng(3).permutation(len(points)))
    found, moved = search_on_device(points, 6), search_on_device(points[order], 6)
    np.testing.assert_array_equal(moved[0], found[0][order])


@pytest.mark.parametrize("scale", [2.0**-30, 1e-3, 1 / 3, 1e6])
def test_scale_multiplies_distances(scale, monkeypatch):
    for dtype in (torch.float32, torch.float64):
        force(monkeypatch, dtype)
        found, scaled = (search_on_device(torch.from_numpy(factor * plain()), 20) for factor in (1.0, scale))
        np.testing.assert_allclose(scaled[0], scale * found[0], rtol=1e-13)
        np.testing.assert_array_equal(scaled[1], found[1])


def test_rotation_and_translation_change_nothing(monkeypatch):
    rotation = np.linalg.qr(np.random.default_rng(4).standard_normal((D, D)))[0]
    for dtype in (torch.float32, torch.float64):
        force(monkeypatch, dtype)
        found = search_on_device(torch.from_numpy(plain()), 20)
        moved = search_on_device(torch.from_numpy(plain() @ rotation + 1000.0), 20)
        # the input itself was rounded at 1000: 1e-13 of an entry, beside distances of about 1
        np.testing.assert_allclose(moved[0], found[0], rtol=1e-11)
        np.testing.assert_array_equal(moved[1], found[1])


def test_the_input_is_left_alone_whatever_its_strides_and_gradients(path):
    base = rounded(plain(), torch.float32)
    before = base.clone()
    found = search_on_device(base, 3)
    assert_same(search_on_device(base.T.contiguous().T.requires_grad_(), 3), found)
    assert torch.equal(base, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tile_that_does_not_fit_is_halved(monkeypatch, dtype):
    force(monkeypatch, dtype)
    monkeypatch.setattr(device_neighbors, "_tile", lambda *_: 4096)
    points, widths = torch.from_numpy(plain()), []
    expected, lower_bounds = search_on_device(points, 5), DeviceCloud.lower_bounds

    def no_more_than_20(cloud, query, rows, columns):
        widths.append((columns.stop - columns.start, cloud.stored is None))
        if columns.stop - columns.start > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return lower_bounds(cloud, query, rows, columns)

    monkeypatch.setattr(DeviceCloud, "lower_bounds", no_more_than_20)
    assert_same(search_on_device(points, 5), expected)
    assert widths[0] == (4096, False) and widths[-1] == (16, True)


def test_other_errors_and_a_lack_of_all_memory_are_not_hidden(monkeypatch):
    force(monkeypatch, torch.float64)
    monkeypatch.setattr(device_neighbors, "_tile", lambda *_: 4096)
    for message, widths in (("CUDA out of memory", {1}), ("device-side assert triggered", {4096})):
        seen = set()

        def fail(cloud, query, rows, columns, message=message, seen=seen):
            seen.clear()
            seen.add(columns.stop - columns.start)
            raise RuntimeError(message)

        monkeypatch.setattr(DeviceCloud, "lower_bounds", fail)
        with pytest.raises(RuntimeError, match=message):
            search_on_device(torch.from_numpy(plain()), 5)
        assert seen == widths


def test_a_copy_that_does_not_fit_is_done_without(monkeypatch):
    points = torch.from_numpy(plain())
    cloud = DeviceCloud.of(points, 1.0, torch.float64)
    assert device_cloud.stored_if_it_fits(cloud, N * (D + 2) * 8 - 1).stored is None
    stored = device_cloud.stored_if_it_fits(cloud, N * (D + 2) * 8).stored
    np.testing.assert_array_equal(stored, cloud.factor(slice(0, N)))

    def fail(*shape, **_):
        raise RuntimeError("MPS backend out of memory")

    monkeypatch.setattr(torch, "empty", fail)
    assert device_cloud.stored_if_it_fits(cloud, 2**40).stored is None


class LargestTensor(TorchDispatchMode):
    """Keeps the size of the largest tensor that was made, views aside."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor) and not tensor._is_view():
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("all_again", [False, True])
def test_no_tensor_is_larger_than_a_quarter_of_what_is_free(all_again, path, monkeypatch):
    points, free = rounded(plain(n=600, d=8), torch.float32), 2**22
    expected = search_on_device(points, 2)
    if all_again:  # every row is measured against every other
        monkeypatch.setattr(
            DeviceCloud, "limits", lambda cloud, squares, radii: torch.full_like(squares, 1e30)
        )
    with LargestTensor() as largest:
        found = search_on_device(points, 2, bytes_free=free)
    assert_same(found, expected)
    assert found[2] == 600 if all_again else found[2] <= 2
    assert points.nbytes < largest.nbytes <= free / 4 < len(points) ** 2 * 4


def test_products_are_full_float32_and_the_settings_stay_as_they_were(monkeypatch):
    force(monkeypatch, torch.float32)
    points, seen = rounded(near_duplicates(), torch.float32), []
    expected, queries = search_on_device(points, 5), DeviceCloud.queries

    def look(cloud, rows):
        seen.append((torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")))
        return queries(cloud, rows)

    monkeypatch.setattr(DeviceCloud, "queries", look)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert_same(search_on_device(points, 5), expected)
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {("highest", False)}


def test_settings_of_the_backends_come_back_after_an_error():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        with pytest.raises(ZeroDivisionError), device.full_precision(CPU):
            assert not matmul.allow_tf32 and matmul.fp32_precision == "ieee"
            raise ZeroDivisionError
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize(
    ("float32", "float64", "has_float64", "expected"),
    [
        (1.0, 1.0, True, torch.float64),
        (1.0, 2.0, True, torch.float64),
        (1.0, 64.0, True, torch.float32),
        (1.0, 1.0, False, torch.float32),
    ],
)
def test_bounds_are_float64_where_its_products_are_fast(monkeypatch, float32, float64, has_float64, expected):
    seconds = {torch.float32: float32, torch.float64: float64}
    monkeypatch.setattr(device, "_product_seconds", lambda _, dtype: seconds[dtype])
    monkeypatch.setattr(device, "has_float64", lambda _: has_float64)
    assert device.product_dtype.__wrapped__(CPU) == expected


def test_the_rate_of_a_device_is_measured_once(monkeypatch):
    timed = []
    monkeypatch.setattr(device, "TIMED_ROWS", 64)
    seconds = device._product_seconds
    monkeypatch.setattr(device, "_product_seconds", lambda *of: timed.append(of) or seconds(*of))
    device.product_dtype.cache_clear()
    for _ in range(2):
        assert_nearest(torch.from_numpy(plain(n=30)), 3)
    device.product_dtype.cache_clear()
    assert timed == [(CPU, torch.float32), (CPU, torch.float64)]


def test_a_device_without_float64_is_known_by_its_refusal(monkeypatch):
    assert device.has_float64.__wrapped__(CPU)

    def refuse(*_, **__):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    monkeypatch.setattr(torch, "zeros", refuse)
    assert not device.has_float64.__wrapped__(CPU)


def test_unique_rows_are_first_occurrences_in_row_order():
    x = torch.tensor([[1.0, 2], [3, 4], [1, 2], [0, 0], [3, 4], [-0.0, 0], [5, 0]])
    for dtype in DTYPES:
        unique = unique_rows_on_device(x.to(dtype).requires_grad_())
        np.testing.assert_array_equal(unique, [0, 1, 3, 6])
        assert unique.dtype == torch.int64
    np.testing.assert_array_equal(unique_rows_on_device(x[:1]), [0])


@settings(max_examples=100, deadline=None)
@given(
    arrays(
        np.float64,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=30),
        elements=st.sampled_from([0, -0.0, 1, -1, 2.0**-10]),
    ),
    st.sampled_from(DTYPES),
)
def test_unique_rows_agree_with_those_of_arrays(x, dtype):
    np.testing.assert_array_equal(unique_rows_on_device(rounded(x, dtype)), unique_rows(x))


def test_rows_of_one_hash_are_compared_and_hashed_anew(monkeypatch):
    hashes = device_neighbors._row_hashes

    def constant_at_first(x, seed):
        return hashes(x, seed) if seed > 1 else torch.zeros(len(x), dtype=torch.int64)

    monkeypatch.setattr(device_neighbors, "_row_hashes", constant_at_first)
    x = ten_percent_copies()
    np.testing.assert_array_equal(unique_rows_on_device(torch.from_numpy(x)), unique_rows(x))


def test_hashes_of_one_column_lose_no_value():
    """Also of numbers whose bits are each other's complements: a hash of these would be one in every seed."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)[:, None]
    every = every[every[:, 0].isfinite() & (every[:, 0].view(torch.int16) != -(2**15))]
    assert len(device_neighbors._row_hashes(every, 0).unique()) == len(every)
    bits = torch.tensor([0x3FF8000000000000, 0x3FF8000000000000 ^ -(2**31)])
    assert len(unique_rows_on_device(bits.view(torch.float64)[:, None])) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: search_on_device(torch.rand(5, 2), 0), "`k` is 0 and `points` has 5 rows"),
        (lambda: search_on_device(torch.rand(5, 2), 5), "`k` is 5 and `points` has 5 rows"),
        (lambda: search_on_device(torch.rand(5), 1), r"`points` has shape \(5,\) and dtype torch.float32"),
        (lambda: search_on_device(torch.rand(5, 0), 1), r"`points` has shape \(5, 0\)"),
        (lambda: search_on_device(torch.arange(6).reshape(3, 2), 1), "dtype torch.int64"),
        (lambda: search_on_device(torch.rand(4, 2).to(torch.float8_e4m3fn), 1), "dtype torch.float8_e4m3fn"),
        (lambda: search_on_device(torch.tensor([[0.0], [float("nan")], [1]]), 1), "an entry of size nan"),
        (lambda: search_on_device(torch.tensor([[0.0], [-float("inf")]]), 1), "an entry of size inf"),
        (lambda: search_on_device(torch.tensor([[0.0], [1e101]]).double() * 1e101, 1), "an entry of size"),
        (lambda: unique_rows_on_device(torch.arange(6).reshape(3, 2)), "`x` has shape .* dtype torch.int64"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def gpu_cloud(dtype: torch.dtype, *, n: int = 20_000, d: int = 576) -> torch.Tensor:
    """Rows of a falling spectrum, one in fifty massive, one in ten a copy."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=random) * torch.arange(1, d + 1) ** -0.7
    x[::50] = 300.0 + 1e-2 * x[::50]
    x[5::10] = x[3::10]
    return x.to(dtype)


@on_a_gpu
@pytest.mark.parametrize("bounds", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_agrees_with_the_processor_to_the_last_bit(dtype, bounds, monkeypatch):
    force(monkeypatch, bounds)
    x = gpu_cloud(dtype)
    unique = unique_rows_on_device(x.cuda())
    np.testing.assert_array_equal(unique.cpu(), unique_rows_on_device(x))
    found = search_on_device(x.cuda()[unique], 5)
    force(monkeypatch, torch.float64)
    assert_same(found, search_on_device(x[unique.cpu()], 5))


@on_a_gpu
@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_gpu_agrees_with_direct_differences_of_all_pairs(cloud):
    points = points_of(cloud, "float64")
    distances, indices, _ = search_on_device(points.cuda(), 20)
    assert_same((distances, indices), search_on_device(points, 20))


@on_a_gpu
def test_a_gpu_stays_within_the_memory_that_it_is_given():
    points = gpu_cloud(torch.float32).cuda()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    search_on_device(points, 5, bytes_free=2**28)
    assert torch.cuda.max_memory_allocated() - before < 2**28 < len(points) ** 2 * 4
