"""A model of the registry: what it is and which checkpoints it has, on disk, on the hub, or still to be trained."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from lmshape.errors import InputError, suggest
from lmshape.hub.lock import Lock
from lmshape.hub.models import Ask, read_run
from lmshape.paths import TOKENIZER, WEIGHTS_FOLDER
from lmshape.planning.checkpoints import Checkpoint
from lmshape.planning.localrun import find_checkpoints, find_tokenizer, read_facts
from lmshape.planning.schema import Yaml
from lmshape.planning.settings import Pretraining

PRETRAINED = Path("results/pretrained")  # where the study's own runs are written
STEP_PATTERN = r"checkpoint-(\d+)"  # Trainer's
KIND_OF_ARCHITECTURE = {"gpt_neox": "decoder", "bert": "encoder", "modernbert": "encoder"}


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
    context : longest sequence in tokens; None where there is no longest
    parameters : number of parameters if the registry gives it; extraction counts them
    license : for the reader
    pretraining : name of the run of this study that makes the folder; None when the folder is there
    checkpoints : name → checkpoint, in the order of steps
    unlisted : the same of those on the hub that the registry does not list; only a list of names takes them
    entry : the registry's, of a model on the hub; empty for one on this machine
    lock : what the hub said of it, if it was asked
    remote_code : whether the Python code that comes with its weights may run
    recipe : name that runs share which differ in their seed alone; None where there is none
    unstable : whether it was trained to fail, or has failed
    """

    name: str
    kind: Literal["decoder", "encoder"]
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
    entry: Mapping[str, Yaml] = field(default_factory=dict)
    lock: Lock | None = None
    remote_code: bool = False
    recipe: str | None = None
    unstable: bool = False

    @property
    def on_hub(self) -> bool:
        """Whether its weights are downloaded."""
        return bool(self.entry)


def read_model(
    name: str,
    entry: Mapping[str, Yaml],
    *,
    root: Path,
    pretraining: Pretraining | None,
    ask: Ask | None = None,
) -> Model:
    """Look up what a model is and which checkpoints it has.

    A folder that a run of `pretraining` makes is described by that run, whether it exists already or not: the
    plan must not change when the run is done. Any other folder is looked into. A run on the hub is described by its
    lock and its entry; where these do not suffice, `ask` is called for a lock.

    Raises
    ------
    InputError
        When the folder does not exist or lacks checkpoints, a readable config.json or a tokenizer; when what a run
        on the hub is like cannot be told.
    """
    model = (
        _hub_model(name, entry, root, ask)
        if "repository" in entry
        else _local_model(name, entry, root, pretraining)
    )
    return replace(model, recipe=entry.get("recipe"), unstable=entry.get("unstable", False))


def _local_model(name: str, entry: Mapping[str, Yaml], root: Path, pretraining: Pretraining | None) -> Model:
    folder = Path(os.path.normpath(Path(entry["folder"]).expanduser()))
    run = folder.name if folder.parent == PRETRAINED else None
    if run is not None and pretraining is not None and run in pretraining.runs:
        return _planned_model(name, entry, folder, pretraining)
    if run is not None and not (root / folder).exists():
        runs = pretraining.runs if pretraining else {}
        raise InputError(
            f"`{name}.folder` = '{folder}': no such folder, and `pretraining.runs` has no run `{run}` "
            f"that would make it.{suggest(run, runs)}"
        )
    return _existing_model(name, entry, folder, root)


def _hub_model(name: str, entry: Mapping[str, Yaml], root: Path, ask: Ask | None) -> Model:
    run = read_run(name, entry, root=root, ask=ask)
    return Model(
        name=name,
        kind=entry["kind"],
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


def _planned_model(name: str, entry: Mapping[str, Yaml], folder: Path, pretraining: Pretraining) -> Model:
    recipe = pretraining.runs[folder.name]
    if KIND_OF_ARCHITECTURE[recipe.architecture] != entry["kind"]:
        raise InputError(
            f"`{name}.kind` = '{entry['kind']}': `pretraining.runs.{folder.name}` trains a "
            f"{KIND_OF_ARCHITECTURE[recipe.architecture]}, {recipe.architecture}. Correct `kind`."
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
        kind=entry["kind"],
        architecture=recipe.architecture,
        folder=folder,
        tokenizer=PRETRAINED / "tokenizer",
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
    checkpoints = find_checkpoints(
        name,
        folder,
        root=root,
        step_pattern=entry.get("step_pattern", STEP_PATTERN),
        tokens_per_step=entry.get("tokens_per_step"),
    )
    given = entry.get("tokenizer")
    places = [Path(given).expanduser()] if given else [folder, checkpoints[0].folder]
    return Model(
        name=name,
        kind=entry["kind"],
        folder=folder,
        tokenizer=find_tokenizer(name, places, root=root),
        **read_facts(name, checkpoints, entry, root=root),
        parameters=entry.get("parameters"),
        license=entry["license"],
        remote_code=bool(entry.get("remote_code")),
        pretraining=None,
        checkpoints={checkpoint.name: checkpoint for checkpoint in checkpoints},
    )
