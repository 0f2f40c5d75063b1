"""Inputs and options of the jobs, in the order of the stations: functions of their wildcards and of the study.

Parameters hold only what a result depends on, so that nothing else runs a job again.
"""


def text_file(text, clean):
    return f"results/texts/{text}{'.clean' if clean else ''}.txt"


def text_source(wildcards):
    """A local text whose date says whether it has changed; where a checksum says so, a fresh clone reruns nothing."""
    text = study.texts[wildcards.text]
    return [] if text.path is None or text.sha256 or text.md5 else str(text.path)


def text_options(wildcards):
    """A text that the repository carries is named relative to it: where it was cloned to is no part of the result."""
    text = study.texts[wildcards.text]
    source = text.path or text.url
    if text.path and text.path.is_relative_to(REPOSITORY):
        source = text.path.relative_to(REPOSITORY)
    return f"{shlex.quote(str(source))} {flags(md5=text.md5, sha256=text.sha256, bytes=text.bytes)}"


def text_disk(wildcards):
    """Megabytes of a text, where the registry says how long it is."""
    return 10 + (study.texts[wildcards.text].bytes or 10**9) // 10**6


def pretraining_text(wildcards):
    return text_file(study.pretraining.text, study.pretraining.clean)


def pretraining_threads(wildcards):
    return study.pretraining.threads


def tokenizer_options(wildcards):
    return flags(vocabulary=study.pretraining.vocabulary, span=study.pretraining.span)


def pretraining_options(wildcards):
    recipe = study.pretraining.runs[wildcards.run].as_json()
    return flags(recipe=recipe, span=study.pretraining.span)


def pretraining_memory(wildcards, attempt):
    recipe = study.pretraining.runs[wildcards.run]
    return attempt * pretraining_megabytes(recipe, study.pretraining.vocabulary)


def pretraining_minutes(wildcards, attempt):
    recipe = study.pretraining.runs[wildcards.run]
    return attempt * minutes_for(
        pretraining_seconds(recipe, study.pretraining.vocabulary)
    )


def pretraining_disk(wildcards):
    """Megabytes of the checkpoints, and of the state that a killed run goes on from."""
    recipe = study.pretraining.runs[wildcards.run]
    size = 4 * weights_of(recipe, study.pretraining.vocabulary)
    return 10 + (len(recipe.checkpoint_steps) + 3) * size // 10**6


def runs_that(keep):
    """Names of the runs that keep their checkpoints, or of those that do not."""
    runs = study.pretraining.runs if study.pretraining else {}
    return [name for name, recipe in runs.items() if recipe.keep_checkpoints == keep]


def pretrained_weights(folder):
    """Runs that keep their checkpoints are saved at the same steps, so that one rule can name its outputs."""
    kept = runs_that(keep=True)
    steps = study.pretraining.runs[kept[0]].checkpoint_steps if kept else []
    return [f"{folder}/checkpoint-{step}/model.safetensors" for step in steps]


def pretraining_fingerprint(wildcards):
    """What is measured while a run trains counts where it is measured."""
    measured = study.pretraining.runs[wildcards.run].probe_every > 0
    return code_fingerprint(
        "lmshape.training.pretrain",
        "lmshape.texts.corpus",
        *["lmshape.monitor"] * measured,
    )


def trained_files(name):
    """A file of each run that is trained, whether it is a model or there for its spikes."""
    return [f"results/pretrained/{run}/{name}" for run in study.trained]


def probed_files(name):
    probed = [run for run, recipe in study.trained.items() if recipe.probe_every]
    return [f"results/pretrained/{run}/{name}" for run in probed]


def by_run(files):
    return [f"{Path(file).parent.name}={file}" for file in files]


def loss_log_files(wildcards):
    return [str(file) for log in study.loss_logs.values() for file in log.files]


def spike_options(wildcards):
    logs = study.loss_logs.items()
    geometry = [f"{name}={log.geometry}" for name, log in logs if log.geometry]
    return flags(
        study=study.name,
        losses=by_run(trained_files("loss.csv")),
        log=[f"{name}={log.losses}" for name, log in logs],
        geometry=by_run(probed_files("geometry.csv")) + geometry,
        dataset=list(study.datasets),
    )


