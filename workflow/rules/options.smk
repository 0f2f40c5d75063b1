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


def pretraining_text(wildcards):
    return text_file(study.pretraining.text, study.pretraining.clean)


def pretraining_threads(wildcards):
    return study.pretraining.threads


def tokenizer_options(wildcards):
    return flags(vocabulary=study.pretraining.vocabulary, span=study.pretraining.span)


def pretraining_options(wildcards):
    recipe = study.pretraining.runs[wildcards.run].as_json()
    return flags(recipe=recipe, span=study.pretraining.span)


def pretrained_weights(folder):
    """Every run of a study is saved at the same steps, so that one rule can name its outputs."""
    steps = (
        next(iter(study.pretraining.runs.values())).checkpoint_steps
        if study.pretraining
        else []
    )
    return [f"{folder}/checkpoint-{step}/model.safetensors" for step in steps]


def pretrained_files(name):
    """A file of each run that the study trains itself."""
    runs = [model.pretraining for model in study.models.values() if model.pretraining]
    return [f"results/pretrained/{run}/{name}" for run in runs]


def figure_options(wildcards):
    losses = [
        f"{model.name}={model.folder}/loss.csv"
        for model in study.models.values()
        if model.pretraining
    ]
    return flags(dataset=list(study.datasets), losses=losses)


def report_options(wildcards):
    described = {
        "study": study.name,
        "sampling": dataclasses.asdict(study.sampling),
        "extraction": dataclasses.asdict(study.extraction),
        "datasets": {
            name: describe_dataset(dataset) for name, dataset in study.datasets.items()
        },
    }
    return flags(
        provenance=json.dumps(described), runs=pretrained_files("summary.json")
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
    ) + (" --keep" if study.keep_weights else "")


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
    model = study.models[wildcards.model]
    if not model.on_hub:
        return ""
    return flags(read_by=list(study.datasets_of[model.name])) + (
        " --keep" if study.keep_weights else ""
    )


def failure_mark(wildcards):
    """The file that says that downloaded weights could not be read, so that they may make room."""
    if study.models[wildcards.model].on_hub:
        return mark(checkpoint_folder(wildcards), "failed", wildcards.dataset)
    return os.devnull


def kept_if_asked(path):
    return path if study.keep_activations else temp(path)


def extraction_threads(wildcards):
    """Small matrices gain nothing from a second core; more cells at once do."""
    return 1 if study.models[wildcards.model].width <= 512 else 8


def extraction_gpus(wildcards):
    """One extraction at a time has the GPU, if there is one here; `--resources gpu=2` lets two share it."""
    device = study.extraction.device
    present = device == "auto" and has_gpu()
    return int(present or device.startswith("cuda"))


def extraction_memory(wildcards):
    """Weights, the logits of a batch with their log-softmax, and a gigabyte for Python and PyTorch."""
    model = study.models[wildcards.model]
    weights = 12 * model.blocks * model.width**2 + 2 * model.vocabulary * model.width
    tokens = starting_tokens(
        study.extraction.batch_tokens,
        vocabulary=model.vocabulary,
        on_gpu=bool(extraction_gpus(wildcards)),
    )
    logits = 3 * tokens * model.vocabulary
    return 1000 + 4 * (weights + logits) // 10**6


def measuring_threads(wildcards):
    return extraction_threads(wildcards)


def measuring_memory(wildcards):
    """A layer's rows in float64 and their copies, and one covariance for every draw."""
    width, sampling = study.models[wildcards.model].width, study.sampling
    rows = sampling.least_bytes  # at least one byte a token
    return 500 + 8 * (4 * rows * width + 2 * (sampling.draws + 2) * width**2) // 10**6


def measuring_options(wildcards):
    """The article's protocol takes all rows of its chunks; packed windows have some to spare."""
    neighbors = wildcards.family == "neighbor"
    limited = neighbors and study.sampling.protocol == "windows"
    rows = sorted(row for row in study.rows if neighbors or row != "one_per_type")
    return flags(
        rows=["all"] if wildcards.family in RELEASED_FAMILIES else rows,
        rows_per_draw=study.sampling.rows_per_draw if limited else None,
        own_metrics=own_path() if wildcards.family == OWN_FAMILY else None,
    )


def own_path():
    return study.own_metrics.path if study.own_metrics else None


def own_fingerprint():
    """What the user's own metrics compute; a comment in their file is no change."""
    return study.own_metrics.fingerprint if study.own_metrics else ""


def family_fingerprint(wildcards):
    """Of the family's own module and of what drives all families: another family's change reruns nothing here."""
    family = wildcards.family
    code = code_fingerprint("lmshape.measure", f"lmshape.measure.{family}")
    return code + own_fingerprint() if family == OWN_FAMILY else code


def gathering_fingerprint(wildcards):
    return code_fingerprint("lmshape.gather") + own_fingerprint()


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
    cells = paths.cells(model.name, model.checkpoints, study.datasets_of[model.name])
    return [paths.RELEASED.format(**cell) for cell in cells] if model.on_hub else []


def model_lock(wildcards):
    return (
        paths.LOCK.format(**wildcards) if study.models[wildcards.model].on_hub else []
    )


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


def figure_fingerprint(wildcards):
    return code_fingerprint("lmshape.figures", f"lmshape.figures.{wildcards.figure}")


def report_fingerprint(wildcards):
    """The page's words count as much as its code."""
    pages = sorted((REPOSITORY / "workflow/report").iterdir())
    words = hashlib.sha256(b"".join(page.read_bytes() for page in pages)).hexdigest()
    return code_fingerprint("lmshape.report", "lmshape.figures") + words[:12]


def clear_unneeded_weights():
    """Weights of models and checkpoints that the study no longer has would hold its disk budget for ever."""
    if not study.keep_weights:
        chosen = [model.checkpoints.values() for model in study.models.values()]
        needed = {one.folder for checkpoints in chosen for one in checkpoints}
        for folder in clear_unneeded(Path.cwd(), needed):
            print(f"Deleted downloaded weights that the study does not have: {folder}")


def study_summary():
    """Where the results are, in the words of someone who has just waited for them."""
    figures = "\n".join(f"  results/figures/{figure}.png" for figure in FIGURES)
    return f"\nReport:   results/report.html\nTables:   results/tables/\nFigures:\n{figures}\n"
