"""A checkpoint folder without its weights being loaded: its files, their fingerprint, the facts of the model."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from lmshape.errors import InputError, first_line
from lmshape.store.statistics import read_loss_card
from lmshape.writing import replaced_when_whole

# in the order in which transformers prefers them
_NAMES = ("model.safetensors", "pytorch_model.bin")
GGUF = ".gguf"
Kind = Literal["decoder", "encoder"]  # reads left to right, or is masked
# Ends of the names of classes.
HEADS = {"decoder": ("ForCausalLM", "LMHeadModel"), "encoder": ("ForMaskedLM",)}
WHOLE_NUMBERS = ("I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64")

# What config.json calls the facts of a model, by architecture.
CONFIG_KEYS = {
    "architecture": ("model_type",),
    "blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "context": ("max_position_embeddings", "n_positions", "n_ctx"),
    "vocabulary": ("vocab_size",),
}
OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")  # the first token's position is pad_token_id + 1

# GGUF's names, behind the architecture's; what a configuration of transformers calls them
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
GGUF_TOKENS = "tokenizer.ggml.tokens"

# what lies in the place of weights, and what makes weights of it
OTHER_FORMS = {
    "adapter_model.*": (
        "an adapter",
        "merge it into the model that it was trained on (`merge_and_unload` of peft), and save that",
    ),
    "zero_to_fp32.py": ("DeepSpeed's parts of a model", "run `zero_to_fp32.py` there"),
    "pytorch_model_fsdp*": ("FSDP's parts of a model", "run `accelerate merge-weights` on them"),
    "ckpt*.pt": ("a checkpoint of its own form", "docs/nanogpt.md converts one of nanoGPT"),
}

FOREIGN_CODE = "trust_remote_code"  # what transformers asks for where it would have to run code
NOT_RUN = (
    "Python code, which is not run unless the model's entry in the registry says `remote_code: true`. Say it only of a "
    "repository that you would run yourself."
)


def why_not_opened(error: BaseException) -> str:
    """Return the first line of what transformers says; of code that it would have to run, what allows that."""
    return f"it is {NOT_RUN}" if FOREIGN_CODE in str(error) else first_line(error)


def weight_files(folder: Path) -> list[Path]:
    """Weight files of a checkpoint folder, sorted by name.

    safetensors before PyTorch's .bin; one file, or the shards that `*.index.json` names. A GGUF file where there
    is neither.

    Raises
    ------
    InputError
        When there is no such folder, or it has no weights, lacks a shard that its index names, or holds several
        GGUF files and nothing else.
    """
    if not folder.is_dir():
        raise InputError(
            f"`{folder}` is not a folder; a checkpoint is a folder with config.json and weights."
        )
    for name in _NAMES:
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _shards(index)
    quantized = sorted(folder.glob(f"*{GGUF}"))
    if len(quantized) == 1:
        return quantized
    if quantized:
        names = ", ".join(path.name for path in quantized)
        raise InputError(
            f"`{folder}` has {len(quantized)} GGUF files, {names}; leave one of them, each in a folder of its own."
        )
    for pattern, (what, remedy) in OTHER_FORMS.items():
        if any(folder.glob(pattern)):
            raise InputError(f"`{folder}` has {what} and no weights: {remedy}.")
    raise InputError(
        f"`{folder}` has no weights; expected {' or '.join(_NAMES)}, or shards with their `.index.json`, "
        f"or one {GGUF} file."
    )


def only_gguf(folder: Path) -> Path | None:
    """Return the GGUF file of a checkpoint folder whose weights are in that one file and in no other format."""
    try:
        files = weight_files(folder)
    except InputError:
        return None
    return files[0] if files[0].suffix == GGUF else None


def has_weights(folder: Path) -> bool:
    """Whether a folder itself, and not one below it, holds weights, whole or not."""
    patterns = [*_NAMES, *(f"{name}.index.json" for name in _NAMES), f"*{GGUF}"]
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


def tell_adapter(folder: Path) -> None:
    """Say on stderr that an adapter which lies beside whole weights is not part of them."""
    adapters = [path.name for path in sorted(folder.glob("adapter_model.*"))]
    if adapters:
        print(f"`{folder}`: {adapters[0]} is ignored; merge the adapter to measure it.", file=sys.stderr)


def checkpoint_files(folder: Path) -> list[Path]:
    """Return the files that determine a checkpoint: its weights, and config.json if there is one.

    Raises
    ------
    InputError
        As `weight_files`.
    """
    config = folder / "config.json"
    return [*weight_files(folder), *([config] if config.is_file() else [])]


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError) as error:
        raise InputError(
            f"`{index}` is not an index of weight shards ({error!r}); fetch it again."
        ) from error
    shards = [index.parent / name for name in sorted(names)]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise InputError(
            f"`{index.parent}` lacks {', '.join(absent)}, named in {index.name}; fetch it again."
        )
    return shards


POINTER = b"version https://git-lfs"  # how a file begins that Git LFS has not fetched
UNDONE_QUANTIZATIONS = ("fp8", "mxfp4")  # by transformers, with no other package


def check_fetched(path: Path) -> None:
    """Refuse a pointer of Git LFS in place of a large file."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise InputError(f"`{path}` is a pointer of Git LFS and not the file: run `git lfs pull` there.")


