"""The marks that the last attempt of a job leaves when it fails."""

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