def figure_losses(wildcards):
    return trained_files("loss.csv") if wildcards.figure in DRAW_LOSSES else []


def figure_tables(wildcards):
    names = ["metrics", "checkpoints", "profiles"]
    names += TABLES_OF.get(wildcards.figure, ())
    return [f"results/tables/{name}.parquet" for name in names]


def figure_options(wildcards):
    losses = by_run(figure_losses(wildcards))
    return flags(dataset=list(study.datasets), losses=losses)


def tables_options(wildcards):
    """Which models differ in their seed alone."""
    recipes = {name: model.recipe for name, model in study.models.items()}
    return flags(
        recipe=[f"{name}={recipe}" for name, recipe in recipes.items() if recipe]
    )


def claim_options(wildcards):
    """Datasets in the study's order, its text first, each with what its tokens are."""
    orders = {name: dataset.order for name, dataset in study.datasets.items()}
    return flags(dataset=[f"{name}={order}" for name, order in orders.items()])


def claims_fingerprint(wildcards):
    """Published numbers count as much as the code."""
    numbers = REPOSITORY / "workflow/lmshape/claims/published.yaml"
    digest = hashlib.sha256(numbers.read_bytes()).hexdigest()
    return code_fingerprint("lmshape.claims") + digest[:12]


def findings_options(wildcards):
    described = {
        "study": study.name,
        "sampling": dataclasses.asdict(study.sampling),
        "extraction": dataclasses.asdict(study.extraction),
        "datasets": {
            name: describe_dataset(dataset) for name, dataset in study.datasets.items()
        },
    }
    return flags(
        provenance=json.dumps(described),
        runs=trained_files("summary.json"),
        own_metrics=own_path(),
    )


def describe_dataset(dataset):
    """One line for the reader of the report."""
    text = "no text"
    if dataset.text:
        about = filter(
            None, [study.texts[dataset.text].origin, study.texts[dataset.text].license]
        )
        span = f"{dataset.span[0]:.0%} to {dataset.span[1]:.0%}"
        text = f"{dataset.text}, {span}{', cleaned' if dataset.clean else ''}; {'; '.join(about)}"
    order = {
        "text": f"tokens of {text}",
        "shuffled": f"the same tokens, shuffled within each sequence ({text})",
        "random": "tokens drawn uniformly from the model's vocabulary",
    }
    return order[dataset.order]


def registry_entry(wildcards):
    """The commits of a lock stay whatever of this changes; another repository or spelling makes a new lock."""
    return json.dumps(study.models[wildcards.model].entry)


def resolving_options(wildcards):
    """Not among the parameters: once there is a lock, the plan itself takes what the lock has."""
    options = {
        "known_issues": known_issues_file(),
        "checkpoint": list(study.models[wildcards.model].checkpoints),
    }
    return flags(**options)


def known_faults(wildcards):
    """A fault that becomes known changes verdicts in the tables."""
    faults = issues_of(study.issues, wildcards.model)
    return [f"{fault.verdict} {sorted(fault.steps)} {fault.reason}" for fault in faults]


def auditing_options(wildcards):
    """Not among the parameters: the faults themselves are, and not where their list lies."""
    on_hub = study.models[wildcards.model].on_hub
    return flags(known_issues=known_issues_file()) if on_hub else ""


def download_options(wildcards):
    """Not among the parameters: none of it makes other weights, and a change of it downloads nothing again."""
    model = study.models[wildcards.model]
    datasets = list(study.datasets_of[model.name])
    cells = [{**wildcards, "dataset": dataset} for dataset in datasets]
    passing = (
        []
        if study.keep_activations
        else [paths.ACTIVATIONS.format(**cell) for cell in cells]
    )
    return flags(
        dataset=datasets,
        activations=passing,
        activation_bytes=(
            activation_bytes(model, study.sampling.most_tokens) if passing else None
        ),
        weights_in=study.weights_in,
        budget_bytes=study.disk_budget_bytes,
        reader=study.readers(model.name, wildcards.checkpoint)[len(datasets) :],
    ) + (" --keep" if study.keep_weights else "")


