"""The page that turns a nanoGPT checkpoint into a folder: its code against nanoGPT's own computation."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tiny_models import make_tokens
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, scaled_dot_product_attention

from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer

PAGE = Path(__file__).parents[2] / "docs" / "nanogpt.md"
SIZES = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 61, "dropout": 0.0}
TOKENS = make_tokens([12] * 2)
IDS = torch.as_tensor(TOKENS.ids.reshape(2, 12), dtype=torch.int64)


@pytest.fixture(scope="module")
def page() -> dict:
    names: dict = {}
    exec("\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)), names)
    return names


def parameters(bias: bool) -> dict[str, Tensor]:
    """Names and shapes as nanoGPT's model.py has them."""
    generator, d = torch.Generator().manual_seed(0), SIZES["n_embd"]
    shapes = {
        "transformer.wte.weight": (61, d),
        "transformer.wpe.weight": (32, d),
        "transformer.ln_f.weight": (d,),
    }
    for layer in range(2):
        block = f"transformer.h.{layer}."
        linear = {
            "attn.c_attn": (3 * d, d),
            "attn.c_proj": (d, d),
            "mlp.c_fc": (4 * d, d),
            "mlp.c_proj": (d, 4 * d),
        }
        shapes |= {f"{block}{name}.weight": shape for name, shape in linear.items()}
        shapes |= {f"{block}ln_{number}.weight": (d,) for number in (1, 2)}
    if bias:
        biased = [name for name in shapes if not name.startswith("transformer.w")]
        shapes |= {name.removesuffix("weight") + "bias": shapes[name][:1] for name in biased}
    found = {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}
    return found | {"lm_head.weight": found["transformer.wte.weight"]}


def logits_of(w: dict[str, Tensor], ids: Tensor) -> Tensor:
    """The forward pass of nanoGPT's model.py."""

    def linear(x: Tensor, name: str) -> Tensor:
        return nn.functional.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        return layer_norm(x, (16,), w[f"{name}.weight"], w.get(f"{name}.bias"), 1e-5)

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: ids.shape[1]]
    for layer in range(2):
        block = f"transformer.h.{layer}"
        parts = linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn").split(16, dim=2)
        q, k, v = (part.view(*ids.shape, 2, 8).transpose(1, 2) for part in parts)
        attended = scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + linear(attended, f"{block}.attn.c_proj")
        hidden = nn.functional.gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
        x = x + linear(hidden, f"{block}.mlp.c_proj")
    return linear(norm(x, "transformer.ln_f"), "lm_head")


@pytest.mark.parametrize("bias", [True, False])
def test_a_converted_checkpoint_has_nanogpts_loss(page: dict, bias: bool, tmp_path: Path) -> None:
    weights = parameters(bias)
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in weights.items()}
    saved = {"model": compiled, "model_args": {**SIZES, "bias": bias}, "iter_num": 500}
    torch.save(saved, tmp_path / "ckpt.pt")
    folder = page["convert"](tmp_path / "ckpt.pt", tmp_path / "run")
    assert folder == tmp_path / "run" / "checkpoint-500"
    found = extracted(folder, TOKENS, tmp_path)
    loss = cross_entropy(logits_of(weights, IDS)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten())
    assert np.nanmean(found.nll) == pytest.approx(float(loss), rel=1e-5)


def test_a_letter_is_a_token(page: dict, tmp_path: Path) -> None:
    text = "First Citizen:\nBefore we proceed any further\n"
    letters = {letter: place for place, letter in enumerate(sorted(set(text)))}
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"stoi": letters}))
    page["convert_letters"](tmp_path / "meta.pkl", tmp_path)
    read = TextTokenizer(load_tokenizer(tmp_path))
    ids = read.encode_long(text)
    assert ids.tolist() == [letters[letter] for letter in text]
    assert read.backend.decode(ids.tolist()) == text and read.unspelled(text) == 0
