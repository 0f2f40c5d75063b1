"""A model of the registry: its facts and its checkpoints, on disk, on the hub, or still to be trained."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lmshape.checkpoints import FINAL, NO_STEP, Checkpoint, Choice
from lmshape.errors import InputError, first_line, suggest
from lmshape.hub.integrity import Issue
from lmshape.hub.lock import Lock
from lmshape.hub.published import Ask, HubRun, Naming, path_safe, read_run, tokens_seen
from lmshape.paths import (
    LOSSES_FOLDER,
    PRETRAINED_FOLDER,
    PRETRAINED_TOKENIZER,
    TOKENIZER,
    TRUNCATION_FILE,
    WEIGHTS_FOLDER,
)
from lmshape.schema import Yaml
from lmshape.store.statistics import read_loss_card
from lmshape.store.weights import (
    CONFIG_KEYS,
    GGUF,
    Kind,
    check_architecture,
    check_fetched,
    check_quantization,
    check_whole,
    check_whole_gguf,
    config_facts,
    gguf_config,
    has_weights,
    kind_of,
    only_gguf,
    reads_both_ways,
    weight_files,
)
from lmshape.texts.tokenizer import TOKENIZERS, check_tokenizer, tokenizer_files
from lmshape.training.recipe import Pretraining

Fact = Any  # of a config.json, which anybody may have written


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRun:
    """A training run in a folder of this machine.

    Attributes
    ----------
    name : the model's, for error messages
    folder : the run's folder, from `root`
    root : the working directory
    step_pattern : regular expression for the whole name of a checkpoint's folder; its first group is the step
    tokens_per_step : tokens of a training step, if known
    """

    name: str
    folder: Path
    root: Path
    step_pattern: str = r"checkpoint-(\d+)"  # Trainer's
    tokens_per_step: int | None = None

    @property
    def naming(self) -> Naming:
        """How its folders spell a step; `InputError` for a pattern that is no regular expression with a group."""
        try:
            return Naming.reading(self.step_pattern)
        except InputError as error:
            raise InputError(f"`{self.name}`: {error}") from None

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """List the checkpoints whose folders are there, in the order of their steps.

        A folder that holds weights itself, and no checkpoint below it, is one: `final`, of step -1.

        Raises
        ------
        InputError
            When the folder does not exist or holds no checkpoint, or two are of the same step; as `naming`.
        """
        naming, folder = self.naming, self.folder
        found: dict[int, Checkpoint] = {}
        for entry in self._folders():
            step = naming.step(entry)
            if step is None:
                continue
            if step in found:
                raise InputError(
                    f"`{self.name}`: {found[step].folder.name} and {entry} in {folder} are both of step {step}. "
                    "Move one away, or make `step_pattern` narrower."
                )
            found[step] = self._checkpoint(entry, step)
        if not found and has_weights(self.root / folder):
            return (Checkpoint(FINAL, NO_STEP, folder),)
        if not found:
            raise InputError(
                f"`{self.name}`: no folder in {folder} matches `step_pattern` = '{self.step_pattern}'. "
                f"{_inventory(self.root / folder)} Name the folder that holds the checkpoints, or their pattern."
            )
        return tuple(found[step] for step in sorted(found))

    def gone(self) -> list[Checkpoint]:
        """List the checkpoints that were measured and whose weights are gone."""
        naming, results = self.naming, self.root / LOSSES_FOLDER.format(model=self.name)
        names = sorted(entry.name for entry in results.iterdir()) if results.is_dir() else []
        if FINAL in names and naming.step(FINAL) is None and not has_weights(self.root / self.folder):
            return [self._gone(Checkpoint(FINAL, NO_STEP, self.folder))]
        steps = {one: naming.step(one) for one in names if not has_weights(self.root / self.folder / one)}
        return [self._gone(self._checkpoint(one, step)) for one, step in steps.items() if step is not None]

    def there(self, gone: Sequence[Checkpoint]) -> tuple[Checkpoint, ...]:
        """List the checkpoints that have their weights; none where all that was measured of a run is gone."""
        naming, steps, whole = self.naming, [one.step for one in gone], self.root / self.folder
        folders = [entry.name for entry in whole.iterdir()] if whole.is_dir() else []
        if gone and {naming.step(entry) for entry in folders} <= {None, *steps}:
            return ()
        found = [one for one in self.checkpoints() if one.step not in steps]
        return settled(self.name, found, root=self.root)

    def _folders(self) -> list[str]:
        try:
            return sorted(entry.name for entry in (self.root / self.folder).iterdir() if entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            raise InputError(
                f"`{self.name}.folder` = '{self.folder}': no such folder in {self.root}. Correct the path."
            ) from None

    def _checkpoint(self, entry: str, step: int) -> Checkpoint:
        seen = tokens_seen(step, self.tokens_per_step)
        return Checkpoint(path_safe(entry), step, self.folder / entry, seen)

    def _gone(self, one: Checkpoint) -> Checkpoint:
        """Say what was measured of it: the datasets that it was truncated on."""
        files = self.root / TRUNCATION_FILE.format(model=self.name, checkpoint=one.name, dataset="")
        truncated = sorted(path.stem for path in files.parent.glob("*.parquet"))
        return replace(one, gone=True, truncated=tuple(truncated))


CHANGING_SECONDS = 600  # since a checkpoint's folder has changed: it may be just being saved, or deleted


def settled(name: str, checkpoints: Sequence[Checkpoint], *, root: Path) -> tuple[Checkpoint, ...]:
    """Leave out what is being saved or deleted, with a warning: the newest, or one that changes, without whole weights.

    Raises
    ------
    InputError
        When nothing is left.
    """
    if checkpoints[0].step == NO_STEP:
        return tuple(checkpoints)
    kept = []
    for one in checkpoints:
        reason = (
            _why_unusable(root / one.folder) if one is checkpoints[-1] or _changing(root / one.folder) else ""
        )
        if reason:
            print(f"`{name}`: {one.name} is left out until it is whole. {reason}", file=sys.stderr)
        else:
            kept.append(one)
    if not kept:
        raise InputError(f"`{name}`: no checkpoint is whole yet. {reason} Wait until one is saved.")
    return tuple(kept)


def _changing(folder: Path) -> bool:
    return not folder.is_dir() or time.time() - folder.stat().st_mtime < CHANGING_SECONDS


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
) -> dict[str, Any]:
    """Architecture, blocks, width, context and vocabulary: as given, else of the first checkpoint that says it.

    A checkpoint says it in config.json; one whose weights are a GGUF file, in that file. `context` is None where
    the architecture has no longest sequence (ALiBi).

    Raises
    ------
    InputError
        When what says it cannot be read, lacks another fact, or belongs to a model of the other kind.
    """
    file = _first_facts_file(checkpoints, root)
    config = _read_config(name, root / file) if file else {}
    _check_kind(name, given["kind"], config)
    named = file and file.suffix != GGUF and config.get("model_type")
    if named and not given.get("remote_code") and "auto_map" not in config:
        try:
            check_architecture(config, given["kind"])
        except InputError as error:
            raise InputError(f"`{name}`: {error}") from None
    facts = {fact: given.get(fact, value) for fact, value in config_facts(config).items()}
    if file and config.get("text_config") and None in facts.values():
        facts |= {
            fact: value
            for fact, value in _defaults((root / file).parent, bool(given.get("remote_code"))).items()
            if facts[fact] is None
        }
    unknown = [fact for fact, value in facts.items() if value is None and fact != "context"]
    if unknown:
        keys = [key for fact in unknown for key in CONFIG_KEYS[fact]]
        reason = f"{file} has none of {', '.join(keys)}" if file else "no checkpoint has a config.json"
        raise InputError(
            f"`{name}`: {', '.join(unknown)} cannot be known, since {reason}. "
            "Give what is unknown in the registry of models."
        )
    return facts


def find_tokenizer(name: str, places: Sequence[Path], *, root: Path) -> Path:
    """Give the first of the folders that holds a tokenizer.

    Raises
    ------
    InputError
        When none does, or the first has files that do not make one.
    """
    for place in places:
        try:
            check_tokenizer(root / place)
        except InputError as error:
            raise InputError(f"`{name}`: {error}") from None
        if tokenizer_files(root / place):
            return place
    raise InputError(
        f"`{name}`: no tokenizer ({', '.join(TOKENIZERS)}, or a GGUF file) in {' or '.join(map(str, places))}. "
        "Give the folder that holds it as `tokenizer` in the registry of models."
    )


def _why_unusable(folder: Path) -> str:
    try:
        for path in weight_files(folder):
            check_fetched(path)
            if path.suffix == ".safetensors":
                check_whole(path)
            elif path.suffix == GGUF:
                check_whole_gguf(path)
    except InputError as error:
        return f"{error} {_inventory(folder)}"
    except OSError as error:  # it was deleted meanwhile
        return f"{error}."
    return ""


def _inventory(folder: Path) -> str:
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir()) if folder.is_dir() else []
    if not names:
        return "The folder is empty."
    return f"It holds {', '.join(names[:8])}{', …' if len(names) > 8 else ''}."


def _first_config(name: str, checkpoints: Sequence[Checkpoint], root: Path) -> Mapping[str, Fact]:
    file = _first_facts_file(checkpoints, root)
    if file is None:
        raise InputError(
            f"`{name}`: no checkpoint has a config.json that says decoder or encoder. Give `kind` in an entry "
            "of the registry of models."
        )
    return _read_config(name, root / file)


def _first_facts_file(checkpoints: Sequence[Checkpoint], root: Path) -> Path | None:
    places = (_facts_file(one.folder, root) for one in checkpoints)
    return next((place for place in places if place is not None), None)


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
        raise InputError(f"`{name}`: {file} is not JSON ({error}). Save the model again.") from None
    if not isinstance(config, dict):
        raise InputError(f"`{name}`: {file} is not a configuration of a model. Save the model again.")
    try:
        check_quantization(config)
    except InputError as error:
        raise InputError(f"`{name}`: {error}") from None
    return config


def _defaults(folder: Path, remote_code: bool) -> dict[str, Any]:
    """Return what the text part of a vision-language model's config.json leaves to the defaults of its class."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"`{folder}/config.json` cannot be used: {first_line(error)}") from error
    return config_facts(config.get_text_config().to_dict())


