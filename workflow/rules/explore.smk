"""The explorer: a page in which a reader walks through the study's numbers, without a server or a network."""


localrules:
    explore,


rule explore:
    input:
        tables=expand(
            "results/tables/{table}.parquet",
            table=["metrics", "checkpoints", "profiles"],
        ),
    output:
        "results/explore.html",
    log:
        "results/logs/explore.log",
    benchmark:
        "results/benchmarks/explore.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=15,
        disk_mb=20,
    params:
        options=explorer_options,
        code=explorer_fingerprint,
    message:
        "Write the explorer"
    shell:
        "python -m lmshape explore --tables results/tables {params.options} --output {output} > {log} 2>&1"
