"""Truncation: which cells, on which device, how long."""


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
