"""Write the tables of config/README.md from the JSON schemas and the audit's verdicts: `python docs/keys.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from lmshape.hub.integrity import AUDIT_VERDICTS, DISTRUSTED
from lmshape.schema import schema_with_names

README = Path(__file__).parents[1] / "config/README.md"
PLACE = re.compile(r"^( *)<!-- table: (\w+) -->\n.*?^ *<!-- end -->\n", re.MULTILINE | re.DOTALL)

Part = Mapping[str, object]


def with_tables(text: str) -> str:
    """Return a page with every table between its markers written anew."""
    return PLACE.sub(lambda place: _between_markers(*place.groups()), text)


def _between_markers(indent: str, name: str) -> str:
    lines = [f"<!-- table: {name} -->", "", *_table(name), "", "<!-- end -->"]
    return "".join(f"{indent}{line}".rstrip() + "\n" for line in lines)


def _table(name: str) -> Iterator[str]:
    if name == "verdicts":
        rows = [
            (f"`{one}`", means, "no" if one in DISTRUSTED else "yes") for one, means in AUDIT_VERDICTS.items()
        ]
        return _lines(["verdict", "meaning", "in figures over training"], rows)
    schema = schema_with_names(name, {})
    top = schema if "properties" in schema else schema.get("additionalProperties") or schema["items"]
    return _lines(["key", "may be", "default", "meaning"], _keys(top))


def _lines(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        one_line = (" ".join(cell.split()).replace("|", r"\|") for cell in cells)
        yield f"| {' | '.join(one_line)} |"


def _keys(schema: Part, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for every key of a schema, and for those below it: of `models` below any name."""
    for key, part in schema.get("properties", {}).items():
        default = _default(part, required=key in schema.get("required", ()))
        yield f"`{prefix}{key}`", _values(part), default, str(part.get("description", ""))
        if part.get("type") in ("object", ["object", "boolean"]):
            yield from _keys(part, f"{prefix}{key}.")
            yield from _keys(part.get("additionalProperties") or {}, f"{prefix}{key}.{{name}}.")


def _default(part: Part, *, required: bool) -> str:
    if part.get("default") in (None, {}, ""):
        return "required" if required else ""
    return f"`{json.dumps(part['default'])}`".replace('"', "").replace(r"\\", "\\")


def _values(part: Part) -> str:
    """Say what a value may be: its choices, else its type and bounds."""
    if "enum" in part:
        return ", ".join(f"`{choice}`" for choice in part["enum"])
    kinds = part.get("type", "any")
    kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([kind, *(f"{sign} {part[name]}" for name, sign in bounds.items() if name in part)])


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text(encoding="utf-8")), encoding="utf-8")
