"""Which device and number type a configuration means, and which errors say that memory has run out."""

from __future__ import annotations

import pytest
import torch

from lmshape.errors import InputError
from lmshape.models.network import memory_ran_out
from lmshape.models.opened import Opening, Placement, choose_device, choose_dtype


def placed(device: str, **options: object) -> Placement:
    return choose_device(Opening(kind="decoder", threads=1, device=device, **options))


@pytest.mark.parametrize("gpu", [True, False])
def test_auto_takes_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch, gpu: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    for device_map in ("none", "auto"):
        found = placed("auto", device_map=device_map)
        assert (found.device.type, found.device_map) == ("cuda" if gpu else "cpu", device_map)
    assert placed("cpu").device.type == "cpu"


@pytest.mark.parametrize("device_map", ["none", "auto"])
def test_a_job_that_was_given_no_gpu_takes_none(monkeypatch: pytest.MonkeyPatch, device_map: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    nowhere_else = placed("auto", device_map=device_map, gpus=0)
    assert nowhere_else == (torch.device("cpu"), device_map)  # what memory does not hold goes to the disk
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed("auto", device_map=device_map, gpus=0) == (torch.device("cpu"), "none")
    assert placed("auto", device_map=device_map, gpus=1) == (torch.device("cuda"), device_map)
    assert placed("cuda", device_map=device_map, gpus=0) == (torch.device("cuda"), device_map)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [("cpu", "float32"), ("mps", "float32"), ("cuda", "bfloat16"), ("cuda:1", "bfloat16")],
)
def test_auto_is_narrow_on_a_cuda_gpu_alone(device: str, dtype: str) -> None:
    assert choose_dtype("auto", torch.device(device)) == dtype
    assert choose_dtype("float16", torch.device(device)) == "float16"


def test_a_map_goes_over_all_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert placed("cuda", device_map="auto") == (torch.device("cuda"), "auto")
    with pytest.raises(
        InputError, match="`device` is `cuda:1`, and `device_map: auto` spreads .* all GPUs; let"
    ):
        placed("cuda:1", device_map="auto")


def test_unknown_names() -> None:
    with pytest.raises(InputError, match="unknown dtype `bfloat61`. Nearest: bfloat16"):
        choose_dtype("bfloat61", torch.device("cpu"))


def test_errors_of_every_allocator() -> None:
    with pytest.raises(RuntimeError) as cpu:
        torch.empty(2**60)
    for error in (
        cpu.value,
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("not enough memory: you tried to allocate 4 bytes"),
        RuntimeError("MPS backend out of memory"),
    ):
        assert memory_ran_out(error)
    for error in (RuntimeError("expected scalar type Float"), ValueError("not enough memory"), KeyError("x")):
        assert not memory_ran_out(error)
