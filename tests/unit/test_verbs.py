"""Every verb with a file that is missing, empty, truncated or of another kind: no traceback, one sentence."""

from __future__ import annotations

import inspect
import sys
import typing
from pathlib import Path

import pytest
from typer.models import ArgumentInfo, OptionInfo

from lmshape import cli
from lmshape.figures import FIGURES

pytestmark = pytest.mark.slow

VERBS = {command.callback.__name__: command.callback for command in cli.app.registered_commands}
NEEDED = {"rule": "tokenize", "name": next(iter(FIGURES)), "names": next(iter(FIGURES))}
KINDS = {
    "missing": None,
    "empty": b"",
    "truncated": b'{"a": [1, "b',
    "binary": bytes(range(256)),
    "folder": None,
}


def declared(verb: str) -> dict[str, tuple[object, OptionInfo | ArgumentInfo | None, bool]]:
    """Name of each argument of a verb → its type, what is said of it, whether a call needs it."""
    callback = VERBS[verb]
    hints = typing.get_type_hints(callback, vars(cli) | {"Path": Path}, include_extras=True)
    found = {}
    for name, parameter in inspect.signature(callback).parameters.items():
        told = getattr(hints[name], "__metadata__", (None,))[0]
        found[name] = (hints[name], told, parameter.default is inspect.Parameter.empty)
    return found


FILES = [
    (verb, name) for verb in VERBS for name, (kind, _, _) in declared(verb).items() if "pathlib" in str(kind)
]


def test_the_table_holds_what_is_declared() -> None:
    assert {"plan", "missing", "lock", "audit", "spikes", "metrics", "run"} <= {verb for verb, _ in FILES}
    assert ("spikes", "logs") in FILES and ("missing", "log") in FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("verb", "argument"), FILES)
def test_a_wrong_file_is_one_sentence(
    verb: str,
    argument: str,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path, words = tmp_path / f"{kind}.yaml", [verb]
    if kind == "folder":
        path.mkdir()
    elif (content := KINDS[kind]) is not None:
        path.write_bytes(content)
    for name, (_, told, needed) in declared(verb).items():
        is_argument = isinstance(told, ArgumentInfo)
        option = next(iter(getattr(told, "param_decls", None) or ()), f"--{name.replace('_', '-')}")
        if name == argument:
            words += [path.name] if is_argument else [option, path.name]
        elif needed:
            words += [NEEDED.get(name, "nowhere")]
    monkeypatch.setattr(sys, "argv", ["lmshape", *words])
    with pytest.raises(SystemExit) as ended:  # and no other error
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code in (None, 0, 1, 2), said
    if ended.value.code == 2:
        assert said.startswith(("error: ", "Usage: ")), said
