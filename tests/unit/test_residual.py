"""The residual stream is found in every architecture, and read where hooks placed by hand read it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, hidden_states
from torch import Tensor, nn

from lmshape.errors import InputError
from lmshape.models.residual import residual_stream, run
from lmshape.site import Site

IDS = torch.arange(3, 15).reshape(2, 6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_sites_are_the_modules_named_by_hand(name: str) -> None:
    architecture = ARCHITECTURES[name]
    model = architecture.build()
    stream = residual_stream(model, IDS[:1])
    assert stream.blocks == tuple(architecture.blocks_of(model))
    assert stream.normed == (architecture.norm is not None)
    assert stream.width == WIDTH
    found: dict[Site, np.ndarray] = {}

    def take(site: Site, hidden: Tensor) -> None:
        assert site not in found
        found[site] = hidden.numpy().reshape(-1, WIDTH).copy()

    with torch.inference_mode(), stream.observed(take):
        run(model, IDS)
    expected = hidden_states(model, architecture, IDS)
    assert list(found) == stream.sites
    assert len(expected) == len(found) == 1 + BLOCKS + stream.normed
    for rows, reference in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(rows, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_transformers_agrees_on_all_but_the_last_block(name: str) -> None:
    """Its `hidden_states` are ours up to the last entry, which is after the final norm."""
    model = ARCHITECTURES[name].build()
    stream = residual_stream(model, IDS[:1])
    found: list[Tensor] = []
    with torch.inference_mode(), stream.observed(lambda site, hidden: found.append(hidden.clone())):
        theirs = model(IDS, output_hidden_states=True).hidden_states
    for ours, other in zip(found[:BLOCKS], theirs[:BLOCKS], strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-6)
    if stream.normed:
        torch.testing.assert_close(found[-1], theirs[-1], rtol=1e-6, atol=1e-6)
        assert not torch.allclose(found[-2], theirs[-1], atol=1e-2)


def test_nothing_is_observed_afterwards() -> None:
    model = ARCHITECTURES["gpt_neox"].build()
    stream = residual_stream(model, IDS[:1])
    with pytest.raises(RuntimeError, match="full"), torch.inference_mode(), stream.observed(fail):
        run(model, IDS)
    run(model, IDS)


def fail(site: Site, hidden: Tensor) -> None:
    raise RuntimeError("full")


def test_a_diverged_network_still_has_its_final_norm() -> None:
    """Values can't tell: NaN in, NaN out."""
    model = ARCHITECTURES["gpt_neox"].build()
    with torch.no_grad():
        model.gpt_neox.embed_in.weight.fill_(torch.nan)
    assert residual_stream(model, IDS[:1]).sites[-1] == Site("final_norm", BLOCKS)


class Decoys(nn.Module):
    """Lists of as many modules as there are blocks, before and inside the real stack."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=2, model_type="decoys")
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.gates = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])  # side by side
        self.unused = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.blocks = nn.ModuleList([Block(), Block()])

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        hidden = self.embedding(input_ids)
        hidden = self.gates[0](hidden) + self.gates[1](hidden)
        for block in self.blocks:
            hidden, _ = block(hidden_states=hidden)
        return (hidden,)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        return hidden_states + self.experts[0](hidden_states) * self.experts[1](hidden_states), None


def test_other_lists_of_the_same_length_are_not_the_stack() -> None:
    model = Decoys()
    stream = residual_stream(model, IDS[:1])
    assert stream.blocks == tuple(model.blocks)
    assert not stream.normed


class Looped(nn.Module):
    """One block for all layers, in no list, and lists of another length beside it."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=layers, model_type="looped")
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.block = Block()
        self.norm = nn.LayerNorm(WIDTH)

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor]:
        hidden = self.embedding(input_ids)
        for _ in range(self.config.num_hidden_layers):
            hidden, _ = self.block(hidden_states=hidden)
        return (self.norm(hidden),)


def test_one_block_may_be_every_layer() -> None:
    model = Looped(3)
    stream = residual_stream(model, IDS[:1])
    assert stream.blocks == (model.block,) * 3
    assert stream.normed
    found: list[Site] = []
    with torch.inference_mode(), stream.observed(lambda site, hidden: found.append(site)):
        run(model, IDS)
        run(model, IDS)
    assert found == 2 * stream.sites


def test_what_is_no_chain_is_refused() -> None:
    """Of a single layer outside of a list nothing tells that it is one."""
    with pytest.raises(InputError, match="no stack of 1 blocks was found in `looped` .* cannot be read"):
        residual_stream(Looped(1), IDS[:1])
    model = Decoys()
    model.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="no stack of 5 blocks was found in `decoys`"):
        residual_stream(model, IDS[:1])
