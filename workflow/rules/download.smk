"""Published training runs: what stands behind each name, then the weights, for as long as somebody reads them.

Weights come and go. The folder of a checkpoint stays behind as an empty shell (config.json and a receipt), so that
`ancient` holds for it: weights that are downloaded once more, for a new dataset, run no cell again that is done.
That they are downloaded once more is the doing of `release`: every cell that is extracted has it run again, and it
needs `.staged`, which is there only as long as cells wait.
"""


# On a cluster these run where Snakemake does, which has a network where compute nodes may have none.
localrules:
    resolve,
    fetch_tokenizer,
    download,
    release,


rule resolve:
    output:
        update(paths.LOCK),
    log:
        "results/logs/resolve/{model}.log",
    benchmark:
        "results/benchmarks/resolve/{model}.tsv"
    priority: 200
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=60,
        disk_mb=10,
        options=resolving_options,
    params:
        entry=registry_entry,
        code=code_fingerprint("lmshape.hub.resolve"),
    message:
        "Ask the hub what stands behind the checkpoints of {wildcards.model}"
    shell:
        "python -m lmshape resolve {wildcards.model} --entry {params.entry:q} {resources.options} "
        "--output {output} 2>&1 | tee {log}"


rule fetch_tokenizer:
    input:
        ancient(paths.LOCK),
    output:
        directory(paths.TOKENIZER),
    log:
        "results/logs/fetch_tokenizer/{model}.log",
    benchmark:
        "results/benchmarks/fetch_tokenizer/{model}.tsv"
    priority: 150
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=30,
        disk_mb=10,
    message:
        "Download the tokenizer of {wildcards.model}"
    shell:
        "python -m lmshape fetch-tokenizer --lock {input} --output {output} > {log} 2>&1"


# No thread: a download that waits for room must not hold what the extraction needs that makes room.
rule download:
    input:
        ancient(paths.LOCK),
    output:
        weights=directory(paths.WEIGHTS),
        staged=temp(touch(paths.STAGED)),
    log:
        "results/logs/download/{model}/{checkpoint}.log",
    benchmark:
        "results/benchmarks/download/{model}/{checkpoint}.tsv"
    priority: 5
    conda:
        "../../envs/lmshape.yaml"
    threads: 0
    resources:
        mem_mb=500,
        runtime=720,
        disk_mb=download_disk,
        downloads=1,
        options=download_options,
    params:
        revised=revised_weights,
    message:
        "Download {wildcards.model} at {wildcards.checkpoint}"
    shell:
        "python -m lmshape download {wildcards.checkpoint} --lock {input} {resources.options} "
        "--output {output.weights} > {log} 2>&1"


rule release:
    input:
        staged=paths.STAGED,
        losses=paths.LOSSES,
    output:
        touch(paths.RELEASED),
    log:
        "results/logs/release/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/release/{model}/{checkpoint}/{dataset}.tsv"
    priority: 15
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=100,
        runtime=5,
        disk_mb=10,
        reading=reading_options,
    params:
        folder=checkpoint_folder,
    message:
        "{wildcards.dataset} has been read from {wildcards.model} at {wildcards.checkpoint}"
    shell:
        "python -m lmshape release {params.folder:q} --dataset {wildcards.dataset} {resources.reading} > {log} 2>&1"
