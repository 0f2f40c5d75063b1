"""The report: one file that explains what was run and what it shows, and works offline."""


localrules:
    report,


rule report:
    input:
        tables=expand(
            "results/tables/{table}.{format}",
            table=["metrics", "checkpoints", "profiles"],
            format=["parquet", "csv"],
        ),
        figures=expand(
            "results/figures/{figure}.{format}",
            figure=FIGURES,
            format=["png", "svg", "csv"],
        ),
        runs=pretrained_files("summary.json"),
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
        mem_mb=1000,
        runtime=15,
        disk_mb=10,
    params:
        options=report_options,
        code=report_fingerprint,
    message:
        "Write the report"
    shell:
        "python -m lmshape report --tables results/tables --figures results/figures {params.options} "
        "--output {output} > {log} 2>&1"