def _check_kind(name: str, kind: str, config: Mapping[str, Fact]) -> None:
    other = {"encoder": "ForCausalLM", "decoder": "ForMaskedLM"}[kind]
    for model_class in config.get("architectures") or ():
        if model_class.endswith(other) and not (kind == "encoder" and reads_both_ways(config)):
            raise InputError(f"`{name}.kind` = '{kind}': its config.json says {model_class}. Correct `kind`.")


KIND_OF_ARCHITECTURE: dict[str, Kind] = {"gpt_neox": "decoder", "bert": "encoder", "modernbert": "encoder"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A training run: what the model is, and its checkpoints.

    Attributes
    ----------
    name, kind : name in the registry; causal decoder or masked encoder
    architecture : `model_type` of transformers
    folder, tokenizer : folders of the run and of its tokenizer, from the working directory; of a run on the hub,
        where they will be
    blocks, width : transformer blocks, dimension of the residual stream
    vocabulary : entries of the vocabulary
    context : longest sequence in tokens; None where it is unbounded
    parameters : number of parameters if the registry gives it; extraction counts them
    license : for the reader
    pretraining : name of the run of this study that makes the folder; None when the folder is there
    checkpoints : name → checkpoint, in the order of steps
    unlisted : the same of those on the hub that the registry does not list; only a list of names takes them
    choice : what the study asks for of them; `all` before it is joined with a study
    passed_over : those that the choice would take, were they what their names say
    entry : the registry's, of a model on the hub; empty for one on this machine
    lock : what the hub said of it, if it was asked, with the verdicts of what is known today
    remote_code : whether the Python code that comes with its weights may run
    recipe : name that runs share which differ in their seed alone; None where there is none
    unstable : whether it was trained to fail, or has failed
    """

    name: str
    kind: Kind
    architecture: str
    folder: Path
    tokenizer: Path
    blocks: int
    width: int
    vocabulary: int
    context: int | None
    parameters: int | None
    license: str
    pretraining: str | None
    checkpoints: Mapping[str, Checkpoint]
    unlisted: Mapping[str, Checkpoint] = field(default_factory=dict)
    choice: Choice = "all"
    passed_over: tuple[Checkpoint, ...] = ()
    entry: Mapping[str, Yaml] = field(default_factory=dict)
    lock: Lock | None = None
    remote_code: bool = False
    recipe: str | None = None
    unstable: bool = False

    @property
    def passes(self) -> int:
        """Forward passes of a cell: an encoder reads the text, then the masked text for its loss."""
        return 1 if self.kind == "decoder" else 2

    @property
    def on_hub(self) -> bool:
        """Whether its weights are downloaded."""
        return bool(self.entry)

    @property
    def unverified(self) -> bool:
        """Whether the files of some of its checkpoints are unknown, so that the hub may change the choice."""
        known = self.lock is not None and all(one.verdict for one in self.checkpoints.values())
        return self.on_hub and not known

    @property
    def unasked(self) -> set[str]:
        """Checkpoints whose files its lock does not list, since no study took them when the hub was asked."""
        if self.lock is None:
            return set()
        return {one.checkpoint for one in self.lock.checkpoints if not one.asked} & self.checkpoints.keys()

    @property
    def measured(self) -> dict[str, Checkpoint]:
        """Checkpoints that are extracted: of those with the same weights one."""
        return {name: one for name, one in self.checkpoints.items() if not one.same_as}

    @property
    def final(self) -> str:
        """The measured checkpoint that has the weights of the last one."""
        last = list(self.checkpoints.values())[-1]
        return last.same_as or last.name

    @property
    def same(self) -> dict[str, list[Checkpoint]]:
        """Measured checkpoint → the others that have its weights, and get their rows from its."""
        found: dict[str, list[Checkpoint]] = {}
        for one in self.checkpoints.values():
            if one.same_as:
                found.setdefault(one.same_as, []).append(one)
        return found

    @property
    def gone(self) -> bool:
        """Whether only its measurements are left."""
        return all(one.gone for one in self.checkpoints.values())


def read_model(
    name: str,
    entry: Mapping[str, Yaml],
    *,
    root: Path,
    pretraining: Pretraining | None,
    ask: Ask | None = None,
    issues: Sequence[Issue] = (),
    choice: Choice = "all",
) -> Model:
    """Look up what a model is and which checkpoints it has.

    A folder that a run of `pretraining` makes is described by that run, whether it exists already or not: the
    plan must not change when the run is done. Any other folder is looked into. A run on the hub is described by its
    lock and its entry; where these do not suffice, `ask` is called for a lock that knows the `choice`.

    Raises
    ------
    InputError
        When the folder does not exist or lacks checkpoints, a readable config.json or a tokenizer; when what a run
        on the hub is like cannot be told.
    """
    model = (
        _hub_model(name, entry, read_run(name, entry, root=root, ask=ask, issues=issues, choice=choice))
        if "repository" in entry
        else _local_model(name, entry, root, pretraining)
    )
    return replace(model, recipe=entry.get("recipe"), unstable=entry.get("unstable", False))


def _local_model(name: str, entry: Mapping[str, Yaml], root: Path, pretraining: Pretraining | None) -> Model:
    folder = Path(os.path.normpath(Path(entry["folder"]).expanduser()))
    run = folder.name if folder.parent == PRETRAINED_FOLDER else None
    if run is not None and pretraining is not None and run in pretraining.runs:
        return _planned_model(name, entry, folder, pretraining)
    if run is not None and not (root / folder).exists():
        runs = pretraining.runs if pretraining else {}
        raise InputError(
            f"`{name}.folder` = '{folder}': no such folder, and `pretraining.runs` has no run `{run}` "
            f"that would make it.{suggest(run, runs)}"
        )
    return _existing_model(name, entry, folder, root)


def _hub_model(name: str, entry: Mapping[str, Yaml], run: HubRun) -> Model:
    return Model(
        name=name,
        folder=Path(WEIGHTS_FOLDER.format(model=name)),
        tokenizer=Path(TOKENIZER.format(model=name)),
        **run.facts,
        parameters=entry.get("parameters"),
        license=entry["license"],
        pretraining=None,
        checkpoints={checkpoint.name: checkpoint for checkpoint in run.checkpoints},
        unlisted={checkpoint.name: checkpoint for checkpoint in run.unlisted},
        entry=entry,
        lock=run.lock,
        remote_code=bool(entry.get("remote_code")),
    )


def _measured_facts(name: str, root: Path) -> dict[str, Fact]:
    """Return what the results say of a model whose weights are all gone."""
    card = next((root / LOSSES_FOLDER.format(model=name)).glob("*/*.json"))
    known = read_loss_card(card)[0]
    return {"kind": known["kind"], **{fact: known[fact] or None for fact in CONFIG_KEYS if fact in known}}


def _planned_model(name: str, entry: Mapping[str, Yaml], folder: Path, pretraining: Pretraining) -> Model:
    recipe = pretraining.runs[folder.name]
    kind = KIND_OF_ARCHITECTURE[recipe.architecture]
    if entry.get("kind", kind) != kind:
        raise InputError(
            f"`{name}.kind` = '{entry['kind']}': `pretraining.runs.{folder.name}` trains a "
            f"{kind}, {recipe.architecture}. Correct `kind`."
        )
    if not recipe.keep_checkpoints:
        raise InputError(
            f"`{name}.folder` = '{folder}': `pretraining.runs.{folder.name}` keeps no checkpoints to be measured. Take "
            "`keep_checkpoints: false` away from it, or the model from `models`."
        )
    tokens_per_step = recipe.sequences * recipe.window
    checkpoints = [
        Checkpoint(f"checkpoint-{step}", step, folder / f"checkpoint-{step}", float(step * tokens_per_step))
        for step in recipe.checkpoint_steps
    ]
    return Model(
        name=name,
        kind=kind,
        architecture=recipe.architecture,
        folder=folder,
        tokenizer=Path(PRETRAINED_TOKENIZER),
        blocks=recipe.blocks,
        width=recipe.width,
        vocabulary=pretraining.vocabulary,
        context=recipe.window,
        parameters=entry.get("parameters"),
        license=entry["license"],
        pretraining=folder.name,
        checkpoints={checkpoint.name: checkpoint for checkpoint in checkpoints},
    )


def _existing_model(name: str, entry: Mapping[str, Yaml], folder: Path, root: Path) -> Model:
    told = {key: entry[key] for key in ("step_pattern", "tokens_per_step") if key in entry}
    run = LocalRun(name=name, folder=folder, root=root, **told)
    gone = run.gone()
    there = run.there(gone)
    steps = [one.step for one in there]
    checkpoints = sorted([*there, *(one for one in gone if one.step not in steps)], key=lambda one: one.step)
    given = entry.get("tokenizer")
    places = [Path(given).expanduser()] if given else [folder, *(one.folder for one in there)]
    known: dict[str, Any] = {**({} if there else _measured_facts(name, root)), **entry}
    kind: Kind = known.get("kind") or kind_of(_first_config(name, there, root))
    return Model(
        name=name,
        kind=kind,
        folder=folder,
        tokenizer=find_tokenizer(name, places, root=root) if there else places[0],
        **read_facts(name, there, {**known, "kind": kind}, root=root),
        parameters=entry.get("parameters"),
        license=entry["license"],
        remote_code=bool(entry.get("remote_code")),
        pretraining=None,
        checkpoints={checkpoint.name: checkpoint for checkpoint in checkpoints},
    )
