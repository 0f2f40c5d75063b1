"""Throwing dimensions away: the loss of a decoder with fewer directions behind each layer, then the tables of it.

A truncation reads weights, as an extraction does: downloaded ones stay until it has, and come again where it is due.
"""


localrules:
    release_truncated,
    truncation_tables,


rule truncate:
    input:
        weights=checkpoint_weights,
        tokens=paths.TOKENS,
        losses=losses_that_are_there,
    output:
        paths.TRUNCATION,
    log:
        "results/logs/truncate/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/truncate/{model}/{checkpoint}/{dataset}.tsv"
    priority: extraction_priority
    conda:
        "../../envs/lmshape.yaml"
    threads: model_threads
    resources:
        mem_mb=truncation_memory,
        runtime=truncation_minutes,
        disk_mb=10,
        gpu=truncation_gpus,
        slurm_partition=truncation_partition,
        device=study.extraction.device,
        device_map=study.extraction.device_map,
        batch_tokens=study.extraction.batch_tokens,
        reading=truncation_reading_options,
        failed=truncation_failure_mark,
    params:
        folder=checkpoint_folder,
        options=truncation_options,
        revised=revised_weights,
        code=code_fingerprint("lmshape.truncation.truncate"),
    message:
        "Truncate the residual stream of {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "HF_HUB_OFFLINE=1 python -m lmshape truncate {params.folder:q} --tokens {input.tokens} {params.options} "
        "--device {resources.device} --gpus {resources.gpu} --device-map {resources.device_map} --batch-tokens {resources.batch_tokens} "
        "{resources.reading} "
        "--threads {threads} --output {output} > {log} 2>&1 "
        "|| {{ code=$?; true > {resources.failed:q}; exit $code; }}"


rule release_truncated:
    input:
        staged=paths.STAGED,
        truncation=paths.TRUNCATION,
    output:
        touch(paths.RELEASED.replace("{dataset}", paths.TRUNCATED)),
    log:
        "results/logs/release_truncated/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/release_truncated/{model}/{checkpoint}/{dataset}.tsv"
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
        reader=truncation_reader,
    message:
        "The truncation on {wildcards.dataset} has read {wildcards.model} at {wildcards.checkpoint}"
    shell:
        "python -m lmshape release {params.folder:q} --dataset {params.reader} {resources.reading} > {log} 2>&1"


rule truncation_tables:
    input:
        truncations=all_truncations,
        metrics="results/tables/metrics.parquet",
    output:
        expand(
            "results/tables/{table}.{format}",
            table=["truncation", "truncation_ranks"],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/truncation_tables.log",
    benchmark:
        "results/benchmarks/truncation_tables.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
    params:
        options=truncation_table_options,
        code=code_fingerprint("lmshape.truncation.tables"),
    message:
        "Combine the truncations into their tables"
    shell:
        "python -m lmshape truncation-tables {input.truncations} --metrics {input.metrics} {params.options} "
        "--output results/tables > {log} 2>&1"
