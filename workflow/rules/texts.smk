"""Texts and tokens: each text is fetched, verified and cleaned once; all checkpoints of a model read the same tokens."""


localrules:
    fetch_text,
    clean_text,
    tokenize,


rule fetch_text:
    input:
        **jobs.inputs("fetch_text"),
    output:
        "results/texts/{text}.txt",
    log:
        "results/logs/fetch_text/{text}.log",
    benchmark:
        "results/benchmarks/fetch_text/{text}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("fetch_text"),
    params:
        digest=jobs.digest("fetch_text"),
    message:
        "Fetch the text {wildcards.text} and verify its checksum"
    shell:
        job_command("fetch_text --text {wildcards.text} 2>&1 | tee {log}")


rule clean_text:
    input:
        **jobs.inputs("clean_text"),
    output:
        "results/texts/{text}.clean.txt",
    log:
        "results/logs/clean_text/{text}.log",
    benchmark:
        "results/benchmarks/clean_text/{text}.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("clean_text"),
    params:
        digest=jobs.digest("clean_text"),
    message:
        "Clean the text {wildcards.text} of Wikipedia's markup"
    shell:
        job_command("clean_text --text {wildcards.text} 2>&1 | tee {log}")


rule tokenize:
    input:
        **jobs.inputs("tokenize"),
    output:
        paths.TOKENS_FILE,
    log:
        "results/logs/tokenize/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/tokenize/{model}/{dataset}.tsv"
    priority: jobs.priority("tokenize")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("tokenize"),
    params:
        digest=jobs.digest("tokenize"),
    message:
        "Sample the tokens of {wildcards.dataset} for {wildcards.model}, the same for all its checkpoints"
    shell:
        job_command(
            "tokenize --model {wildcards.model} --dataset {wildcards.dataset} > {log} 2>&1"
        )
