"""Published training runs: locks, and weights while a job reads them."""


# On a cluster these run where Snakemake does, which has a network where compute nodes may have none.
localrules:
    resolve,
    fetch_tokenizer,
    download,
    release,


rule resolve:
    input:
        paths.UNASKED,
    output:
        update(paths.LOCK),
    log:
        "results/logs/resolve/{model}.log",
    benchmark:
        "results/benchmarks/resolve/{model}.tsv"
    priority: jobs.priority("resolve")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("resolve"),
    params:
        digest=jobs.digest("resolve"),
    message:
        "Ask the hub for commits and files of {wildcards.model}"
    shell:
        job_command("resolve --model {wildcards.model} 2>&1 | tee {log}")


rule fetch_tokenizer:
    input:
        ancient(paths.LOCK),
    output:
        directory(paths.TOKENIZER),
    log:
        "results/logs/fetch_tokenizer/{model}.log",
    benchmark:
        "results/benchmarks/fetch_tokenizer/{model}.tsv"
    priority: jobs.priority("fetch_tokenizer")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("fetch_tokenizer"),
    message:
        "Download the tokenizer of {wildcards.model}"
    shell:
        job_command("fetch_tokenizer --model {wildcards.model} > {log} 2>&1")


rule download:
    input:
        **jobs.inputs("download"),
    output:
        weights=directory(paths.WEIGHTS),
        staged=temp(touch(paths.STAGED)),
    log:
        "results/logs/download/{model}/{checkpoint}.log",
    benchmark:
        "results/benchmarks/download/{model}/{checkpoint}.tsv"
    priority: jobs.priority("download")
    conda:
        "../../envs/lmshape.yaml"
    threads: jobs.threads("download")
    resources:
        **jobs.resources("download"),
        downloads=1,
    params:
        digest=jobs.digest("download"),
    message:
        "Download {wildcards.model} at {wildcards.checkpoint}"
    shell:
        job_command(
            "download --model {wildcards.model} --checkpoint {wildcards.checkpoint:q} 2>&1 | tee {log}"
        )


rule release:
    input:
        **jobs.inputs("release"),
    output:
        touch(paths.RELEASE_MARK),
    log:
        "results/logs/release/{model}/{checkpoint}/{reader}.log",
    benchmark:
        "results/benchmarks/release/{model}/{checkpoint}/{reader}.tsv"
    priority: jobs.priority("release")
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("release"),
    params:
        digest=jobs.digest("release"),
    message:
        "{wildcards.reader} has been read from {wildcards.model} at {wildcards.checkpoint}"
    shell:
        job_command(
            "release --model {wildcards.model} --checkpoint {wildcards.checkpoint:q} "
            "--reader {wildcards.reader:q} > {log} 2>&1"
        )
