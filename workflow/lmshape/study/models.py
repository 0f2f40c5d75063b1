"""A model of the registry: its facts and its checkpoints, on disk, on the hub, or still to be trained."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from lmshape.checkpoints import FINAL, NO_STEP, Checkpoint, Choice
from lmshape.errors import InputError, about, first_line, some_of, suggest
from lmshape.hub.integrity import Issue
from lmshape.hub.lock import Lock
from lmshape.hub.published import Ask, Naming, path_safe, read_run, tokens_seen
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
BY_STEP = attrgetter("step")
TRAINERS = Naming.reading(r"checkpoint-(\d+)")  # how Trainer names the folder of a checkpoint


def local_checkpoints(
    name: str,
    folder: Path,
    *,
    root: Path,
    naming: Naming = TRAINERS,
    tokens_per_step: int | None = None,
) -> list[Checkpoint]:
    """List the checkpoints of a training run in a folder of this machine, in the order of their steps.

    Those that were measured and whose weights are gone are among them. A folder that holds weights itself, and no
    checkpoint below it, is one: `final`, of step -1.

    Parameters
    ----------
    name : the model's
    folder : the run's folder, from `root`
    root : the working directory
    naming : how its folders spell a step
    tokens_per_step : tokens of a training step, if known

    Raises
    ------
    InputError
        When the folder does not exist or holds no checkpoint, two are of the same step, or none is whole.
    """
    whole, there = root / folder, dict[int, Checkpoint]()
    for entry in sorted(path.name for path in whole.iterdir() if path.is_dir()) if whole.is_dir() else []:
        step = naming.step(entry)
        if step is None:
            continue
        if step in there:
            raise InputError(
                f"`{name}`: {there[step].folder.name} and {entry} in {folder} are both of step {step}. Move one away, "
                "or make `step_pattern` narrower."
            )
        there[step] = Checkpoint(path_safe(entry), step, folder / entry, tokens_seen(step, tokens_per_step))
    gone = {one.step: one for one in _measured_and_gone(name, folder, root, naming, tokens_per_step)}
    if not there and not gone:
        if has_weights(whole):
            return [Checkpoint(FINAL, NO_STEP, folder)]
        if not whole.is_dir():
            where = "" if folder.is_absolute() else f" in {root}"
            raise InputError(f"`{name}.folder` = '{folder}': no such folder{where}. Correct the path.")
        raise InputError(
            f"`{name}`: no folder in {folder} matches `step_pattern` = '{naming.pattern.pattern}'. "
            f"{_inventory(whole)} Name the folder that holds the checkpoints, or their pattern."
        )
    left = sorted((one for step, one in there.items() if step not in gone), key=BY_STEP)
    return sorted([*gone.values(), *_settled(name, left, root=root)], key=BY_STEP)


def _measured_and_gone(
    name: str, folder: Path, root: Path, naming: Naming, tokens_per_step: int | None
) -> Iterator[Checkpoint]:
    """Yield the checkpoints that have results and no weights, with the datasets that they were truncated on."""
    for results in sorted((root / LOSSES_FOLDER.format(model=name)).glob("*")):
        step = naming.step(results.name)
        itself = step is None and results.name == FINAL
        place = folder if itself else folder / results.name
        if (step is None and not itself) or has_weights(root / place):
            continue
        step = NO_STEP if step is None else step
        tables = root / TRUNCATION_FILE.format(model=name, checkpoint=results.name, dataset="*")
        truncated = tuple(sorted(path.stem for path in tables.parent.glob(tables.name)))
        seen = tokens_seen(step, tokens_per_step)
        yield Checkpoint(results.name, step, place, seen, gone=True, truncated=truncated)


CHANGING_SECONDS = 600  # since a checkpoint's folder has changed: it may be just being saved, or deleted


def _settled(name: str, checkpoints: Sequence[Checkpoint], *, root: Path) -> list[Checkpoint]:
    """Leave out what is being saved or deleted, with a warning: the newest, or one that changes, without whole weights.

    Raises
    ------
    InputError
        When nothing is left of some.
    """
    kept, reason = [], ""
    for one in checkpoints:
        unsettled = one is checkpoints[-1] or _changing(root / one.folder)
        if unsettled and (reason := _why_unusable(root / one.folder)):
            print(f"`{name}`: {one.name} is left out until it is whole. {reason}", file=sys.stderr)
        else:
            kept.append(one)
    if checkpoints and not kept:
        raise InputError(f"`{name}`: no checkpoint is whole yet. {reason} Wait until one is saved.")
    return kept


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
        raise InputError(
            f"`{name}`: {len(reasons)} of its {len(checkpoints)} checkpoints cannot be loaded: "
            f"{some_of(list(reasons))}. The first: {next(iter(reasons.values()))} Save them whole, or leave them out "
            "under `checkpoints`."
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


def read_facts(
    name: str, checkpoints: Sequence[Checkpoint], given: Mapping[str, Fact], *, root: Path
) -> dict[str, Any]:
    """Kind, architecture, blocks, width, context and vocabulary: as given, else of the first checkpoint that says it.

    A checkpoint says it in config.json; one whose weights are a GGUF file, in that file. `context` is None where
    the architecture has no longest sequence (ALiBi).

    Raises
    ------
    InputError
        When what says it cannot be read, lacks another fact, or belongs to a model of the other kind.
    """
    with about(name):
        file = next(filter(None, (_facts_file(one.folder, root) for one in checkpoints)), None)
        config = _read_config(root / file) if file else {}
        if not file and not given.get("kind"):
            raise InputError(
                "no checkpoint has a config.json that says decoder or encoder. Give `kind` in an entry of the registry "
                "of models."
            )
    kind = given.get("kind") or kind_of(config)
    _check_kind(name, kind, config)
    with about(name):
        named = file and file.suffix != GGUF and config.get("model_type")
        if named and not given.get("remote_code"):
            check_architecture(config, kind)
        facts = {fact: given.get(fact, value) for fact, value in config_facts(config).items()}
        if file and config.get("text_config") and None in facts.values():
            defaults = _defaults((root / file).parent, bool(given.get("remote_code")))
            facts |= {fact: value for fact, value in defaults.items() if facts[fact] is None}
        unknown = [fact for fact, value in facts.items() if value is None and fact != "context"]
        if unknown:
            keys = ", ".join(key for fact in unknown for key in CONFIG_KEYS[fact])
            reason = f"{file} has none of {keys}" if file else "no checkpoint has a config.json"
            raise InputError(
                f"{', '.join(unknown)} cannot be known, since {reason}. Give what is unknown in the registry of models."
            )
    return {"kind": kind, **facts}


def _facts_file(folder: Path, root: Path) -> Path | None:
    """Return the file of a checkpoint that says what its model is like, from the working directory."""
    quantized = only_gguf(root / folder)
    if quantized or (root / folder / "config.json").is_file():
        return folder / (quantized.name if quantized else "config.json")
    if any((root / folder).glob(f"*{GGUF}")):
        weight_files(root / folder)  # says that there are several
    return None


def _read_config(file: Path) -> Mapping[str, Fact]:
    if file.suffix == GGUF:
        return gguf_config(file)
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}). Save the model again.") from None
    if not isinstance(config, dict):
        raise InputError(f"{file} is not a configuration of a model. Save the model again.")
    check_quantization(config)
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


def find_tokenizer(name: str, places: Sequence[Path], *, root: Path) -> Path:
    """Give the first of the folders that holds a tokenizer.

    Raises
    ------
    InputError
        When none does, or the first has files that do not make one.
    """
    with about(name):
        for place in places:
            check_tokenizer(root / place)
            if tokenizer_files(root / place):
                return place
        raise InputError(
            f"no tokenizer ({', '.join(TOKENIZERS)}, or a GGUF file) in {' or '.join(map(str, places))}. "
            "Give the folder that holds it as `tokenizer` in the registry of models."
        )


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
    checkpoints : name → checkpoint, in the order of steps
    pretraining : name of the run of this study that makes the folder; None when the folder is there
    unlisted : those on the hub that the registry does not list; only a list of names takes them
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
    checkpoints: Mapping[str, Checkpoint]
    pretraining: str | None = None
    unlisted: tuple[Checkpoint, ...] = ()
    choice: Choice = "all"
    passed_over: tuple[Checkpoint, ...] = ()
    entry: Mapping[str, Yaml] = field(default_factory=dict)
    lock: Lock | None = None
    remote_code: bool = False
    recipe: str | None = None
    unstable: bool = False

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
    if "repository" in entry:
        run = read_run(name, entry, root=root, ask=ask, issues=issues, choice=choice)
        return Model(
            **_told(name, entry),
            **run.facts,
            folder=Path(WEIGHTS_FOLDER.format(model=name)),
            tokenizer=Path(TOKENIZER.format(model=name)),
            checkpoints={one.name: one for one in run.checkpoints},
            unlisted=run.unlisted,
            entry=entry,
            lock=run.lock,
        )
    folder = Path(os.path.normpath(Path(entry["folder"]).expanduser()))
    runs = pretraining.runs if pretraining else {}
    if pretraining and folder.parent == PRETRAINED_FOLDER and folder.name in runs:
        return _planned_model(name, entry, folder, pretraining)
    if folder.parent == PRETRAINED_FOLDER and not (root / folder).exists():
        raise InputError(
            f"`{name}.folder` = '{folder}': no such folder, and `pretraining.runs` has no run `{folder.name}` "
            f"that would make it.{suggest(folder.name, runs)}"
        )
    return _existing_model(name, entry, folder, root)


def _told(name: str, entry: Mapping[str, Yaml]) -> dict[str, Any]:
    """Return what the registry says of any model."""
    flags = {key: bool(entry.get(key)) for key in ("remote_code", "unstable")}
    return {"name": name, "parameters": entry.get("parameters"), "recipe": entry.get("recipe"), **flags}


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
        **_told(name, entry),
        kind=kind,
        architecture=recipe.architecture,
        folder=folder,
        tokenizer=Path(PRETRAINED_TOKENIZER),
        blocks=recipe.blocks,
        width=recipe.width,
        vocabulary=pretraining.vocabulary,
        context=recipe.window,
        pretraining=folder.name,
        checkpoints={one.name: one for one in checkpoints},
    )


def _existing_model(name: str, entry: Mapping[str, Yaml], folder: Path, root: Path) -> Model:
    with about(name):
        naming = Naming.reading(entry["step_pattern"]) if "step_pattern" in entry else TRAINERS
    tokens_per_step = entry.get("tokens_per_step")
    checkpoints = local_checkpoints(name, folder, root=root, naming=naming, tokens_per_step=tokens_per_step)
    there = [one for one in checkpoints if not one.gone]
    given = entry.get("tokenizer")
    places = (
        [Path(given).expanduser()] if given else [*dict.fromkeys([folder, *(one.folder for one in there)])]
    )
    known = entry if there else {**_measured_facts(name, root), **entry}
    return Model(
        **_told(name, entry),
        folder=folder,
        tokenizer=find_tokenizer(name, places, root=root) if there else places[0],
        **read_facts(name, there, known, root=root),
        checkpoints={one.name: one for one in checkpoints},
    )
