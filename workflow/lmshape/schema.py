"""YAML files and their JSON schemas: fill in defaults, and report faults as sentences."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Hashable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from lmshape.errors import InputError, suggest

LARGEST = 2**53  # whole number: as a float it is exact, and the products in estimates are finite
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
SCHEMAS = Path(__file__).parents[1] / "schemas"
Error: TypeAlias = Any  # a jsonschema.ValidationError, whose attributes may be anything, or unset
Yaml: TypeAlias = Any  # what a YAML file holds: a schema has checked it before anything reads it


class _Loader(yaml.CSafeLoader):
    """Safe loader that refuses a key given twice; YAML would silently keep the last."""


def _mapping_of_unique_keys(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Yaml]:
    seen: list[str] = []
    for key, _ in node.value:
        if key.value in seen:
            line = key.start_mark.line + 1
            raise InputError(f"the key `{key.value}` appears twice, the second time on line {line}")
        seen.append(key.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping_of_unique_keys)


def read_yaml(path: Path) -> Yaml:
    """Read a YAML file.

    Raises
    ------
    InputError
        When there is no such file, it is not YAML, or a mapping has a key twice.
    """
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)
    except FileNotFoundError:
        raise InputError(f"`{path}`: no such file.") from None
    except yaml.MarkedYAMLError as error:
        raise InputError(f"`{path}` cannot be read as YAML: {_where(error, path)}.") from None
    except (yaml.YAMLError, ValueError, OSError) as error:  # a ValueError of a date, say
        raise InputError(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}.") from None


def read_keys(path: Path) -> dict[str, Yaml]:
    """Read a YAML file that has keys; `InputError` as `read_yaml`, and where it has none."""
    found = read_yaml(path)
    if not isinstance(found, dict):
        raise InputError(
            f"`{path}` has no keys. Name a file with `key: value` lines, as config/studies has them."
        )
    return found


def _where(error: yaml.MarkedYAMLError, path: Path) -> str:
    """Say what is wrong on which line, and what stands there."""
    mark = error.problem_mark
    if mark is None:
        return str(error.problem)
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    line = f"`{lines[mark.line].strip()[:100]}`" if mark.line < len(lines) else "the end of the file"
    return f"{error.problem} on line {mark.line + 1}, {line}"


@cache
def _schema(name: str) -> dict[str, Yaml]:
    return read_yaml(SCHEMAS / f"{name}.schema.yaml")


def schema_with_names(name: str, names: Mapping[str, Collection[str]]) -> dict[str, Yaml]:
    """Copy a file's schema; `names` adds the valid values of its `$defs`, such as `{"model_name": …}`."""
    schema = copy.deepcopy(_schema(name))
    for definition, valid in names.items():
        schema["$defs"][definition]["enum"] = list(valid)  # in all places that are aliases of it
    return schema


def faults(data: Yaml, schema: Mapping[str, Yaml], *, where: str = "") -> list[str]:
    """Every way in which data break their schema, a sentence each: path, value, rule, remedy."""
    errors = _validator()(schema).iter_errors(data)
    return list(dict.fromkeys(f"{where}{sentence}" for error in errors for sentence in _sentences(error)))


@cache
def _validator() -> Any:
    """Return a validator for which `.nan`, which no bound refuses, is not a number, and 2.0 and 2^60 not whole ones."""
    from jsonschema import Draft202012Validator, validators  # here: `lmshape.profile` does without it

    plain = Draft202012Validator.TYPE_CHECKER

    def is_number(checker: object, value: object) -> bool:
        return plain.is_type(value, "number") and value == value

    def is_integer(checker: object, value: object) -> bool:
        return plain.is_type(value, "integer") and isinstance(value, int) and abs(value) <= LARGEST

    types = plain.redefine_many({"number": is_number, "integer": is_integer})
    return validators.extend(Draft202012Validator, type_checker=types)


def with_defaults(data: Yaml, schema: Mapping[str, Yaml]) -> Yaml:
    """Copy of valid data with the schema's defaults put where a key is missing, at any depth."""
    if isinstance(data, list):
        return [with_defaults(item, schema.get("items", {})) for item in data]
    if not isinstance(data, dict):
        return data
    known = schema.get("properties", {})
    defaults = {key: part["default"] for key, part in known.items() if "default" in part}
    other = schema.get("additionalProperties") or {}
    return {key: with_defaults(value, known.get(key, other)) for key, value in (defaults | data).items()}


def _sentences(error: Error) -> Iterator[str]:
    path = _dotted(error)
    remedy = f" {error.schema['remedy']}" if "remedy" in error.schema else ""
    if error.validator == "additionalProperties":
        valid = error.schema.get("properties", {})
        for key in error.instance:
            if key not in valid:
                yield f"{_quoted(path, key)}: unknown key.{suggest(key, valid)}"
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield f"{_quoted(path, key)}: this key is missing."
    elif "propertyNames" in error.absolute_schema_path:
        yield f"{_quoted(path, error.instance)}: {_rule(error)}{remedy}"
    elif isinstance(error.instance, dict | list) or not path:
        yield f"{_quoted(path)}: {_rule(error)}{remedy}"
    else:
        yield f"{_quoted(path)} = {error.instance!r}: {_rule(error)}{remedy}"


def _dotted(error: Error) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return "".join(parts).removeprefix(".")


def _quoted(*path: object) -> str:
    dotted = ".".join(str(part) for part in path if part != "")
    return f"`{dotted}`" if dotted else "the file"


def _rule(error: Error) -> str:
    if error.validator == "type":
        return _type(error)
    if error.validator == "enum":
        return f"unknown {error.schema.get('noun', 'value')}.{suggest(error.instance, error.validator_value)}"
    if error.validator == "uniqueItems":
        twice = dict.fromkeys(str(item) for item in error.instance if error.instance.count(item) > 1)
        return f"lists {', '.join(twice)} more than once. Keep one."
    if error.validator == "minItems" and error.validator_value == 1:
        return "must not be empty."
    if error.validator == "maxProperties":
        return f"must have one key, not {len(error.instance)}: {', '.join(map(str, error.instance))}."
    if error.validator == "anyOf":
        return str(error.schema["rule"])
    if error.validator in _RULES:
        return _RULES[error.validator].format(limit=error.validator_value)
    return f"{error.message}."


def _type(error: Error) -> str:
    kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    rule = f"must be {' or '.join(_KINDS[kind] for kind in kinds)}."
    if "integer" in kinds and type(error.instance) in (int, float) and error.instance % 1 == 0:
        return f"{rule[:-1]}, without a point and at most 2^53."
    if (
        isinstance(error.instance, str)
        and {"integer", "number"} & set(kinds)
        and NUMBER.fullmatch(error.instance)
    ):
        # YAML 1.1 wants a decimal point before an exponent; Snakemake's --config makes text of nested keys.
        rule += (
            " This is text: write 5, not '5'; 1.0e-3, not 1e-3; nested keys in a file, not after --config."
        )
    return rule


_KINDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping of keys to values",
    "null": "empty",
}
_RULES = {
    "minimum": "must be at least {limit}.",
    "maximum": "must be at most {limit}.",
    "exclusiveMinimum": "must be more than {limit}.",
    "exclusiveMaximum": "must be less than {limit}.",
    "minItems": "must have at least {limit} entries.",
    "maxItems": "must have at most {limit} entries.",
    "minProperties": "must not be empty.",
    "minLength": "must not be empty.",
    "pattern": "not valid.",
    "not": "not allowed.",
    "oneOf": "must have one of two keys, and not both.",
}
