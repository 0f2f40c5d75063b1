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


for name, message in {
    "tables": "Combine all models into the tidy tables",
    "spikes": "Find the spikes of the losses, and what moves before them",
    "truncation_tables": "Combine the truncations into their tables",
}.items():

    rule:
        name:
            name
        input:
            **jobs.inputs(name),
        output:
            jobs.rules[name].writes,
        log:
            f"results/logs/{name}.log",
        benchmark:
            f"results/benchmarks/{name}.tsv"
        conda:
            "../../envs/lmshape.yaml"
        resources:
            **jobs.resources(name),
        params:
            digest=jobs.digest(name),
            job=name,  # a command is read when it runs, and the loop is over by then
        message:
            message
        shell:
            job_command("{params.job} > {log} 2>&1")


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
