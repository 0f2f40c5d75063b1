"""The tokenizer of a folder: what its tokenizer.json says, whatever class its settings name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer

TEXT = "Café 1984: the cats' dog's 12345 houses\n\n  are  in the sea; THE END. " * 40
SPECIAL = ["<unk>", "<s>", "</s>", "[MASK]"]
CL100K = (
    r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(pre_tokenizer: pre_tokenizers.PreTokenizer) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizer, decoders.ByteLevel()
    return bpe


def metaspace() -> Tokenizer:
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return bpe


def cl100k() -> Tokenizer:
    split = pre_tokenizers.Split(Regex(CL100K), behavior="isolated")
    return byte_level(
        pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    )


FILES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "prefix-space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace": metaspace,
    "cl100k": cl100k,
}


def write(
    folder: Path, file: str, *, template: bool = False, model_type: str = "", **settings: object
) -> Tokenizer:
    """Train a tokenizer and write it with settings beside it; return what it is."""
    tokenizer = FILES[file]()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if template:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    if model_type:
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return tokenizer


@pytest.mark.parametrize("template", [False, True])
@pytest.mark.parametrize("model_type", ["", "qwen2", "olmo2"])
@pytest.mark.parametrize("name", ["GPT2Tokenizer", "Qwen2Tokenizer", "LlamaTokenizer"])
@pytest.mark.parametrize("file", FILES)
def test_the_ids_are_those_of_the_file(
    file: str, name: str, model_type: str, template: bool, tmp_path: Path
) -> None:
    own = write(tmp_path, file, template=template, model_type=model_type, tokenizer_class=name)
    read = TextTokenizer.of(load_tokenizer(tmp_path))
    assert read.encode([TEXT])[0].tolist() == own.encode(TEXT, add_special_tokens=False).ids
    assert (read.prefix, read.suffix) == ([1] if template else [], [])


def test_what_the_file_cannot_say_is_taken_from_the_class(tmp_path: Path) -> None:
    write(tmp_path / "gpt2", "byte-level", tokenizer_class="GPT2Tokenizer", mask_token="[MASK]")
    assert load_tokenizer(tmp_path / "gpt2").mask_token_id == SPECIAL.index("[MASK]")
    write(tmp_path / "bert", "byte-level", tokenizer_class="RobertaTokenizer")
    loaded = load_tokenizer(tmp_path / "bert")
    read = TextTokenizer.of(loaded)
    assert (read.prefix, read.suffix) == ([1], [2]), "the template of the class, since the file has none"
    assert loaded.mask_token is None and "<mask>" not in loaded.get_vocab(), (
        "the class has it, the file does not"
    )
