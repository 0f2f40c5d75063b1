"""Extraction from real architectures with random weights: what is stored, what is refused."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from extraction import extracted
from safetensors.torch import load_file, save_file
from tiny_models import (
    ARCHITECTURES,
    BLOCKS,
    CELL,
    MASK_TOKEN,
    VOCABULARY,
    WINDOW,
    hidden_states,
    make_tokens,
)

import lmshape
from lmshape.errors import InputError
from lmshape.models.extract import ROOT_ATTRIBUTES, Reader, batches, mask
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.weights import weights_sha256

TOKENS = make_tokens([12] * 6, specials=True)
RAGGED = make_tokens([7, 12, 1, 12, 7, 3])

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Folder of an architecture's checkpoint, made once."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            ARCHITECTURES[name].build().save_pretrained(root / name)
        return root / name

    return folder


@pytest.fixture
def checkpoint(saved: Saved, tmp_path: Path) -> Path:
    """A GPT-NeoX checkpoint that a test may break."""
    return Path(shutil.copytree(saved("gpt_neox"), tmp_path / "checkpoint"))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_and_loss_are_the_models_own(name: str, saved: Saved, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[name]
    sites, rows, nll, attributes, card = extracted(
        saved(name), TOKENS, tmp_path, kind=architecture.kind, batch_tokens=30
    )
    model = architecture.build()
    ids = torch.as_tensor(TOKENS.ids.reshape(6, 12), dtype=torch.int64)
    expected = np.stack(hidden_states(model, architecture, ids))
    assert len(sites) == 1 + BLOCKS + (architecture.norm is not None)
    np.testing.assert_allclose(rows, expected, rtol=1e-6, atol=2e-6)
    chosen, loss = reference_loss(architecture.kind, model, ids)
    assert nll[chosen].mean(dtype=np.float64) == pytest.approx(loss, rel=1e-6)
    counted = chosen & ~TOKENS.special
    assert sum(draw["tokens"] for draw in card["draws"]) == counted.sum()
    assert sum(draw["nats"] for draw in card["draws"]) == pytest.approx(nll[counted].sum(dtype=np.float64))
    assert np.isnan(nll[~chosen]).all()


def reference_loss(
    kind: str, model: transformers.PreTrainedModel, ids: torch.Tensor
) -> tuple[np.ndarray, float]:
    """Tokens that have a loss, and transformers' mean of it."""
    if kind == "decoder":
        with torch.no_grad():
            return TOKENS.position > 0, model(ids, labels=ids).loss.item()
    masked = torch.as_tensor(mask(TOKENS, seed=5)).reshape(ids.shape)
    labels = torch.where(masked, ids, -100)
    with torch.no_grad():
        return masked.numpy().ravel(), model(ids.masked_fill(masked, MASK_TOKEN), labels=labels).loss.item()


