"""What people read: the findings on one page, and Snakemake's report of all results with their provenance."""


localrules:
    findings,
    report,


rule findings:
    input:
        tables=expand(
            "results/tables/{table}.{format}",
            table=["metrics", "checkpoints", "profiles", "claims"],
            format=["parquet", "csv"],
        ),
        figures=expand(
            "results/figures/{figure}.{format}",
            figure=study.figures,
            format=["png", "svg", "csv"],
        ),
        runs=trained_files("summary.json"),
    output:
        report(
            "results/findings.html",
            caption="../report/findings.rst",
            category="1. Findings",
            labels={"page": "what the article claims, and what this study shows"},
        ),
    log:
        "results/logs/findings.log",
    benchmark:
        "results/benchmarks/findings.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
        disk_mb=10,
    params:
        options=findings_options,
        code=findings_fingerprint,
    message:
        "Write the page of the findings"
    shell:
        "python -m lmshape findings --tables results/tables --figures results/figures {params.options} "
        "--output {output} > {log} 2>&1"


rule report:
    input:
        "results/findings.html",
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
        snakefile=snakefile_option,
    params:
        code=report_fingerprint,
    message:
        "Write Snakemake's report: all results with their captions and provenance"
    shell:
        "python -m lmshape report {resources.snakefile} --output {output} > {log} 2>&1"
