"""Statistics of a block of layers: what every metric can be computed from.

One job measures all families of a block, so that a study is few, long jobs. It keeps archives that it would make the
same (`lmshape.metrics.block`), so that a family that is added, or whose code has changed, is measured alone. That is why the
fingerprint is of all families, measured or not: a family that the study no longer has runs nothing.
"""


rule measure:
    input:
        paths.ACTIVATIONS,
    output:
        expand(paths.STATISTICS, family=library_families(), allow_missing=True),
    log:
        "results/logs/measure/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log",
    benchmark:
        "results/benchmarks/measure/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.tsv"
    priority: 20
    conda:
        "../../envs/lmshape.yaml"
    threads: model_threads
    resources:
        mem_mb=measuring_memory,
        runtime=measuring_minutes,
        disk_mb=measuring_disk,
        failed=measuring_failure_mark if admits() else os.devnull,
        families=flags(family=library_families()),
    params:
        options=measuring_options(),
        code=families_fingerprint(),
    message:
        "Measure the statistics of layers {wildcards.first}-{wildcards.last}: "
        "{wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "python -m lmshape measure {input} {resources.families} --first {wildcards.first} "
        "--last {wildcards.last} {params.options} "
        "--output results/statistics/{wildcards.model}/{wildcards.checkpoint}/{wildcards.dataset} > {log} 2>&1 "
        "|| {{ code=$?; true > {resources.failed:q}; exit $code; }}"


rule measure_own:
    input:
        paths.ACTIVATIONS,
    output:
        expand(paths.STATISTICS, family=OWN_FAMILY, allow_missing=True),
    log:
        "results/logs/measure_own/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log",
    benchmark:
        "results/benchmarks/measure_own/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.tsv"
    priority: 20
    conda:
        "../../envs/lmshape.yaml"
    threads: model_threads
    resources:
        mem_mb=measuring_memory,
        runtime=measuring_minutes,
        disk_mb=measuring_disk,
        failed=measuring_failure_mark if admits() else os.devnull,
    params:
        options=own_measuring_options(),
        code=own_family_fingerprint(),
    message:
        "Measure your own metrics on layers {wildcards.first}-{wildcards.last}: "
        "{wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "python -m lmshape measure {input} --family own --first {wildcards.first} "
        "--last {wildcards.last} {params.options} "
        "--output results/statistics/{wildcards.model}/{wildcards.checkpoint}/{wildcards.dataset} > {log} 2>&1 "
        "|| {{ code=$?; true > {resources.failed:q}; exit $code; }}"
