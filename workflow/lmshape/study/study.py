"""A study: its configuration joined with the registry, validated before the first job, as frozen dataclasses.

Faults are reported together, in two rounds: first what the files say (keys, names, numbers), then what they refer
to (folders, checkpoints, texts), since the second cannot be looked up before the first is right.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from lmshape.checkpoints import Checkpoint, Choice, select_checkpoints
from lmshape.errors import InputError, Problems, about, some_of
from lmshape.figures import FIGURES
from lmshape.hub.integrity import Issue
from lmshape.hub.published import Ask, choose
from lmshape.metrics import skdim
from lmshape.metrics.own import OwnFile, read_own
from lmshape.metrics.registry import (
    FINAL_FAMILY,
    MEASURED,
    OWN_FAMILY,
    RELEASED_FAMILIES,
    family_and_metric_names,
    measured_families,
    metric_names,
)
from lmshape.models import Extraction
from lmshape.paths import ACTIVATIONS, LOSS_CARD, STATISTICS, TEXT_FILE, TRUNCATION_READER, layers, loss_cards
from lmshape.schema import Yaml, faults, read_keys, schema_with_names, with_defaults
from lmshape.store.statistics import read_loss_card, read_statistics_attributes
from lmshape.study.models import Model, read_model, require_weights
from lmshape.study.registry import (
    Dataset,
    LossLog,
    Registry,
    Text,
    find_file,
    known_as,
    loss_log_of,
    read_registry,
)
from lmshape.texts.tokens import Sampling
from lmshape.training.recipe import Pretraining, Recipe, read_pretraining
from lmshape.truncation.ranks import Truncating, read_truncating

LEAST_CHUNK_TOKENS = 128  # 512 characters at four a token, as tokenizers of 50 000 entries make them
MISREAD = re.compile(r"[{}]|<[a-z][a-z0-9_]*>")  # by Snakemake in a path: wildcards and its path variables


@dataclass(frozen=True, slots=True)
class Cell:
    """The scope of one extraction: names of a model, one of its checkpoints, and a dataset."""

    model: str
    checkpoint: str
    dataset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """All that the rules need to know.

    Attributes
    ----------
    name : name of the study
    models : name → model with the checkpoints that the study takes, in the order of the configuration
    datasets_of : name of a model → names of the datasets it is measured on
    datasets : name → dataset, of those that are measured
    texts : name → text, all of the registry
    metrics : names of the metrics
    own_metrics : the user's own metrics, None without a file of them
    figures : names of those that are drawn, in the order of the page
    rows : variants of the rows: `all`, `no_sink`, `one_per_type`
    sampling, extraction, pretraining : sections of the configuration; no `pretraining` where it has none
    truncating : section `truncation`; None where it is off
    loss_logs : name → files of another run, in which to look for spikes
    layers_per_job : layers of a measuring job, None for all
    keep_activations, keep_weights : whether activations stay once they are measured, downloaded weights once read
    weights_in : whether weights are downloaded into the study's folder or the user's cache
    transfer : how they come into the study's folder
    disk_budget_bytes : most bytes of downloaded weights, None for no bound
    scratch : `tmpdir` where files are written in the job's $TMPDIR first
    issues : known faults of published checkpoints
    """

    name: str
    models: Mapping[str, Model]
    datasets_of: Mapping[str, tuple[str, ...]]
    datasets: Mapping[str, Dataset]
    texts: Mapping[str, Text]
    metrics: tuple[str, ...]
    own_metrics: OwnFile | None
    figures: tuple[str, ...]
    rows: tuple[str, ...]
    sampling: Sampling
    extraction: Extraction
    pretraining: Pretraining | None
    truncating: Truncating | None
    loss_logs: Mapping[str, LossLog]
    layers_per_job: int | None
    keep_activations: bool
    keep_weights: bool
    weights_in: Literal["study", "cache"]
    transfer: Literal["auto", "http", "xet"]
    disk_budget_bytes: int | None
    scratch: Literal["none", "tmpdir"]
    issues: tuple[Issue, ...]

    def cells(self) -> list[Cell]:
        """Every cell that is measured, by model, then step, then dataset."""
        return [
            Cell(name, checkpoint, dataset)
            for name, model in self.models.items()
            for checkpoint in model.measured
            for dataset in self.datasets_of[name]
        ]

    def checkpoint(self, cell: Cell) -> Checkpoint:
        """Folder, step and tokens seen of a cell's checkpoint."""
        return self.models[cell.model].checkpoints[cell.checkpoint]

    def truncated(self, model: str) -> dict[Cell, list[Checkpoint]]:
        """Cells of a model that are truncated → the chosen checkpoints that have their weights.

        Of a decoder, since the loss of an encoder is another.
        """
        if self.truncating is None or self.models[model].kind != "decoder":
            return {}
        datasets = self.truncating.datasets_of(self.datasets_of[model])
        of = {
            one: [name for name in datasets if not one.gone or name in one.truncated]
            for one in self.models[model].checkpoints.values()
        }
        known = [one for one in of if of[one]]
        chosen = select_checkpoints(known, self.truncating.checkpoints, model=model) if known else ()
        cells: dict[Cell, list[Checkpoint]] = {}
        for one in chosen:
            for dataset in of[one]:
                cells.setdefault(Cell(model, one.same_as or one.name, dataset), []).append(one)
        return cells

    @property
    def truncated_rows(self) -> list[str]:
        """Choices of rows that are truncated."""
        return sorted(name for name in self.rows if name in ("all", "no_sink")) or ["all"]

    def readers(self, model: str, checkpoint: str) -> list[str]:
        """All that read the weights of a checkpoint: its datasets, and truncations."""
        truncated = [cell.dataset for cell in self.truncated(model) if cell.checkpoint == checkpoint]
        return [*self.datasets_of[model], *(TRUNCATION_READER.format(dataset=name) for name in truncated)]

    @property
    def unstable(self) -> list[str]:
        """Models that were trained to fail, or have failed: nothing takes them for examples of their kind."""
        return [name for name, model in self.models.items() if model.unstable]

    @property
    def trained(self) -> dict[str, Recipe]:
        """Name → recipe of the runs that are trained: those that are models, and those that are probed."""
        runs = self.pretraining.runs if self.pretraining else {}
        models = {model.pretraining for model in self.models.values()}
        return {name: recipe for name, recipe in runs.items() if name in models or recipe.probe_every}

    def blocks_of(self, model: str) -> list[tuple[int, int]]:
        """First and last layer of each measuring job: 0 is the embedding; the final norm joins the last."""
        layers = self.models[model].blocks + 1
        size = self.layers_per_job or layers
        return [(first, min(first + size, layers) - 1) for first in range(0, layers, size)]

    def text_of(self, dataset: str) -> Text | None:
        """Text that a dataset's tokens are drawn from; None where random tokens follow no text."""
        part = self.datasets[dataset]
        if part.order == "random" and self.sampling.protocol == "windows":
            return None
        return None if part.text is None else self.texts[part.text]

    @property
    def library_families(self) -> tuple[str, ...]:
        """Those of them that the library measures, not the user's file."""
        return tuple(family for family in self.measured_families if family != OWN_FAMILY)

    @property
    def measured_families(self) -> tuple[str, ...]:
        """Families with statistics of layers: all but the loss, which comes with the extraction."""
        return measured_families(self.metrics, self.own_metrics.names if self.own_metrics else ())


