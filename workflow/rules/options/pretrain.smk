"""Training of small models: recipes, costs, and the files that they leave."""


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