def download_disk(wildcards):
    """Megabytes of the weights, where lock or registry know them."""
    model = study.models[wildcards.model]
    return 10 + checkpoint_megabytes(model, wildcards.checkpoint)


def revised_weights(wildcards):
    """How often an update of the lock has found other weights under this name: a changed one runs its cells again."""
    return study.models[wildcards.model].checkpoints[wildcards.checkpoint].revised


def tokenizer_folder(wildcards):
    return study.models[wildcards.model].tokenizer


def tokenizer_files(wildcards):
    model = study.models[wildcards.model]
    if model.pretraining or model.on_hub:
        return [str(model.tokenizer)]
    return [str(path) for path in files_of_tokenizer(model.tokenizer)]


def dataset_text(wildcards):
    text = study.text_of(wildcards.dataset)
    return text_file(text.name, study.datasets[wildcards.dataset].clean) if text else []


def tokenizing_memory(wildcards):
    """A text, as bytes, as characters and as tokens, and a gigabyte for Python and the tokenizer."""
    text = study.text_of(wildcards.dataset)
    return 1000 + 10 * ((text.bytes or 10**8) if text else 0) // 10**6


def tokenizing_disk(wildcards):
    return 10 + 40 * study.sampling.most_tokens // 10**6


def sampling_options(wildcards):
    dataset, sampling = study.datasets[wildcards.dataset], study.sampling
    text, windows = dataset_text(wildcards) or None, sampling.protocol == "windows"
    return flags(
        text=text,
        span=dataset.span if text else None,
        order=dataset.order,
        context=study.models[wildcards.model].context,
        protocol=sampling.protocol,
        window=sampling.window if windows else None,
        draws=sampling.draws,
        rows_per_draw=sampling.rows_per_draw if windows else None,
        seed=sampling.seed,
    )


def checkpoint_of(wildcards):
    return study.checkpoint(
        Cell(wildcards.model, wildcards.checkpoint, wildcards.dataset)
    )


def checkpoint_folder(wildcards):
    return checkpoint_of(wildcards).folder


def checkpoint_weights(wildcards):
    """The files whose change makes a checkpoint another one."""
    folder = checkpoint_folder(wildcards)
    if study.models[wildcards.model].on_hub:
        # Snakemake does not look at jobs behind a download that has a reason of its own, unless this is one for them
        return str(folder) if revised_weights(wildcards) else ancient(str(folder))
    if study.models[wildcards.model].pretraining:
        return [f"{folder}/model.safetensors"]
    return [str(path) for path in checkpoint_files(folder)]


def extraction_options(wildcards):
    model, checkpoint = study.models[wildcards.model], checkpoint_of(wildcards)
    attributes = {
        "model": model.name,
        "architecture": model.architecture,
        "repository": model.entry.get("repository", str(model.folder)),
        "revision": checkpoint.name,
        "commit": "",  # of the hub's checkpoints, the receipt beside the weights says this and the two above
        "checkpoint": checkpoint.name,
        "step": checkpoint.step,
        "tokens_seen": checkpoint.tokens_seen,
        "dataset": wildcards.dataset,
    }
    return flags(
        kind=model.kind,
        attributes=json.dumps(attributes),
        blocks=model.blocks,
        width=model.width,
        vocabulary=model.vocabulary,
        dtype=study.extraction.dtype,
    ) + (" --remote-code" if model.remote_code else "")


def reading_options(wildcards):
    """What an extraction does with downloaded weights once it has read them; not among the parameters."""
    return reading_options_of(wildcards.model, wildcards.checkpoint)


@cache
def reading_options_of(name, checkpoint):
    if not study.models[name].on_hub:
        return ""
    return flags(read_by=study.readers(name, checkpoint)) + (
        " --keep" if study.keep_weights else ""
    )


RETRIES = "LMSHAPE_RETRIES"  # the environment has them for jobs of a cluster, which are given none


def is_last(attempt):
    settings = workflow.execution_settings
    retries = os.environ.get(RETRIES) or (settings.retries if settings else 0)
    return attempt > int(retries)


