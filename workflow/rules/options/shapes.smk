"""Spectra and clouds: from which cells."""

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
