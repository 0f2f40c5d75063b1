"""The command line: verbs for people, and `run`, by which the rules run their jobs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from lmshape.errors import InputError, Problems, first_line, unknown
from lmshape.figures import FIGURES

if TYPE_CHECKING:
    from lmshape.checkpoints import Choice
    from lmshape.study.registry import Registry
    from lmshape.study.study import Study

HELP = "Measure the shape of a language model's activations, and how it changes during training."
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=HELP)

BEFORE, AFTER, INTERNAL = "Before a run", "After a run", "Used by the workflow"  # panels of `--help`

Config = Annotated[
    Path | None,
    typer.Option(
        "--configfile",
        help="The study's file. Default: config/config.yaml of --directory, else the embedded study's.",
    ),
]
Directory = Annotated[Path, typer.Option(file_okay=False, help="The study's folder, which holds results/.")]
Models = Annotated[
    list[str] | None,
    typer.Argument(help="Names of the registry, which are below. Default: the study's models."),
]
Everyone = Annotated[bool, typer.Option("--all", help="Every published run of the registry, whatever fails.")]
HERE = Path()


class Listing(TyperCommand):
    """A verb whose help ends with the names that it takes; they are read when the help is printed."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help with the names."""
        self.epilog = "\n\n".join(f"{kind}: {', '.join(names)}" for kind, names in _names(self.name))
        super().format_help(ctx, formatter)


def _names(verb: str | None) -> Iterable[tuple[str, Iterable[str]]]:
    if verb == "profile":
        from lmshape.metrics.registry import METRIC_FAMILIES

        return [(f"Family {family}", names) for family, names in METRIC_FAMILIES.items()]
    if verb == "run":
        from lmshape.jobs import RULES

        return [("Rules", RULES)]
    from lmshape.study.registry import read_registry

    models = read_registry((), (), root=HERE).models
    return [("Models", [name for name, entry in models.items() if "repository" in entry])]


def _version(asked: bool) -> None:
    if asked:
        from lmshape import __version__

        print(f"lmshape {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before the verb."""


def main() -> None:
    """Run the command line; wrong input ends in one sentence and exit code 2, not in a traceback."""
    try:
        app()
    except InputError as error:
        said = str(error)
    except (OSError, UnicodeDecodeError) as error:  # a file that was named cannot be read or written
        file, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        named = f"`{file}`: " if file else ""
        said = f"{named}{reason or first_line(error)}. {_remedy(error)}"
    else:
        return
    print(f"error: {said}", file=sys.stderr)
    sys.exit(2)


def _remedy(error: Exception) -> str:
    from lmshape.writing import NO_ROOM

    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"Make room there, or in TMPDIR, which is {os.environ.get('TMPDIR', '/tmp')}, and run again."
    return "Correct the path, or what lies there."


@app.command(rich_help_panel=BEFORE)
def plan(configfile: Config = None, directory: Directory = HERE) -> None:
    """Estimate a study before it runs: time, disk, downloads and jobs, by stage and by model."""
    from lmshape.jobs.hub import lock_aloud, log_to_stderr
    from lmshape.jobs.plan import planned_jobs, whole_plan
    from lmshape.study.study import study_of

    file = _configfile(configfile, directory)
    log_to_stderr()
    study = study_of(file, directory, ask=lock_aloud)  # here, where it is heard, and not by Snakemake
    print(whole_plan(study, planned_jobs(file, directory), directory, *_options(configfile, directory)))


@app.command(rich_help_panel=BEFORE, cls=Listing)
def profile(
    model: Annotated[
        str, typer.Argument(help="folder of a model, or a name of the hub: NAME, NAME@REVISION")
    ],
    text: Annotated[Path, typer.Argument(help="text file in UTF-8; 100 kB suffice")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="folder of the tokenizer, where it is not beside the weights")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="metric or family; again for more", metavar="NAME")
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="tokens of a sequence; default: 512, or the context where that is shorter"),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="disjoint sets of sequences, from whose spread the intervals come")
    ] = 5,
    output: Annotated[
        Path, typer.Option(help="files of the table and the figure, without .parquet or .png")
    ] = Path("profile"),
) -> None:
    """Measure every layer of one model: print a table, write Parquet, CSV and a figure. No study is needed."""
    from lmshape.figures.by_layer import draw_one_model, shown_metrics
    from lmshape.figures.drawing import save
    from lmshape.profiling import DEFAULT_METRICS, by_layer
    from lmshape.profiling import profile as measure
    from lmshape.tables.columns import COLUMNS, write_table

    if output.name in ("", ".."):
        raise InputError("`--output` names no file. Write it without its ending, as in results/profile.")
    output.parent.mkdir(parents=True, exist_ok=True)  # before the minutes that a measurement takes
    table = measure(model, text, tokenizer, metrics=metrics or DEFAULT_METRICS, window=window, draws=draws)
    shown = shown_metrics(table)
    write_table(table, COLUMNS, output)
    save(draw_one_model(table, shown), table, output)
    print(by_layer(table, shown))
    print(f"{output}.parquet\n{output}.png")