def failure_mark(wildcards, attempt):
    """The file that says that a cell could not be extracted, so that what it holds of the budget may make room."""
    if not is_last(attempt):
        return os.devnull
    if study.models[wildcards.model].on_hub:
        return mark(checkpoint_folder(wildcards), "failed", wildcards.dataset)
    room = room_for_activations(wildcards)
    return failed_mark(Path(room)) if room else os.devnull


def measuring_failure_mark(wildcards, attempt):
    """The file that says that activations stay, and their room with them, since they could not be measured."""
    room = room_for_activations(wildcards)
    return unmeasured_mark(Path(room)) if room and is_last(attempt) else os.devnull


def room_for_activations(wildcards):
    """What a cell of a local run waits for where a budget bounds activations that pass.

    A cell that is done keeps the inputs that it was made with: another set of them would run it again.
    """
    if study.models[wildcards.model].on_hub:
        return []
    room, losses = paths.ROOM.format(**wildcards), paths.LOSSES.format(**wildcards)
    made_with = workflow.persistence.input(IOFile(losses))
    if made_with is None or is_due_again(wildcards):
        return room if admits() else []
    return room if room in made_with else []


def admits():
    return study.disk_budget_bytes is not None and not study.keep_activations


def is_due_again(wildcards):
    """Whether a cell that was extracted will be once more: statistics are missing, or of other code or options."""
    axes = {key: [wildcards[key]] for key in ("checkpoint", "dataset")}.values()
    files = paths.statistics_files(
        wildcards.model,
        *axes,
        families=study.measured_families,
        blocks=study.blocks_of(wildcards.model),
    )
    if not all(map(os.path.exists, files)):
        return True
    library = families_fingerprint(), measuring_options()
    own = own_family_fingerprint(), own_measuring_options()
    extraction = code_fingerprint("lmshape.extraction.extract"), extraction_options(
        wildcards
    )
    made_of = {file: own if is_own(file) else library for file in files}
    made_of[paths.LOSSES.format(**wildcards)] = extraction
    made_of[paths.TOKENS.format(**wildcards)] = (sampling_options(wildcards),)
    return any(was_made_otherwise(*made) for made in made_of.items())


def is_own(file):
    return Path(file).parent.name == OWN_FAMILY


def was_made_otherwise(file, params):
    """Whether one of these is not among the parameters that Snakemake has on record for a file."""
    recorded = workflow.persistence.params(IOFile(file))
    if recorded is None:
        return False
    return not all(
        any(repr(one)[1:-1] in value for value in recorded) for one in params
    )


def weights_that_are_there(wildcards):
    return [ancient(file) for file in checkpoint_weights(wildcards)]


def admission_options(wildcards):
    """Not among the parameters: none of it makes other activations."""
    model = study.models[wildcards.model]
    return flags(
        activations=paths.ACTIVATIONS.format(**wildcards),
        activation_bytes=activation_bytes(model, study.sampling.most_tokens),
        budget_bytes=study.disk_budget_bytes if admits() else None,
    ) + (" --keep" if study.keep_weights else "")


def place_among_checkpoints(wildcards):
    """From 0, the first checkpoint of its model, to below 1."""
    names = list(study.models[wildcards.model].checkpoints)
    return names.index(wildcards.checkpoint) / len(names)


def admission_priority(wildcards):
    return 5 - place_among_checkpoints(wildcards)


def extraction_priority(wildcards):
    """A checkpoint is finished before the next one is begun; its measuring comes before any extraction."""
    return 10 - place_among_checkpoints(wildcards)


def kept_if_asked(path):
    return path if study.keep_activations else temp(path)


def model_threads(wildcards):
    return threads_of(study.models[wildcards.model])


def extraction_gpus(wildcards):
    """Here each extraction has a GPU, if there is one; on a cluster those of large models ask for one."""
    model = study.models[wildcards.model]
    return gpus_where_worth_it(model, wants_gpu(model, study.sampling))


