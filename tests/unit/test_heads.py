"""A checkpoint without the whole of its head: activations as ever, and no random number for a loss."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, hidden_states, make_tokens
from transformers import BertModel

from lmshape.errors import InputError

TOKENS = make_tokens([12] * 6, specials=True)
IDS = torch.as_tensor(TOKENS.ids.reshape(6, 12), dtype=torch.int64)


def without(folder: Path, lost: Callable[[str], bool]) -> Path:
    """The checkpoint, less the tensors whose names are lost."""
    file = folder / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(file).items() if not lost(name)}
    save_file(kept, file, metadata={"format": "pt"})
    return folder


def saved(name: str, folder: Path) -> Path:
    ARCHITECTURES[name].build().save_pretrained(folder)
    return folder


def check_activations_alone(name: str, folder: Path, tmp_path: Path, **changes: object) -> dict:
    """Compare with the whole model; return the card, which must hold no loss."""
    architecture = ARCHITECTURES[name]
    found = extracted(folder, TOKENS, tmp_path, kind=architecture.kind, **changes)
    np.testing.assert_allclose(
        found.rows, hidden_states(architecture.build(), architecture, IDS), rtol=1e-6, atol=2e-6
    )
    assert np.isnan(found.nll).all()
    empty = {"tokens": 0, "nats": None, "bytes": 0.0}
    assert found.card["draws"] == [{"draw": draw, **empty} for draw in (0, 1)]
    assert "flag" not in found.attributes
    base = architecture.build().base_model
    assert found.attributes["parameters"] == sum(each.numel() for each in base.parameters())
    return found.card


@pytest.mark.parametrize(
    ("name", "prefix", "count", "first"),
    [
        ("bert", "cls.", 6, "cls.predictions.bias"),
        ("bert", "cls.predictions.transform.dense.bias", 1, "cls.predictions.transform.dense.bias"),
        ("modernbert", "head.", 2, "head.dense.weight"),
        ("gpt_neox", "embed_out", 1, "lm_head.weight"),
        ("llama", "lm_head", 1, "lm_head.weight"),
    ],
)
def test_what_is_left_of_a_head_predicts_nothing(
    name: str, prefix: str, count: int, first: str, tmp_path: Path
) -> None:
    folder = without(saved(name, tmp_path / "checkpoint"), lambda tensor: tensor.startswith(prefix))
    card = check_activations_alone(name, folder, tmp_path)
    flag = f"no language-model head: the checkpoint lacks {count} of its tensors, {first} first"
    assert card["attributes"]["flag"] == flag


def test_an_encoder_saved_as_its_base_model(tmp_path: Path) -> None:
    """As sentence encoders are published: without a prefix, with a pooler, and any mask token."""
    whole = ARCHITECTURES["bert"].build()
    base = BertModel(whole.config)
    base.load_state_dict(whole.bert.state_dict(), strict=False)
    base.save_pretrained(tmp_path / "checkpoint")
    card = check_activations_alone("bert", tmp_path / "checkpoint", tmp_path, mask_token_id=None)
    assert card["attributes"]["flag"].startswith("no language-model head")


def test_a_tied_head_is_no_absent_one(tmp_path: Path) -> None:
    found = extracted(saved("gpt2", tmp_path / "checkpoint"), TOKENS, tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert np.isfinite(found.nll[TOKENS.position > 0]).all()
    assert "flag" not in found.card["attributes"]


@pytest.mark.parametrize(("name", "tensor"), [("bert", "layer.1."), ("llama", "model.embed_tokens")])
def test_a_base_model_that_is_not_whole_is_refused(name: str, tensor: str, tmp_path: Path) -> None:
    folder = without(saved(name, tmp_path / "checkpoint"), lambda found: tensor in found)
    with pytest.raises(InputError, match="do not fill its network: .* config.json belongs to other weights"):
        extracted(folder, TOKENS, tmp_path, kind=ARCHITECTURES[name].kind)


def test_an_encoder_without_its_head_is_no_decoder(tmp_path: Path) -> None:
    BertModel(ARCHITECTURES["bert"].build().config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="holds BertModel, and its `kind` is decoder: correct it"):
        extracted(tmp_path / "checkpoint", TOKENS, tmp_path)


def test_a_decoder_without_its_head_is_no_encoder(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].build().base_model.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="holds llama, for which transformers has no encoder. Check `kind`"):
        extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="encoder")


def test_memory_that_does_not_suffice_for_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: torch.nn.Module, device: torch.device) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    folder = saved("llama", tmp_path / "checkpoint")
    monkeypatch.setattr("transformers.PreTrainedModel.to", full)
    with pytest.raises(InputError, match="does not fit into memory .CUDA out of memory.* `device_map: auto`"):
        extracted(folder, TOKENS, tmp_path)
    shutil.rmtree(folder)
    assert list(tmp_path.iterdir()) == []
