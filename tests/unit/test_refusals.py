"""Folders that people hand in: what can be read is read right, all else is refused with a remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from extraction import Extracted, extracted
from safetensors.torch import load_file, save_file
from tiny_models import ARCHITECTURES, WINDOW, make_tokens
from transformers import PreTrainedModel

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.store.weights import config_facts
from lmshape.study.models import find_tokenizer, read_facts, require_weights
from lmshape.texts.tokenizer import load_tokenizer

TOKENS = make_tokens([12] * 2)
IDS = torch.as_tensor(TOKENS.ids.reshape(2, 12), dtype=torch.int64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A llama that a test may change."""
    ARCHITECTURES["llama"].build().save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def configure(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def refused_before_the_first_job(folder: Path) -> str:
    checkpoint = Checkpoint("final", -1, Path(folder.name))
    with pytest.raises(InputError) as error:
        require_weights("m", [checkpoint], root=folder.parent)
        read_facts("m", [checkpoint], {"kind": "decoder"}, root=folder.parent)
    return str(error.value)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "_orig_mod.module.", "model."])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_prefix_of_a_wrapper_is_left_out_and_told(
    name: str, wrapper: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ARCHITECTURES[name].build().save_pretrained(tmp_path / "checkpoint")
    expected = extracted(tmp_path / "checkpoint", TOKENS, tmp_path)
    rewrite(
        tmp_path / "checkpoint", lambda tensors: {f"{wrapper}{key}": value for key, value in tensors.items()}
    )
    found = extracted(tmp_path / "checkpoint", TOKENS, tmp_path)
    np.testing.assert_array_equal(found.rows, expected.rows)
    np.testing.assert_array_equal(found.nll, expected.nll)
    said = capsys.readouterr().err
    if (name, wrapper) == ("llama", "model."):  # transformers leaves that out by itself
        assert not said
        return
    assert f"the names of its tensors begin with `{wrapper}`, which is left out" in said


def test_a_model_saved_without_its_head_has_no_wrapper(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(folder, lambda tensors: {key: value for key, value in tensors.items() if "lm_head" not in key})
    assert extracted(folder, TOKENS, tmp_path).card["attributes"]["flag"].startswith("no language-model head")
    assert capsys.readouterr().err == ""


def test_placeholders_of_zero_3_are_told(folder: Path) -> None:
    rewrite(folder, lambda tensors: {key: torch.empty(0) for key in tensors})
    assert "as DeepSpeed's ZeRO-3 saves them" in (said := refused_before_the_first_job(folder))
    assert "Run `zero_to_fp32.py` there" in said
    with pytest.raises(InputError, match="Run `zero_to_fp32.py` there"):
        extracted(folder, TOKENS, folder.parent)


def test_whole_numbers_in_the_place_of_weights_are_told(folder: Path, tmp_path: Path) -> None:
    """transformers would read them as they are, with another loss and no word."""
    rewrite(
        folder,
        lambda tensors: {
            key: (20 * value).to(torch.int8) if "mlp" in key else value for key, value in tensors.items()
        },
    )
    said = (
        "holds 9 tensors of whole numbers in the place of weights, model.layers.0.mlp.down_proj.weight first"
    )
    assert said in refused_before_the_first_job(folder)
    with pytest.raises(InputError, match=said):
        extracted(folder, TOKENS, tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=said):
        extracted(folder, TOKENS, tmp_path)


@pytest.mark.parametrize("name", ["model", "state_dict"])
def test_tensors_within_something_else_are_told(name: str, folder: Path, tmp_path: Path) -> None:
    torch.save({name: load_file(folder / "model.safetensors"), "step": 3}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=rf"holds {name}, step, and no tensors: .* `state_dict\(\)` alone"):
        extracted(folder, TOKENS, tmp_path)


def test_a_configuration_that_transformers_refuses_says_why(folder: Path, tmp_path: Path) -> None:
    configure(folder, num_attention_heads=5)
    with pytest.raises(
        InputError, match=r"config.json` cannot be used: The hidden size \(24\) is not a multiple"
    ):
        extracted(folder, TOKENS, tmp_path)


@pytest.mark.parametrize("names", [{"mlp": torch.float8_e4m3fn, "": torch.bfloat16}, {"": torch.float16}])
def test_number_types_of_files_may_be_mixed(
    names: dict[str, torch.dtype], folder: Path, tmp_path: Path
) -> None:
    model = ARCHITECTURES["llama"].build()

    def rounded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kinds = {key: next(kind for part, kind in names.items() if part in key) for key in tensors}
        return {key: value.to(kinds[key]) for key, value in tensors.items()}

    rewrite(folder, rounded)
    configure(folder, torch_dtype="float16", dtype="bfloat16")
    tensors = load_file(folder / "model.safetensors")
    model.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False)
    check_against(model, folder, tmp_path)


def test_an_adapter_alone_is_to_be_merged(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    assert "has an adapter and no weights: merge it" in refused_before_the_first_job(folder)


@pytest.mark.parametrize("name", ["zero_to_fp32.py", "pytorch_model_fsdp_0", "ckpt.pt"])
def test_parts_of_other_forms_name_what_makes_weights_of_them(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    remedies = {
        "zero": "run `zero_to_fp32.py`",
        "pytorch": "`accelerate merge-weights`",
        "ckpt": "nanogpt.md",
    }
    said = refused_before_the_first_job(folder)
    assert "and no weights: " in said and remedies[name.partition("_")[0].partition(".")[0]] in said


@pytest.mark.parametrize(
    ("told", "method"),
    [
        *(
            ({"quant_method": name}, name)
            for name in ("gptq", "awq", "compressed-tensors", "torchao", "novel")
        ),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"bits": 4}, "a method that it does not name"),
    ],
)
def test_quantizations_that_are_not_undone(told: dict, method: str, folder: Path, tmp_path: Path) -> None:
    configure(folder, quantization_config=told)
    assert f"its weights are quantized by {method}, which is not supported" in refused_before_the_first_job(
        folder
    )
    with pytest.raises(InputError, match=f"quantized by {method}"):
        extracted(folder, TOKENS, tmp_path)


FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
SMALL = {
    "vocab_size": 61,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def in_fp8(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """As DeepSeek-V3: one scale for the whole, which is smaller than a block."""
    scale = weight.abs().max() / 448
    rounded = (weight / scale).to(torch.float8_e4m3fn)
    return {name: rounded, f"{name}_scale_inv": scale.view(1, 1)}, rounded.float() * scale


def in_mxfp4(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """As gpt-oss: 32 entries share a power of two, two have a byte."""
    blocks = weight.transpose(1, 2).unflatten(2, (-1, 32))
    power = torch.ceil(torch.log2(blocks.abs().amax(-1) / 6))
    places = (blocks / 2 ** power[..., None]).unsqueeze(-1).sub(FP4).abs().argmin(-1)
    packed = (places[..., 0::2] | places[..., 1::2] << 4).to(torch.uint8)
    exact = (FP4[places] * 2 ** power[..., None]).flatten(2).transpose(1, 2).contiguous()
    return {f"{name}_blocks": packed, f"{name}_scales": (power + 127).to(torch.uint8)}, exact


@pytest.mark.parametrize("method", ["fp8", "mxfp4"])
def test_quantizations_that_are_undone(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if method == "fp8":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)).eval()
        quantize, told, part = in_fp8, {"weight_block_size": [128, 128]}, "proj.weight"
    else:
        config = transformers.GptOssConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1)
        model = transformers.GptOssForCausalLM(config).eval()
        quantize, told, part = (
            in_mxfp4,
            {"modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]},
            "proj",
        )
    model.save_pretrained(tmp_path / "checkpoint")
    kept = load_file(tmp_path / "checkpoint" / "model.safetensors")
    within = [key for key in kept if key.endswith(part) and (method == "fp8" or "experts" in key)]
    for key in within:
        parts, exact = quantize(key, kept.pop(key))
        kept |= parts
        model.get_parameter(key).data = exact
    save_file(kept, tmp_path / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    configure(tmp_path / "checkpoint", quantization_config={"quant_method": method, **told})
    check_against(model, tmp_path / "checkpoint", tmp_path)


def check_against(model: PreTrainedModel, folder: Path, tmp_path: Path) -> None:
    """Compare states and loss with transformers' own."""
    with torch.no_grad():
        theirs = model(IDS, output_hidden_states=True, labels=IDS)
    found = extracted(folder, TOKENS, tmp_path)
    for place in (*range(len(theirs.hidden_states) - 1), -1):
        np.testing.assert_allclose(
            found.rows[place], theirs.hidden_states[place].flatten(0, 1), rtol=1e-4, atol=2e-5
        )
    assert found.nll[TOKENS.position > 0].mean() == pytest.approx(float(theirs.loss), rel=1e-5)


def test_pointers_of_git_lfs_are_no_weights(folder: Path, tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / name).write_text(pointer)
        assert f"{name}` is a pointer of Git LFS" in refused_before_the_first_job(folder)
        with pytest.raises(InputError, match="run `git lfs pull`"):
            extracted(folder, TOKENS, tmp_path)
    (folder / "tokenizer.json").write_text(pointer)
    with pytest.raises(InputError, match="`m`: .*tokenizer.json` is a pointer of Git LFS"):
        find_tokenizer("m", [Path("checkpoint")], root=tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": "{}"}, "has tokenizer_config.json and no vocabulary"),
        (
            {"tokenizer.model": "x"},
            "has tokenizer.model and no tokenizer.json. Convert it where sentencepiece",
        ),
        ({"tokenizer_config.json": "{}", "spiece.model": "x"}, "has spiece.model and no tokenizer.json"),
        ({"qwen.tiktoken": "x"}, "has qwen.tiktoken and no tokenizer.json"),
    ],
)
def test_files_that_make_no_tokenizer(files: dict[str, str], message: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        find_tokenizer("m", [Path()], root=tmp_path)
    with pytest.raises(InputError, match=message):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ['{"version": "9.0", "model": {"type": "Novel"}}', "{"])
def test_a_tokenizer_of_another_version(text: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"cannot be read by tokenizers .* Save it again with the versions"):
        load_tokenizer(tmp_path)


def test_flash_attention_of_a_config_is_replaced(folder: Path, tmp_path: Path) -> None:
    expected = extracted(folder, TOKENS, tmp_path)
    for key, value in (
        ("attn_implementation", "flash_attention_2"),
        ("_attn_implementation", "flash_attention_3"),
        (
            "_attn_implementation",
            "kernels-community/flash-attn",
        ),  # which transformers would fetch from the hub
        ("attn_implementation", "somebody/kernel@v1:forward"),
        ("attn_implementation", {"": "somebody/kernel"}),
    ):
        configure(folder, **{key: value})
        np.testing.assert_array_equal(extracted(folder, TOKENS, tmp_path).rows, expected.rows)


@pytest.mark.parametrize("name", ["T5", "ViT", "Bart"])
def test_what_is_no_language_model_of_either_kind(name: str, tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8,
        "d_model": 8,
        "num_hidden_layers": 1,
        "num_layers": 1,
        "num_attention_heads": 2,
    }
    if name == "Bart":  # which transformers has among the masked encoders
        sizes = {
            f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")
        }
        sizes |= {"d_model": 8, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = getattr(transformers, f"{name}Config")(**sizes, num_heads=2, d_kv=4, d_ff=8, vocab_size=61)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path / "checkpoint")
    checkpoint = Checkpoint("final", -1, Path("checkpoint"))
    for kind in ("decoder", "encoder"):
        said = f"holds {name.lower()}, " + {"ViT": f"for which transformers has no {kind}"}.get(
            name, "an encoder with a decoder"
        )
        with pytest.raises(InputError, match=said):
            extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind=kind)
        with pytest.raises(InputError, match=f"`m`: it {said}"):
            read_facts("m", [checkpoint], {"kind": kind}, root=tmp_path)


def test_a_network_without_an_embedding_of_tokens_is_refused(tmp_path: Path) -> None:
    """Perceiver's stream begins with latents."""
    sizes = {"d_model": 8, "d_latents": 8, "num_latents": 4, "num_blocks": 1, "num_self_attends_per_block": 1}
    config = transformers.PerceiverConfig(
        **sizes, num_self_attention_heads=2, num_cross_attention_heads=2, vocab_size=61
    )
    transformers.PerceiverForMaskedLM(config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match="`perceiver` has no embedding of tokens; it cannot be read"):
        extracted(tmp_path / "checkpoint", TOKENS, tmp_path, kind="encoder")


def test_minus_one_is_no_limit_of_a_context() -> None:
    config = {
        "model_type": "xlnet",
        "n_layer": 2,
        "d_model": 8,
        "vocab_size": 9,
        "max_position_embeddings": -1,
    }
    assert config_facts(config)["context"] is None


def test_an_xlnet_is_refused_by_the_shape_of_its_stream(tmp_path: Path) -> None:
    """It computes in the order (length, batch, width)."""
    config = transformers.XLNetConfig(vocab_size=61, d_model=24, n_layer=2, n_head=2, d_inner=40)
    transformers.XLNetLMHeadModel(config).save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(InputError, match=r"shape \(8, 1, 24\) for tokens of shape \(1, 8\), and not \(batch"):
        extracted(tmp_path / "checkpoint", TOKENS, tmp_path)


def test_streams_beside_each_other_and_padded_ones_are_refused_by_their_shape(tmp_path: Path) -> None:
    """Gemma 3n's four streams, and Longformer's windows, which are padded."""
    sizes = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    gemma = transformers.Gemma3nTextConfig(
        **sizes,
        intermediate_size=[40, 40],
        num_key_value_heads=1,
        head_dim=12,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=61,
        laurel_rank=4,
        num_kv_shared_layers=0,
        layer_types=["full_attention"] * 2,
        activation_sparsity_pattern=[0.0, 0.0],
        pad_token_id=0,
    )
    transformers.Gemma3nForCausalLM(gemma).save_pretrained(tmp_path / "gemma")
    with pytest.raises(InputError, match=r"shape \(4, 1, 8, 24\) for tokens of shape \(1, 8\)"):
        extracted(tmp_path / "gemma", TOKENS, tmp_path)
    padded = transformers.LongformerConfig(**sizes, intermediate_size=40, attention_window=16)
    transformers.LongformerForMaskedLM(padded).save_pretrained(tmp_path / "padded")
    with pytest.raises(InputError, match=r"shape \(1, 16, 24\) for tokens of shape \(1, 8\)"):
        extracted(tmp_path / "padded", TOKENS, tmp_path, kind="encoder")


# Vision-language models: the text stream is found and measured, with its final norm

TEXT = {
    "vocab_size": 61,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 12,
    "max_position_embeddings": WINDOW,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGE = {"image_token_id": 59, "video_token_id": 58, "vision_start_token_id": 57, "vision_end_token_id": 56}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}
QWEN = {
    "depth": 1,
    "embed_dim": 16,
    "hidden_size": 24,
    "out_hidden_size": 24,
    "num_heads": 2,
    "intermediate_size": 24,
}
VISION_LANGUAGE = {
    "Gemma3": {
        "text_config": TEXT,
        "vision_config": {**EYE, "image_size": 28, "patch_size": 14},
        "image_token_index": 59,
    },
    "Qwen2_5_VL": {"text_config": {**TEXT, "rope_parameters": ROPE}, "vision_config": QWEN, **IMAGE},
    "Qwen3VL": {
        "text_config": {**TEXT, "rope_parameters": ROPE},
        "vision_config": {**QWEN, "deepstack_visual_indexes": [0]},
        **IMAGE,
    },
    "Llama4": {
        "text_config": {
            **TEXT,
            "num_local_experts": 2,
            "intermediate_size_mlp": 40,
            "attention_chunk_size": 16,
        },
        "vision_config": {
            **EYE,
            "vision_output_dim": 24,
            "projector_input_dim": 24,
            "projector_output_dim": 24,
        },
    },
    # its last layer has another `head_dim` than the others, and each reads an embedding of its own beside the stream
    "Gemma4": {
        "text_config": {
            **{key: value for key, value in TEXT.items() if key != "head_dim"},
            "vocab_size_per_layer_input": 61,
            "hidden_size_per_layer_input": 8,
        },
        "vision_config": {**EYE, "num_key_value_heads": 2, "head_dim": 8},
        "audio_config": None,
    },
    "Mllama": {
        "text_config": {
            **TEXT,
            "num_hidden_layers": 4,
            "cross_attention_layers": [1],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        "vision_config": {
            **EYE,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "vision_output_dim": 32,
            "intermediate_layers_indices": [0],
            "image_size": 28,
            "patch_size": 14,
        },
    },
}


def vision_language(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**VISION_LANGUAGE[name])
    return getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()


@pytest.mark.parametrize("name", VISION_LANGUAGE)
def test_the_text_of_a_vision_language_model_is_measured(name: str, tmp_path: Path) -> None:
    model = vision_language(name)
    model.save_pretrained(tmp_path / "checkpoint")
    with torch.no_grad():
        theirs = model(IDS, output_hidden_states=True, labels=IDS)
    found: Extracted = extracted(tmp_path / "checkpoint", TOKENS, tmp_path)
    text = model.config.get_text_config()
    layers = text.num_hidden_layers - len(getattr(text, "cross_attention_layers", ()))
    assert [site.name for site in found.sites] == ["embedding", *["block"] * layers, "final_norm"]
    for place in (*range(layers), -1):
        expected = theirs.hidden_states[place].flatten(0, 1)
        np.testing.assert_allclose(found.rows[place], expected, rtol=1e-4, atol=2e-5)
    assert found.nll[TOKENS.position > 0].mean() == pytest.approx(float(theirs.loss), rel=1e-5)
    checkpoint = Checkpoint("final", -1, Path("checkpoint"))
    facts = read_facts("m", [checkpoint], {"kind": "decoder"}, root=tmp_path)
    assert (facts["blocks"], facts["width"], facts["vocabulary"]) == (layers, 24, 61)


def test_facts_that_the_text_part_leaves_to_its_class(tmp_path: Path) -> None:
    """As Gemma 3's config.json, which names no vocabulary."""
    text = {"hidden_size": 24, "num_hidden_layers": 3, "model_type": "gemma3_text"}
    config = {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": text,
    }
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint("final", -1, Path("checkpoint"))
    facts = read_facts("m", [checkpoint], {"kind": "decoder"}, root=tmp_path)
    assert facts == {
        "kind": "decoder",
        "architecture": "gemma3",
        "blocks": 3,
        "width": 24,
        "context": 131072,
        "vocabulary": 262208,
    }
