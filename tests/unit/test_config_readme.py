"""config/README.md explains every key as the schemas do: one row of a table each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lmshape.schema import read_yaml
from lmshape.study.registry import REPOSITORY

README = (REPOSITORY / "config" / "README.md").read_text()


def documented_keys(schema: dict, root: dict, prefix: str = "") -> Iterator[str]:
    """A row of a table for every key below a schema: name, default, description."""
    for key, part in schema.get("properties", {}).items():
        part = {**root["$defs"][part["$ref"].rpartition("/")[2]], **part} if "$ref" in part else part
        description = " ".join(part["description"].split())
        yield f"| `{prefix}{key}` | {default_of(part, key in schema.get('required', []))} | {description} |"
        if part.get("type") in ("object", ["object", "boolean"]):
            yield from documented_keys(part, root, f"{prefix}{key}.")
            below = part.get("additionalProperties") or {}
            yield from documented_keys(below, root, f"{prefix}{key}.{{name}}.")


def default_of(part: dict, required: bool) -> str:
    if part.get("default") in (None, {}, ""):
        return "required" if required else ""
    text = json.dumps(part["default"]).replace('"', "").replace(r"\\", "\\")
    return f"`{text}`"


def rows(name: str) -> list[str]:
    schema = read_yaml(REPOSITORY / "workflow" / "schemas" / f"{name}.schema.yaml")
    top = schema["additionalProperties"] if name == "models" else schema
    return list(documented_keys(top, schema))


@pytest.mark.parametrize("row", [row for name in ("config", "models", "datasets") for row in rows(name)])
def test_every_key_has_its_row(row: str) -> None:
    assert row in README


def test_the_file_is_where_the_readme_says() -> None:
    for path in ("config/config.yaml", "config/models.yaml", "config/datasets.yaml"):
        assert f"`{Path(path).name}`" in README and (REPOSITORY / path).is_file()
