"""Statistics become rows: one table per model, then the study's tables."""


localrules:
    gather,
    tables,


rule gather:
    input:
        statistics=model_statistics,
        losses=model_losses,
        released=model_releases,
        lock=model_lock,
    output:
        paths.METRICS,
    log:
        "results/logs/gather/{model}.log",
    benchmark:
        "results/benchmarks/gather/{model}.tsv"
    priority: 30
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=gathering_memory,
        runtime=gathering_minutes,
        disk_mb=100,
        auditing=auditing_options,
    params:
        options=gathering_options,
        faults=known_faults,
        code=gathering_fingerprint,
    message:
        "Gather the metrics of {wildcards.model}, with intervals, into one table"
    shell:
        "python -m lmshape gather {wildcards.model} {params.options} {resources.auditing} "
        "--output {output} > {log} 2>&1"


rule tables:
    input:
        expand(paths.METRICS, model=study.models),
    output:
        expand(
            "results/tables/{table}.{format}",
            table=[
                "metrics",
                "checkpoints",
                "profiles",
                "phases",
                "contrasts",
                "audit",
            ],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/tables.log",
    benchmark:
        "results/benchmarks/tables.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
    params:
        options=tables_options,
        code=code_fingerprint("lmshape.tables.study_tables"),
    message:
        "Combine all models into the tidy tables"
    shell:
        "python -m lmshape tables {input} {params.options} --output results/tables > {log} 2>&1"
