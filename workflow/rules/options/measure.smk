"""Measuring: blocks of layers, families, own metrics."""


def measuring_memory(wildcards, attempt):
    model = study.models[wildcards.model]
    return attempt * measuring_megabytes(model.width, study.sampling)


def measuring_minutes(wildcards, attempt, threads):
    sites = int(wildcards.last) - int(wildcards.first) + 2
    width = study.models[wildcards.model].width
    return attempt * minutes_of_block(width, sites, threads)


@cache
def minutes_of_block(width, sites, threads):
    seconds = measuring_seconds(
        width,
        study.sampling,
        families=study.measured_families,
        rows=study.rows,
        sites=sites,
        threads=threads,
    )
    return minutes_for(seconds)


def measuring_disk(wildcards):
    """Megabytes of the archives of a block."""
    return 10 + 2 * (int(wildcards.last) - int(wildcards.first) + 2)


LIBRARY_FAMILIES = [name for name in METRIC_FAMILIES if name != OUTPUT_FAMILY]


def library_families():
    """Families of the library that the study measures, all where it measures none: a rule has outputs."""
    chosen = [name for name in study.measured_families if name != OWN_FAMILY]
    return chosen or LIBRARY_FAMILIES


def families_fingerprint():
    """Of all families of the library, measured or not."""
    modules = [f"lmshape.metrics.block.{family}" for family in LIBRARY_FAMILIES]
    return code_fingerprint("lmshape.metrics.block", *modules)


def measuring_options():
    """The article's protocol takes all rows of its chunks; packed windows have some to spare."""
    windows = study.sampling.protocol == "windows"
    return flags(
        rows=sorted(study.rows),
        rows_per_draw=study.sampling.rows_per_draw if windows else None,
    )


def own_measuring_options():
    rows = sorted(row for row in study.rows if row != "one_per_type")
    return flags(rows=rows, own_metrics=own_path())


def own_path():
    return study.own_metrics.path if study.own_metrics else None


def own_fingerprint():
    """What the user's own metrics compute; a comment in their file is no change."""
    return study.own_metrics.fingerprint if study.own_metrics else ""


def own_family_fingerprint():
    return (
        code_fingerprint("lmshape.metrics.block", "lmshape.metrics.own") + own_fingerprint()
    )
