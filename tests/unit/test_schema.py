"""Defaults at any depth, and every kind of fault as a sentence."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmshape.errors import InputError
from lmshape.schema import faults, read_yaml, schema_with_names, with_defaults

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "$defs": {"share": {"type": "number", "minimum": 0, "maximum": 1, "remedy": "Write a share."}},
    "properties": {
        "name": {"type": "string", "minLength": 1, "not": {"const": "taken"}},
        "share": {"$ref": "#/$defs/share", "default": 0.5},
        "rate": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "section": {
            "type": "object",
            "default": {},
            "additionalProperties": False,
            "properties": {"count": {"type": "integer", "default": 3}, "on": {"type": "boolean"}},
        },
        "pair": {"type": "array", "minItems": 2, "maxItems": 2, "uniqueItems": True},
        "one": {"type": ["object", "null"], "minProperties": 1, "maxProperties": 1},
        "color": {"enum": ["red", "green"], "noun": "color"},
        "entries": {"type": "object", "additionalProperties": {"properties": {"size": {"default": 7}}}},
        "odd": {"multipleOf": 2},
        "place": {"oneOf": [{"required": ["here"]}, {"required": ["there"]}], "remedy": "Name a place."},
    },
}


def test_defaults_fill_every_depth_and_leave_the_input_alone() -> None:
    data = {"name": "x", "entries": {"a": {}, "b": {"size": 1}}}
    assert with_defaults(data, SCHEMA) == {
        "name": "x",
        "share": 0.5,
        "section": {"count": 3},
        "entries": {"a": {"size": 7}, "b": {"size": 1}},
    }
    assert data == {"name": "x", "entries": {"a": {}, "b": {"size": 1}}}


def test_defaults_are_not_shared_between_calls() -> None:
    with_defaults({}, SCHEMA)["section"]["count"] = 99
    assert with_defaults({}, SCHEMA)["section"]["count"] == 3


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({}, "`name`: this key is missing."),
        ({"name": ""}, "`name` = '': must not be empty."),
        ({"name": "taken"}, "`name` = 'taken': not allowed."),
        ({"name": 3}, "`name` = 3: must be text."),
        ({"name": "x", "shar": 1}, "`shar`: unknown key. Nearest: share, pair."),
        ({"name": "x", "share": 2}, "`share` = 2: must be at most 1. Write a share."),
        ({"name": "x", "share": -1}, "`share` = -1: must be at least 0. Write a share."),
        ({"name": "x", "rate": 0}, "`rate` = 0: must be more than 0."),
        ({"name": "x", "rate": 1}, "`rate` = 1: must be less than 1."),
        (
            {"name": "x", "rate": "1e-3"},
            "`rate` = '1e-3': must be a number. This is text: write 5, not '5'; 1.0e-3, not 1e-3; "
            "nested keys in a file, not after --config.",
        ),
        ({"name": "x", "section": {"count": "five"}}, "`section.count` = 'five': must be a whole number."),
        *(
            (
                {"name": "x", "section": {"count": value}},
                f"`section.count` = {value}: must be a whole number, without a point and at most 2^53.",
            )
            for value in (2.0, 1e308, 2**60)  # `1.0e+3` of YAML, which `range` refuses, and what overflows
        ),
        ({"name": "x", "section": {"count": 2.5}}, "`section.count` = 2.5: must be a whole number."),
        ({"name": "x", "section": {"count": -inf}}, "`section.count` = -inf: must be a whole number."),
        ({"name": "x", "rate": nan}, "`rate` = nan: must be a number."),
        ({"name": "x", "share": inf}, "`share` = inf: must be at most 1. Write a share."),
        ({"name": "x", "rate": "fast"}, "`rate` = 'fast': must be a number."),
        ({"name": "x", "section": {"count": True}}, "`section.count` = True: must be a whole number."),
        ({"name": "x", "section": {"cont": 1}}, "`section.cont`: unknown key. Nearest: count, on."),
        ({"name": "x", "section": {"on": "maybe"}}, "`section.on` = 'maybe': must be true or false."),
        ({"name": "x", "section": []}, "`section`: must be a mapping of keys to values."),
        ({"name": "x", "pair": [1]}, "`pair`: must have at least 2 entries."),
        ({"name": "x", "pair": [1, 2, 3]}, "`pair`: must have at most 2 entries."),
        ({"name": "x", "pair": ["a", "a"]}, "`pair`: lists a more than once. Keep one."),
        ({"name": "x", "one": {}}, "`one`: must not be empty."),
        ({"name": "x", "one": {"a": 1, "b": 2}}, "`one`: must have one key, not 2: a, b."),
        ({"name": "x", "one": 5}, "`one` = 5: must be a mapping of keys to values or empty."),
        ({"name": "x", "color": "gren"}, "`color` = 'gren': unknown color. Nearest: green, red."),
        ({"name": "x", "odd": 3}, "`odd` = 3: 3 is not a multiple of 2."),
        ({"name": "x", "place": {}}, "`place`: must have one of two keys, and not both. Name a place."),
        (
            {"name": "x", "place": {"here": 1, "there": 2}},
            "`place`: must have one of two keys, and not both. Name a place.",
        ),
        (None, "the file: must be a mapping of keys to values."),
    ],
)
def test_each_fault_names_path_value_and_rule(data: object, sentence: str) -> None:
    assert faults(data, SCHEMA) == [sentence]


def numeric_keys(schema: object) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, part in schema.items() if isinstance(schema, dict) else ():
        if isinstance(part, dict) and {"integer", "number"} & set(np.atleast_1d(part.get("type", ()))):
            yield key, part
        yield from numeric_keys(part)


@pytest.mark.parametrize("name", ["config", "models", "datasets"])
def test_no_key_takes_what_is_not_finite_and_none_but_a_clip_what_overflows(name: str) -> None:
    found = list(numeric_keys(schema_with_names(name, {})))
    assert found
    for key, part in found:
        refused = [value for value in (nan, inf, -inf, 1e308, 10**400) if faults(value, part)]
        assert len(refused) == (2 if key == "gradient_clip" else 5), (key, refused)


def test_one_key_of_two_is_no_fault() -> None:
    assert faults({"name": "x", "place": {"here": 1}}, SCHEMA) == []


def test_all_faults_are_told_with_their_file() -> None:
    assert faults({"nam": "x", "share": 2}, SCHEMA, where="a.yaml: ") == [
        "a.yaml: `nam`: unknown key. Nearest: name.",
        "a.yaml: `name`: this key is missing.",
        "a.yaml: `share` = 2: must be at most 1. Write a share.",
    ]


def test_names_of_the_registry_become_valid_values() -> None:
    schema = schema_with_names("config", {"dataset_name": ["wiki"]})
    assert schema["$defs"]["dataset_name"]["enum"] == ["wiki"]
    assert "enum" not in schema_with_names("config", {})["$defs"]["dataset_name"]


def test_read_yaml_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    with pytest.raises(InputError, match=r"x\.yaml`: no such file\."):
        read_yaml(file)
    file.write_text("a: 1\nb: {c: 1}\na: 2\n")
    with pytest.raises(InputError, match=r"cannot be read as YAML: the key `a` appears twice.*on line 3\."):
        read_yaml(file)
    file.write_text("a: [1\n")
    with pytest.raises(InputError, match=r"x\.yaml` cannot be read as YAML"):
        read_yaml(file)
    file.write_text("base: &base {x: 1, y: 2}\nmore: {<<: *base, y: 3}\n")
    assert read_yaml(file)["more"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3\n", "did not find expected ',' or ']' on line 2, `b: 3`."),
        ("x: 1\na: b: c\n", "mapping values are not allowed in this context on line 2, `a: b: c`."),
        ("a: 'x\n", "found unexpected end of stream on line 2, the end of the file."),
        ("study: {{name}}\n", "found unhashable key on line 1, `study: {{name}}`."),
        ("day: 2026-02-30\n", "day is out of range for month."),
    ],
)
def test_broken_yaml_is_told_with_its_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        read_yaml(tmp_path / "x.yaml")
    assert str(error.value) == f"`{tmp_path / 'x.yaml'}` cannot be read as YAML: {words}"
