"""Which files are the weights of a checkpoint, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmshape.errors import InputError
from lmshape.store.weights import (
    check_whole,
    checkpoint_files,
    has_weights,
    only_gguf,
    weight_files,
    weights_sha256,
)


def test_one_file_has_its_own_sha256(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    assert weights_sha256(tmp_path) == hashlib.sha256(b"weights").hexdigest()


def test_safetensors_before_bin(tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
        assert weight_files(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_shards_in_the_order_of_their_names(tmp_path: Path, name: str) -> None:
    index = {"weight_map": {"z": "part-1", "y": "part-2", "x": "part-2", "a": "part-1"}}
    (tmp_path / f"{name}.index.json").write_text(json.dumps(index))
    for part in ("part-2", "part-1"):
        (tmp_path / part).write_bytes(part.encode())
    assert weight_files(tmp_path) == [tmp_path / "part-1", tmp_path / "part-2"]
    digests = "".join(hashlib.sha256(part).hexdigest() for part in (b"part-1", b"part-2"))
    assert weights_sha256(tmp_path) == hashlib.sha256(digests.encode()).hexdigest()


def test_gguf_comes_last_and_alone(tmp_path: Path) -> None:
    (tmp_path / "small.Q4_1.gguf").touch()
    assert weight_files(tmp_path) == [tmp_path / "small.Q4_1.gguf"]
    assert only_gguf(tmp_path) == tmp_path / "small.Q4_1.gguf"
    assert checkpoint_files(tmp_path) == [tmp_path / "small.Q4_1.gguf"]
    (tmp_path / "small.Q8_0.gguf").touch()
    with pytest.raises(InputError, match="has 2 GGUF files, small.Q4_1.gguf, small.Q8_0.gguf; leave one"):
        weight_files(tmp_path)
    assert only_gguf(tmp_path) is None
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / name).touch()
    assert weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]
    assert checkpoint_files(tmp_path) == [tmp_path / "pytorch_model.bin", tmp_path / "config.json"]
    assert only_gguf(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("model.safetensors", True),
        ("pytorch_model.bin.index.json", True),  # its shards are asked for later
        ("any.gguf", True),
        ("optimizer.pt", False),
        ("checkpoint-1/model.safetensors", False),
    ],
)
def test_weights_in_the_folder_itself(tmp_path: Path, name: str, found: bool) -> None:
    assert not has_weights(tmp_path / "none")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert has_weights(tmp_path) == found


def test_folders_without_whole_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none` is not a folder; a checkpoint is a folder with config.json"):
        weight_files(tmp_path / "none")
    with pytest.raises(
        InputError, match="has no weights; expected model.safetensors or pytorch_model.bin, .* or one .gguf"
    ):
        weight_files(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "part-1", "b": "part-2"}}))
    (tmp_path / "part-1").touch()
    with pytest.raises(
        InputError, match="lacks part-2, named in model.safetensors.index.json; fetch it again"
    ):
        weight_files(tmp_path)
    for broken in ("{", "{}"):
        index.write_text(broken)
        with pytest.raises(InputError, match="is not an index of weight shards .*; fetch it again"):
            weight_files(tmp_path)


def test_weights_that_were_not_saved_whole_are_told_without_reading_them(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.arange(6.0), "b": np.ones(3)}, path, metadata={"format": "pt"})
    check_whole(path)
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:4], whole[:20], b""):
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match="model.safetensors` was not saved whole .*; save or fetch it again"
        ):
            check_whole(path)
