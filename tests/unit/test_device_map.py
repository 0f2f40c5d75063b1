"""A network in several places gives what it gives in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tiny_models import ARCHITECTURES, CELL, MASK_TOKEN, make_tokens

from lmshape.models import opened
from lmshape.models.extract import extract
from lmshape.models.network import load_model
from lmshape.models.opened import Opening

TOKENS = make_tokens([12] * 6, specials=True)

# the embedding or the last layers on the disk; a layer is where its prefix says
PLACES = {
    "llama": {
        "model.embed_tokens": "cpu",
        "model.rotary_emb": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.layers.2": "disk",
        "model.norm": "cpu",
        "lm_head": "disk",
    },
    "gpt_neox": {
        "gpt_neox.embed_in": "disk",
        "gpt_neox.emb_dropout": "cpu",
        "gpt_neox.rotary_emb": "cpu",
        "gpt_neox.layers": "disk",
        "gpt_neox.final_layer_norm": "cpu",
        "lm_head": "cpu",
    },
    "bert": {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "cpu"},
    "albert": {"albert.embeddings": "cpu", "albert.encoder": "disk", "predictions": "cpu"},
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("format", ["safetensors", "bin"])
def test_weights_on_the_disk(name: str, format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ARCHITECTURES[name].build()
    kind = {"kind": ARCHITECTURES[name].kind}
    model.save_pretrained(tmp_path / "checkpoint")
    whole = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, **kind)
    if format == "bin":
        (tmp_path / "checkpoint" / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "checkpoint" / "pytorch_model.bin")
    loaded = []

    def dispatched(folder: Path, *, device_map: str, **options: object) -> object:
        assert device_map == "auto"
        loaded.append(load_model(folder, device_map=PLACES[name], **options))
        return loaded[0]

    monkeypatch.setattr(opened, "load_model", dispatched)
    spread = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, device="auto", device_map="auto", **kind)
    network = loaded[0]
    assert {"cpu", "disk"} <= set(network.model.hf_device_map.values())
    assert any(each.device.type == "meta" for each in network.model.parameters())
    assert network.device.type == "cpu"
    np.testing.assert_allclose(spread.rows, whole.rows, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(spread.nll, whole.nll, rtol=1e-6, atol=1e-6)
    same = {key: value for key, value in whole.attributes.items() if key != "weights_sha256"}
    assert same.items() <= spread.attributes.items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.json", "checkpoint"]


@pytest.mark.parametrize("gpus", [None, 0])
def test_auto_without_a_gpu_is_one_place(gpus: int | None, tmp_path: Path) -> None:
    ARCHITECTURES["llama"].build().save_pretrained(tmp_path / "checkpoint")
    whole = extracted(tmp_path / "checkpoint", TOKENS, tmp_path)
    on_all = {"device": "auto", "device_map": "auto", "gpus": gpus}
    spread = extracted(tmp_path / "checkpoint", TOKENS, tmp_path, **on_all)
    np.testing.assert_array_equal(spread.rows, whole.rows)
    assert spread.attributes == whole.attributes


def test_the_folder_for_weights_is_gone_after_an_error(tmp_path: Path) -> None:
    ARCHITECTURES["llama"].build().save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(ValueError, match="`attributes` lacks"):
        extract(
            tmp_path / "checkpoint",
            TOKENS,
            opening=Opening(kind="decoder", device_map="auto", threads=1),
            output=tmp_path / "new" / "a.h5",
            loss_output=tmp_path / "a.json",
            attributes={"model": CELL["model"]},
            seed=0,
            mask_token_id=MASK_TOKEN,
        )
    assert list((tmp_path / "new").iterdir()) == []
