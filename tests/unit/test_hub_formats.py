"""Which files of a commit are downloaded."""

from __future__ import annotations

import pytest

from lmshape.hub.lock import LockedFile
from lmshape.hub.published import TOKENIZER_FILES, downloads_of_tokenizer, files_of_checkpoint

SAFETENSORS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
BIN = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
OTHERS = [
    ".gitattributes",
    "README.md",
    "config.json",
    "flax_model.msgpack",
    "modeling_mine.py",
    "optimizer.pt",
    "rust_model.ot",
    "tf_model.h5",
    "tokenizer.json",
    "training_args.bin",
    "adapter_model.safetensors",
    "onnx/model.onnx",
    "onnx/config.json",
]


def listed(names: list[str]) -> list[LockedFile]:
    return [LockedFile(name, 10, "a" * 64) for name in names]


def chosen(names: list[str], subfolder: str = "", *, code: bool = False) -> list[str]:
    files, _ = files_of_checkpoint(listed(names), subfolder, code=code)
    return [file.path for file in files]


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["model.safetensors"], ["model.safetensors"]),
        (["pytorch_model.bin", "model.safetensors"], ["model.safetensors"]),
        (["model.gguf", "pytorch_model.bin"], ["pytorch_model.bin"]),
        ([*BIN, BIN_INDEX, *SAFETENSORS, INDEX], [INDEX, *SAFETENSORS]),
        ([*reversed(SAFETENSORS), INDEX], [INDEX, *SAFETENSORS]),
        ([*SAFETENSORS, "pytorch_model.bin"], SAFETENSORS),
        ([*BIN, BIN_INDEX], [BIN_INDEX, *BIN]),
        (["model.safetensors", *SAFETENSORS, INDEX], ["model.safetensors"]),
        (["model-q8.gguf", "model-q4.gguf"], ["model-q4.gguf"]),
        ([], []),
    ],
)
def test_weights_come_in_one_format_with_their_index_and_the_configuration(
    there: list[str], taken: list[str]
) -> None:
    assert chosen([*there, *OTHERS]) == ["config.json", *taken]


@pytest.mark.parametrize(
    ("prefer", "taken", "others"),
    [
        ("", [INDEX, *SAFETENSORS], [BIN_INDEX, *BIN, "model.gguf"]),
        ("safetensors", [INDEX, *SAFETENSORS], [BIN_INDEX, *BIN, "model.gguf"]),
        ("bin", [BIN_INDEX, *BIN], [INDEX, *SAFETENSORS, "model.gguf"]),
    ],
)
def test_the_other_formats_are_named_too(prefer: str, taken: list[str], others: list[str]) -> None:
    there = listed([*BIN, BIN_INDEX, *SAFETENSORS, INDEX, "model.gguf", *OTHERS])
    found = files_of_checkpoint(there, "", prefer=prefer)
    assert [[file.path for file in files] for files in found] == [["config.json", *taken], others]


def test_a_format_that_is_preferred_and_not_there_is_done_without() -> None:
    files, others = files_of_checkpoint(listed(["model.safetensors"]), "", prefer="bin")
    assert ([file.path for file in files], others) == (["model.safetensors"], ())


@pytest.mark.parametrize(
    "name",
    [
        "model.fp16.safetensors",
        "amodel.safetensors",
        "model.safetensors.part",
        "model-1-of-2.safetensors",
        "consolidated.safetensors",
    ],
)
def test_other_names_are_no_weights(name: str) -> None:
    assert chosen([name]) == []


def test_code_comes_only_where_the_entry_asks_for_it() -> None:
    names = ["modeling_mine.py", "configuration_mine.py", "model.safetensors", "config.json", "sub/other.py"]
    assert chosen(names) == ["config.json", "model.safetensors"]
    assert chosen(names, code=True) == [
        "config.json",
        "configuration_mine.py",
        "modeling_mine.py",
        "model.safetensors",
    ]


def test_a_folder_of_the_repository() -> None:
    names = [
        "config.json",
        "model.safetensors",
        "s1/config.json",
        "s1/model.safetensors",
        "s1/x/model.safetensors",
    ]
    assert chosen(names, "s1") == ["s1/config.json", "s1/model.safetensors"]
    assert chosen(names) == ["config.json", "model.safetensors"]
    assert chosen(names, "s1/x") == ["s1/x/model.safetensors"]
    assert chosen(names, "s") == []


def tokenizer(names: list[str], subfolder: str = "") -> list[str]:
    return [file.path for file in downloads_of_tokenizer(listed(names), subfolder)]


def test_the_files_of_a_tokenizer_and_the_configuration_that_names_its_class() -> None:
    names = [
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "vocab.json",
        "merges.txt",
        "config.json",
    ]
    assert tokenizer(names) == [
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "config.json",
    ]
    assert tokenizer(["vocab.txt"]) == ["vocab.txt"]


@pytest.mark.parametrize(
    "name", [name for name in TOKENIZER_FILES if "config" not in name and "tokens" not in name]
)
def test_any_vocabulary_is_a_tokenizer(name: str) -> None:
    assert tokenizer([name, "tokenizer_config.json"])[:1] != []


@pytest.mark.parametrize(
    "names", [[], ["config.json"], ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]]
)
def test_settings_alone_are_no_tokenizer(names: list[str]) -> None:
    assert tokenizer([*names, "model.safetensors"]) == []


def test_a_tokenizer_in_a_folder() -> None:
    assert tokenizer(["a/tokenizer.json", "tokenizer.json", "a/config.json"], "a") == [
        "a/tokenizer.json",
        "a/config.json",
    ]
