"""The verbs of the command line that deal with the hub and the disk budget."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lmshape.commands.arguments import Output

if TYPE_CHECKING:
    from lmshape.hub.lock import Lock, LockedCheckpoint
    from lmshape.study.registry import Registry

Config = Annotated[Path, typer.Option("--configfile", help="the study, whose registry is read")]
Directory = Annotated[Path, typer.Option(help="folder of the study, which holds its results")]
Models = Annotated[
    list[str] | None, typer.Argument(help="names of the registry; the study's when none is given")
]
DEFAULT_CONFIG = Path("config/config.yaml")
HERE = Path()


def lock(
    models: Models = None,
    update: Annotated[bool, typer.Option(help="ask again, and take what the names point at now")] = False,
    configfile: Config = DEFAULT_CONFIG,
    directory: Directory = HERE,
) -> None:
    """Ask the hub which commits and weights stand behind a model's checkpoints; write results/revisions/{model}.tsv."""
    from lmshape.hub.integrity import summary
    from lmshape.hub.resolve import make_lock
    from lmshape.paths import LOCK

    registry = _registry(configfile, directory)
    for name, entry in _hub_entries(registry, models, configfile, directory):
        path = directory / LOCK.format(model=name)
        made = make_lock(path, name, entry, issues=registry.issues, update=update)
        print(f"{path}\n{summary(made)}")


def audit(
    models: Models = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON document for each model")] = False,
    configfile: Config = DEFAULT_CONFIG,
    directory: Directory = HERE,
) -> None:
    """Say of every checkpoint of a training run whether it is what its name says; no weight is downloaded.

    Ends with exit code 1 when a checkpoint has the weights of another one, or none.
    """
    from lmshape.hub import integrity
    from lmshape.hub.integrity import issues_of
    from lmshape.hub.lock import read_lock
    from lmshape.hub.published import published, read_sources
    from lmshape.hub.resolve import resolve
    from lmshape.paths import LOCK

    registry, faulty = _registry(configfile, directory), False
    for name, entry in _hub_entries(registry, models, configfile, directory):
        found = resolve(name, entry, issues=issues_of(registry.issues, name))
        used = read_lock(directory / LOCK.format(model=name))
        listed = published(read_sources(name, entry)) or ()
        changes = {
            "moved": [one.checkpoint for one in found.checkpoints if _moved(used, one)],
            "missing": [place.name for place in listed if found.named(place.name) is None],
        }
        print(integrity.as_json(found, **changes) if as_json else integrity.as_table(found, **changes))
        faulty |= integrity.has_fault(found)
    if faulty:
        raise typer.Exit(1)


def plan(configfile: Config = DEFAULT_CONFIG, directory: Directory = HERE) -> None:
    """Tell what a study will take before it runs: downloads, disk, forward FLOPs, jobs."""
    from lmshape.study.cluster import describe_submissions
    from lmshape.study.costs import describe_truncations
    from lmshape.study.plan import describe, plan_of, planned_jobs
    from lmshape.study.study import study_of

    jobs = planned_jobs(configfile, directory)
    study = study_of(configfile, directory)
    lines = (
        describe(plan_of(study), study, jobs),
        describe_submissions(study, jobs),
        describe_truncations(study),
    )
    print("\n".join(filter(None, lines)))


def resolve(
    model: str,
    output: Output,
    entry: Annotated[str, typer.Option(help="the registry's entry, as JSON")],
    known_issues: Annotated[Path, typer.Option(help="the list of known faults")],
    checkpoint: Annotated[list[str], typer.Option(help="that the study takes; may be given again")],
) -> None:
    """Write a model's lock if there is none, audit it, and refuse checkpoints that cannot be had."""
    from lmshape.hub.integrity import read_issues, summary
    from lmshape.hub.resolve import make_lock

    _log_to_stderr()
    issues = read_issues(known_issues)
    print(summary(make_lock(output, model, json.loads(entry), issues=issues, wanted=checkpoint)))


