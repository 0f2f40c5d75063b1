"""Extraction: weights and options of a cell, its device, memory and time."""


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
