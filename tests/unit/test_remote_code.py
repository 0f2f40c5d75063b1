"""Python code that comes with weights: not run, unless the registry's entry says so."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from transformers import dynamic_module_utils

from lmshape.checkpoints import Checkpoint
from lmshape.errors import InputError
from lmshape.models.network import load_model
from lmshape.study.models import read_facts
from lmshape.texts.tokenizer import load_tokenizer, train_tokenizer

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
    config["tie_word_embeddings"] = True  # of a head under the name that its class gives it nothing is known
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
    with pytest.raises(
        InputError, match=r"`.*theirs/config.json` cannot be used: it is Python code, .*remote_code"
    ):
        load(folder)
    assert not (tmp_path / "ran").exists()


def test_code_runs_where_the_entry_says_so(folder: Path, tmp_path: Path) -> None:
    assert load(folder, remote_code=True) == "TheirForCausalLM"
    assert (tmp_path / "ran").exists()


THEIR_TOKENIZER = """
from pathlib import Path

from transformers import PreTrainedTokenizerFast

Path({marker!r}).touch()


class TheirTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def tokenizer(tmp_path: Path, folder: Path) -> Path:
    """A tokenizer whose class stands in a file beside it."""
    train_tokenizer("the cat sat on the mat. " * 50, 300).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "TheirTokenizer"}
    settings |= {"auto_map": {"AutoTokenizer": [None, "their_tokenizer.TheirTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "their_tokenizer.py").write_text(THEIR_TOKENIZER.format(marker=str(tmp_path / "ran")))
    return folder


def test_code_of_a_tokenizer_does_not_run_whatever_standard_input_says(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 100))
    with pytest.raises(InputError, match=r"is Python code, which is not run unless .* `remote_code: true`"):
        load_tokenizer(tokenizer)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_tokenizer_runs_where_the_entry_says_so(tokenizer: Path, tmp_path: Path) -> None:
    assert load_tokenizer(tokenizer, remote_code=True).is_fast
    assert (tmp_path / "ran").exists()


def test_code_of_a_configuration_does_not_run_when_facts_are_looked_up(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text part of a vision-language model leaves facts to its class."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "text_config": {"model_type": "theirs"}}))
    checkpoint = Checkpoint("final", -1, folder)
    with pytest.raises(
        InputError, match="transformers does not know .*; what reads it is Python code, .*`remote_code: true`"
    ):
        read_facts("m", [checkpoint], {"kind": "decoder"}, root=tmp_path)
    assert not (tmp_path / "ran").exists()
