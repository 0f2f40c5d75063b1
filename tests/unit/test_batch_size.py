"""The size of the first batch: a function of the vocabulary, the device and the configuration alone."""

from __future__ import annotations

import pytest

from lmshape.errors import InputError
from lmshape.models import Extraction


@pytest.mark.parametrize(
    ("vocabulary", "on_cpu", "on_gpu"),
    [
        (2_048, 8192, 32768),  # the embedded study: at the most
        (32_768, 8192, 32768),
        (50_304, 5336, 21345),  # 2^30 / (4 · 50 304)
        (256_000, 1048, 4194),
        (2**30, 1, 1),
    ],
)
def test_auto_bounds_the_logits(vocabulary: int, on_cpu: int, on_gpu: int) -> None:
    assert Extraction().starting_tokens(vocabulary=vocabulary, on_gpu=False) == on_cpu
    assert Extraction().starting_tokens(vocabulary=vocabulary, on_gpu=True) == on_gpu


def test_a_number_stands() -> None:
    assert Extraction(batch_tokens=100_000).starting_tokens(vocabulary=256_000, on_gpu=False) == 100_000


@pytest.mark.parametrize("setting", [0, -5, "0", "all", ""])
def test_other_settings_are_refused(setting: int | str) -> None:
    with pytest.raises(InputError, match=f"`batch_tokens` is {setting}; it must be `auto` or at least 1"):
        Extraction(batch_tokens=setting).starting_tokens(vocabulary=100, on_gpu=False)
