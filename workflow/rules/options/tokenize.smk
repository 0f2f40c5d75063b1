"""Tokens: tokenizer, text and sampling of a dataset."""


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
