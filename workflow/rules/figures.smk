"""Figures: a picture for people, its vector twin, and the numbers behind it."""


localrules:
    figure,


rule figure:
    input:
        tables=figure_tables,
        losses=figure_losses,
    output:
        png=report(
            "results/figures/{figure}.png",
            caption="../report/figure.rst",
            category="2. Figures",
            labels=figure_labels,
        ),
        svg="results/figures/{figure}.svg",
        csv="results/figures/{figure}.csv",
    log:
        "results/logs/figure/{figure}.log",
    benchmark:
        "results/benchmarks/figure/{figure}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=15,
        disk_mb=10,
        caption=figure_caption,
    params:
        options=figure_options,
        code=figure_fingerprint,
    message:
        "Draw the figure {wildcards.figure}"
    shell:
        "python -m lmshape figure {wildcards.figure} --tables results/tables {params.options} "
        "--output {output.png} > {log} 2>&1"
