"""A network from its folder: whole weights, the head of its kind; never foreign code, never a hub."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from lmshape.errors import InputError, unknown
from lmshape.weights import weight_files

Kind = Literal["decoder", "encoder"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_HEADS = {"decoder": AutoModelForCausalLM, "encoder": AutoModelForMaskedLM}
_OTHER_HEAD = {"decoder": "ForMaskedLM", "encoder": ("ForCausalLM", "LMHeadModel")}


def load_model(folder: Path, *, kind: Kind, dtype: str, device: torch.device) -> PreTrainedModel:
    """Load a decoder or a masked encoder, ready to read: from the folder alone, and none of its code.

    Raises
    ------
    InputError
        Without weights; with a config or weights that cannot be read (the file is named); with weights that
        do not fill the network (the rest would be random numbers); with a head of the other kind; for an
        unknown kind or dtype.
    """
    if kind not in _HEADS:
        raise unknown("kind", kind, _HEADS)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    files = weight_files(folder)
    config = _config(folder)
    _check_head(folder, config, kind)
    logging.set_verbosity_error()  # what its load report says is checked here
    logging.disable_progress_bar()
    try:
        model, report = _HEADS[kind].from_pretrained(
            folder,
            config=config,
            dtype=DTYPES[dtype],
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            ignore_mismatched_sizes=True,  # reported, and refused, below
            output_loading_info=True,
        )
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        broken = [file.name for file in files if not _is_readable(file)] or [file.name for file in files]
        raise InputError(
            f"`{folder}`: {', '.join(broken)} cannot be loaded ({_first_line(error)}); "
            "the file is truncated or corrupt. Fetch it again."
        ) from error
    _check_filled(folder, report)
    return model.eval().to(device)


def _config(folder: Path) -> PreTrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"`{folder}/config.json` cannot be used: {_first_line(error)}") from error
    config.use_cache = False  # keys and values of past tokens are of no use here and cost memory
    return config


def _check_head(folder: Path, config: PreTrainedConfig, kind: Kind) -> None:
    names = config.architectures or []
    if any(name.endswith(_OTHER_HEAD[kind]) for name in names):
        raise InputError(f"`{folder}` holds {', '.join(names)}, which is no {kind}; correct its `kind`.")


def _check_filled(folder: Path, report: dict[str, set]) -> None:
    absent = sorted(report["missing_keys"])
    shaped = sorted(str(key) for key in report["mismatched_keys"])
    if absent or shaped:
        raise InputError(
            f"the weights of `{folder}` do not fill its network: {len(absent)} tensors are missing, "
            f"{len(shaped)} have another shape (first: {(absent + shaped)[0]}). "
            "Its config.json belongs to other weights, or its head was not saved."
        )


def _is_readable(file: Path) -> bool:
    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt"):
                return True
        torch.load(file, map_location="meta", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, EOFError, OSError, RuntimeError):
        return False
    return True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def longest_window(model: PreTrainedModel) -> int | None:
    """Tokens that a window may have; None where nothing limits it.

    `max_position_embeddings` of the config, less the places that a position table with a padding index
    (RoBERTa) keeps free at its beginning.
    """
    limits = [getattr(model.config, "max_position_embeddings", None)]
    for name, table in model.named_modules():
        if isinstance(table, nn.Embedding) and "position" in name and table.padding_idx is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return min((limit for limit in limits if limit is not None), default=None)
