"""Which files of a checkpoint are downloaded: its weights in one format, their index, its configuration."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lmshape.hub.lock import LockedFile

# safetensors before PyTorch's .bin, which is loaded with weights only; GGUF where there is nothing else
_FORMATS = (
    (r"model\.safetensors", None),
    (r"model-\d{5}-of-\d{5}\.safetensors", "model.safetensors.index.json"),
    (r"pytorch_model\.bin", None),
    (r"pytorch_model-\d{5}-of-\d{5}\.bin", "pytorch_model.bin.index.json"),
    (r"[^/]+\.gguf", None),
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
ONLY_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def checkpoint_files(
    listed: Sequence[LockedFile], subfolder: str, *, code: bool = False
) -> tuple[LockedFile, ...]:
    """Choose what to download of a listing; without config.json and weights when they are not there.

    Python files are among them only if `code` says so.
    """
    inside = {_name(file, subfolder): file for file in listed if _is_inside(file, subfolder)}
    chosen = [inside["config.json"]] if "config.json" in inside else []
    chosen += [inside[name] for name in sorted(inside) if code and name.endswith(".py")]
    for pattern, index in _FORMATS:
        names = sorted(name for name in inside if re.fullmatch(pattern, name))
        if names:
            names = names[:1] if pattern.endswith("gguf") else names
            indices = [inside[index]] if index in inside else []
            return (*chosen, *indices, *(inside[name] for name in names))
    return tuple(chosen)


def tokenizer_files(listed: Sequence[LockedFile], subfolder: str) -> tuple[LockedFile, ...]:
    """Choose the files of a tokenizer, with config.json beside them; none where there is only its settings."""
    inside = {_name(file, subfolder): file for file in listed if _is_inside(file, subfolder)}
    names = [name for name in TOKENIZER_FILES if name in inside]
    if not set(names) - set(ONLY_SETTINGS):
        return ()
    # transformers reads off config.json which class of tokenizer it is
    return tuple(inside[name] for name in [*names, *(["config.json"] * ("config.json" in inside))])


def _is_inside(file: LockedFile, subfolder: str) -> bool:
    return file.path.rpartition("/")[0] == subfolder


def _name(file: LockedFile, subfolder: str) -> str:
    return file.path.rpartition("/")[2]