def download(
    checkpoint: str,
    output: Output,
    lock: Annotated[Path, typer.Option(help="lock of the model")],
    dataset: Annotated[
        list[str], typer.Option(help="that will be read from these weights; may be given again")
    ],
    activations: Annotated[
        list[str] | None, typer.Option(help="of each dataset: its activation file, if it will be deleted")
    ] = None,
    activation_bytes: Annotated[int, typer.Option(help="size of an activation file")] = 0,
    reader: Annotated[
        list[str] | None, typer.Option(help="what else reads the weights, and leaves no activations")
    ] = None,
    weights_in: Annotated[str, typer.Option(help="study, or the user's cache")] = "study",
    keep: Annotated[bool, typer.Option(help="the weights stay for good")] = False,
    budget_bytes: Annotated[int | None, typer.Option(help="most bytes of all weights on the disk")] = None,
) -> None:
    """Download the weights of a checkpoint, verified; waits for room within the disk budget."""
    from lmshape.hub.resolve import download as run

    _log_to_stderr()
    run(
        lock,
        checkpoint,
        output,
        datasets=[*dataset, *(reader or ())],
        activations=dict(zip(dataset, activations or (), strict=bool(activations))),
        activation_bytes=activation_bytes,
        weights_in=weights_in,
        keep=keep,
        budget_bytes=budget_bytes,
    )


def admit(
    output: Output,
    activations: Annotated[Path, typer.Option(help="file that will be made of the cell, and deleted")],
    activation_bytes: Annotated[int, typer.Option(help="its size")],
    budget_bytes: Annotated[int | None, typer.Option(help="most bytes of all that passes")] = None,
    keep: Annotated[bool, typer.Option(help="downloaded weights stay for good")] = False,
) -> None:
    """Wait for room within the disk budget for the activations of one cell of a local run."""
    from lmshape.hub.budget import reserve
    from lmshape.hub.passing import Passing

    _log_to_stderr()
    room = Passing(marker=str(output), activations=str(activations), activation_bytes=activation_bytes)
    if budget_bytes is None:
        room.begin()
    else:
        reserve(room, budget=budget_bytes, keeps=keep)


def release(
    weights: Annotated[Path, typer.Argument(help="folder of the checkpoint")],
    dataset: Annotated[str, typer.Option(help="that has been read")],
    read_by: Annotated[list[str], typer.Option(help="all that are read; may be given again")],
    keep: Annotated[bool, typer.Option(help="the weights stay for good")] = False,
) -> None:
    """Note that a dataset has been read from downloaded weights; after the last one they are deleted."""
    from lmshape.hub.budget import release as run

    run(weights, dataset, of=read_by, keep=keep)


def fetch_tokenizer(output: Output, lock: Annotated[Path, typer.Option(help="lock of the model")]) -> None:
    """Download the tokenizer of a model."""
    from lmshape.hub.resolve import bring_tokenizer

    _log_to_stderr()
    bring_tokenizer(lock, output)


def _registry(configfile: Path, directory: Path) -> Registry:
    from lmshape.study.study import registry_of

    return registry_of(configfile, directory)


def _hub_entries(
    registry: Registry, models: list[str] | None, configfile: Path, directory: Path
) -> Iterator[tuple[str, dict]]:
    from lmshape.errors import InputError, unknown
    from lmshape.study.study import named_models

    for name in models or named_models(configfile, directory):
        if name not in registry.models:
            raise unknown("model", name, registry.models)
        if "repository" in registry.models[name]:
            yield name, registry.models[name]
        elif models:
            raise InputError(
                f"`{name}` lies on this machine, in {registry.models[name]['folder']}: nothing to ask."
            )


def _moved(used: Lock | None, one: LockedCheckpoint) -> bool:
    before = used.named(one.checkpoint) if used else None
    return before is not None and before.commit != one.commit


def _log_to_stderr() -> None:
    """Show why a job waits, or asks again, in its log."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what it retries is told here, once
    logging.getLogger("httpx2").setLevel(logging.ERROR)