def check_quantization(config: Mapping[str, Any]) -> None:
    """Refuse weights in an unsupported quantization."""
    told = config.get("quantization_config") or {}
    bitsandbytes = told.get("load_in_4bit") or told.get("load_in_8bit")
    method = told.get("quant_method") or (
        "bitsandbytes" if bitsandbytes else "a method that it does not name"
    )
    if told and method not in UNDONE_QUANTIZATIONS:
        raise InputError(
            f"its weights are quantized by {method}, which is not supported. Dequantize them and save the model again, "
            "or take the weights that they were made from."
        )


def check_architecture(config: Mapping[str, Any], kind: Kind) -> None:
    """Refuse a configuration of what is neither a causal decoder nor a masked encoder of text.

    Where the name of its class says which head it has, transformers is not imported.
    """
    architecture = config.get("model_type")
    if "auto_map" in config and not _is_known(architecture):
        raise InputError(f"transformers does not know {architecture}; what reads it is {NOT_RUN}")
    if config.get("is_encoder_decoder"):
        what = f"{architecture}, an encoder with a decoder"
    elif not _of_kind(config, kind):
        what = f"{architecture}, for which transformers has no {kind}"
    else:
        return
    raise InputError(
        f"it holds {what}. Check `kind` and config.json; causal decoders and masked encoders of text can be measured."
    )


def _is_known(architecture: Any) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return architecture in CONFIG_MAPPING_NAMES


def _of_kind(config: Mapping[str, Any], kind: Kind) -> bool:
    if any(head.endswith(HEADS[kind]) for head in config.get("architectures") or ()):
        return True
    from transformers.models.auto import modeling_auto as known

    if kind == "encoder":
        return reads_both_ways(config) or config.get("model_type") in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    networks = known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    return any(config.get("model_type") in names for names in networks)


def check_whole(path: Path) -> None:
    """Refuse a safetensors file that ends before its header says so; a look at the header, not at the weights.

    Raises
    ------
    InputError
        When the file is cut short or has no header, and as `check_tensors`.
    """
    check_fetched(path)
    try:
        check_tensors(path)
    except SafetensorError as error:
        raise InputError(f"`{path}` was not saved whole ({error}); save or fetch it again.") from None


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file that holds something else in the place of weights, as its header says.

    Raises
    ------
    InputError
        When it holds what DeepSpeed's ZeRO-3 saves in the place of tensors, or whole numbers.
    SafetensorError
        When it cannot be read.
    """
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, no dict
        empty = [name for name, part in slices.items() if part.get_shape() == [0]]
        whole = [name for name, part in slices.items() if part.get_dtype() in WHOLE_NUMBERS]
    if empty:
        raise InputError(
            f"`{path}` holds {len(empty)} tensors without entries, {empty[0]} first, as DeepSpeed's ZeRO-3 saves them: "
            "the weights are in its own files. Run `zero_to_fp32.py` there."
        )
    check_whole_numbers(path, whole)


def check_whole_numbers(path: Path, names: Sequence[str]) -> None:
    """Refuse weights among the names of the tensors of whole numbers that a file holds."""
    quantized = [name for name in names if name.endswith(".weight")]
    if quantized:
        raise InputError(
            f"`{path}` holds {len(quantized)} tensors of whole numbers in the place of weights, {quantized[0]} first: "
            "they are quantized. Dequantize them and save the model again."
        )


def tensor_names(files: Sequence[Path]) -> list[str]:
    """Return the names in safetensors files, from their headers; none for other files."""
    names: list[str] = []
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                names += file.keys()
    return names


def weights_sha256(folder: Path) -> str:
    """Fingerprint of the weights of a checkpoint: two checkpoints with the same one are the same model.

    For a single file its plain sha256, the one that the hub shows. For shards the sha256 of their hexadecimal
    sha256 one after the other, sorted by file name, so that it can be made from the hub's answers alone.
    """
    digests = []
    for path in weight_files(folder):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def files_as_found(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and date of change in ns of each weight file; a change means that one was rewritten."""
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weight_files(folder)]


