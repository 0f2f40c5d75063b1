"""A cloud on a device: lower bounds of its distances by matrix products, and the distances themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lmshape.geometry.device import has_float64, is_out_of_memory

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DIRECT_ENTRIES = 2**20  # coordinates gathered at a time
SAMPLE = 1024  # rows that the center is taken from: any center is right, a median one near most points
GROUP = 32  # bounds of which only the least is compared, until its group is known to be among the nearest


@dataclass(frozen=True, slots=True)
class DeviceCloud:
    """The points, and what their lower bounds are made of: those of `lmshape.geometry.neighbors`, in any dtype.

    With u half the spacing of the dtype at 1, the terms ‖a‖², 2‖a‖‖b‖ and ‖b‖² of a squared distance are off by
    no more than (2d + 9)u of themselves; `rounding` is (2d + 16)u, which covers rounding the limit as well. What
    leaves the dtype at its lower end changes a squared distance by less than `floor`, and a norm by its root.

    Attributes
    ----------
    points : (m, d) as they came; direct differences are taken of these
    center : (d,) in the widest dtype of the device, subtracted from `scale` times the points
    scale : a power of two, so that multiplying with it rounds nothing
    dtype : that of the bounds
    stored : (m, d + 2), the factor of all rows, or None where each tile makes its own
    """

    points: Tensor
    center: Tensor
    scale: float
    dtype: torch.dtype
    stored: Tensor | None = None

    @classmethod
    def of(cls, points: Tensor, scale: float, dtype: torch.dtype) -> DeviceCloud:
        """Center the points on the medians of a sample."""
        import torch

        widest = torch.float64 if has_float64(points.device) else torch.float32
        count = min(SAMPLE, len(points))
        rows = torch.arange(count, device=points.device) * len(points) // count
        ordered = (points[rows].to(widest) * scale).sort(dim=0).values
        return cls(points, ordered[len(rows) // 2].clone(), scale, dtype)

    @property
    def rounding(self) -> float:
        """The relative error that none of the terms of a squared distance exceeds."""
        import torch

        return (self.points.shape[1] + 8) * torch.finfo(self.dtype).eps

    @property
    def floor(self) -> float:
        """The absolute error that what is too small for the dtype adds at most."""
        import torch

        return 2.0**14 * (self.points.shape[1] + 2) * torch.finfo(self.dtype).tiny

    @property
    def exact(self) -> torch.device:
        """Where float64 is: the device of the points, or the processor."""
        import torch

        return self.points.device if has_float64(self.points.device) else torch.device("cpu")

    def factor(self, rows: slice | Tensor) -> Tensor:
        """Return the columns b, (1 − rounding)‖b‖², ‖b‖ of centered points."""
        import torch

        if self.stored is not None:
            return self.stored[rows]
        centered = (self.points[rows].to(self.center.dtype) * self.scale - self.center).to(self.dtype)
        norms = torch.linalg.vector_norm(centered, dim=1, keepdim=True)
        squares = (1 - self.rounding) * norms.square()
        return torch.cat([centered, squares, norms + self.floor**0.5], dim=1)

    def queries(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `lower_bounds` multiplies, and (1 − rounding)‖a‖² for `limits`."""
        factor = self.factor(rows)
        query = -2 * factor
        query[:, -2] = 1
        query[:, -1] *= self.rounding
        return query, factor[:, -2]

    def lower_bounds(self, query: Tensor, rows: Tensor, columns: slice) -> Tensor:
        """Return (rows, columns) numbers that no ‖a − b‖² − ‖a‖² is below, but for `floor`; infinite for a = b."""
        bounds = query @ self.factor(columns).T
        own = (rows - columns.start)[:, None]
        place = own.clamp(0, bounds.shape[1] - 1)  # of those in another tile, an entry that stays
        bounds.scatter_(1, place, bounds.gather(1, place).masked_fill_(place == own, float("inf")))
        return bounds

    def limits(self, squares: Tensor, radii: Tensor) -> Tensor:
        """Return what a lower bound must exceed for its pair to be measured at more than the radius."""
        squares, radii = squares.to(radii.device).double(), radii * self.scale
        limits = (1 + self.rounding) * radii.square() - squares + self.floor
        return limits.to(self.dtype).to(self.points.device)