def load_study(config: Mapping[str, Yaml], root: Path, *, ask: Ask | None = None) -> Study:
    """Validate a configuration and join it with the registry.

    Parameters
    ----------
    config : the configuration as read from YAML; it is not changed
    root : the working directory, to which relative paths refer
    ask : asks the hub for the lock of a model whose checkpoints only the hub can tell; None refuses such a model

    Raises
    ------
    InputError
        With every fault found, each naming the key, the value, the rule and the nearest valid names.
    """
    problems = Problems()
    names: dict[str, Collection[str]] = {"figure_name": FIGURES}
    registry = _registry(config, root, problems)
    if registry:
        typed, registry = known_as([name for name, _ in _listed(config.get("models"))], registry, root=root)
        names |= {"model_name": [*registry.models, *typed]}
        names |= {"dataset_name": registry.datasets, "text_name": registry.texts}
    own = None
    if isinstance(path := config.get("own_metrics"), str):
        with problems.noted():
            own = read_own(root / find_file(path, root=root), named=path, taken=family_and_metric_names())
    if own or "own_metrics" not in config:  # else not all names are known
        listed = config.get("metrics")
        asked = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
        names["metric_name"] = family_and_metric_names(own.names if own else (), asked)
        problems.extend(skdim.problems(asked))
    schema = schema_with_names("config", names)
    problems.extend(faults(config, schema))
    problems.raise_all(what="the configuration")
    assert registry is not None  # else there was a problem
    complete = with_defaults(config, schema)
    if complete["sampling"]["protocol"] == "paper" and "metrics" not in config:
        complete["metrics"] += RELEASED_FAMILIES
    if own and not {OWN_FAMILY, *own.names} & set(complete["metrics"]):
        complete["metrics"].append(OWN_FAMILY)
    return _joined(complete, registry, own, root, ask)