def config_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Architecture, blocks, width, context and vocabulary; None for what it does not say.

    `context` is None where the architecture has no longest sequence (ALiBi).
    """
    text = config.get("text_config") or config  # of a vision-language model
    read = {
        fact: next((text[key] for key in keys if text.get(key) is not None), None)
        for fact, keys in CONFIG_KEYS.items()
    }
    read["architecture"] = config.get("model_type")
    if read["blocks"]:
        read["blocks"] -= len(text.get("cross_attention_layers") or ())  # of images; text does not pass them
    if isinstance(read["context"], int) and read["context"] < 1:  # XLNet's -1
        read["context"] = None
    if read["context"] and read["architecture"] in OFFSET_POSITIONS:
        read["context"] -= config.get("pad_token_id", 1) + 1
    return read


def reads_both_ways(config: Mapping[str, Any]) -> bool:
    """Whether a configuration lets an architecture of decoders attend to later tokens."""
    text = config.get("text_config") or config
    return text.get("is_causal") is False or text.get("use_bidirectional_attention") in (True, "all")


def kind_of(config: Mapping[str, Any]) -> Kind:
    """Return the kind of a configuration: by its head, else by its architecture."""
    heads = config.get("architectures") or ()
    if reads_both_ways(config) or any(head.endswith(("ForMaskedLM", "ForPreTraining")) for head in heads):
        return "encoder"
    if config.get("is_decoder") or any(head.endswith(HEADS["decoder"]) for head in heads):
        return "decoder"
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return "encoder" if config.get("model_type") in MODEL_FOR_MASKED_LM_MAPPING_NAMES else "decoder"


def gguf_config(path: Path) -> Mapping[str, str | int]:
    """Architecture, blocks, width, context and vocabulary of a GGUF file, under transformers' names.

    Takes milliseconds beside the import of transformers, a second or two: the vocabulary is counted, not read.

    Raises
    ------
    InputError
        When the file is cut short within its metadata, or is not a GGUF file.
    """
    from transformers.integrations.gguf import read_gguf_metadata

    try:
        metadata, _ = read_gguf_metadata(str(path))
        architecture = metadata["general.architecture"]
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        raise InputError(
            f"`{path}` cannot be read as GGUF ({error}); it is truncated or no GGUF file. Fetch it again."
        ) from error
    read = {name: metadata.get(f"{architecture}.{key}") for key, name in _KEYS.items()}
    read["vocab_size"] = read["vocab_size"] or metadata.get(GGUF_TOKENS)
    return {"model_type": architecture, **{name: value for name, value in read.items() if value is not None}}


def check_whole_gguf(path: Path) -> None:
    """Refuse a GGUF file that ends before its table of tensors says so; no tensor is read.

    Raises
    ------
    InputError
        When the file is cut short, or is not a GGUF file.
    """
    from transformers.integrations.gguf import GgufHeader

    gguf_config(path)
    try:
        header = GgufHeader.from_file(str(path))
    except ValueError:  # a quantization whose size it does not know, and may be able to undo nevertheless
        return
    expected = header.data_start + max((one.offset + one.nbytes for one in header.tensors), default=0)
    size = path.stat().st_size
    if size < expected:
        raise InputError(
            f"`{path}` has {size} bytes of {expected}: it was not saved whole; save or fetch it again."
        )


# Whether the weights of a local run are those that were read: by size and date, by content where these differ. A date
# tells nothing by itself: `rsync -a` and `cp -p` put older weights in the place of newer ones, and a copy of equal
# weights has a new date. Weights of gigabytes are hashed only when size or date have changed.

MOST_HASHED_BYTES = 50_000_000  # of a file that is hashed whenever a study is planned: 50 ms


def file_key(path: Path) -> str:
    """Return a key of a user's file: its content, or size and date if it is large; empty if it does not exist."""
    if not path.is_file():
        return ""
    known = path.stat()
    large = known.st_size > MOST_HASHED_BYTES
    return f"{known.st_size} {known.st_mtime_ns}" if large else _digest(path.read_bytes())


def weights_key(folder: Path, record: Path, cards: Iterable[Path]) -> str:
    """Return a key that changes with the content of a checkpoint's weights and config.json, and with nothing else.

    Parameters
    ----------
    folder : of the checkpoint
    record : JSON file that remembers the key, and sizes and dates that it was given for; written where these changed
    cards : loss cards of the checkpoint, as far as they are there: they say which weights were read
    """
    if not has_weights(folder):  # it was measured, and is gone
        return str(_remembered(record).get("whole", "gone"))
    files = list(map(list, files_as_found(folder)))
    known = _remembered(record)
    key = known.get("key", _digest(json.dumps(files).encode()))
    if known and known["files"] != files and _read_weights(cards) != {sha256 := weights_sha256(folder)}:
        key = sha256
    told = {"key": key, "files": files, "whole": f"{key} {file_key(folder / 'config.json')}"}
    if told != known:
        with replaced_when_whole(record) as partial:
            partial.write_text(json.dumps(told))
    return told["whole"]


def _remembered(record: Path) -> dict[str, Any]:
    """Return what a record says; nothing where there is none, or a damaged one, which is written anew."""
    try:
        known = json.loads(record.read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and known.keys() >= {"key", "files", "whole"} else {}


def _read_weights(cards: Iterable[Path]) -> set[str]:
    """Return the fingerprints of the weights that the cards are of."""
    found: set[str] = set()
    for card in cards:
        with suppress(InputError):  # it is made again
            found.add(str(read_loss_card(card)[0].get("weights_sha256")))
    return found


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
