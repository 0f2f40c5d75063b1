"""Published checkpoints: registry, lock, audit, download."""


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
