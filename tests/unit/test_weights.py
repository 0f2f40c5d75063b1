"""Which files are the weights of a checkpoint, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.weights import weight_files, weights_sha256


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


def test_folders_without_whole_weights(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none` is not a folder; a checkpoint is a folder with config.json"):
        weight_files(tmp_path / "none")
    with pytest.raises(InputError, match="has no weights; expected model.safetensors or pytorch_model.bin"):
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
        with pytest.raises(InputError, match="is no index of weight shards .*; fetch it again"):
            weight_files(tmp_path)
