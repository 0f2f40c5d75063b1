"""One fixed set of tokens per model and dataset: every checkpoint sees the same."""


localrules:
    tokenize,


rule tokenize:
    input:
        text=dataset_text,
        tokenizer=tokenizer_files,
    output:
        paths.TOKENS,
    log:
        "results/logs/tokenize/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/tokenize/{model}/{dataset}.tsv"
    priority: 110
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=tokenizing_memory,
        runtime=30,
        disk_mb=tokenizing_disk,
    params:
        tokenizer=tokenizer_folder,
        options=sampling_options,
        code=code_fingerprint(
            "lmshape.texts.tokens",
            "lmshape.texts.corpus",
            "lmshape.store.tokens",
            "lmshape.texts.tokenizer",
        ),
    message:
        "Sample the tokens of {wildcards.dataset} for {wildcards.model}, the same for all its checkpoints"
    shell:
        "HF_HUB_OFFLINE=1 python -m lmshape tokenize {params.tokenizer:q} {params.options} "
        "--output {output} > {log} 2>&1"
