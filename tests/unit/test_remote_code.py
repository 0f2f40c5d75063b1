"""Python code that comes with weights: not run, unless the registry's entry says so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from transformers import dynamic_module_utils

from lmshape.errors import InputError
from lmshape.models.network import load_model

CODE = """
from pathlib import Path

from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

Path({marker!r}).touch()


class TheirConfig(GPTNeoXConfig):
    model_type = "theirs"


class TheirForCausalLM(GPTNeoXForCausalLM):
    config_class = TheirConfig
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose class stands in a file beside it, which makes `ran` when it is imported."""
    folder, modules = tmp_path / "theirs", tmp_path / "modules"
    ARCHITECTURES["gpt_neox"].build().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "theirs.TheirConfig", "AutoModelForCausalLM": "theirs.TheirForCausalLM"}
    config |= {"model_type": "theirs", "architectures": ["TheirForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(modules))
    monkeypatch.setattr(sys, "path", [*sys.path, str(modules)])
    return folder


def load(folder: Path, **options: bool) -> str:
    return type(
        load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"), **options).model
    ).__name__


def test_code_does_not_run_unless_it_is_asked_for(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`.*theirs/config.json` cannot be used: .*custom code"):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_code_runs_where_the_entry_says_so(folder: Path, tmp_path: Path) -> None:
    assert load(folder, remote_code=True) == "TheirForCausalLM"
    assert (tmp_path / "ran").exists()
