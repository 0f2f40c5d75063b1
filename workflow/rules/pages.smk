"""What people look at: figures, the explorer, the page of the study, and on request Snakemake's report."""


localrules:
    model_figures,
    figures,
    explore,
    index,
    report,


rule model_figures:
    input:
        **jobs.inputs("model_figures"),
    output:
        jobs.rules["model_figures"].files,
    log:
        "results/logs/model_figures/{model}.log",
    benchmark:
        "results/benchmarks/model_figures/{model}.tsv"
    priority: jobs.priority("model_figures")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("model_figures"),
    params:
        digest=jobs.digest("model_figures"),
    message:
        "Draw {wildcards.model} alone: results/figures/{wildcards.model}"
    shell:
        job_command("model_figures --model {wildcards.model} > {log} 2>&1")


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
        job_command("figures > {log} 2>&1")


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
        job_command("explore > {log} 2>&1")


rule index:
    input:
        **jobs.inputs("index"),
    output:
        report(
            "results/index.html",
            caption="../report/index.rst",
            category="1. Page",
            labels={"page": "what the article says, and what this study shows"},
        ),
    log:
        "results/logs/index.log",
    benchmark:
        "results/benchmarks/index.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("index"),
    params:
        digest=jobs.digest("index"),
    message:
        "Write the page of the study"
    shell:
        job_command("index > {log} 2>&1")


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
        job_command("report > {log} 2>&1")