def gpus_where_worth_it(model, worth_it):
    device = study.extraction.device
    if device not in ("auto", "cpu"):
        return gpus_of(model)
    if device == "cpu":
        return 0
    if not ON_CLUSTER:
        return int(gpu_count() > 0)
    return gpus_of(model) if GPU_PARTITION and worth_it else 0


def gpus_of(model):
    """As many as hold the weights, where `device_map` spreads a model; else one."""
    spread = ON_CLUSTER and study.extraction.device_map == "auto"
    return gpus_that_hold(model, study.extraction, GPU_GIGABYTES) if spread else 1


def extraction_partition(wildcards):
    return partition_for(extraction_gpus(wildcards))


def partition_for(gpus):
    """Of the cluster, None where there is none."""
    return GPU_PARTITION if GPU_PARTITION and gpus else of_profile("slurm_partition")


def extraction_memory(wildcards, attempt):
    model = study.models[wildcards.model]
    gpus = extraction_gpus(wildcards)
    return attempt * extraction_megabytes(model, study.extraction, on_gpu=gpus > 0)


def extraction_minutes(wildcards, attempt, threads):
    model = study.models[wildcards.model]
    on_gpu = extraction_gpus(wildcards) > 0
    seconds = extraction_seconds(model, study.sampling, threads=threads, on_gpu=on_gpu)
    return attempt * minutes_for(seconds)


def extraction_disk(wildcards):
    """Megabytes of the activations."""
    model = study.models[wildcards.model]
    return 10 + activation_bytes(model, study.sampling.most_tokens) // 10**6


def measuring_memory(wildcards, attempt):
    model = study.models[wildcards.model]
    return attempt * measuring_megabytes(model.width, study.sampling)


def measuring_minutes(wildcards, attempt, threads):
    sites = int(wildcards.last) - int(wildcards.first) + 2
    width = study.models[wildcards.model].width
    return attempt * minutes_of_block(width, sites, threads)


@cache
def minutes_of_block(width, sites, threads):
    seconds = measuring_seconds(
        width,
        study.sampling,
        families=study.measured_families,
        rows=study.rows,
        sites=sites,
        threads=threads,
    )
    return minutes_for(seconds)


def measuring_disk(wildcards):
    """Megabytes of the archives of a block."""
    return 10 + 2 * (int(wildcards.last) - int(wildcards.first) + 2)


LIBRARY_FAMILIES = [name for name in METRIC_FAMILIES if name != OUTPUT_FAMILY]


def library_families():
    """Families of the library that the study measures, all where it measures none: a rule has outputs."""
    chosen = [name for name in study.measured_families if name != OWN_FAMILY]
    return chosen or LIBRARY_FAMILIES


def families_fingerprint():
    """Of all families of the library, measured or not."""
    modules = [f"lmshape.measure.{family}" for family in LIBRARY_FAMILIES]
    return code_fingerprint("lmshape.measure", *modules)


def measuring_options():
    """The article's protocol takes all rows of its chunks; packed windows have some to spare."""
    windows = study.sampling.protocol == "windows"
    return flags(
        rows=sorted(study.rows),
        rows_per_draw=study.sampling.rows_per_draw if windows else None,
    )


def own_measuring_options():
    rows = sorted(row for row in study.rows if row != "one_per_type")
    return flags(rows=rows, own_metrics=own_path())


def own_path():
    return study.own_metrics.path if study.own_metrics else None


def own_fingerprint():
    """What the user's own metrics compute; a comment in their file is no change."""
    return study.own_metrics.fingerprint if study.own_metrics else ""


def own_family_fingerprint():
    return (
        code_fingerprint("lmshape.measure", "lmshape.measure.own") + own_fingerprint()
    )


def gathering_fingerprint(wildcards):
    return code_fingerprint("lmshape.tables.gather") + own_fingerprint()


def model_statistics(wildcards):
    model = study.models[wildcards.model]
    return paths.statistics_files(
        model.name,
        model.checkpoints,
        study.datasets_of[model.name],
        families=study.measured_families,
        blocks=study.blocks_of(model.name),
    )


def model_losses(wildcards):
    model = study.models[wildcards.model]
    return paths.loss_cards(
        model.name, model.checkpoints, study.datasets_of[model.name]
    )


