"""Why a checkpoint did not load, in words that say what to do."""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from lmshape.errors import InputError
from lmshape.networks.devices import is_out_of_memory

FAILURES = (
    SafetensorError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    KeyError,
)


def loading_error(folder: Path, files: Sequence[Path], error: Exception) -> InputError:
    """Return the error to raise for weights that did not load: no memory, code in them, damage, or what it says."""
    if is_out_of_memory(error):
        return InputError(
            f"the network of `{folder}` does not fit into memory ({first_line(error)}); "
            "take `dtype: bfloat16`, a device with more memory, or `device_map: auto`."
        )
    broken = {file: reason for file in files if (reason := _why_unreadable(file))}
    for file, reason in broken.items():
        if code := _called(reason):
            return InputError(
                f"`{folder}`: {file.name} holds code that would run on loading (it calls {code}) and is not "
                "loaded. Save the weights as safetensors where you trust it, or fetch them from elsewhere."
            )
    if broken:
        names = ", ".join(file.name for file in broken)
        return InputError(
            f"`{folder}`: {names} cannot be loaded ({first_line(error)}); "
            "the file is truncated or corrupt. Fetch it again."
        )
    names = ", ".join(file.name for file in files)
    return InputError(
        f"`{folder}`: {names} cannot be loaded ({first_line(error)}). Check `kind` and config.json."
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or its name."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _why_unreadable(file: Path) -> str:
    """Return what an attempt to read a file of weights says; empty when it can be read."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                return ""
        if file.suffix == ".bin":
            torch.load(file, map_location="meta", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        return str(error) or repr(error)
    return ""


def _called(reason: str) -> str:
    """Return the function or class that a pickle would call: PyTorch names what it does not allow."""
    found = re.search(r"GLOBAL (\S+)", reason)
    return found[1] if found else ""
