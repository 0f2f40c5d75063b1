"""Numbers of bytes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmshape.progress import gigabytes_above, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1234, "1.23 kB"),
        (12_345, "12.3 kB"),
        (910_000_000, "910 MB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (999_999_999, "1.00 GB"),
        (9_996_000_000, "10.0 GB"),
        (99_960_000_000, "100 GB"),
        (29_200_000_000, "29.2 GB"),
        (1_050_000_000_000, "1.05 TB"),
        (27_000_000_000_000_000, "27.0 PB"),
    ],
)
def test_sizes_have_three_digits_and_a_unit(size: int, text: str) -> None:
    assert size_text(size) == text


@given(st.integers(1000, 10**15 - 10**12))
def test_a_text_is_its_size_to_half_a_percent(size: int) -> None:
    number, unit = size_text(size).split()
    assert len(number.replace(".", "")) == 3
    factor = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * factor == pytest.approx(size, rel=0.00501)


@given(st.integers(0, 10**14))
def test_a_bound_in_gigabytes_holds_what_it_bounds_and_little_more(size: int) -> None:
    bound = round(float(gigabytes_above(size)) * 10**9)
    assert size <= bound < size + 10**7 + 1


def test_a_bound_is_short() -> None:
    assert [gigabytes_above(size) for size in (1, 10**9, 10**9 + 1, 84 * 10**9, 1_234_567_890_123)] == [
        "0.01",
        "1",
        "1.01",
        "84",
        "1234.57",
    ]
