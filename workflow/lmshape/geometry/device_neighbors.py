"""Exact nearest neighbors of tensors on their own device, by the bounds of `lmshape.geometry.neighbors`.

Where the device multiplies float64 fast enough the bounds are float64, elsewhere float32, about points centered
on medians, with the rounding of the dtype inside. Distances are direct differences in float64, on the processor
where the device has no float64. Their squares are summed in an order that only the number of coordinates sets:
neither the dtype of the bounds, nor the tile, nor the device changes a bit of the result.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count as seeds
from math import frexp
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.checks import LARGEST
from lmshape.geometry.device import bytes_free as memory_free
from lmshape.geometry.device import full_precision, is_out_of_memory, product_dtype
from lmshape.geometry.device_cloud import (
    DIRECT_ENTRIES,
    GROUP,
    DeviceCloud,
    direct_distances,
    least_bounds,
    stored_if_it_fits,
)

if TYPE_CHECKING:
    from torch import Tensor

# measured beside the k, by the bytes of a bound: float32's leave more near ties
SPARE_CANDIDATES = {8: 4, 4: 16}
LARGEST_TILE = 8192  # rows: the bounds of a tile take 512 MiB in float64


def search_on_device(
    points: Tensor, k: int, *, bytes_free: int | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Find the k nearest other rows of every row, exactly, on the device of the tensor.

    Parameters
    ----------
    points : (m, d) of any floating dtype on any device, rows different (`unique_rows_on_device`); not modified
    k : number of neighbors
    bytes_free : memory of the device to work in; by default what it says is free, or 1 GiB. Half of it is used.

    Returns
    -------
    distances (m, k) float64, ascending; indices (m, k) int64, equal distances in the order of the rows;
    how many rows the first candidates could not be proved complete for, so that they were searched again.

    Raises
    ------
    ValueError
        When `k` is not positive, `points` is no floating matrix with more than k rows, or an entry is not finite
        or over 1e100.

    Notes
    -----
    m²d multiplications, plus m (k + 4) direct distances, or m (k + 16) with float32 bounds. Memory beside the
    points: a centered copy if it fits into a quarter of what is free, and tiles that fit into the rest of the
    half; a tile that fails all the same is halved. Differences under 1e-154 have a square of 0.
    """
    import torch

    points = points.detach()
    scale = _checked_scale(points, k)
    with torch.no_grad(), full_precision(points.device):
        dtype = product_dtype(points.device)
        budget = (memory_free(points.device) if bytes_free is None else bytes_free) // 2
        cloud = stored_if_it_fits(DeviceCloud.of(points, scale, dtype), budget // 2)
        if cloud.stored is not None:
            budget -= cloud.stored.nbytes
        return _search_all(cloud, k, _tile(cloud, k, budget))


def unique_rows_on_device(x: Tensor) -> Tensor:
    """Return the first occurrence of every distinct row: (m,) int64, ascending, on the device of `x`.

    `x` is (n, d) of a floating dtype of 16 bits or more; 0.0 and −0.0 are the same. Rows of the same hash are
    compared, and all are hashed anew if they differ. O(n d) time, and memory for n hashes and their order.
    """
    x = x.detach()
    _refuse_other_than_floating_matrix(x, "x")
    for seed in seeds():  # a second one is needed about once in 2⁶⁴ / n² clouds
        order, first = _groups(_row_hashes(x, seed))
        repeated = order != first
        if _all_equal(x, order[repeated], first[repeated]):
            return order[~repeated].sort().values


def _groups(hashes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows ordered by their hashes, and beside each the first row of the same hash."""
    hashes, order = hashes.sort(stable=True)
    starts = hashes.new_ones(len(hashes), dtype=bool)
    starts[1:] = hashes[1:] != hashes[:-1]
    return order, order[starts][starts.cumsum(0) - 1]


def _all_equal(x: Tensor, rows: Tensor, others: Tensor) -> bool:
    step = max(1, DIRECT_ENTRIES // x.shape[1])
    pairs = zip(rows.split(step), others.split(step), strict=True)
    return all(bool((x[left] == x[right]).all()) for left, right in pairs)


def _row_hashes(x: Tensor, seed: int) -> Tensor:
    """Return 64 bits for each row, the same for equal rows and hardly ever for others."""
    import torch

    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]
    random = np.random.default_rng(seed)
    factors = random.integers(-(2**62), 2**62, size=x.shape[1]) * 2 + 1
    factors = torch.from_numpy(factors).to(x.device)
    hashes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    step = max(1, DIRECT_ENTRIES // x.shape[1])
    for start in range(0, len(x), step):
        bits = (x[start : start + step] + 0.0).view(whole).long()  # −0.0 + 0.0 is 0.0
        bits ^= (bits >> 32) & (2**32 - 1)  # what was float32 has zeros in its lower half
        bits *= factors
        bits ^= (bits >> 29) & (2**35 - 1)  # without the copies of the sign: then no value is lost
        hashes[start : start + step] = bits.sum(dim=1)
    return hashes


def _checked_scale(points: Tensor, k: int) -> float:
    """Return the power of two that brings the largest entry near 1; refuse what has no k neighbors."""
    _refuse_other_than_floating_matrix(points, "points")
    if k < 1 or len(points) <= k:
        raise ValueError(
            f"`k` is {k} and `points` has {len(points)} rows; 1 neighbor, and one row more than neighbors, are the "
            "least. Add rows or lower `k`."
        )
    low, high = (float(value) for value in points.aminmax())
    largest = max(-low, high)
    if not largest <= LARGEST:  # NaN too
        raise ValueError(
            f"`points` has an entry of size {largest:.1e}; finite entries up to {LARGEST:.0e} are needed, "
            "since squares are summed. Remove or rescale it."
        )
    limit = 1000 if points.element_size() == 8 else 120  # the scale itself must stay in the dtype
    return 2.0 ** max(-limit, min(limit, -frexp(largest)[1]))


def _refuse_other_than_floating_matrix(x: Tensor, name: str) -> None:
    if x.ndim != 2 or x.shape[1] < 1 or not x.is_floating_point() or x.element_size() < 2:
        raise ValueError(
            f"`{name}` has shape {tuple(x.shape)} and dtype {x.dtype}; (rows, columns) of float16, bfloat16, float32 "
            "or float64 are needed. Convert it."
        )


def _tile(cloud: DeviceCloud, k: int, budget: int) -> int:
    """Return how many rows meet how many others at a time within `budget` bytes."""
    d, size = cloud.points.shape[1], cloud.dtype.itemsize
    candidates = k + SPARE_CANDIDATES[size] + 1
    # of a row: its coordinates, before and after, and its candidates
    row_bytes = d * (3 * size + 16) + candidates * (24 * GROUP + 64)
    side = LARGEST_TILE
    while (
        side > 1 and side * (side * size * 5 // 4 + row_bytes) > budget
    ):  # bounds, and the least of each group
        side //= 2
    return side


def _search_all(cloud: DeviceCloud, k: int, side: int) -> tuple[np.ndarray, np.ndarray, int]:
    found, start = [], 0
    while start < len(cloud.points):
        try:
            found.append(_search(cloud, slice(start, start + side), side, k))
            start += side
        except RuntimeError as error:
            if side == 1 or not is_out_of_memory(error):
                raise
            side, cloud = side // 2, replace(cloud, stored=None)
    distances, indices, recomputed = zip(*found, strict=True)
    return np.concatenate(distances), np.concatenate(indices), sum(recomputed)


def _search(cloud: DeviceCloud, block: slice, side: int, k: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return distances and indices of the k nearest of each point of a block, and how many it redid."""
    import torch

    m = len(cloud.points)
    rows = torch.arange(block.start, min(block.stop, m), device=cloud.points.device)
    query, squares = cloud.queries(rows)
    count = min(k + SPARE_CANDIDATES[cloud.dtype.itemsize], m - 1)
    bounds, columns = least_bounds(cloud, query, rows, side, count + 1)
    distances, indices = _nearest(cloud, rows, columns[:, :count].sort(dim=1).values, k)
    limits = cloud.limits(squares, distances[:, -1])
    uncertain = (bounds[:, count] <= limits).nonzero()[:, 0]
    # a pair that is measured takes more memory than one that is bounded
    for part in uncertain.split(max(1, side // 8)) if len(uncertain) else ():
        again = part.to(cloud.exact)
        distances[again], indices[again] = _search_again(cloud, rows[part], limits[part], side, k)
    return distances.cpu().numpy(), indices.cpu().numpy(), len(uncertain)


def _search_again(
    cloud: DeviceCloud, rows: Tensor, limits: Tensor, side: int, k: int
) -> tuple[Tensor, Tensor]:
    """Return the k nearest of each row by measuring all columns whose bounds do not exceed its limit."""
    import torch

    m = len(cloud.points)
    query, _ = cloud.queries(rows)
    distances = torch.empty(len(rows), 0, dtype=torch.float64, device=cloud.exact)
    indices = torch.empty(len(rows), 0, dtype=torch.int64, device=cloud.exact)
    for start in range(0, m, side):
        bounds = cloud.lower_bounds(query, rows, slice(start, start + side))
        columns = _columns_of((bounds <= limits[:, None]).nonzero(), len(rows), start, m)
        near, found = _nearest(cloud, rows, columns, k)
        distances, indices = _first(torch.cat([distances, near], 1), torch.cat([indices, found], 1), k)
    return distances, indices


def _columns_of(hits: Tensor, rows: int, start: int, m: int) -> Tensor:
    """Return the columns of each row, ascending and filled up with m, of (row, column − start) in row order."""
    import torch

    row, column = hits.unbind(1)
    counts = torch.bincount(row, minlength=rows)
    slot = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    columns = torch.full((rows, int(counts.max())), m, device=row.device)
    columns[row, slot] = column + start
    return columns


def _nearest(cloud: DeviceCloud, rows: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k smallest direct distances to the ascending `columns`, and those; m is no column."""
    import torch

    present = columns < len(cloud.points)
    distances = torch.full(columns.shape, float("inf"), dtype=torch.float64, device=cloud.exact)
    queries = rows[:, None].expand_as(columns)[present]
    distances[present.to(cloud.exact)] = direct_distances(cloud, queries, columns[present])
    return _first(distances, columns.to(cloud.exact), k)


def _first(distances: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    distances, order = distances.sort(dim=1, stable=True)
    return distances[:, :k], columns.gather(1, order[:, :k])
