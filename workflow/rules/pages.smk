"""What people look at: figures, the explorer, the page of the findings, and Snakemake's report."""


localrules:
    figure,
    explore,
    findings,
    report,


rule figure:
    input:
        **jobs.inputs("figure"),
    output:
        png=report(
            "results/figures/{figure}.png",
            caption="../report/figure.rst",
            category="2. Figures",
            labels=jobs.rules["figure"].labels,
        ),
        svg="results/figures/{figure}.svg",
        csv="results/figures/{figure}.csv",
    log:
        "results/logs/figure/{figure}.log",
    benchmark:
        "results/benchmarks/figure/{figure}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("figure"),
        caption=jobs.rules["figure"].caption,
    params:
        digest=jobs.digest("figure"),
    message:
        "Draw the figure {wildcards.figure}"
    shell:
        "python -m lmshape run figure --figure {wildcards.figure} > {log} 2>&1"


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
