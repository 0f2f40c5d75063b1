"""One fixed set of tokens per model and dataset: every checkpoint sees the same."""


rule tokenize:
    input:
        text=dataset_text,
        tokenizer=tokenizer_files,
    output:
        "results/tokens/{model}/{dataset}.h5",
    log:
        "results/logs/tokenize/{model}/{dataset}.log",
    benchmark:
        "results/benchmarks/tokenize/{model}/{dataset}.tsv"
    priority: 110
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        tokenizer=tokenizer_folder,
        options=sampling_options,
        code=code_fingerprint(
            "lmshape.tokens", "lmshape.corpus", "lmshape.store.token_file"
        ),
    message:
        "Sample the tokens of {wildcards.dataset} for {wildcards.model}, the same for all its checkpoints"
    shell:
        "python -m lmshape tokenize {params.tokenizer:q} {params.options} "
        "--output {output} > {log} 2>&1"
