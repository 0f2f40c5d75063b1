"""Device and number type of a network, and the errors that mean out of memory there."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from lmshape.errors import InputError, unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DeviceMap = Literal["none", "auto"]

# what the allocators of a CPU, of Apple's GPU and of CUDA's libraries write into a plain RuntimeError
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


class Placement(NamedTuple):
    """Where a network goes: one device, or a map that spreads it over all there is."""

    device: torch.device
    device_map: DeviceMap


def choose_device(name: str, *, device_map: DeviceMap = "none", gpus: int | None = None) -> Placement:
    """Return where a network goes by the name of a device, `auto`: a GPU if there is one.

    The GPU is the first that the process sees: CUDA_VISIBLE_DEVICES, which a cluster sets for each job, says which.
    Several GPUs of one machine are shared out by the cluster, or by one Snakemake per GPU with a variable of its own.
    With `auto`, a job that was given no GPU takes none. A map would take them all, and is left out; where the machine
    has no GPU the map stays, for what does not fit into memory goes to the disk.

    Parameters
    ----------
    name : `auto`, or as PyTorch names it
    device_map : `auto` spreads the network over all GPUs, then memory, then disk; `none` does not
    gpus : that the job was given, None where GPUs are not counted

    Raises
    ------
    InputError
        For an unknown name, a GPU that is not there, and one device beside a map over all of them.
    """
    if device_map != "none" and name not in ("auto", "cuda"):
        raise InputError(
            f"`device` is `{name}`, and `device_map: {device_map}` spreads the network over all GPUs; "
            "let `device` be `auto`, or `device_map` be `none`."
        )
    there = torch.cuda.is_available()
    if name == "auto" and not there:
        return Placement(torch.device("cpu"), device_map)
    if name == "auto" and gpus == 0:
        return Placement(torch.device("cpu"), "none")
    if name in ("auto", "cuda") and there:
        return Placement(torch.device("cuda"), device_map)
    return Placement(_named(name, is_there=there), device_map)


def _named(name: str, *, is_there: bool) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda"]) from error
    if device.type == "cuda" and not is_there:
        raise InputError(f"`device` is `{name}`, but PyTorch sees no GPU here; use `auto` or `cpu`.")
    return device


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
