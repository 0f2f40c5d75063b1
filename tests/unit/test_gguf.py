"""A folder with one GGUF file: its facts, its tokenizer and its activations, without a config.json."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from extraction import extracted
from tiny_gguf import TOKENS as TEXTS
from tiny_gguf import llama, write_gguf
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, WINDOW, hidden_states, make_tokens

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.store.weights import gguf_config, weights_sha256
from lmshape.study.models import find_tokenizer, local_checkpoints, read_facts, require_weights
from lmshape.texts.tokenizer import load_tokenizer, tokenizer_files
from lmshape.texts.tokens import Sampling, sample_tokens

TOKENS = make_tokens([12] * 6)
FACTS = {
    "kind": "decoder",
    "architecture": "llama",
    "blocks": BLOCKS,
    "width": WIDTH,
    "context": WINDOW,
    "vocabulary": VOCABULARY,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(folder / "tiny.gguf")
    return folder


def test_activations_and_loss_are_the_models_own(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    expected = {fact: FACTS[fact] for fact in ("blocks", "width", "vocabulary")}
    found = extracted(folder, TOKENS, tmp_path, **expected)
    ids = torch.as_tensor(TOKENS.ids.reshape(6, 12), dtype=torch.int64)
    states = hidden_states(llama(), ARCHITECTURES["llama"], ids)
    np.testing.assert_allclose(found.rows, states, rtol=1e-6, atol=2e-6)
    with torch.no_grad():
        loss = llama()(ids, labels=ids).loss.item()
    assert found.nll[TOKENS.position > 0].mean(dtype=np.float64) == pytest.approx(loss, rel=1e-6)
    assert found.attributes["weights_sha256"] == weights_sha256(folder)
    assert found.attributes["dtype"] == "float32"
    assert capfd.readouterr() == ("", "")  # no bar of the reader's in a log file


def test_the_folder_is_a_model_of_the_registry(folder: Path) -> None:
    root, name = folder.parent, Path(folder.name)
    checkpoints = local_checkpoints("m", name, root=root, tokens_per_step=100)
    assert checkpoints[0].tokens_seen != checkpoints[0].tokens_seen  # NaN: it equals nothing
    assert [(one.name, one.step, one.folder) for one in checkpoints] == [("final", -1, name)]
    require_weights("m", checkpoints, root=root)
    assert read_facts("m", checkpoints, {"kind": "decoder"}, root=root) == FACTS
    assert find_tokenizer("m", [name], root=root) == name
    assert tokenizer_files(folder) == [folder / "tiny.gguf"]


def test_its_metadata_goes_before_a_config_beside_it(folder: Path, tmp_path: Path) -> None:
    """As in loading: the weights are those of the metadata."""
    (tmp_path / "tiny.gguf").symlink_to(folder / "tiny.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 77}')
    checkpoint = Checkpoint("final", -1, Path("."))
    assert read_facts("m", [checkpoint], {"kind": "decoder"}, root=tmp_path) == FACTS
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match="width, vocabulary cannot be known"):
        read_facts("m", [checkpoint], {"kind": "decoder"}, root=tmp_path)


def test_the_tokenizer_is_read_from_the_file(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    text = "".join(TEXTS[3:]) * 30
    tokens = sample_tokens(
        tokenizer,
        text,
        Sampling(protocol="windows", window=16, draws=2, rows_per_draw=32, seed=0),
        order="text",
    )
    assert "".join(tokens.texts[index] for index in tokens.ids[:16]) in text
    assert tokens.attributes["mask_token_id"] == -1


def test_own_files_of_a_tokenizer_go_before_it(folder: Path, tmp_path: Path) -> None:
    load_tokenizer(folder).save_pretrained(tmp_path)
    (tmp_path / "tiny.gguf").symlink_to(folder / "tiny.gguf")
    assert [path.name for path in tokenizer_files(tmp_path)] == ["tokenizer.json", "tokenizer_config.json"]
    assert load_tokenizer(tmp_path).get_vocab() == load_tokenizer(folder).get_vocab()


@pytest.mark.parametrize("keep", [2, 30, 400])
def test_a_file_that_ends_within_its_metadata(folder: Path, tmp_path: Path, keep: int) -> None:
    damaged = tmp_path / "tiny.gguf"
    damaged.write_bytes((folder / "tiny.gguf").read_bytes()[:keep])
    with pytest.raises(InputError, match="tiny.gguf` cannot be read as GGUF .*; it is truncated or no GGUF"):
        gguf_config(damaged)
    with pytest.raises(InputError, match="tiny.gguf` cannot be read as GGUF"):
        extracted(tmp_path, TOKENS, tmp_path)


def test_an_architecture_that_transformers_cannot_load(folder: Path, tmp_path: Path) -> None:
    content = (folder / "tiny.gguf").read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(content.replace(b"llama", b"alpac"))
    with pytest.raises(
        InputError, match="tiny.gguf` cannot be used: GGUF model with architecture alpac is not"
    ):
        extracted(tmp_path, TOKENS, tmp_path)


def test_a_file_that_ends_within_its_tensors(folder: Path, tmp_path: Path) -> None:
    whole = (folder / "tiny.gguf").read_bytes()
    (tmp_path / "tiny.gguf").write_bytes(whole[: len(whole) // 2])
    message = (
        rf"tiny.gguf` has {len(whole) // 2} bytes of {len(whole)}: it was not saved whole; save or fetch"
    )
    with pytest.raises(InputError, match=message):
        extracted(tmp_path, TOKENS, tmp_path)
    with pytest.raises(InputError, match="`m`: 1 of its 1 checkpoints cannot be loaded: final. .* not saved"):
        require_weights("m", [Checkpoint("final", -1, Path("."))], root=tmp_path)


def test_a_decoder_is_no_encoder(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds llama, for which transformers has no encoder. Check `kind`"):
        extracted(folder, TOKENS, tmp_path, kind="encoder")
