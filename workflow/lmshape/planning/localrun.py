"""A training run on this machine: what its folder of checkpoints holds."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lmshape.errors import InputError
from lmshape.networks.gguf_file import check_whole_gguf, gguf_config
from lmshape.networks.model_config import CONFIG_KEYS, config_facts
from lmshape.networks.weights import GGUF, check_whole, has_weights, only_gguf, weight_files
from lmshape.planning.checkpoints import Checkpoint
from lmshape.texts.tokenizer_folder import TOKENIZERS, tokenizer_files

FINAL, NO_STEP = "final", -1  # the checkpoint of a folder that is one itself, and its step, which nobody says

Fact = str | int


def find_checkpoints(
    name: str, folder: Path, *, root: Path, step_pattern: str, tokens_per_step: int | None
) -> tuple[Checkpoint, ...]:
    """List the checkpoints of a run's folder in the order of their steps.

    A folder that holds weights itself, and no checkpoint below it, is one: `final`, of step -1.

    Parameters
    ----------
    name : the model's, for error messages
    folder : the run's folder, from `root`
    root : the working directory
    step_pattern : regular expression for the whole name of a checkpoint's folder; its first group is the step
    tokens_per_step : tokens of a training step, if known

    Raises
    ------
    InputError
        When the pattern is none or captures no number, the folder does not exist or holds no checkpoint, or
        two checkpoints are of the same step.
    """
    pattern = _compiled(name, step_pattern)
    found: dict[int, Checkpoint] = {}
    for entry in _folders(name, folder, root):
        match = pattern.fullmatch(entry)
        if match is None:
            continue
        step = _step(name, match)
        if step in found:
            raise InputError(
                f"`{name}`: {found[step].folder.name} and {entry} in {folder} are both of step {step}. "
                "Move one away, or make `step_pattern` narrower."
            )
        seen = math.nan if tokens_per_step is None else float(step * tokens_per_step)
        found[step] = Checkpoint(_path_safe(entry), step, folder / entry, seen)
    if not found and has_weights(root / folder):
        return (Checkpoint(FINAL, NO_STEP, folder),)
    if not found:
        raise InputError(
            f"`{name}`: no folder in {folder} matches `step_pattern` = '{step_pattern}'. "
            f"{_inventory(root / folder)} Name the folder that holds the checkpoints, or their pattern."
        )
    return tuple(found[step] for step in sorted(found))


def require_weights(name: str, checkpoints: Sequence[Checkpoint], *, root: Path) -> None:
    """Refuse checkpoints without weights: saved half-way, or none at all.

    Raises
    ------
    InputError
        When one of the folders has no weights that transformers can load.
    """
    reasons = {one.name: reason for one in checkpoints if (reason := _why_unusable(root / one.folder))}
    if reasons:
        names = ", ".join(list(reasons)[:5]) + (", …" if len(reasons) > 5 else "")
        raise InputError(
            f"`{name}`: {len(reasons)} of its {len(checkpoints)} checkpoints cannot be loaded: {names}. "
            f"The first: {next(iter(reasons.values()))} Save them whole, or leave them out under "
            "`checkpoints`."
        )


def read_facts(
    name: str, checkpoints: Sequence[Checkpoint], given: Mapping[str, Fact], *, root: Path
) -> dict[str, Fact | None]:
    """Architecture, blocks, width, context and vocabulary: as given, else of the first checkpoint that says it.

    A checkpoint says it in config.json; one whose weights are a GGUF file, in that file. `context` is None where
    the architecture has no longest sequence (ALiBi).

    Raises
    ------
    InputError
        When what says it cannot be read, lacks another fact, or belongs to a model of the other kind.
    """
    places = (_facts_file(one.folder, root) for one in checkpoints)
    file = next((place for place in places if place is not None), None)
    config = _read_config(name, root / file) if file else {}
    _check_kind(name, str(given["kind"]), config)
    facts = {fact: given.get(fact, value) for fact, value in config_facts(config).items()}
    unknown = [fact for fact, value in facts.items() if value is None and fact != "context"]
    if unknown:
        keys = [key for fact in unknown for key in CONFIG_KEYS[fact]]
        reason = f"{file} has none of {', '.join(keys)}" if file else "no checkpoint has a config.json"
        raise InputError(
            f"`{name}`: {', '.join(unknown)} cannot be told, since {reason}. "
            "Give what is unknown in the registry of models."
        )
    return facts


def find_tokenizer(name: str, places: Sequence[Path], *, root: Path) -> Path:
    """Give the first of the folders that holds a tokenizer.

    Raises
    ------
    InputError
        When none does.
    """
    for place in places:
        if tokenizer_files(root / place):
            return place
    raise InputError(
        f"`{name}`: no tokenizer ({', '.join(TOKENIZERS)}, or a GGUF file) in {' or '.join(map(str, places))}. "
        "Give the folder that holds it as `tokenizer` in the registry of models."
    )


def _compiled(name: str, step_pattern: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(step_pattern)
    except re.error as error:
        raise InputError(
            f"`{name}.step_pattern` = '{step_pattern}': no regular expression ({error})."
        ) from None
    if not pattern.groups:
        raise InputError(
            f"`{name}.step_pattern` = '{step_pattern}': needs a group around the step, "
            "as in `checkpoint-(\\d+)`."
        )
    return pattern


def _folders(name: str, folder: Path, root: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in (root / folder).iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"`{name}.folder` = '{folder}': no such folder in {root}. Correct the path."
        ) from None


def _step(name: str, match: re.Match[str]) -> int:
    try:
        return int(match[1])
    except (TypeError, ValueError):
        raise InputError(
            f"`{name}.step_pattern` = '{match.re.pattern}': takes {match[1]!r} of {match[0]} for the step. "
            "Put the first group around the digits."
        ) from None


def _path_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", name)


def _why_unusable(folder: Path) -> str:
    try:
        for path in weight_files(folder):
            if path.suffix == ".safetensors":
                check_whole(path)
            elif path.suffix == GGUF:
                check_whole_gguf(path)
    except InputError as error:
        return f"{error} {_inventory(folder)}"
    return ""


def _inventory(folder: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
    if not names:
        return "The folder is empty."
    return f"It holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}."


def _facts_file(folder: Path, root: Path) -> Path | None:
    """Return the file of a checkpoint that says what its model is like, from the working directory."""
    quantized = only_gguf(root / folder)
    if quantized:
        return folder / quantized.name
    if (root / folder / "config.json").is_file():
        return folder / "config.json"
    if any((root / folder).glob(f"*{GGUF}")):
        weight_files(root / folder)  # says that there are several
    return None


def _read_config(name: str, file: Path) -> Mapping[str, Fact]:
    if file.suffix == GGUF:
        return gguf_config(file)
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"`{name}`: {file} is not JSON ({error}). Save the model anew.") from None
    if not isinstance(config, dict):
        raise InputError(f"`{name}`: {file} is no configuration of a model. Save the model anew.")
    return config


def _check_kind(name: str, kind: str, config: Mapping[str, Fact]) -> None:
    other = {"encoder": "ForCausalLM", "decoder": "ForMaskedLM"}[kind]
    for model_class in config.get("architectures") or ():
        if model_class.endswith(other):
            raise InputError(f"`{name}.kind` = '{kind}': its config.json says {model_class}. Correct `kind`.")
