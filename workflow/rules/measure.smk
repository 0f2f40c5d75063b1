"""Statistics of a block of layers, one metric family a job: what every metric can be computed from."""


rule measure:
    input:
        paths.ACTIVATIONS,
    output:
        paths.STATISTICS,
    log:
        "results/logs/measure/{model}/{checkpoint}/{dataset}/{family}/layers-{first}-{last}.log",
    benchmark:
        "results/benchmarks/measure/{model}/{checkpoint}/{dataset}/{family}/layers-{first}-{last}.tsv"
    priority: 20
    conda:
        "../../envs/lmshape.yaml"
    threads: measuring_threads
    resources:
        mem_mb=measuring_memory,
        runtime=60,
    params:
        options=measuring_options,
        code=family_fingerprint,
    message:
        "Measure {wildcards.family} statistics of layers {wildcards.first}-{wildcards.last}: "
        "{wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "python -m lmshape measure {input} --family {wildcards.family} --first {wildcards.first} "
        "--last {wildcards.last} {params.options} --output {output} > {log} 2>&1"
