"""Batches that memory does not suffice for are read again in halves, and no row is given on twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tiny_models import ARCHITECTURES, make_tokens

from lmshape.errors import InputError
from lmshape.models.extract import batches, read_all
from lmshape.models.residual import Take
from lmshape.site import Site

CPU = torch.device("cpu")
RAGGED = make_tokens([7, 12, 1, 12, 7, 3])
EIGHT = make_tokens([12] * 8)
SITES = [Site("embedding", 0), Site("block", 1), Site("block", 2)]

Passes = list[tuple[int, int]]  # sequences and length of each batch that was tried
Fails = Callable[[int, Site], bool]  # sequences, and the site before which memory runs out


def test_batches_hold_every_row_once_and_sequences_of_one_length() -> None:
    found = list(batches(RAGGED, batch_tokens=14))
    assert [rows.shape for rows in found] == [(1, 12), (1, 12), (2, 7), (1, 3), (1, 1)]
    assert sorted(np.concatenate([rows.ravel() for rows in found])) == list(range(42))
    for rows in found:
        assert (RAGGED.position[rows] == np.arange(rows.shape[1])).all()
    assert [len(rows) for rows in batches(EIGHT, batch_tokens=36)] == [3, 3, 2]


def tried(tokens: object, batch_tokens: int, fails: Fails, error: Exception) -> tuple[Passes, Counter]:
    """Batches that were tried, and how often each row of each site was written."""
    shapes: Passes = []
    written: Counter = Counter()

    def read(rows: np.ndarray, take: Take) -> None:
        shapes.append(rows.shape)
        for site in SITES:
            if fails(len(rows), site):
                raise error
            take(site, torch.zeros(*rows.shape, 5))

    def write(rows: np.ndarray, site: Site, hidden: torch.Tensor) -> None:
        assert hidden.shape == (*rows.shape, 5)
        written.update((site, row) for row in rows.ravel())

    read_all(tokens, batch_tokens, read=read, write=write, device=CPU)
    return shapes, written


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
@pytest.mark.parametrize("site", SITES)
def test_a_batch_is_halved_until_it_fits_and_those_behind_it_are_as_small(
    site: Site, error: Exception
) -> None:
    shapes, written = tried(EIGHT, 60, lambda sequences, at: sequences > 2 and at == site, error)
    assert shapes == [(5, 12), *[(2, 12)] * 2, (1, 12), (2, 12), (1, 12)]
    assert set(written.values()) == {1}
    assert set(written) == {(each, row) for each in SITES for row in range(96)}


def test_memory_may_run_out_again_and_later() -> None:
    def fails(sequences: int, site: Site) -> bool:
        return sequences > {0: 4, 1: 2, 2: 1}[site.layer]

    shapes, written = tried(EIGHT, 96, fails, OUT_OF_MEMORY[0])
    assert shapes == [(8, 12), (4, 12), (2, 12), *[(1, 12)] * 8]
    assert set(written.values()) == {1} and len(written) == 3 * 96


def test_shorter_sequences_keep_the_smaller_size_in_tokens() -> None:
    tokens = make_tokens([12] * 4 + [6] * 6)
    shapes, written = tried(tokens, 48, lambda sequences, at: sequences == 4, OUT_OF_MEMORY[0])
    assert shapes == [(4, 12), (2, 12), (2, 12), (4, 6), (2, 6), (2, 6), (2, 6)]
    assert set(written.values()) == {1} and len(written) == 3 * 84


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    message = "a sequence of 12 tokens does not fit into the memory of `cpu`; shorten .* `device_map: auto`"
    with pytest.raises(InputError, match=message):
        tried(EIGHT, 48, lambda sequences, site: True, OUT_OF_MEMORY[0])


def test_other_errors_are_raised_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="expected scalar type"):
        tried(EIGHT, 48, lambda sequences, site: True, RuntimeError("expected scalar type Float"))


def test_the_smaller_size_is_told(capsys: pytest.CaptureFixture) -> None:
    tried(EIGHT, 96, lambda sequences, site: sequences == 8, OUT_OF_MEMORY[0])
    expected = "memory ran out with 8 sequences of 12 tokens on cpu; going on with 4\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ["gpt_neox", "albert", "bert"])
@pytest.mark.parametrize("block", [0, 2])
def test_a_store_written_in_spite_of_it_is_the_same(
    name: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = ARCHITECTURES[name]
    model = architecture.build()
    model.save_pretrained(tmp_path / "checkpoint")
    kind = {"kind": architecture.kind}
    whole = extracted(tmp_path / "checkpoint", EIGHT, tmp_path, **kind)
    block_class = type(architecture.blocks_of(model)[block])
    forward, calls = block_class.forward, Counter()

    def narrow(self: torch.nn.Module, hidden_states: torch.Tensor, *args: object, **kwargs: object) -> object:
        calls[len(hidden_states)] += 1
        if len(hidden_states) > 3 and calls[len(hidden_states)] > block:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return forward(self, hidden_states, *args, **kwargs)

    monkeypatch.setattr(block_class, "forward", narrow)
    halved = extracted(tmp_path / "checkpoint", EIGHT, tmp_path, **kind)
    assert set(calls) >= {8, 4, 2}
    np.testing.assert_allclose(halved.rows, whole.rows, rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(halved.nll, whole.nll, rtol=1e-5, atol=2e-6)
