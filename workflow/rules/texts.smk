"""Texts: fetched and verified once, cleaned of markup once."""


localrules:
    fetch_text,
    clean_text,


rule fetch_text:
    input:
        text_source,
    output:
        "results/texts/{text}.txt",
    log:
        "results/logs/fetch_text/{text}.log",
    benchmark:
        "results/benchmarks/fetch_text/{text}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=60,
        disk_mb=text_disk,
    params:
        source=text_options,
        code=code_fingerprint("lmshape.texts.fetch"),
    message:
        "Fetch the text {wildcards.text} and verify its checksum"
    shell:
        "python -m lmshape fetch {params.source} --output {output} 2>&1 | tee {log}"


rule clean_text:
    input:
        "results/texts/{text}.txt",
    output:
        "results/texts/{text}.clean.txt",
    log:
        "results/logs/clean_text/{text}.log",
    benchmark:
        "results/benchmarks/clean_text/{text}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
        disk_mb=text_disk,
    params:
        code=code_fingerprint("lmshape.texts.corpus"),
    message:
        "Clean the text {wildcards.text} of Wikipedia's markup"
    shell:
        "python -m lmshape clean {input} --output {output} 2>&1 | tee {log}"