def model_releases(wildcards):
    """Of downloaded weights: that every cell has read them."""
    model = study.models[wildcards.model]
    if not model.on_hub:
        return []
    cells = paths.cells(model.name, model.checkpoints, study.datasets_of[model.name])
    return [paths.RELEASED.format(**cell) for cell in cells] + truncation_releases(
        wildcards
    )


def truncation_releases(wildcards):
    """Of downloaded weights: that every truncation has read them."""
    model = study.models[wildcards.model]
    cells = study.truncated(model.name) if model.on_hub else []
    return [released_mark(cell) for cell in cells]


def released_mark(cell):
    names = {"model": cell.model, "checkpoint": cell.checkpoint}
    return paths.RELEASED.format(**names, dataset=truncation_reader(cell))


def model_lock(wildcards):
    return (
        paths.LOCK.format(**wildcards) if study.models[wildcards.model].on_hub else []
    )


def gathered_megabytes(wildcards):
    """Of the statistics of a model: at most 2 a site of a cell."""
    model = study.models[wildcards.model]
    cells = len(model.checkpoints) * len(study.datasets_of[model.name])
    return 2 * cells * (model.blocks + 2)


def gathering_memory(wildcards, attempt):
    return attempt * (1000 + gathered_megabytes(wildcards))


def gathering_minutes(wildcards, attempt):
    """At a megabyte a second, far slower than it is."""
    return attempt * minutes_for(gathered_megabytes(wildcards))


def gathering_options(wildcards):
    model = wildcards.model
    options = {
        "study": study.name,
        "checkpoint": list(study.models[model].checkpoints),
        "dataset": list(study.datasets_of[model]),
        "layers": [
            "-".join(paths.layers(*block).values()) for block in study.blocks_of(model)
        ],
        "metric": list(study.metrics),
        "own_metrics": own_path(),
        "lock": model_lock(wildcards) or None,
    }
    return flags(**options)


# Of which the tables `spectra` and `clouds` are made.
SHAPE_FAMILIES = ("spectral", "leading")


def shape_axes(wildcards):
    """Families, first dataset and layers that stand for a network, as far as the study measures them."""
    model = study.models[wildcards.model]
    of_model = study.datasets_of[model.name]
    named = set(named_layers(model.blocks).values())
    return {
        "datasets": [name for name in study.datasets if name in of_model][:1],
        "families": [
            name for name in SHAPE_FAMILIES if name in study.measured_families
        ],
        "blocks": [
            (first, last)
            for first, last in study.blocks_of(model.name)
            if any(first <= layer <= last for layer in named)
        ],
    }


def shape_statistics(wildcards):
    model = study.models[wildcards.model]
    return paths.statistics_files(
        model.name, model.checkpoints, **shape_axes(wildcards)
    )


def shape_options(wildcards):
    axes = shape_axes(wildcards)
    options = {
        "study": study.name,
        "checkpoint": list(study.models[wildcards.model].checkpoints),
        "dataset": axes["datasets"],
        "layers": ["-".join(paths.layers(*block).values()) for block in axes["blocks"]],
        "family": axes["families"],
    }
    return flags(**options)


def losses_that_are_there(wildcards):
    """A checkpoint that cannot be extracted is not truncated either, and not told of twice."""
    return ancient(paths.LOSSES.format(**wildcards))


def truncation_options(wildcards):
    cell = extraction_options(wildcards)
    rows = [name for name in study.rows if name in ("all", "no_sink")] or ["all"]
    truncating = study.truncating
    tried = flags(
        rows=sorted(rows),
        sequences=truncating.sequences,
        rank=listed(truncating.ranks),
        removed=listed(truncating.removed),
    )
    return f"{cell} {tried}"


def listed(numbers):
    return None if numbers is None else sorted(numbers)


def truncation_reader(wildcards):
    return paths.TRUNCATED.format(dataset=wildcards.dataset)


def truncation_reading_options(wildcards):
    """What a truncation does with downloaded weights once it has read them; not among the parameters."""
    reading = reading_options(wildcards)
    return f"{flags(reader=truncation_reader(wildcards))} {reading}" if reading else ""