@app.command(rich_help_panel=BEFORE, cls=Listing)
def audit(
    models: Models = None,
    as_json: Annotated[bool, typer.Option("--json", help="a JSON document for each model")] = False,
    everyone: Everyone = False,
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Check that each checkpoint of a training run matches its name; no weights are downloaded.

    Ends with exit code 1 when a checkpoint has the weights of another one, or none; with --all also when a run cannot
    be had from the hub.
    """
    from lmshape.hub import integrity
    from lmshape.hub.lock import read_lock
    from lmshape.hub.published import listed_places
    from lmshape.hub.resolve import resolve
    from lmshape.paths import LOCK

    registry, published = _published(models, everyone, configfile, directory)

    def audit_one(name: str) -> bool:
        found = resolve(name, registry.models[name], issues=registry.issues)
        used = read_lock(directory / LOCK.format(model=name))
        commits = {one.checkpoint: one.commit for one in used.checkpoints} if used else {}
        moved = [one for one in found.checkpoints if commits.get(one.checkpoint, one.commit) != one.commit]
        steps = {one.step for one in found.checkpoints}
        listed = listed_places(name, registry.models[name]) or ()
        changes = {
            "moved": [one.checkpoint for one in moved],
            "missing": [place.checkpoint for place in listed if place.step not in steps],
        }
        print(integrity.as_json(found, **changes) if as_json else integrity.as_table(found, **changes))
        return not integrity.has_fault(found)

    _of_each(published, audit_one, go_on=everyone)


@app.command(rich_help_panel=BEFORE, cls=Listing)
def lock(
    models: Models = None,
    update: Annotated[bool, typer.Option(help="ask again, and take what the names point at now")] = False,
    everyone: Everyone = False,
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Ask the hub for the commit and weights behind each checkpoint of a model; write results/revisions/{model}.tsv."""
    from lmshape.hub.client import gate
    from lmshape.hub.integrity import summary
    from lmshape.hub.resolve import make_lock
    from lmshape.paths import LOCK

    registry, published = _published(models, everyone, configfile, directory)

    def lock_one(name: str) -> bool:
        entry, path = registry.models[name], directory / LOCK.format(model=name)
        if told := gate(entry):
            print(f"{name}: {told}", file=sys.stderr)
        made = make_lock(path, name, entry, issues=registry.issues, choice=published[name], update=update)
        print(f"{path}\n{summary(made)}")
        return True

    _of_each(published, lock_one, go_on=everyone)


@app.command(rich_help_panel=BEFORE)
def metrics(configfile: Config = None, directory: Directory = HERE) -> None:
    """List the metrics, those of the study last: family, definition, range, null value, source."""
    from lmshape.metrics import skdim
    from lmshape.metrics.registry import added_metrics, describe
    from lmshape.study.registry import find_file
    from lmshape.study.study import read_config

    file = _configfile(configfile, directory)
    config = read_config(file)
    Problems(skdim.problems(config["metrics"])).raise_all(what=f"{file}")
    own = config.get("own_metrics")
    added = added_metrics(config["metrics"], directory / find_file(own, root=directory) if own else None)
    for entry in describe(list({metric.name: metric for metric in (*skdim.DESCRIBED, *added)}.values())):
        print(f"{entry['name']}  ({entry['family']})")
        for key in ("definition", "range", "null", "source"):
            print(f"    {key:<11}{entry[key]}")


@app.command(rich_help_panel=AFTER)
def figure(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(FIGURES)}.", metavar="NAME")],
    paper: Annotated[str, typer.Option(help="1col (3.3 in) or 2col (7 in): PDF and SVG for an article")] = "",
    model: Annotated[str, typer.Option(help="of this model alone, once it is measured")] = "",
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Draw a figure of a study from its tables: PNG, SVG and CSV, or PDF and SVG at an article's width."""
    from lmshape.figures import render
    from lmshape.jobs.pages import loss_files
    from lmshape.paths import FIGURES_FOLDER, MODEL_FIGURES, MODEL_METRICS, TABLES_FOLDER

    study = _study(configfile, directory)
    if model and model not in study.models:
        raise unknown("model", model, study.models)
    source = MODEL_METRICS.format(model=model) if model else TABLES_FOLDER
    folder = MODEL_FIGURES.format(model=model) if model else FIGURES_FOLDER
    losses = {run: directory / path for run, path in loss_files(study).items()}
    stem, datasets = directory / folder / name, list(study.datasets)
    files = render(name, directory / source, output_stem=stem, losses=losses, datasets=datasets, paper=paper)
    print("\n".join(map(str, files)))


@app.command(rich_help_panel=AFTER)
def explore(
    output: Annotated[
        Path | None, typer.Option(help="HTML file. Default: results/explore.html of --directory.")
    ] = None,
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Write the explorer, a page with every number, from a study's tables; nothing is measured."""
    from lmshape.jobs.pages import REPORT_WORDS
    from lmshape.pages.explore import build_explorer
    from lmshape.paths import EXPLORER_PAGE, TABLES_FOLDER

    study = _study(configfile, directory)
    page = output or directory / EXPLORER_PAGE
    build_explorer(
        page,
        tables_dir=directory / TABLES_FOLDER,
        sources_dir=REPORT_WORDS / "explore",
        datasets=list(study.datasets),
        own=Path(study.own_metrics.path) if study.own_metrics else None,
    )
    print(page)


@app.command(rich_help_panel=AFTER)
def spikes(
    logs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="CSV, JSON Lines or Parquet, or trainer_state.json. Default: the losses of the study."
        ),
    ] = None,
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Find loss spikes in the logs of training runs; with logs named, no study is needed."""
    import pandas as pd

    from lmshape.jobs.pages import loss_files
    from lmshape.tables.loss_spikes import spikes_of

    named = {str(log): log for log in logs} if logs else loss_files(_study(configfile, directory))
    found = [spikes_of(name, log if logs else directory / log) for name, log in named.items()]
    if not found:
        raise InputError("`lmshape spikes`: the study has no training runs and no `loss_logs`. Name a log.")
    print(pd.concat(found).to_string(index=False, na_rep="", float_format="{:g}".format))


@app.command(rich_help_panel=AFTER)
def missing(
    configfile: Config = None,
    directory: Directory = HERE,
    log: Annotated[Path | None, typer.Option(help="Snakemake's log of the run that failed")] = None,
) -> None:
    """List the missing cells and results of a study, the reasons, and the command that continues."""
    from lmshape.jobs import Jobs
    from lmshape.jobs.missing import describe_missing, go_on, missing_of

    study = _study(configfile, directory)
    said = log.read_text(encoding="utf-8", errors="replace") if log else ""
    options = _options(configfile, directory)
    print(
        describe_missing(missing_of(Jobs(study), directory, said=said), study, command=go_on(said, *options))
    )


@app.command(rich_help_panel=INTERNAL, cls=Listing)
def run(
    rule: Annotated[str, typer.Argument(help="name of a rule of the workflow")],
    cell: Annotated[str, typer.Option(help="MODEL/CHECKPOINT/DATASET")] = "",
    layers: Annotated[str, typer.Option(help="block of layers, as 00-06")] = "",
    model: str = "",
    checkpoint: str = "",
    dataset: str = "",
    reader: Annotated[str, typer.Option(help="who has read the weights: a dataset, or its truncation")] = "",
    text: str = "",
    pretraining: Annotated[str, typer.Option("--run", help="name of a pretraining run")] = "",
    threads: Annotated[int, typer.Option(help="CPU threads", min=1)] = 1,
    gpus: Annotated[int | None, typer.Option(help="that the job was given; 0: the CPU")] = None,
    configfile: Config = None,
    directory: Directory = HERE,
) -> None:
    """Run one job of a rule, as Snakemake does; its inputs must exist."""
    from lmshape.geometry.threads import product_threads_of
    from lmshape.jobs import RULES, Jobs, Machine, Wildcards
    from lmshape.jobs.machine import gpu_count
    from lmshape.jobs.rule import Given, cell_wildcards, layer_wildcards

    if rule not in RULES:
        raise unknown("rule", rule, RULES)
    named = {"model": model, "checkpoint": checkpoint, "dataset": dataset, "reader": reader}
    named |= {"text": text, "run": pretraining}
    named |= cell_wildcards(cell) if cell else {}
    named |= layer_wildcards(layers) if layers else {}
    os.chdir(directory)
    needed = [name for _, name, _, _ in Formatter().parse(RULES[rule].log_file) if name]
    absent = [name for name in needed if not named.get(name)]
    if absent:
        raise InputError(
            f"`lmshape run {rule}`: missing {', '.join(absent)}. Name it; `lmshape run --help` lists the options."
        )
    study = _study(configfile, HERE)
    # what the job was given, wherever it runs: it estimates its memory as that was requested
    machine = Machine(gpus=gpu_count() if gpus is None else gpus)
    job, work = Wildcards(**named), Jobs(study, machine).rules[rule]
    work.check(job)
    with product_threads_of(threads):  # whatever OMP_NUM_THREADS says, or does not
        work.run(job, Given(threads=threads, gpus=gpus))


def _configfile(named: Path | None, directory: Path) -> Path:
    """Return the configuration that was named, else the one that Snakemake takes in that folder.

    Raises
    ------
    InputError
        When it does not exist.
    """
    from lmshape.study.registry import REPOSITORY, find_file

    if named is None:
        own = directory / "config/config.yaml"
        return own if own.exists() else REPOSITORY / "config/config.yaml"
    if not find_file(named, root=Path.cwd()).is_file():
        raise InputError(
            f"`--configfile {named}`: no such file. Correct the path; config/studies has examples."
        )
    return named


def _options(configfile: Path | None, directory: Path) -> list[str]:
    """Spell where a study lies, for a command that is shown."""
    options = ["--configfile", str(configfile)] if configfile else []
    return options + (["--directory", str(directory)] if directory != HERE else [])


def _study(configfile: Path | None, directory: Path) -> Study:
    """Read the study: in a job of the workflow its configuration as Snakemake merged it, else the file."""
    from lmshape.jobs import CONFIG_VARIABLE
    from lmshape.study.study import load_study, study_of

    planned = json.loads(os.environ.get(CONFIG_VARIABLE, "{}"))
    if (whole := os.path.realpath(directory)) in planned:
        return load_study(planned[whole], directory)
    return study_of(_configfile(configfile, directory), directory)


def _published(
    models: list[str] | None, everyone: bool, configfile: Path | None, directory: Path
) -> tuple[Registry, dict[str, Choice]]:
    """Return the registry, and the published runs that are meant, each with the checkpoints that are taken of it.

    They are all of them (`everyone`), those that are named, or else those of the study.
    """
    from lmshape.jobs.hub import log_to_stderr
    from lmshape.study.study import asked_of, read_config, registry_of

    log_to_stderr()
    config = read_config(_configfile(configfile, directory))
    registry = registry_of(config, directory)
    if everyone and models:
        raise InputError(f"`--all` takes no names, and {', '.join(models)} was named. Keep one of them.")
    if everyone or models:
        config |= {"models": models or list(registry.models), "checkpoints": "all"}
    asked, registry = asked_of(config, registry, directory)
    published: dict[str, Choice] = {}
    for name, choice, _ in asked:
        if name not in registry.models:
            raise unknown("model", name, registry.models)
        if "repository" in registry.models[name]:
            published[name] = choice
        elif models:
            raise InputError(
                f"`{name}` is on this machine, in {registry.models[name]['folder']}: the hub is not asked."
            )
    return registry, published


def _of_each(names: Collection[str], work: Callable[[str], bool], *, go_on: bool) -> None:
    """Work on models of the registry; end with exit code 1 when any is not as it should be.

    With `go_on`, the errors of models that fail are printed, and the last line names these models.
    """
    failed = []
    for name in names:
        try:
            sound = work(name)
        except InputError as error:
            if not go_on:
                raise
            print(f"error: {error}", file=sys.stderr)
            sound = False
        if not sound:
            failed.append(name)
    if go_on:
        print(
            f"{len(names)} runs, {len(failed)} with a fault: {', '.join(failed) or 'none'}", file=sys.stderr
        )
    if failed:
        raise typer.Exit(1)
