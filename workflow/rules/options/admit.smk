"""Room for activations that pass: which cell waits for it, in which order."""


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
    extraction = code_fingerprint("lmshape.models.extract"), extraction_options(
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
