"""Every verb with each of its arguments wrong and the others right: no traceback, one sentence, exit code 2."""

from __future__ import annotations

import inspect
import sys
import typing
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants
from tiny_models import ARCHITECTURES
from typer.models import ArgumentInfo, OptionInfo

from lmshape import cli
from lmshape.figures import FIGURES
from lmshape.texts.tokenizer import train_tokenizer

pytestmark = pytest.mark.slow

VERBS = {command.callback.__name__: command.callback for command in cli.app.registered_commands}
RIGHT = {
    "profile": {"model": "run", "text": "text.txt", "metrics": "anisotropy"},
    "figure": {"name": next(iter(FIGURES))},
    "run": {"rule": "tokenize", "model": "mine", "dataset": "mine"},
}
WRONG = {
    "nothing": None,
    "missing": None,
    "empty": b"",
    "truncated": b'{"a": [1, "b',
    "binary": bytes(range(256)),
    "folder": None,
    "loop": None,  # a link to itself, which no user can open
}
# What does not read the argument, takes any text, or makes the folder.
FREE = {("spikes", "configfile"), ("spikes", "directory"), ("metrics", "directory"), ("missing", "log")}
FREE |= {("profile", "output"), ("run", "reader"), ("audit", "directory"), ("lock", "directory")}
EMPTY = {
    ("figure", "paper"),
    ("figure", "model"),
    ("run", "text"),
    ("run", "pretraining"),
    ("run", "checkpoint"),
}
EMPTY |= {("run", "cell"), ("run", "layers")}  # "" is the default


def declared(verb: str) -> dict[str, tuple[str, OptionInfo | ArgumentInfo | None]]:
    """Name of each argument of a verb that has a value → its type, what is said of it."""
    callback = VERBS[verb]
    hints = typing.get_type_hints(callback, vars(cli) | {"Path": Path}, include_extras=True)
    names = [name for name in inspect.signature(callback).parameters if "bool" not in str(hints[name])]
    return {name: (str(hints[name]), getattr(hints[name], "__metadata__", (None,))[0]) for name in names}


def words_of(verb: str, **values: str) -> list[str]:
    """Spell a call: the arguments that are right, and those that are given."""
    words = [verb]
    given = {"configfile": "config.yaml", **RIGHT.get(verb, {}), **values}
    for name, (_, told) in declared(verb).items():
        if name in given:
            option = next(iter(getattr(told, "param_decls", None) or ()), f"--{name.replace('_', '-')}")
            words += [given[name]] if isinstance(told, ArgumentInfo) else [option, given[name]]
    return words


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of one checkpoint, nothing of which is measured, and a wrong file of each kind."""
    folder, text = tmp_path_factory.mktemp("study"), "the cat sat on the mat. " * 4000
    (folder / "text.txt").write_text(text)
    architecture = ARCHITECTURES["gpt_neox"]
    type(architecture)(
        **{**vars(architecture), "config": {**architecture.config, "vocab_size": 300}}
    ).build().save_pretrained(folder / "run")
    train_tokenizer(text, 300).save_pretrained(folder / "run")
    entries = {
        "models": {"mine": {"folder": "run"}},
        "datasets": {"texts": {"mine": {"path": "text.txt"}}, "datasets": {"mine": {"text": "mine"}}},
    }
    for name, content in entries.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    config = {"models": ["mine"], "datasets": ["mine"], "sampling": {"window": 32, "rows_per_draw": 64}}
    config["registry"] = {name: f"{name}.yaml" for name in entries}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for kind, content in WRONG.items():
        if content is not None:
            (folder / kind).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "loop").symlink_to("loop")
    return folder


CALLS = [(verb, name) for verb in VERBS for name in declared(verb)]


def test_the_table_holds_what_is_declared() -> None:
    assert {"plan", "missing", "lock", "audit", "spikes", "metrics", "run"} <= {verb for verb, _ in CALLS}
    assert {("spikes", "logs"), ("missing", "log"), ("run", "dataset")} <= set(CALLS)
    assert FREE | EMPTY <= set(CALLS)


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize(("verb", "argument"), CALLS)
def test_what_is_wrong_is_one_sentence(
    verb: str,
    argument: str,
    kind: str,
    study: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(study)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    value = "" if kind == "nothing" else kind
    monkeypatch.setattr(sys, "argv", ["lmshape", *words_of(verb, **{argument: value})])
    with pytest.raises(SystemExit) as ended:  # and no other error
        cli.main()
    said = capsys.readouterr().err
    lenient = (verb, argument) in FREE or (kind == "nothing" and (verb, argument) in EMPTY)
    nowhere = argument == "directory" and kind in (
        "nothing",
        "missing",
    )  # a study may be planned before it is made
    if not (ended.value.code in (None, 0) and (lenient or nowhere)):
        assert ended.value.code == 2, said
        assert "error: " in said or said.startswith("Usage: "), said
