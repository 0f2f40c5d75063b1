"""Gathering: what the table of a model is made of."""


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
