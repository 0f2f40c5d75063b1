"""Where a network runs, in which number type, and how it is told that memory has run out there."""

from __future__ import annotations

import os

import torch

from lmshape.errors import InputError, unknown
from lmshape.free_gpu import free_gpu

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE_MAPS = ("none", "auto")

# what the allocators of a CPU, of Apple's GPU and of CUDA's libraries write into a plain RuntimeError
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def choose_device(name: str, *, device_map: str = "none") -> torch.device:
    """Return the device of a name, `auto`: a GPU if there is one.

    Of several GPUs one that no other job here has taken; the first one where a map spreads the network over all.

    Raises
    ------
    InputError
        For an unknown name, a GPU that is not there, and one device beside a map over all of them.
    """
    if device_map not in DEVICE_MAPS:
        raise unknown("device_map", device_map, DEVICE_MAPS)
    if device_map != "none" and name not in ("auto", "cuda"):
        raise InputError(
            f"`device` is `{name}`, and `device_map: {device_map}` spreads the network over all GPUs; "
            "let `device` be `auto`, or `device_map` be `none`."
        )
    if name == "auto" and not torch.cuda.is_available():
        return torch.device("cpu")
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return _any_gpu(spread=device_map != "none")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda"]) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"`device` is `{name}`, but PyTorch sees no GPU here; use `auto` or `cpu`.")
    return device


def _any_gpu(*, spread: bool) -> torch.device:
    count = torch.cuda.device_count()
    if spread or count < 2:
        return torch.device("cuda")
    return torch.device("cuda", free_gpu(count, visible=os.environ.get("CUDA_VISIBLE_DEVICES")))


def choose_dtype(name: str, device: torch.device) -> str:
    """Return the number type of a name, `auto`: bfloat16 on a CUDA GPU, float32 elsewhere.

    Raises
    ------
    InputError
        For an unknown name.
    """
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise unknown("dtype", name, ["auto", *DTYPES])
    return name


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on a GPU or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
