"""Models that users name without a registry entry: a local folder, or a hub repository."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmshape.hub.published import path_safe
from lmshape.schema import Yaml, schema_with_names, with_defaults
from lmshape.study.registry import Registry

FOLDER_SIGNS = ("/", "./", "../", "~")


def with_typed_models(
    config: Mapping[str, Yaml], registry: Registry, *, root: Path
) -> tuple[dict[str, Yaml], Registry]:
    """Give every folder and repository under `models` a name of the registry, and an entry where it has none.

    What is neither a list nor a mapping of names is left as it is, for the schema to refuse.
    """
    models = config.get("models")
    listed = models if isinstance(models, list) else [models]
    names, registry = named(
        [
            name
            for one in listed
            for name in (one if isinstance(one, dict) else [one])
            if isinstance(name, str)
        ],
        registry,
        root=root,
    )

    def renamed(one: Yaml) -> Yaml:
        if isinstance(one, dict):
            return {names.get(key, key): value for key, value in one.items()}
        return names.get(one, one) if isinstance(one, str) else one

    changed = [renamed(one) for one in models] if isinstance(models, list) else renamed(models)
    return {**config, **({"models": changed} if "models" in config else {})}, registry


def named(typed: Iterable[str], registry: Registry, *, root: Path) -> tuple[dict[str, str], Registry]:
    """Return what each is called in the registry, and the registry with the entries that it lacked."""
    names: dict[str, str] = {}
    models = dict(registry.models)
    for one in typed:
        if one in models or not _is_typed(one):
            names[one] = one
            continue
        source = _source(one, root)
        names[one] = _known(source, models) or _free_name(one, source, models, root)
        models.setdefault(names[one], _with_defaults(source))
    return names, replace(registry, models=models)


def _is_typed(name: str) -> bool:
    return "/" in name or name.startswith((".", "~"))


def _source(typed: str, root: Path) -> dict[str, str]:
    """Return the entry: a folder where it looks like a path or there is one, else a repository of the hub."""
    local = typed.startswith(FOLDER_SIGNS) or typed in (".", "..") or (root / typed).is_dir()
    return {"folder": typed} if local or typed.count("/") != 1 else {"repository": typed}


def _known(source: Mapping[str, str], models: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the registry's first name of the same run."""
    ((key, value),) = source.items()
    alike = os.path.normpath if key == "folder" else str.lower
    return next(
        (name for name, entry in models.items() if key in entry and alike(entry[key]) == alike(value)), None
    )


def _free_name(typed: str, source: Mapping[str, str], models: Iterable[str], root: Path) -> str:
    """Name an entry by the end of its path; by more of it where another has that name."""
    whole = str((root / Path(typed).expanduser()).resolve()) if "folder" in source else typed
    parts = [part for part in whole.split("/") if part]
    names = (path_safe("-".join(parts[-count:])).lstrip("-._+=") for count in range(1, len(parts) + 1))
    return next((name for name in names if name and name not in models), path_safe(whole))


def _with_defaults(source: Mapping[str, str]) -> Mapping[str, Yaml]:
    return with_defaults({"it": dict(source)}, schema_with_names("models", {}))["it"]
