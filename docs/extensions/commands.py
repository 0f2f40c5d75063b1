"""`command-list` and `command-sections`: the verbs of the command line, as Typer knows them."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

from generated import Generated, table
from typer.main import get_command

from lmshape.cli import app

if TYPE_CHECKING:
    from typer.core import TyperCommand, TyperOption


@cache
def verbs() -> dict[str, TyperCommand]:
    """Return the verbs by name."""
    return get_command(app).commands


class CommandList(Generated):
    """All verbs, each with its sentence."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write one table."""
        rows = [(f"[`{verb}`](#command-{verb})", one.help.splitlines()[0]) for verb, one in verbs().items()]
        return table(["verb", "what it does"], rows)


class CommandSections(Generated):
    """All verbs, each with its options."""

    required_arguments = 0

    def markdown(self, name: str) -> str:
        """Write a section for each."""
        return "\n".join(f"(command-{verb})=\n## `lmshape {verb}`\n\n{_described(verb)}" for verb in verbs())


def _described(name: str) -> str:
    """Write the usage of a verb, its help and a table of its options."""
    verb = verbs()[name]
    words = [_placeholder(one) for one in verb.params if one.param_type_name == "argument"]
    told = f"```text\n{' '.join(['lmshape', name, *words, '[OPTIONS]'])}\n```\n\n{verb.help}\n"
    rows = [(_spelt(one), _default(one), _meaning(one)) for one in verb.params]
    return f"{told}\n{table(['option', 'default', 'meaning'], rows)}"


def _placeholder(argument: TyperOption) -> str:
    word = argument.name.upper() + ("…" if argument.nargs == -1 else "")
    return word if argument.required else f"[{word}]"


def _spelt(one: TyperOption) -> str:
    if one.param_type_name == "argument":
        return f"`{one.name.upper()}`"
    return ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))


def _default(one: TyperOption) -> str:
    if one.required:
        return "required"
    if one.default in (None, False, [], ()):
        return "–"
    value = one.default.value if isinstance(one.default, Enum) else one.default
    return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`"


def _meaning(one: TyperOption) -> str:
    choices = getattr(one.type_descriptor, "annotation", None)
    words = [one.help or ""]
    if isinstance(choices, type) and issubclass(choices, Enum):
        words.append(" or ".join(f"`{choice.value}`" for choice in choices))
    return "; ".join(filter(None, words))