def stored_if_it_fits(cloud: DeviceCloud, budget: int) -> DeviceCloud:
    """Return the cloud with the factor of all its rows, if that fits into `budget` bytes."""
    import torch

    m, d = cloud.points.shape
    if m * (d + 2) * cloud.dtype.itemsize > budget:
        return cloud
    try:
        factor = torch.empty(m, d + 2, dtype=cloud.dtype, device=cloud.points.device)
        step = max(1, DIRECT_ENTRIES // d)
        for start in range(0, m, step):
            factor[start : start + step] = cloud.factor(slice(start, start + step))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return cloud
    return replace(cloud, stored=factor)


def least_bounds(
    cloud: DeviceCloud, query: Tensor, rows: Tensor, side: int, count: int
) -> tuple[Tensor, Tensor]:
    """Return the `count` smallest bounds of each row among all columns, ascending, and these columns."""
    import torch

    least = columns = None
    for start in range(0, len(cloud.points), side):
        bounds, found = _smallest(cloud.lower_bounds(query, rows, slice(start, start + side)), count)
        found += start
        if least is not None:
            bounds, found = torch.cat([least, bounds], dim=1), torch.cat([columns, found], dim=1)
            bounds, order = bounds.topk(min(count, bounds.shape[1]), dim=1, largest=False)
            found = found.gather(1, order)
        least, columns = bounds, found
    return least, columns


def _smallest(bounds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` smallest entries of each row, ascending, and their columns.

    They lie within the `count` groups of columns with the smallest minima; one pass finds these.
    """
    import torch

    groups = bounds.shape[1] // GROUP
    if groups <= count:
        return bounds.topk(min(count, bounds.shape[1]), dim=1, largest=False)
    grouped = bounds[:, : groups * GROUP].unflatten(1, (GROUP, groups))
    chosen = grouped.amin(dim=1).topk(count, dim=1, largest=False).indices[:, None].expand(-1, GROUP, -1)
    members = torch.arange(GROUP, device=bounds.device)[:, None] * groups
    rest = torch.arange(groups * GROUP, bounds.shape[1], device=bounds.device).expand(len(bounds), -1)
    entries = torch.cat([grouped.gather(2, chosen).flatten(1), bounds[:, groups * GROUP :]], dim=1)
    columns = torch.cat([(chosen + members).flatten(1), rest], dim=1)
    least, order = entries.topk(count, dim=1, largest=False)
    return least, columns.gather(1, order)


def direct_distances(cloud: DeviceCloud, queries: Tensor, others: Tensor) -> Tensor:
    """Return the distance of each query to the point beside it in `others`."""
    import torch

    points = cloud.points
    squares = torch.empty(len(queries), dtype=torch.float64, device=cloud.exact)
    step = max(1, DIRECT_ENTRIES // points.shape[1])
    for start in range(0, len(queries), step):
        pairs = slice(start, start + step)
        difference = points[queries[pairs]].to(cloud.exact).double()
        difference -= points[others[pairs]].to(cloud.exact).double()
        squares[pairs] = _row_sums(difference.square_())
    # torch's root is an ulp off for one in sixty whole numbers on a processor; NumPy's is rounded correctly
    return torch.from_numpy(np.sqrt(squares.cpu().numpy())).to(cloud.exact)


def _row_sums(terms: Tensor) -> Tensor:
    """Return the sums of the rows, halves added to halves; `terms` are overwritten.

    The order of a reduction of the library depends on the number of rows and on the device.
    """
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0]
