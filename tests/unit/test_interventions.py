"""The residual stream of every architecture can be replaced behind any layer, and passes can go on from there."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from lmshape.models.residual import ResidualStream, Shortcut, leaving_with, replaced, residual_stream, run
from lmshape.site import Site

DECODERS = [name for name, one in ARCHITECTURES.items() if one.kind == "decoder"]
IDS = torch.arange(3, 19).reshape(2, 8)
SITES = [Site("embedding", 0), *(Site("block", layer) for layer in range(1, BLOCKS + 1))]


def shifted(hidden: Tensor) -> Tensor:
    return hidden * 0.5 + torch.linspace(-1, 1, hidden.shape[-1])


def state_of(stream: ResidualStream, model: nn.Module, site: Site) -> Tensor:
    states: list[Tensor] = []
    with torch.inference_mode(), stream.observed(lambda at, hidden: states.append((at, hidden.clone()))):
        run(model, IDS)
    return dict(states)[site]


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_the_short_way_is_the_whole_pass(name: str) -> None:
    model = ARCHITECTURES[name].build()
    stream = residual_stream(model, IDS[:1])
    shortcut = Shortcut.of(stream, model, IDS[:1])
    untouched = run(model, IDS).logits
    for site in SITES:
        state = state_of(stream, model, site)
        with replaced(stream, site, lambda hidden: hidden.clone()):
            assert torch.equal(run(model, IDS).logits, untouched)
        with replaced(stream, site, shifted):
            whole = run(model, IDS).logits
        assert not torch.allclose(whole, untouched, atol=1e-2)
        with shortcut.resumed(site, shifted(state)):
            assert torch.equal(run(model, IDS).logits, whole)
    assert torch.equal(run(model, IDS).logits, untouched)  # everything is as it was


@torch.inference_mode()
def test_blocks_before_the_site_are_not_computed() -> None:
    model = ARCHITECTURES["gpt_neox"].build()
    stream = residual_stream(model, IDS[:1])
    shortcut = Shortcut.of(stream, model, IDS[:1])
    computed: list[int] = []
    for layer, block in enumerate(stream.blocks, start=1):
        block.mlp.register_forward_hook(lambda *_, layer=layer: computed.append(layer))
    with shortcut.resumed(SITES[2], state_of(stream, model, SITES[2])):
        computed.clear()
        run(model, IDS)
    assert computed == [3]


@torch.inference_mode()
def test_what_comes_before_a_changed_token_does_not_change() -> None:
    model = ARCHITECTURES["llama"].build()
    stream = residual_stream(model, IDS[:1])
    before = run(model, IDS).logits

    def late(hidden: Tensor) -> Tensor:
        changed = hidden.clone()
        changed[:, 5:] = 3.0
        return changed

    with replaced(stream, SITES[1], late):
        after = run(model, IDS).logits
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:], atol=1e-2)


class _Loop(nn.Module):
    """One block for three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.block = nn.Embedding(VOCABULARY, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.embedding(input_ids)
        for _ in range(3):
            hidden = self.block(hidden)
        return hidden


@torch.inference_mode()
def test_layers_of_one_shared_block_are_told_apart() -> None:
    torch.manual_seed(0)
    model = _Loop()
    stream = ResidualStream((model.block,) * 3, model, WIDTH, normed=False)
    shortcut = Shortcut.of(stream, model, IDS)
    constant = torch.ones(2, 8, WIDTH)
    expected = {3: constant, 2: model.block(constant), 1: model.block(model.block(constant))}
    for layer, logits in expected.items():
        with replaced(stream, Site("block", layer), lambda hidden: constant):
            assert torch.equal(run(model, IDS), logits)
            assert torch.equal(run(model, IDS), logits)  # calls are counted from pass to pass
        with shortcut.resumed(Site("block", layer), constant):
            assert torch.equal(run(model, IDS), logits)
            assert torch.equal(run(model, IDS), logits)


def test_whatever_a_block_returns_comes_back_with_another_state() -> None:
    old, new = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert leaving_with(old, new) is new
    assert leaving_with((old, "rest"), new) == (new, "rest")
    assert leaving_with([old, "rest"], new) == [new, "rest"]
    pair = namedtuple("pair", ["state", "rest"])(old, "rest")
    assert leaving_with(pair, new) == type(pair)(new, "rest")
    assert leaving_with({"state": old, "rest": 1}, new) == {"state": new, "rest": 1}
    output = BaseModelOutputWithPast(last_hidden_state=old, hidden_states=(old,))
    changed = leaving_with(output, new)
    assert changed.last_hidden_state is new and changed[0] is new and changed.hidden_states[0] is old
    assert output.last_hidden_state is old


def test_a_forward_that_was_set_on_a_block_is_set_again() -> None:
    """As for weights that lie on the disk."""
    model = ARCHITECTURES["gpt_neox"].build()
    stream = residual_stream(model, IDS[:1])
    shortcut = Shortcut.of(stream, model, IDS[:1])
    block, own = stream.blocks[0], stream.blocks[0].forward
    block.forward = own
    with torch.inference_mode(), shortcut.resumed(SITES[1], torch.zeros(2, 8, WIDTH)):
        run(model, IDS)
    assert vars(block)["forward"] is own
    assert "forward" not in vars(stream.blocks[1])


def test_other_sites_are_refused() -> None:
    model = ARCHITECTURES["gpt_neox"].build()
    stream = residual_stream(model, IDS[:1])
    with pytest.raises(
        ValueError, match="`site` is .*final_norm.*it must be the embedding or one of 3 blocks"
    ):
        with replaced(stream, Site("final_norm", BLOCKS), shifted):
            pass