def study_of(configfile: Path, root: Path, *, ask: Ask | None = None) -> Study:
    """Read a configuration file and all that it refers to, loss logs too; see `load_study`."""
    study = load_study(read_keys(find_file(configfile, root=Path.cwd())), root, ask=ask)
    check_loss_logs(study, root)
    return study


def check_loss_logs(study: Study, root: Path) -> None:
    """Refuse a study with loss logs that cannot be read: once, where it is planned, and not in each of its jobs."""
    # imported here: pandas takes half a second, which every job would pay that reads its study
    from lmshape.dynamics.loss_logs import read_loss_log
    from lmshape.tables.loss_spikes import read_geometry

    problems = Problems()
    for name, log in study.loss_logs.items():
        with problems.noted(), about(f"loss_logs.{name}"):
            read_loss_log(root / log.losses, name=name)
        with problems.noted(), about(f"loss_logs.{name}"):
            if log.geometry:
                read_geometry(root / log.geometry)
    problems.raise_all(what="what the configuration refers to")


def read_config(configfile: Path) -> dict[str, Yaml]:
    """Read a configuration with its defaults; names are not looked up.

    Raises
    ------
    InputError
        When it cannot be read, or breaks the schema.
    """
    config = read_keys(find_file(configfile, root=Path.cwd()))
    schema = schema_with_names("config", {})
    Problems(faults(config, schema)).raise_all(what=f"{configfile}")
    return with_defaults(config, schema)


def registry_of(config: Mapping[str, Yaml], root: Path) -> Registry:
    """Read the registry that a configuration with its defaults names."""
    files = config["registry"]
    return read_registry(files["models"], files["datasets"], Path(files["known_issues"]), root=root)


def _registry(config: Mapping[str, Yaml], root: Path, problems: Problems) -> Registry | None:
    """Read the registry of a configuration that may have faults; None where it cannot be read."""
    schema = schema_with_names("config", {})
    if not faults(config.get("registry", {}), schema["properties"]["registry"]):
        with problems.noted():
            return registry_of(with_defaults(config, schema), root)
    return None


class Asked(NamedTuple):
    """What a configuration asks for of a model: its name in the registry, its checkpoints and its datasets."""

    name: str
    checkpoints: Choice
    datasets: list[str]


def asked_of(config: Mapping[str, Yaml], registry: Registry, root: Path) -> tuple[list[Asked], Registry]:
    """Read what a configuration with its defaults asks for; return it with the registry and entries that it lacked."""
    listed = _listed(config["models"])
    names, registry = known_as([name for name, _ in listed], registry, root=root)
    shared = {key: config[key] for key in ("checkpoints", "datasets")}
    return [Asked(names.get(name, name), **shared | (choice or {})) for name, choice in listed], registry


