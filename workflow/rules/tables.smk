"""Statistics become rows: one table per model, then the tables of the study; from these the claims."""


localrules:
    gather,
    tables,
    spikes,
    truncation_tables,
    claims,


rule gather:
    input:
        **jobs.inputs("gather"),
    output:
        paths.MODEL_METRICS,
        expand(paths.MODEL_SHAPES, table=["spectra", "clouds"], allow_missing=True),
    log:
        "results/logs/gather/{model}.log",
    benchmark:
        "results/benchmarks/gather/{model}.tsv"
    priority: jobs.priority("gather")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("gather"),
    params:
        digest=jobs.digest("gather"),
    message:
        "Gather the metrics of {wildcards.model}, with intervals, into one table"
    shell:
        job_command("gather --model {wildcards.model} > {log} 2>&1")


rule tables:
    input:
        **jobs.inputs("tables"),
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
                "spectra",
                "clouds",
            ],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/tables.log",
    benchmark:
        "results/benchmarks/tables.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("tables"),
    params:
        digest=jobs.digest("tables"),
    message:
        "Combine all models into the tidy tables"
    shell:
        job_command("tables > {log} 2>&1")


rule spikes:
    input:
        **jobs.inputs("spikes"),
    output:
        expand(
            "results/tables/{table}.{format}",
            table=["spikes", "warnings", "alarms", "before_spikes"],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/spikes.log",
    benchmark:
        "results/benchmarks/spikes.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("spikes"),
    params:
        digest=jobs.digest("spikes"),
    message:
        "Find the spikes of the losses, and what moves before them"
    shell:
        job_command("spikes > {log} 2>&1")


rule truncation_tables:
    input:
        **jobs.inputs("truncation_tables"),
    output:
        expand(
            "results/tables/{table}.{format}",
            table=["truncation", "truncation_ranks"],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/truncation_tables.log",
    benchmark:
        "results/benchmarks/truncation_tables.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("truncation_tables"),
    params:
        digest=jobs.digest("truncation_tables"),
    message:
        "Combine the truncations into their tables"
    shell:
        job_command("truncation_tables > {log} 2>&1")


rule claims:
    input:
        **jobs.inputs("claims"),
    output:
        parquet="results/tables/claims.parquet",
        csv=report(
            "results/tables/claims.csv",
            caption="../report/claims.rst",
            category="3. Tables",
            labels={"table": "claims"},
        ),
    log:
        "results/logs/claims.log",
    benchmark:
        "results/benchmarks/claims.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("claims"),
    params:
        digest=jobs.digest("claims"),
    message:
        "Test the published claims on this study"
    shell:
        job_command("claims > {log} 2>&1")
