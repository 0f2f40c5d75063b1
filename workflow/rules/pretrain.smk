"""The embedded study's own models; every later stage takes them as folders of `checkpoint-*` like any other."""


localrules:
    train_tokenizer,


rule train_tokenizer:
    input:
        **jobs.inputs("train_tokenizer"),
    output:
        directory("results/pretrained/tokenizer"),
    log:
        "results/logs/train_tokenizer.log",
    benchmark:
        "results/benchmarks/train_tokenizer.tsv"
    conda:
        "../../envs/lmshape.yaml"
    resources:
        **jobs.resources("train_tokenizer"),
    params:
        digest=jobs.digest("train_tokenizer"),
    message:
        "Train the byte-level BPE tokenizer of the embedded models"
    shell:
        job_command("train_tokenizer > {log} 2>&1")


rule pretrain:
    input:
        **jobs.inputs("pretrain"),
    output:
        jobs.rules["pretrain"].kept_weights(),
        "results/pretrained/{run}/loss.csv",
        "results/pretrained/{run}/geometry.csv",
        "results/pretrained/{run}/summary.json",
    log:
        "results/logs/pretrain/{run}.log",
    benchmark:
        "results/benchmarks/pretrain/{run}.tsv"
    wildcard_constraints:
        run=one_of(jobs.rules["pretrain"].runs_that(keep=True)),
    priority: jobs.priority("pretrain")
    conda:
        "../../envs/lmshape.yaml"
    threads: jobs.threads("pretrain")
    resources:
        **jobs.resources("pretrain"),
    params:
        digest=jobs.digest("pretrain"),
    message:
        "Pretrain {wildcards.run} from scratch, keeping its checkpoints"
    shell:
        job_command(
            "pretrain --run {wildcards.run} --threads {threads} 2>&1 | tee {log}"
        )


use rule pretrain as pretrain_unkept with:
    output:
        "results/pretrained/{run}/loss.csv",
        "results/pretrained/{run}/geometry.csv",
        "results/pretrained/{run}/summary.json",
    wildcard_constraints:
        run=one_of(jobs.rules["pretrain"].runs_that(keep=False)),
    message:
        "Pretrain {wildcards.run} from scratch, for its losses and its geometry"
