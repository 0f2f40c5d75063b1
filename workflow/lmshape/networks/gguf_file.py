"""What a GGUF file says of its model, read without its tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lmshape.errors import InputError

# GGUF's names, behind the architecture's; what a configuration of transformers calls them
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
TOKENS = "tokenizer.ggml.tokens"


def gguf_config(path: Path) -> Mapping[str, str | int]:
    """Architecture, blocks, width, context and vocabulary of a GGUF file, under transformers' names.

    Takes milliseconds beside the import of transformers, a second or two: the vocabulary is counted, not read.

    Raises
    ------
    InputError
        When the file is cut short within its metadata, or is no GGUF file.
    """
    from transformers.integrations.gguf import read_gguf_metadata

    with _telling(path):
        metadata, _ = read_gguf_metadata(str(path))
        architecture = metadata["general.architecture"]
    read = {name: metadata.get(f"{architecture}.{key}") for key, name in _KEYS.items()}
    read["vocab_size"] = read["vocab_size"] or metadata.get(TOKENS)
    return {"model_type": architecture, **{name: value for name, value in read.items() if value is not None}}


def check_whole_gguf(path: Path) -> None:
    """Refuse a GGUF file that ends before its table of tensors says so; no tensor is read.

    Raises
    ------
    InputError
        When the file is cut short, or is no GGUF file.
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


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, IndexError, KeyError, OSError, struct.error) as error:
        raise InputError(
            f"`{path}` cannot be read as GGUF ({error}); it is truncated or no GGUF file. Fetch it again."
        ) from error