def _listed(models: Yaml) -> list[tuple[str, Yaml]]:
    """Return the names under `models`, each with what is below it; other things are left for the schema to refuse."""
    listed = models if isinstance(models, list) else [models]
    pairs = [pair for one in listed for pair in (one.items() if isinstance(one, dict) else [(one, None)])]
    return [(name, choice) for name, choice in pairs if isinstance(name, str)]


def _joined(
    config: Mapping[str, Yaml], registry: Registry, own: OwnFile | None, root: Path, ask: Ask | None
) -> Study:
    pretraining = read_pretraining(config["pretraining"]) if "pretraining" in config else None
    asked, registry = asked_of(config, registry, root)
    names = [one.name for one in asked]
    twice = [name for name in names if names.count(name) > 1]
    problems = Problems(f"`models` lists {name} more than once. Keep one." for name in twice)
    models: dict[str, Model] = {}
    for name, choice, datasets in asked:
        entry, issues = registry.models[name], registry.issues
        with problems.noted():
            model = read_model(
                name, entry, root=root, pretraining=pretraining, ask=ask, issues=issues, choice=choice
            )
            models[name] = _with_chosen_checkpoints(model, choice, datasets, root)
    datasets_of = {one.name: tuple(one.datasets) for one in asked}
    of_models = [name for names in datasets_of.values() for name in names]
    used = [name for name in dict.fromkeys([*config["datasets"], *of_models]) if name in of_models]
    study = Study(
        name=config["study"],
        models=models,
        datasets_of=datasets_of,
        datasets={name: registry.datasets[name] for name in used},
        texts=registry.texts,
        metrics=metric_names(config["metrics"], own.names if own else ()),
        own_metrics=own,
        figures=tuple(name for name in FIGURES if config["figures"] == "all" or name in config["figures"]),
        rows=tuple(config["rows"]),
        sampling=Sampling(**config["sampling"]),
        extraction=Extraction(**config["extraction"]),
        pretraining=pretraining,
        truncating=read_truncating(config["truncation"]),
        loss_logs={name: loss_log_of(entry, root=root) for name, entry in config["loss_logs"].items()},
        layers_per_job=None if config["layers_per_job"] == "all" else config["layers_per_job"],
        keep_weights=config["keep_weights"] or config["weights_in"] == "cache",
        disk_budget_bytes=int(budget * 10**9) if (budget := config["disk_budget_gb"]) else None,
        issues=registry.issues,
        **{key: config[key] for key in ("keep_activations", "weights_in", "transfer", "scratch")},
    )
    problems.extend(problems_of(study, root))
    problems.raise_all(what="what the configuration refers to")
    return study


def _with_chosen_checkpoints(model: Model, choice: Choice, datasets: Sequence[str], root: Path) -> Model:
    """Keep the checkpoints that a study takes of a model.

    Raises
    ------
    InputError
        When a listed one does not exist or cannot be loaded, or none is left to choose from.
    """

    def tell(gone: Sequence[str], consequence: str) -> None:
        if gone:
            told = f"{some_of(gone)} {'is' if len(gone) == 1 else 'are'} gone from {model.folder}"
            print(f"`{model.name}`: {told}{consequence}", file=sys.stderr)

    lost = [
        one.name
        for one in model.checkpoints.values()
        if one.gone
        and not all((root / card).is_file() for card in loss_cards(model.name, [one.name], datasets))
    ]
    tell(lost, ", not measured on all datasets of this study, and left out.")
    known = [one for one in model.checkpoints.values() if one.name not in lost]
    if not known:
        raise InputError(
            f"`{model.name}`: all of its checkpoints are gone from {model.folder}. Restore them."
        )
    chosen, passed_over = choose(known, model.unlisted, choice, model=model.name)
    if model.pretraining is None and not model.on_hub:
        require_weights(model.name, [one for one in chosen if not one.gone], root=root)
    tell([one.name for one in chosen if one.gone], "; the numbers stay.")
    taken = {checkpoint.name: checkpoint for checkpoint in chosen}
    return replace(model, checkpoints=taken, choice=choice, passed_over=passed_over)


