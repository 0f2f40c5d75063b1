"""`configuration-keys`: the keys of a YAML file, as its JSON schema in workflow/schemas/ declares them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from generated import Generated, table

from lmshape.schema import schema_with_names

Part = Mapping[str, object]


class ConfigurationKeys(Generated):
    """Key, what it may be, default and meaning, for every key of a file."""

    def markdown(self, name: str) -> str:
        """Write one table."""
        return table_of_keys(name)


def table_of_keys(name: str) -> str:
    """Write the table of the keys of a file: of `models` below any name, of `known_issues` in any item."""
    schema = schema_with_names(name, {})
    top = schema if "properties" in schema else schema.get("additionalProperties") or schema["items"]
    return table(["key", "may be", "default", "meaning"], _rows(top, schema))


def _rows(schema: Part, root: Part, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    for key, unresolved in schema.get("properties", {}).items():
        part = _resolved(unresolved, root)
        default = _default(part, required=key in schema.get("required", ()))
        yield f"`{prefix}{key}`", _values(part), default, str(part.get("description", ""))
        if part.get("type") == "object":
            yield from _rows(part, root, f"{prefix}{key}.")
            yield from _rows(part.get("additionalProperties") or {}, root, f"{prefix}{key}.{{name}}.")


def _resolved(part: Part, root: Part) -> Part:
    return {**root["$defs"][part["$ref"].rpartition("/")[2]], **part} if "$ref" in part else part


def _default(part: Part, *, required: bool) -> str:
    if part.get("default") in (None, {}, ""):
        return "required" if required else "–"
    return f"`{json.dumps(part['default'])}`".replace('"', "")


def _values(part: Part) -> str:
    """Say what a value may be: its choices, else its type and bounds."""
    if "enum" in part:
        return ", ".join(f"`{choice}`" for choice in part["enum"])
    kinds = part.get("type", "any")
    kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([kind, *(f"{sign} {part[name]}" for name, sign in bounds.items() if name in part)])
