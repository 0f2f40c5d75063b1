"""A network from its folder: whole weights, the head of its kind; no foreign code without `remote_code`, no hub."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from lmshape.errors import InputError, first_line
from lmshape.store.weights import (
    GGUF,
    HEADS,
    Kind,
    check_architecture,
    check_fetched,
    check_quantization,
    check_tensors,
    check_whole_gguf,
    check_whole_numbers,
    reads_both_ways,
    tell_adapter,
    tensor_names,
    weight_files,
    why_not_opened,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_HEADS = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForMaskedLM}
_OTHER_HEAD = {"decoder": HEADS["encoder"], "encoder": HEADS["decoder"]}

# what loading raises for weights that are damaged, foreign, or too large
FAILURES = (
    SafetensorError,
    pickle.UnpicklingError,
    EOFError,
    OSError,
    RuntimeError,
    MemoryError,
    ValueError,
    KeyError,
    ImportError,  # of a package that the weights ask for
)

# what the allocators of a CPU, of Apple's GPU and of CUDA's libraries write into a plain RuntimeError
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class Network:
    """A network ready to read.

    Attributes
    ----------
    model : with the head of its kind; where the checkpoint lacks a part of the head, without it: what a random head
        says means nothing
    device : where the ids of its tokens go, and its logits come out
    no_loss : why it has no loss; empty where it has one
    """

    model: PreTrainedModel
    device: torch.device
    no_loss: str = ""

    @property
    def base(self) -> PreTrainedModel:
        """The model without its head."""
        return cast(PreTrainedModel, self.model.base_model)

    @property
    def vocabulary(self) -> int:
        """Entries of the embedding, which may have more than the tokenizer."""
        return _embedding(self.model).num_embeddings


def load_model(
    folder: Path,
    *,
    kind: Kind,
    dtype: str,
    device: torch.device,
    device_map: str | Mapping[str, str | int] = "none",
    offload: Path | None = None,
    remote_code: bool = False,
) -> Network:
    """Load a decoder or a masked encoder, ready to read: from the folder alone, and by default none of its code.

    Parameters
    ----------
    folder : checkpoint in the format of transformers, or a folder with one GGUF file, which is dequantized
    kind : which head the network has
    dtype : number type of the weights, one of `DTYPES`
    device : where the network goes as a whole, without a map
    device_map : `none`; `auto` spreads it over the GPUs, then memory, then disk; or the place of each part
    offload : folder for weights that a map puts on the disk; it must last as long as the network
    remote_code : run the Python code that comes with the weights

    Raises
    ------
    InputError
        Without weights; with a config or weights that cannot be read (the file is named); with weights that
        do not fill the base model (the rest would be random numbers) or of which it has no place for some; with
        a head of the other kind; when the memory does not suffice.
    """
    files = weight_files(folder)
    for file in files:
        check_fetched(file)
    tell_adapter(folder)
    config = read_config(folder, remote_code=remote_code)
    _check_head(folder, config, kind)
    network = _class_of(folder, config, kind, remote_code=remote_code)
    logging.set_verbosity_error()  # what its load report says is checked here
    logging.disable_progress_bar()
    options = _loading_options(folder, files, device_map, offload)

    def load(**renamed: Any) -> tuple[PreTrainedModel, dict[str, set]]:
        with _unheard(files):
            return network.from_pretrained(
                folder,
                config=config,
                dtype=DTYPES[dtype],
                local_files_only=True,
                trust_remote_code=remote_code,
                weights_only=True,
                ignore_mismatched_sizes=True,  # reported, and refused, below
                output_loading_info=True,
                **options,
                **renamed,
            )

    try:
        for file in files:
            _check_held(file)
        model, report = load()
        if _of_base(model, report["missing_keys"]) and (wrapper := _wrapper(tensor_names(files))):
            print(
                f"`{folder}`: the names of its tensors begin with `{wrapper}`, which is left out.",
                file=sys.stderr,
            )
            model, report = load(key_mapping={f"^{re.escape(wrapper)}": ""})
        model = model.eval() if device_map != "none" else model.eval().to(device)
    except InputError:
        raise
    except FAILURES as error:
        raise _loading_error(folder, files, error) from error
    _check_all_placed(folder, model, report)
    device, absent, why = _entrance(model), _absent_head(folder, model, report), ""
    if absent:
        why = f"no language-model head: the checkpoint lacks {len(absent)} of its tensors, {absent[0]} first"
    elif network is AutoModel:
        why = f"no language-model head: `{config.model_type}` has none for masked tokens"
    return Network(model.base_model if absent else model, device, why)


def loaded_network(model: PreTrainedModel) -> Network:
    """Take a model that is loaded already; without a head that predicts tokens, it has no loss."""
    device = _entrance(model)
    if model.get_output_embeddings() is None:
        why = f"no language-model head: the model is a {type(model).__name__}"
        return Network(cast(PreTrainedModel, model.base_model), device, why)
    return Network(model, device)


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Switch dropout off meanwhile; a part that was at rest before, as a frozen one is, stays so."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, trains in training.items():
            module.training = trains


def _class_of(folder: Path, config: PreTrainedConfig, kind: Kind, *, remote_code: bool) -> Any:
    """Return the class of transformers that builds the network with the head of its kind."""
    if not remote_code:
        try:
            check_architecture(config.to_dict(), kind)
        except InputError as error:
            raise InputError(f"`{folder}`: {error}") from None
    if kind == "encoder" and _has_no_masked_head(config):
        return AutoModel
    if (
        kind == "decoder"
        and config.get_text_config() is not config
        and type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    ):
        return AutoModelForImageTextToText  # of a vision-language model all tensors have a place in it
    return _HEADS[kind]


def _check_pickled(file: Path) -> None:
    """Refuse a PyTorch file that holds a dictionary of other things than weights, or whole numbers for weights."""
    held = torch.load(file, map_location="meta", weights_only=True)
    held = held if isinstance(held, Mapping) else {f"a {type(held).__name__}": held}
    tensors = {name: value for name, value in held.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(
            f"`{file}` holds {', '.join(map(str, list(held)[:5]))}, and no tensors: they may be within. Save the "
            "model's `state_dict()` alone, or the model with `save_pretrained`."
        )
    whole = [name for name, value in tensors.items() if not value.is_floating_point()]
    check_whole_numbers(file, whole)


def _check_held(file: Path) -> None:
    if file.suffix == ".safetensors":
        check_tensors(file)
    elif file.suffix == ".bin":
        _check_pickled(file)


def _asks_for_kernel(folder: Path) -> bool:
    """Whether a configuration names FlashAttention, or a kernel: code that transformers fetches from the hub."""
    file = folder / "config.json"
    named = r'flash[-_]att|attn_implementation"[^,}]*/'
    return file.is_file() and re.search(named, file.read_text(encoding="utf-8")) is not None


def _wrapper(names: Sequence[str]) -> str:
    """Return what the names of all tensors begin with when a wrapper of the model was saved; empty where none was."""
    for pattern in (r"(_orig_mod\.|module\.)+", r"model\."):
        found = {match[0] for name in names if (match := re.match(pattern, name))}
        if len(found) == 1 and all(name.startswith(tuple(found)) for name in names):
            return found.pop()
    return ""


def _loading_options(
    folder: Path, files: list[Path], device_map: str | Mapping[str, str | int], offload: Path | None
) -> dict[str, Any]:
    """Return what `from_pretrained` is told of these weights alone."""
    options: dict[str, Any] = {}
    if device_map != "none":
        options |= {"device_map": device_map, "offload_folder": offload}
    if _asks_for_kernel(folder):
        options["attn_implementation"] = "sdpa"  # the same numbers, without its package
    if files[0].suffix == GGUF:
        from transformers import GgufConfig  # younger than the rest of what is taken from transformers

        options |= {"gguf_file": files[0].name, "quantization_config": GgufConfig(dequantize=True)}
    return options


def _unheard(files: list[Path]) -> AbstractContextManager:
    """Keep the bar of the GGUF reader, which has no switch, out of log files."""
    return redirect_stderr(StringIO()) if files[0].suffix == GGUF else nullcontext()


def read_config(folder: Path, *, remote_code: bool = False) -> PreTrainedConfig:
    """Read config.json, or the metadata of a GGUF file.

    Raises
    ------
    InputError
        Without weights, and for a configuration that transformers cannot use.
    """
    files = weight_files(folder)
    source: dict[str, Any] = {"trust_remote_code": remote_code}
    if files[0].suffix == GGUF:  # its metadata is the config
        source["gguf_file"] = files[0].name
        check_whole_gguf(files[0])
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **source)
        check_quantization(config.to_dict())
    except InputError as error:
        raise InputError(f"`{folder}`: {error}") from None
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        name = source.get("gguf_file", "config.json")
        reason = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        raise InputError(f"`{folder}/{name}` cannot be used: {why_not_opened(reason)}") from error
    if getattr(config, "quantization_config", None):
        config.quantization_config["dequantize"] = True  # else a GPU may compute in it
    config.use_cache = False  # keys and values of past tokens are of no use here and cost memory
    return config


def _check_head(folder: Path, config: PreTrainedConfig, kind: Kind) -> None:
    names = config.architectures or []
    other = any(name.endswith(_OTHER_HEAD[kind]) for name in names) and not _has_no_masked_head(config)
    own = any(name.endswith(HEADS[kind]) for name in names)
    # BERT without its head would load as a decoder, and still read both ways
    both_ways = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False)
    if config.is_encoder_decoder:
        return  # of neither kind, which `_class_of` says
    if other or (kind == "decoder" and not own and both_ways):
        what = ", ".join(names) or config.model_type
        raise InputError(f"`{folder}` holds {what}, and its `kind` is {kind}: correct it.")


def _has_no_masked_head(config: PreTrainedConfig) -> bool:
    """Whether a decoder architecture attends in both directions, like EmbeddingGemma."""
    return reads_both_ways(config.to_dict()) and type(config) not in MODEL_FOR_MASKED_LM_MAPPING


# Buffers that old versions of transformers saved, and the pooler, which no hidden state passes.
_PLACELESS = re.compile(
    r"(^|\.)(pooler\..*|.*inv_freq|masked_bias|(attn|attention)\.bias|position_ids|_extra_state)$"
)


def _check_all_placed(folder: Path, model: PreTrainedModel, report: dict[str, set]) -> None:
    """Refuse tensors of the base model that found no place; those of other heads are none of it."""
    within, parts = f"{model.base_model_prefix}.", dict(model.base_model.named_children())
    of_base = (
        key
        for key in sorted(report["unexpected_keys"])
        if key.startswith(within) or key.split(".")[0] in parts
    )
    left = [key for key in of_base if not _PLACELESS.search(key)]
    if left:
        raise InputError(
            f"the weights of `{folder}` hold {len(left)} tensors for which its network, {model.config.model_type} of "
            f"{model.config.get_text_config().num_hidden_layers} blocks, has no place (first: {left[0]}). "
            "Its config.json belongs to other weights."
        )


def _of_base(model: PreTrainedModel, names: Iterable[str]) -> list[str]:
    """Return the names of tensors that are of the base model."""
    within = "" if model.base_model is model else f"{model.base_model_prefix}."
    return [name for name in names if name.startswith(within)]


def _absent_head(folder: Path, model: PreTrainedModel, report: dict[str, set]) -> list[str]:
    """Return the absent tensors, all of them of the head; of the base model none may be."""
    absent = sorted(report["missing_keys"])
    shaped = sorted(str(key) for key in report["mismatched_keys"])
    if shaped or _of_base(model, absent):
        raise InputError(
            f"the weights of `{folder}` do not fill its network: {len(absent)} tensors are missing, "
            f"{len(shaped)} have another shape (first: {(absent + shaped)[0]}). "
            "Its config.json belongs to other weights."
        )
    return absent


def _embedding(model: PreTrainedModel) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    if not hasattr(embedding, "num_embeddings"):
        raise InputError(f"`{model.config.model_type}` has no embedding of tokens; it cannot be read.")
    return cast(nn.Embedding, embedding)


def _entrance(model: PreTrainedModel) -> torch.device:
    """Return the device of the embedding, or where an embedding that lies on the disk is computed."""
    device = _embedding(model).weight.device
    if device.type != "meta":
        return device
    spread = cast(Mapping[str, str | int], model.hf_device_map)
    places = [torch.device(place) for place in spread.values() if place not in ("cpu", "disk")]
    return places[0] if places else torch.device("cpu")


def longest_window(model: PreTrainedModel) -> int | None:
    """Tokens that a window may have; None where nothing limits it.

    `max_position_embeddings` of the config, less the places that a position table with a padding index
    (RoBERTa) keeps free at its beginning.
    """
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None)]
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and "position" in name and table.padding_idx is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return min(
        (limit for limit in limits if limit is not None and limit > 0), default=None
    )  # XLNet's -1 is none


def _loading_error(folder: Path, files: Sequence[Path], error: Exception) -> InputError:
    """Return the error to raise for weights that did not load: no memory, code in them, damage, or what it says."""
    if memory_ran_out(error):
        return InputError(
            f"the network of `{folder}` does not fit into memory ({first_line(error)}); "
            "take `dtype: bfloat16`, a device with more memory, or `device_map: auto`."
        )
    broken = {file.name: reason for file in files if (reason := _why_unreadable(file))}
    for name, reason in broken.items():
        if called := re.search(r"GLOBAL (\S+)", reason):  # PyTorch names what a pickle may not call
            return InputError(
                f"`{folder}`: {name} holds code that would run on loading (it calls {called[1]}) and is not "
                "loaded. Save the weights as safetensors where you trust it, or fetch them from elsewhere."
            )
    if broken:
        return InputError(
            f"`{folder}`: {', '.join(broken)} cannot be loaded ({first_line(error)}); the file is truncated or corrupt."
            " Fetch it again."
        )
    names = ", ".join(file.name for file in files)
    return InputError(
        f"`{folder}`: {names} cannot be loaded ({first_line(error)}). Check `kind` and config.json."
    )


def _why_unreadable(file: Path) -> str:
    """Return what an attempt to read a file of weights says; empty when it can be read."""
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                return ""
        if file.suffix == ".bin":
            torch.load(file, map_location="meta", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        return str(error) or repr(error)
    return ""


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on a GPU or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