def problems_of(study: Study, root: Path) -> Iterator[str]:
    """Tell every way in which a study cannot run, a sentence each."""
    yield from _long_sequences(study)
    yield from _misread_paths(study)
    yield from _metrics_without_data(study)
    yield from _text_problems(study, root)
    yield from _gone_problems(study, root)
    yield from _truncation_problems(study)
    for name, log in study.loss_logs.items():
        if name in study.trained:
            yield f"`loss_logs.{name}`: a run of `pretraining` has this name. Take another."
        for path in log.files:
            if not (root / path).is_file():
                yield f"`loss_logs.{name}` = '{path}': no such file in {root}. Correct the path."


def _long_sequences(study: Study) -> Iterator[str]:
    """Refuse windows longer than a context; in `paper`, a context that almost certainly cuts one of 128 chunks."""
    paper = study.sampling.protocol == "paper"  # where only the tokenizer knows the lengths of chunks
    longest = LEAST_CHUNK_TOKENS + 1 if paper else study.sampling.window
    for name, model in study.models.items():
        if model.context is None or model.context >= longest:
            continue
        if paper:
            yield (
                f"`sampling.protocol` = 'paper': a chunk of 512 characters has more tokens than the context of "
                f"`{name}`, {model.context}. Take the protocol `windows`, or a model with a context of 256 or more."
            )
        else:
            yield (
                f"`sampling.window` = {longest}: longer than the context of `{name}`, {model.context} tokens. Lower "
                f"it to {model.context} or less."
            )


def _misread_paths(study: Study) -> Iterator[str]:
    """Tell of paths of the user's files in which Snakemake would find wildcards."""
    texts = [text for name in study.datasets if (text := study.text_of(name))]
    files = [(name, one.folder) for name, model in study.models.items() for one in model.checkpoints.values()]
    files += [(f"texts.{text.name}", text.path) for text in texts if text.path]
    files += [(f"loss_logs.{name}", file) for name, log in study.loss_logs.items() for file in log.files]
    for where, path in {where: path for where, path in files if MISREAD.search(str(path))}.items():
        yield (
            f"`{where}` = '{path}': Snakemake takes braces, and a word in angle brackets, for names to fill in. "
            "Rename it, or make a link without them."
        )


def _metrics_without_data(study: Study) -> Iterator[str]:
    """Tell of families that lack the activations or the rows that they need."""
    if FINAL_FAMILY in study.measured_families and not study.keep_activations:
        yield (
            f"`metrics` names `{FINAL_FAMILY}`, which compares the activations of two checkpoints, and "
            f"`keep_activations` is false. Set it to true, or leave `{FINAL_FAMILY}` out."
        )
    others = [name for name in study.measured_families if not MEASURED[name].chosen_rows(study.rows)]
    if others:
        takers = [name for name, family in MEASURED.items() if "one_per_type" in family.rows]
        yield (
            f"`rows` = [one_per_type]: only {' and '.join(takers)} take these rows, and `metrics` asks for "
            f"{', '.join(others)} too. Add `all` to `rows`, or name no other family."
        )


