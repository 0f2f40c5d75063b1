"""The benchmark of extraction runs, on a tiny network and without any asset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import ARCHITECTURES, make_tokens

sys.path.append(str(Path(__file__).parents[2]))  # `benchmarks` is a folder beside the library, not part of it

from benchmarks import extraction, workload  # noqa: E402

from lmshape.store.activations import ActivationWriter  # noqa: E402

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


def test_families_beside_the_bare_passes(
    tiny: extraction.Extraction, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(extraction, "WINDOW", 16)
    monkeypatch.setattr(workload, "PASSED_TOKENS", 64)
    monkeypatch.setattr(workload, "BENCH", tmp_path)
    tokens, stream = make_tokens([16] * 16, draws=4), tiny.reading.stream
    sites, width = stream.sites, stream.width
    with ActivationWriter(
        tmp_path / "a.h5", sites=sites, width=width, tokens=tokens, attributes={}
    ) as writer:
        for number, site in enumerate(sites):
            rows = np.random.default_rng(number).standard_normal((len(tokens.ids), width), dtype=np.float32)
            writer.write(site, 0, rows)
    lines = workload.families_section(tmp_path / "a.h5", tiny, 2).splitlines()
    assert lines[0].startswith(f"256 tokens, 3 of {len(sites)} sites measured")
    assert [line.split(" | ")[0] for line in lines[4:]] == [
        f"| {name}" for name in (*(f"{family}, alone" for family in workload.FAMILIES), "all, together")
    ]


def test_linearity_beside_its_products() -> None:
    assert workload.linearity_section(16).splitlines()[-1].startswith("| 160 × 16 | ")


def test_searches_by_turns() -> None:
    x = np.random.default_rng(0).standard_normal((200, 8), dtype=np.float32)
    assert all(time > 0 for time in workload.searches(x, 5, 3))


def test_runs_by_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    times = extraction.interleaved(
        lambda tokens: order.append("a"), lambda tokens: order.append("b"), tokens=make_tokens([3]), repeats=3
    )
    assert "".join(order) == "baabbaab"
    assert [len(each.wall) for each in times] == [3, 3]


@pytest.mark.skipif(not extraction.PEAK_RESET.exists(), reason="Linux tells and resets the peak of a process")
def test_growth_is_of_what_lies_within() -> None:
    code = (
        "import numpy as np; from benchmarks.extraction import growth; before = np.ones(2**24); del before\n"
        "grown = []\n"
        "with growth(grown): np.ones(2**23)\n"
        "print(grown[0] / 2**26)"
    )
    # a process of its own: in this one the memory of earlier tests may be used again
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.9 < float(done.stdout) < 1.2
