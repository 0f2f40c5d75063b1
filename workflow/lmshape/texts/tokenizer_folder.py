"""The tokenizer that a folder holds: files of its own, or a GGUF file that carries one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lmshape.networks.weights import only_gguf

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files whose change makes a tokenizer another one; none where there is no tokenizer."""
    own = [folder / name for name in TOKENIZERS if (folder / name).is_file()]
    quantized = None if own else only_gguf(folder)
    return [quantized] if quantized else own


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, without asking the hub for anything.

    Raises
    ------
    OSError, ValueError
        When there is none, or none that transformers can read.
    """
    from transformers import AutoTokenizer

    files = tokenizer_files(folder)
    carried = {"gguf_file": files[0].name} if files and files[0].suffix == ".gguf" else {}
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **carried)
