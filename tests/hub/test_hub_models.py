"""The loopback hub's models load as real ones do, and its runs have what was planted in them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hub_models import (
    Layout,
    Run,
    bin_with_code,
    decoder,
    encoder,
    model_files,
    publish,
    publish_folders,
)
from hub_store import StoredFile
from huggingface_hub import snapshot_download
from loopback_hub import LoopbackHub
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

REPO = "someone/run"
LAYOUTS: tuple[Layout, ...] = ("safetensors", "sharded", "bin", "sharded_bin", "both")


def weights(hub: LoopbackHub, revision: str) -> dict[str, StoredFile]:
    """The files of weights of a revision."""
    files = hub.resolve(REPO, revision).files
    return {path: file for path, file in files.items() if file.pointer_size is not None}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decoder_loads(hub: LoopbackHub, tmp_path: Path, layout: Layout) -> None:
    hub.commit(REPO, model_files(decoder(), layout))
    folder = snapshot_download(REPO, local_dir=tmp_path / "model", endpoint=hub.endpoint)
    state = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in decoder().state_dict().items())
    tokenizer, text = AutoTokenizer.from_pretrained(folder), "The dog again, ∂x!\n"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert max(ids) < len(tokenizer) <= 300
    shards = len(weights(hub, "main"))
    assert shards == {"sharded": 3, "sharded_bin": 2, "both": 2}.get(layout, 1)


def test_encoder_loads(tmp_path: Path) -> None:
    for name, data in model_files(encoder()).items():
        (tmp_path / name).write_bytes(data)
    state = AutoModelForMaskedLM.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in encoder().state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("the dog")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert (tmp_path / "vocab.txt").read_text().split("\n")[ids[0]] == "[CLS]"


def test_run_as_those_of_pythia(hub: LoopbackHub) -> None:
    shas = publish(hub, REPO)
    assert hub.refs(REPO)["branches"] == shas
    assert len(set(shas.values())) == 13
    hashes = {name: weights(hub, name)["model.safetensors"].sha256 for name in shas}
    assert hashes["step0"] == hashes["step1"]
    assert hashes["main"] == hashes["step1000"]
    assert len(set(hashes.values())) == 11


@pytest.mark.parametrize("layout", LAYOUTS)
def test_planted_faults(hub: LoopbackHub, tmp_path: Path, layout: Layout) -> None:
    steps = (0, 1, 2, 4, 8, 16)
    run = Run(steps, layout, main=4, same_as={8: 2}, tags=[2], weightless=[16], missing_shard=[1])
    publish(hub, REPO, run)
    assert set(hub.refs(REPO)["branches"]) == {"step0", "step1", "step4", "step8", "step16", "main"}
    assert set(hub.refs(REPO)["tags"]) == {"step2"}
    found = {
        name: weights(hub, name) for name in ("step0", "step1", "step2", "step4", "step8", "step16", "main")
    }
    assert found["step8"] == found["step2"] != found["step0"]
    assert found["main"] == found["step4"] != found["step2"]
    assert (found["step16"], len(found["step1"])) == ({}, len(found["step0"]) - 1)
    assert "config.json" in hub.resolve(REPO, "step16").files
    publish(hub, REPO, Run(steps, main=-1))
    assert weights(hub, "main") not in [weights(hub, f"step{step}") for step in steps]


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_weights_runs_when_it_is_let(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.bin"
    marker = tmp_path / "marker"
    path.write_bytes(bin_with_code(decoder(), marker, zipped=zipped))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    assert not marker.exists()
    if zipped:
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


def test_run_in_folders(hub: LoopbackHub) -> None:
    publish_folders(hub, REPO, [0, 1, 2])
    found = {path: file.sha256 for path, file in weights(hub, "main").items()}
    assert set(found) == {"model.safetensors", *(f"step{step}/model.safetensors" for step in range(3))}
    assert found["model.safetensors"] == found["step2/model.safetensors"] != found["step1/model.safetensors"]
