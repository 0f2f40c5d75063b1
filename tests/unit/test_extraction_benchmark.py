"""The benchmark of extraction runs, on a tiny network and without any asset."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, make_tokens

sys.path.append(str(Path(__file__).parents[2]))  # `benchmarks` is a folder beside the library, not part of it

from benchmarks import extraction  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(tmp_path: Path) -> extraction.Extraction:
    ARCHITECTURES["llama"].build().save_pretrained(tmp_path / "checkpoint")
    return extraction.Extraction.of(tmp_path / "checkpoint")


def test_extraction_beside_the_bare_passes(
    tiny: extraction.Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "WINDOW", 16)
    text = extraction.compare(tiny, make_tokens([16] * 16), repeats=2, threads=1)
    assert "64 tokens in windows of 16" in text
    assert "| extraction / bare | " in text
    written = 4 * 5 * 24 * 4 / 2**20  # bytes, sites, width
    for count in (64, 256):
        assert f"| {count} tokens | {count * written / 4:.0f} | " in text


def test_runs_by_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = extraction.interleaved(
        lambda tokens: order.append("a"), lambda tokens: order.append("b"), tokens=make_tokens([3]), repeats=3
    )
    assert "".join(order) == "baabbaab"
    assert [len(each.wall) for each in times] == [3, 3]


@pytest.mark.skipif(not extraction.PEAK_RESET.exists(), reason="Linux tells and resets the peak of a process")
def test_growth_is_of_what_lies_within() -> None:
    before = np.ones(2**24)  # 128 MiB
    del before
    grown: list[float] = []
    with extraction.growth(grown):
        np.ones(2**23)
    assert 0.9 < grown[0] / 2**26 < 1.2
