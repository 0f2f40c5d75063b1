"""The embedded study's own models; to every later station they are folders of `checkpoint-*` like any other."""


localrules:
    train_tokenizer,


rule train_tokenizer:
    input:
        pretraining_text,
    output:
        directory("results/pretrained/tokenizer"),
    log:
        "results/logs/train_tokenizer.log",
    benchmark:
        "results/benchmarks/train_tokenizer.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=10,
    params:
        options=tokenizer_options,
        code=code_fingerprint("lmshape.texts.tokenizer", "lmshape.texts.corpus"),
    message:
        "Train the byte-level BPE tokenizer of the embedded models"
    shell:
        "python -m lmshape train-tokenizer {input} {params.options} --output {output} > {log} 2>&1"


rule pretrain:
    input:
        text=pretraining_text,
        tokenizer="results/pretrained/tokenizer",
    output:
        pretrained_weights("results/pretrained/{run}"),
        "results/pretrained/{run}/loss.csv",
        "results/pretrained/{run}/geometry.csv",
        "results/pretrained/{run}/summary.json",
    log:
        "results/logs/pretrain/{run}.log",
    benchmark:
        "results/benchmarks/pretrain/{run}.tsv"
    wildcard_constraints:
        run=one_of(runs_that(keep=True)),
    priority: 100
    conda:
        "../../envs/lmshape.yaml"
    threads: pretraining_threads
    resources:
        mem_mb=pretraining_memory,
        runtime=pretraining_minutes,
        disk_mb=pretraining_disk,
    params:
        options=pretraining_options,
        code=pretraining_fingerprint,
    message:
        "Pretrain {wildcards.run} from scratch, keeping its checkpoints"
    shell:
        "python -m lmshape pretrain {input.text} --tokenizer {input.tokenizer} {params.options} "
        "--output results/pretrained/{wildcards.run} --threads {threads} 2>&1 | tee {log}"


rule pretrain_unkept:
    input:
        text=pretraining_text,
        tokenizer="results/pretrained/tokenizer",
    output:
        "results/pretrained/{run}/loss.csv",
        "results/pretrained/{run}/geometry.csv",
        "results/pretrained/{run}/summary.json",
    log:
        "results/logs/pretrain/{run}.log",
    benchmark:
        "results/benchmarks/pretrain/{run}.tsv"
    wildcard_constraints:
        run=one_of(runs_that(keep=False)),
    priority: 90
    conda:
        "../../envs/lmshape.yaml"
    threads: pretraining_threads
    resources:
        mem_mb=pretraining_memory,
        runtime=pretraining_minutes,
        disk_mb=pretraining_disk,
    params:
        options=pretraining_options,
        code=pretraining_fingerprint,
    message:
        "Pretrain {wildcards.run} from scratch, for its losses and its geometry"
    shell:
        "python -m lmshape pretrain {input.text} --tokenizer {input.tokenizer} {params.options} "
        "--output results/pretrained/{wildcards.run} --threads {threads} 2>&1 | tee {log}"