def truncation_failure_mark(wildcards, attempt):
    if not (is_last(attempt) and study.models[wildcards.model].on_hub):
        return os.devnull
    folder = checkpoint_folder(wildcards)
    return mark(folder, "failed", truncation_reader(wildcards))


def truncation_gpus(wildcards):
    """As of an extraction, by the work that it is: many passes over few sequences."""
    model = study.models[wildcards.model]
    worth_it = truncation_wants_gpu(
        model, study.sampling, study.truncating, rows=study.rows
    )
    return gpus_where_worth_it(model, worth_it)


def truncation_partition(wildcards):
    return partition_for(truncation_gpus(wildcards))


def truncation_memory(wildcards, attempt):
    model = study.models[wildcards.model]
    return attempt * truncation_megabytes(
        model,
        study.sampling,
        study.truncating,
        study.extraction,
        on_gpu=truncation_gpus(wildcards) > 0,
    )


def truncation_minutes(wildcards, attempt, threads):
    model = study.models[wildcards.model]
    seconds = truncation_seconds(
        model,
        study.sampling,
        study.truncating,
        rows=study.rows,
        threads=threads,
        on_gpu=truncation_gpus(wildcards) > 0,
    )
    return attempt * minutes_for(seconds)


def all_truncations(wildcards):
    cells = [cell for model in study.models for cell in study.truncated(model)]
    return [paths.TRUNCATION.format(**dataclasses.asdict(cell)) for cell in cells]


def truncation_table_options(wildcards):
    return flags(study=study.name)


def figure_fingerprint(wildcards):
    return code_fingerprint("lmshape.figures", f"lmshape.figures.{wildcards.figure}")


def figure_caption(wildcards):
    """For the report. A resource, since words that change draw no figure again."""
    return str(REPOSITORY / f"workflow/report/{wildcards.figure}.rst")


def figure_labels(wildcards):
    return {"figure": wildcards.figure.replace("_", " ")}


def findings_fingerprint(wildcards):
    return (
        code_fingerprint("lmshape.pages.findings", "lmshape.figures")
        + words_of_the_report()
        + own_fingerprint()
    )


def report_fingerprint(wildcards):
    return code_fingerprint("lmshape.pages.report") + words_of_the_report()


def explorer_options(wildcards):
    return flags(dataset=list(study.datasets), own_metrics=own_path())


def explorer_fingerprint(wildcards):
    return (
        code_fingerprint("lmshape.explore")
        + words_in("workflow/report/explore")
        + own_fingerprint()
    )


def words_of_the_report():
    return words_in("workflow/report")


@cache
def words_in(folder):
    """A page's words count as much as its code."""
    pages = [path for path in sorted((REPOSITORY / folder).glob("*")) if path.is_file()]
    return hashlib.sha256(b"".join(page.read_bytes() for page in pages)).hexdigest()[
        :12
    ]


def snakefile_option(wildcards):
    """Where the repository lies is no part of the result, hence no parameter."""
    return flags(snakefile=REPOSITORY / "Snakefile")


def clear_unneeded_weights():
    """Weights of models and checkpoints that the study no longer has would hold its disk budget for ever."""
    if not study.keep_weights:
        chosen = [model.checkpoints.values() for model in study.models.values()]
        needed = {one.folder for checkpoints in chosen for one in checkpoints}
        for folder in clear_unneeded(Path.cwd(), needed):
            print(f"Deleted downloaded weights that the study does not have: {folder}")


def study_summary():
    """Where the results are, in the words of someone who has just waited for them."""
    figures = "\n".join(f"  results/figures/{figure}.png" for figure in study.figures)
    return (
        "\nFindings: results/findings.html\nExplore:  results/explore.html\nReport:   results/report.html\n"
        f"Tables:   results/tables/\nFigures:\n{figures}\n"
    )


# Snakemake asks for the signature of these functions several times for every job: said once, a large plan takes a tenth
# less time.
for function in list(globals().values()):
    if inspect.isfunction(function) and "wildcards" in function.__code__.co_varnames:
        function.__signature__ = inspect.signature(function)
