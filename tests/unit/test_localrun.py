"""A folder that is a checkpoint itself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tiny_models import ARCHITECTURES, BLOCKS, VOCABULARY, WIDTH, WINDOW

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.study.models import local_checkpoints, read_facts, require_weights


def found(root: Path) -> list[Checkpoint]:
    return local_checkpoints("m", Path("run"), root=root, tokens_per_step=100)


def test_a_folder_with_weights_is_one_checkpoint(tmp_path: Path) -> None:
    ARCHITECTURES["bert"].build().save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "1_Pooling").mkdir()
    (checkpoint,) = found(tmp_path)
    assert (checkpoint.name, checkpoint.step, checkpoint.folder) == ("final", -1, Path("run"))
    assert math.isnan(checkpoint.tokens_seen)
    require_weights("m", [checkpoint], root=tmp_path)
    facts = read_facts("m", [checkpoint], {"kind": "encoder"}, root=tmp_path)
    assert facts == {
        "kind": "encoder",
        "architecture": "bert",
        "blocks": BLOCKS,
        "width": WIDTH,
        "context": WINDOW,
        "vocabulary": VOCABULARY,
    }


def test_checkpoints_below_go_before_the_weights_beside_them(tmp_path: Path) -> None:
    """As Trainer leaves them: the last weights once more, in the run's own folder."""
    model = ARCHITECTURES["bert"].build()
    for folder in ("run", "run/checkpoint-10", "run/checkpoint-20"):
        model.save_pretrained(tmp_path / folder)
    assert [(one.name, one.step) for one in found(tmp_path)] == [("checkpoint-10", 10), ("checkpoint-20", 20)]


def test_weights_that_are_not_whole_are_told_later(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        InputError, match="`m`: 1 of its 1 checkpoints cannot be loaded: final. .* was not saved whole"
    ):
        require_weights("m", found(tmp_path), root=tmp_path)


def test_several_quantizations_are_told_apart_by_folders(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("Q4.gguf", "Q8.gguf"):
        (tmp_path / "run" / name).touch()
    message = "has 2 GGUF files, Q4.gguf, Q8.gguf; leave one of them"
    with pytest.raises(InputError, match=message):
        require_weights("m", found(tmp_path), root=tmp_path)
    with pytest.raises(InputError, match=message):
        read_facts("m", found(tmp_path), {"kind": "decoder"}, root=tmp_path)


def test_a_folder_with_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "optimizer.pt").touch()
    with pytest.raises(
        InputError, match="no folder in run matches .* It holds optimizer.pt. Name the folder"
    ):
        found(tmp_path)
