"""What a device can do: which floats it multiplies fast and exactly, and how much memory is free on it.

torch is imported inside the functions, so that the geometry can be used without it.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

PROCESSOR_BYTES = 2**30  # used where the device cannot tell what is free
TIMED_ROWS = 2048
LEAST_FLOAT64_RATE = 0.4  # of float32's: processors have a half, and float64 needs fewer second searches
OUT_OF_MEMORY = ("out of memory", "not enough memory", "ALLOC_FAILED")  # CUDA and MPS, a processor, cuBLAS


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Multiply float32 as float32 (neither TF32 nor autocast), and leave the settings as they were."""
    import torch

    backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    before = [backend.fp32_precision for backend in backends]
    try:
        overall = torch.get_float32_matmul_precision()
    except (
        RuntimeError
    ):  # only the settings of the backends were used, and only they are there to be restored
        overall = None
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if overall is not None:
            torch.set_float32_matmul_precision(overall)
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@cache
def has_float64(device: torch.device) -> bool:
    """Tell whether the device has float64 at all; Apple's have none."""
    import torch

    try:
        return torch.zeros(1, dtype=torch.float64, device=device).dtype == torch.float64
    except (TypeError, RuntimeError):
        return False


@cache
def product_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype of the bounds: float64 if its products, timed once for a device, are fast enough."""
    import torch

    if not has_float64(device):
        return torch.float32
    seconds = {dtype: _product_seconds(device, dtype) for dtype in (torch.float32, torch.float64)}
    fast = seconds[torch.float32] >= LEAST_FLOAT64_RATE * seconds[torch.float64]
    return torch.float64 if fast else torch.float32


def _product_seconds(device: torch.device, dtype: torch.dtype) -> float:
    import torch

    matrix = torch.ones(TIMED_ROWS, TIMED_ROWS, dtype=dtype, device=device)
    seconds = []
    for _ in range(3):  # the first call loads the library
        start = perf_counter()
        (matrix @ matrix)[0, 0].item()  # waits for the device
        seconds.append(perf_counter() - start)
    return min(seconds)


def bytes_free(device: torch.device) -> int:
    """Return what is free of the device's memory, together with what torch keeps of it unused."""
    import torch

    if device.type != "cuda":
        return PROCESSOR_BYTES
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + reusable


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether it was memory that the device lacked; only CUDA has an exception of its own for it."""
    return any(words in str(error) for words in OUT_OF_MEMORY)
