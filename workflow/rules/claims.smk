"""Claims: what others have published, decided from the study's tables by rules that were stated before."""


localrules:
    claims,


rule claims:
    input:
        metrics=expand(paths.METRICS, model=study.models),
        tables=expand(
            "results/tables/{table}.parquet",
            table=[
                "profiles",
                "phases",
                "checkpoints",
                "warnings",
                "truncation_ranks",
            ],
        ),
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
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=10,
    params:
        options=claim_options,
        code=claims_fingerprint,
    message:
        "Test the published claims on this study"
    shell:
        "python -m lmshape claims {input.metrics} --tables results/tables {params.options} > {log} 2>&1"