def _text_problems(study: Study, root: Path) -> Iterator[str]:
    """Compare the bytes of each text with the tokens asked for: a token has at least one byte."""
    readers = []  # text, span, tokens, what reads it, remedy
    for name, dataset in study.datasets.items():
        if study.sampling.protocol == "paper" and dataset.text is None:
            yield (
                f"`datasets.{name}`: the protocol `paper` takes the lengths of random sequences from a text. "
                "Give the dataset a `text`."
            )
        if text := study.text_of(name):
            remedy = "Take a larger text, a wider `span`, or fewer draws or rows under `sampling`."
            readers.append((text, dataset.span, study.sampling.most_tokens, f"datasets.{name}", remedy))
    if study.pretraining and study.trained:
        text, span = study.texts[study.pretraining.text], study.pretraining.span
        needed = max(recipe.sequences * recipe.window for recipe in study.trained.values())
        readers.append((text, span, needed, "pretraining", "Take a larger text or a wider `span`."))
    for text, (first, last), needed, reader, remedy in readers:
        if text.path is not None and (root / text.path).parent == (root / TEXT_FILE).parent:
            yield f"`texts.{text.name}.path` = '{text.path}': there the study puts its own copies. Move it elsewhere."
        if text.path is not None and not (root / text.path).is_file():
            yield f"`texts.{text.name}.path` = '{text.path}': no such file in {root}. Correct the path."
            continue
        size, share = text.raw_bytes(root), last - first
        if size == 0:
            yield f"`texts.{text.name}`: {text.path} is empty. Name a file with text."
        elif size is not None and size * share < needed:
            yield (
                f"`texts.{text.name}`: {size} bytes, of which `{reader}` takes {size * share:.0f}; "
                f"it needs {needed} at the very least, one a token. {remedy}"
            )


def _gone_problems(study: Study, root: Path) -> Iterator[str]:
    """Tell what is asked for of checkpoints whose weights are gone, and was not measured before."""
    for cell in study.cells():
        folder = study.checkpoint(cell).folder
        for lacking, remedy in _not_measured(study, cell, root) if study.checkpoint(cell).gone else ():
            yield (
                f"`{cell.model}`: {cell.checkpoint} is gone from {folder.parent}, and {lacking} of it on "
                f"{cell.dataset} cannot be measured. Bring the checkpoint back, leave it out under `checkpoints`, or "
                f"{remedy}."
            )


def _not_measured(study: Study, cell: Cell, root: Path) -> Iterator[tuple[str, str]]:
    """Yield what a study wants of a cell without weights that was not measured, and how to do without."""
    told = read_loss_card(root / LOSS_CARD.format(**asdict(cell)))[0]
    sampling = {**study.sampling.used, "order": study.datasets[cell.dataset].order}
    if (told["sampling"], told["seed"]) != (json.dumps(sampling, sort_keys=True), study.sampling.seed):
        yield "another sample", f"take back `sampling`: {told['sampling']}, seed {told['seed']}"
        return
    if (root / ACTIVATIONS.format(**asdict(cell))).is_file():
        return
    final = study.models[cell.model].final
    final = "" if final == cell.checkpoint else final
    lacking: dict[str, list[str]] = {"metrics": [], "rows": []}  # by the key that asks for it
    for family in study.measured_families:
        for block in study.blocks_of(cell.model):
            file = STATISTICS.format(**asdict(cell), family=family, **layers(*block))
            known = read_statistics_attributes(root / file) if (root / file).is_file() else None
            if not known or (family == FINAL_FAMILY and known.get("final_checkpoint") != final):
                lacking["metrics"].append(family)
            else:
                rows = MEASURED[family].chosen_rows(study.rows)
                lacking["rows"] += [name for name in rows if name not in str(known["rows"]).split()]
    for key, names in lacking.items():
        if names:
            several = some_of(list(dict.fromkeys(names)))
            yield several, f"leave {several} out of `{key}`"


def _truncation_problems(study: Study) -> Iterator[str]:
    problems = Problems()
    named = study.truncating.datasets if study.truncating else ()
    for name in () if isinstance(named, str) else named:
        if name not in study.datasets:
            yield (
                f"`truncation.datasets` names {name}, which no model of the study is measured on. Add it to "
                "`datasets`, or leave it out here."
            )
    for model in study.models:
        with problems.noted(), about("truncation.checkpoints"):
            study.truncated(model)
    yield from problems
