"""What people look at: figures, the explorer, the page of the findings, and Snakemake's report."""


localrules:
    figures,
    explore,
    findings,
    report,


rule figures:
    input:
        **jobs.inputs("figures"),
    output:
        [
            report(
                f"results/figures/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="2. Figures",
                labels={"figure": figure.replace("_", " ")},
            )
            for figure in study.figures
        ],
        expand(
            "results/figures/{figure}.{kind}",
            figure=study.figures,
            kind=["svg", "csv"],
        ),
    log:
        "results/logs/figures.log",
    benchmark:
        "results/benchmarks/figures.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("figures"),
    params:
        digest=jobs.digest("figures"),
    message:
        "Draw the figures"
    shell:
        "python -m lmshape run figures > {log} 2>&1"


rule explore:
    input:
        **jobs.inputs("explore"),
    output:
        "results/explore.html",
    log:
        "results/logs/explore.log",
    benchmark:
        "results/benchmarks/explore.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("explore"),
    params:
        digest=jobs.digest("explore"),
    message:
        "Write the explorer"
    shell:
        "python -m lmshape run explore > {log} 2>&1"


rule findings:
    input:
        **jobs.inputs("findings"),
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
    resources:
        **jobs.resources("findings"),
    params:
        digest=jobs.digest("findings"),
    message:
        "Write the page of the findings"
    shell:
        "python -m lmshape run findings > {log} 2>&1"


rule report:
    input:
        **jobs.inputs("report"),
    output:
        "results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("report"),
    params:
        digest=jobs.digest("report"),
    message:
        "Write Snakemake's report: all results with their captions and provenance"
    shell:
        "python -m lmshape run report > {log} 2>&1"