@pytest.mark.parametrize("name", ["gpt_neox", "opt", "bert", "roberta"])
def test_batches_of_any_size_and_shape_give_the_same(name: str, saved: Saved, tmp_path: Path) -> None:
    kind = ARCHITECTURES[name].kind
    _, together, losses, *_ = extracted(saved(name), RAGGED, tmp_path, kind=kind)
    for batch_tokens in (1, 15):
        _, rows, nll, *_ = extracted(saved(name), RAGGED, tmp_path, kind=kind, batch_tokens=batch_tokens)
        np.testing.assert_allclose(rows, together, rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(nll, losses, rtol=1e-5, atol=2e-6)


def test_ragged_sequences_are_read_as_one_at_a_time(saved: Saved, tmp_path: Path) -> None:
    _, rows, nll, *_ = extracted(saved("gpt_neox"), RAGGED, tmp_path)
    architecture = ARCHITECTURES["gpt_neox"]
    model = architecture.build()
    for sequence in range(6):
        inside = RAGGED.sequence == sequence
        ids = torch.as_tensor(RAGGED.ids[None, inside], dtype=torch.int64)
        np.testing.assert_allclose(rows[:, inside], hidden_states(model, architecture, ids), atol=2e-6)
    np.testing.assert_array_equal(np.isnan(nll), RAGGED.position == 0)


def test_batches_hold_every_row_once_and_sequences_of_one_length() -> None:
    found = list(batches(RAGGED, batch_tokens=14))
    assert [rows.shape for rows in found] == [(1, 12), (1, 12), (2, 7), (1, 3), (1, 1)]
    assert sorted(np.concatenate([rows.ravel() for rows in found])) == list(range(42))
    for rows in found:
        assert (RAGGED.position[rows] == np.arange(rows.shape[1])).all()
    assert [len(rows) for rows in batches(TOKENS, batch_tokens=36)] == [3, 3]


@pytest.mark.parametrize("name", [name for name, each in ARCHITECTURES.items() if each.kind == "decoder"])
def test_a_decoder_does_not_see_what_comes_later(name: str, saved: Saved, tmp_path: Path) -> None:
    changed = replace(TOKENS, ids=np.where(TOKENS.position == 8, 7, TOKENS.ids))
    _, before, *_ = extracted(saved(name), TOKENS, tmp_path)
    _, after, *_ = extracted(saved(name), changed, tmp_path)
    earlier = TOKENS.position < 8
    np.testing.assert_allclose(after[:, earlier], before[:, earlier], atol=2e-6)
    assert np.abs(after[1:, ~earlier] - before[1:, ~earlier]).max() > 1e-3


def test_an_encoder_reads_the_text_unmasked_and_sees_both_ways(saved: Saved, tmp_path: Path) -> None:
    changed = replace(TOKENS, ids=np.where(TOKENS.position == 8, 7, TOKENS.ids))
    _, before, *_ = extracted(saved("bert"), TOKENS, tmp_path, kind="encoder")
    _, same, *_ = extracted(saved("bert"), TOKENS, tmp_path, kind="encoder", seed=6)
    _, after, *_ = extracted(saved("bert"), changed, tmp_path, kind="encoder")
    np.testing.assert_array_equal(same, before)  # the seed is the mask's
    assert np.abs(after[1:] - before[1:])[:, TOKENS.position < 8].max() > 1e-3


def test_the_mask_is_the_same_for_every_checkpoint(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        ARCHITECTURES["bert"].build(seed).save_pretrained(tmp_path / "checkpoint")
        found.append(extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="encoder")[2])
    np.testing.assert_array_equal(np.isnan(found[0]), np.isnan(found[1]))
    assert (found[0] != found[1])[~np.isnan(found[0])].all()


def test_files_describe_themselves(saved: Saved, tmp_path: Path) -> None:
    sites, _, _, attributes, card = extracted(saved("gpt_neox"), TOKENS, tmp_path)
    assert attributes.keys() == ROOT_ATTRIBUTES
    assert card["attributes"] == attributes
    assert attributes == {
        **CELL,
        **TOKENS.attributes,
        "architecture": "gpt_neox",
        "kind": "decoder",
        "parameters": sum(each.numel() for each in ARCHITECTURES["gpt_neox"].build().parameters()),
        "blocks": BLOCKS,
        "seed": 5,
        "dtype": "float32",
        "weights_sha256": weights_sha256(saved("gpt_neox")),
        "lmshape_version": lmshape.__version__,
        "torch_version": torch.__version__,
        "transformers_version": transformers.__version__,
    }
    assert sites[-1] == Site("final_norm", BLOCKS)


def test_what_is_known_is_not_computed_again(saved: Saved, tmp_path: Path) -> None:
    known = {"weights_sha256": "from the hub", "parameters": 7, "architecture": "pythia"}
    *_, attributes, _ = extracted(saved("gpt_neox"), TOKENS, tmp_path, attributes={**CELL, **known})
    assert known.items() <= attributes.items()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rows_are_float32_whatever_the_network_computes_in(saved: Saved, tmp_path: Path, dtype: str) -> None:
    architecture = ARCHITECTURES["llama"]
    ids = torch.as_tensor(TOKENS.ids.reshape(6, 12), dtype=torch.int64)
    *_, exact = hidden_states(architecture.build(), architecture, ids)
    _, rows, nll, attributes, _ = extracted(saved("llama"), TOKENS, tmp_path, dtype=dtype)
    assert attributes["dtype"] == dtype
    assert rows.dtype == np.float32
    narrow = torch.as_tensor(rows).to(getattr(torch, dtype)).float().numpy()
    np.testing.assert_array_equal(narrow, rows)  # nothing was rounded after the network
    assert 0 < np.abs(rows[-1] - exact).max() < 0.2
    assert np.isfinite(nll[TOKENS.position > 0]).all()


def test_a_diverged_checkpoint_is_stored_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"].fill_(torch.nan)
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    sites, rows, nll, _, card = extracted(checkpoint, TOKENS, tmp_path)
    assert np.isfinite(rows[:2]).all()
    assert np.isnan(rows[2:]).all()
    assert sites[-1].name == "final_norm"
    assert np.isnan(nll).all()
    assert [draw["nats"] for draw in card["draws"]] == [None, None]


def test_weights_as_bin_and_as_shards(checkpoint: Path, saved: Saved, tmp_path: Path) -> None:
    _, expected, *_ = extracted(saved("gpt_neox"), TOKENS, tmp_path)
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    np.testing.assert_array_equal(extracted(checkpoint, TOKENS, tmp_path)[1], expected)
    (checkpoint / "pytorch_model.bin").unlink()
    ARCHITECTURES["gpt_neox"].build().save_pretrained(checkpoint, max_shard_size="20KB")
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    np.testing.assert_array_equal(extracted(checkpoint, TOKENS, tmp_path)[1], expected)


def test_progress_is_quiet_when_asked(saved: Saved, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    extracted(saved("gpt_neox"), TOKENS, tmp_path)
    assert capfd.readouterr() == ("", "")
    extracted(saved("gpt_neox"), TOKENS, tmp_path, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    # in a log file: lines, with tokens done, tokens a second, and the time left
    assert re.search(
        r"^tiny step3 wiki: 72/72 tokens \(100 %\), [\d.]+k? tokens/s, 00:00 left$", err, re.MULTILINE
    )
    assert "\r" not in err and "\x1b" not in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": 12}, "`blocks` of .* is 3, but the registry says 12; correct one of them"),
        ({"width": 768}, "`width` of .* is 24, but the registry says 768"),
        ({"kind": "encoder"}, "holds GPTNeoXForCausalLM, and its `kind` is encoder: correct it"),
        ({"dtype": "float23"}, "unknown dtype `float23`. Nearest: float32"),
        ({"device": "gpu"}, "unknown device `gpu`"),
        ({"vocabulary": 50304}, "`vocabulary` of .* is 61, but the registry says 50304"),
        ({"batch_tokens": 0}, "`batch_tokens` is 0; it must be `auto` or at least 1"),
        ({"device_map": "auto"}, "`device` is `cpu`, and `device_map: auto` spreads the network over all"),
    ],
)
def test_options_that_do_not_fit(saved: Saved, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        extracted(saved("gpt_neox"), TOKENS, tmp_path, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there(saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", bool)
    with pytest.raises(InputError, match="`device` is `cuda:0`, but PyTorch sees no GPU here; use `auto`"):
        extracted(saved("gpt_neox"), TOKENS, tmp_path, device="cuda:0")


@pytest.mark.parametrize(
    ("name", "limit"), [("gpt_neox", WINDOW), ("gpt2", WINDOW), ("opt", WINDOW), ("roberta", WINDOW)]
)
def test_windows_longer_than_the_context(name: str, limit: int, saved: Saved, tmp_path: Path) -> None:
    kind = ARCHITECTURES[name].kind
    extracted(saved(name), make_tokens([5, limit]), tmp_path, kind=kind)
    with pytest.raises(InputError, match=f"has {limit + 1} tokens, .* reads at most {limit}; shorten the"):
        extracted(saved(name), make_tokens([5, limit + 1]), tmp_path, kind=kind)


def test_a_network_without_a_context_limit_reads_on(saved: Saved, tmp_path: Path) -> None:
    extracted(saved("bloom"), make_tokens([300, 300]), tmp_path)


def test_tokens_that_do_not_fit(saved: Saved, tmp_path: Path) -> None:
    foreign = replace(TOKENS, ids=np.where(TOKENS.position == 3, VOCABULARY, TOKENS.ids))
    with pytest.raises(InputError, match="token id 61 is outside the network's vocabulary of 61; token"):
        extracted(saved("gpt_neox"), foreign, tmp_path)
    with pytest.raises(InputError, match="`tokens` is empty; a dataset needs at least one sequence"):
        extracted(saved("gpt_neox"), replace(TOKENS, ids=TOKENS.ids[:0]), tmp_path)
    for token in (None, VOCABULARY):
        with pytest.raises(InputError, match=f"`mask_token_id` is {token}; .* an id below 61"):
            extracted(saved("bert"), TOKENS, tmp_path, kind="encoder", mask_token_id=token)


def test_attributes_that_are_missing(saved: Saved, tmp_path: Path) -> None:
    known = {key: value for key, value in CELL.items() if key not in ("commit", "step")}
    with pytest.raises(ValueError, match="`attributes` lacks commit, step; the files would not describe"):
        extracted(saved("gpt_neox"), TOKENS, tmp_path, attributes=known)


@pytest.mark.parametrize("keep", [0.7, 0.001])
def test_a_truncated_weight_file_is_named(checkpoint: Path, tmp_path: Path, keep: float) -> None:
    file = checkpoint / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(
        InputError, match="checkpoint`: model.safetensors cannot be loaded .*truncated or corrupt"
    ):
        extracted(checkpoint, TOKENS, tmp_path)


@pytest.mark.parametrize("keep", [0.7, 0.001])
def test_a_truncated_bin_file_is_named(checkpoint: Path, tmp_path: Path, keep: float) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    whole = (checkpoint / "pytorch_model.bin").read_bytes()
    (checkpoint / "pytorch_model.bin").write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(
        InputError, match="pytorch_model.bin cannot be loaded .*truncated or corrupt. Fetch it again"
    ):
        extracted(checkpoint, TOKENS, tmp_path)


def test_the_broken_one_of_several_shards_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    ARCHITECTURES["gpt_neox"].build().save_pretrained(checkpoint, max_shard_size="20KB")
    second = sorted(checkpoint.glob("model-*.safetensors"))[1]
    second.write_bytes(second.read_bytes()[:-8])
    with pytest.raises(InputError, match=f"`: {second.name} cannot be loaded"):
        extracted(checkpoint, TOKENS, tmp_path)


@dataclass(frozen=True)
class Command:
    """A pickle that would call something."""

    function: object
    argument: object

    def __reduce__(self) -> tuple:
        return self.function, (self.argument,)


@pytest.mark.parametrize(
    ("function", "named"), [(Path.touch, r"\S+"), (os.system, r"\S+\.system"), (print, "print")]
)
def test_code_in_a_bin_file_is_not_run(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: object, named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    argument = "touch executed" if function is os.system else Path("executed")
    torch.save({"weights": Command(function, argument)}, checkpoint / "pytorch_model.bin")
    message = (
        rf"pytorch_model.bin holds code that would run on loading \(it calls {named}\) and is not loaded"
    )
    with pytest.raises(InputError, match=message):
        extracted(checkpoint, TOKENS, tmp_path)
    assert not Path("executed").exists()


def test_weights_that_do_not_fill_the_network(checkpoint: Path, tmp_path: Path) -> None:
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    lost = {key: value for key, value in weights.items() if ".layers.2." not in key}
    save_file(lost, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"12 tensors are missing, 0 .*first: gpt_neox.layers.2.attention"):
        extracted(checkpoint, TOKENS, tmp_path)
    shape = {**weights, "gpt_neox.final_layer_norm.bias": torch.zeros(5)}
    save_file(shape, file, metadata={"format": "pt"})
    with pytest.raises(
        InputError, match="0 tensors are missing, 1 have another shape .*final_layer_norm.bias"
    ):
        extracted(checkpoint, TOKENS, tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "config.json` cannot be used"),
        ("{", "config.json` cannot be used: .* is not a valid JSON file"),
        ('{"model_type": "nonsense"}', "config.json` cannot be used: .* model type `nonsense`"),
        ('{"model_type": "odd", "auto_map": {"AutoConfig": "odd.Config"}}', "config.json` cannot be used"),
    ],
)
def test_configs_that_cannot_be_used(
    checkpoint: Path, tmp_path: Path, config: str | None, message: str
) -> None:
    (checkpoint / "odd.py").write_text("raise SystemExit('foreign code ran')")
    (checkpoint / "config.json").unlink()
    if config is not None:
        (checkpoint / "config.json").write_text(config)
    with pytest.raises(InputError, match=message):
        extracted(checkpoint, TOKENS, tmp_path)


def test_a_write_that_fails_ends_the_extraction(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, site: Site, start: int, rows: np.ndarray) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("lmshape.store.activations.ActivationWriter.write", full)
    with pytest.raises(OSError, match="No space left"):
        extracted(saved("gpt_neox"), TOKENS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_order_of_threads_changes_no_byte(
    saved: Saved, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents, many = [], make_tokens([12] * 60)  # HDF5 allots less than 2 kB in advance
    for slow in ("write", "write_nll"):  # by then the other thread has come as far as it can
        original = getattr(ActivationWriter, slow)

        def late(*arguments: object, original: Callable[..., None] = original) -> None:
            time.sleep(0.2)
            original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(ActivationWriter, slow, late)
            extracted(saved("gpt_neox"), many, tmp_path / slow)
        contents.append((tmp_path / slow / "a.h5").read_bytes())
    assert contents[0] == contents[1]


def test_weights_that_are_written_anew_meanwhile_are_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trainer that saves into the folder that is read: half of the activations may be of another step."""

    def overwritten(self: Reader, *given: object) -> torch.Tensor:
        weights = checkpoint / "model.safetensors"
        shutil.copyfile(weights, tmp_path / "new")
        (tmp_path / "new").replace(weights)
        return read(self, *given)

    read = Reader.read
    monkeypatch.setattr(Reader, "read", overwritten)
    with pytest.raises(InputError, match="rewritten while they were read"):
        extracted(checkpoint, TOKENS, tmp_path)
    assert not (tmp_path / "a.h5").exists()
    assert not (tmp_path / "a.json").exists()
