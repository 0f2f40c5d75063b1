"""Forward passes: the residual stream after every block, for every token, and the loss beside it."""


rule extract:
    input:
        weights=checkpoint_weights,
        tokens=paths.TOKENS,
        room=room_for_activations,
    output:
        activations=kept_if_asked(paths.ACTIVATIONS),
        losses=paths.LOSSES,
    log:
        "results/logs/extract/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/extract/{model}/{checkpoint}/{dataset}.tsv"
    priority: extraction_priority
    conda:
        "../../envs/lmshape.yaml"
    threads: model_threads
    resources:
        mem_mb=extraction_memory,
        runtime=extraction_minutes,
        disk_mb=extraction_disk,
        gpu=extraction_gpus,
        slurm_partition=extraction_partition,
        device=study.extraction.device,
        device_map=study.extraction.device_map,
        batch_tokens=study.extraction.batch_tokens,
        reading=reading_options,
        failed=failure_mark,
    params:
        folder=checkpoint_folder,
        options=extraction_options,
        revised=revised_weights,
        code=code_fingerprint("lmshape.models.extract"),
    message:
        "Extract activations of {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "HF_HUB_OFFLINE=1 python -m lmshape extract {params.folder:q} --tokens {input.tokens} {params.options} "
        "--device {resources.device} --gpus {resources.gpu} --device-map {resources.device_map} --batch-tokens {resources.batch_tokens} "
        "{resources.reading} "
        "--threads {threads} --output {output.activations} --losses {output.losses} > {log} 2>&1 "
        "|| {{ code=$?; true > {resources.failed:q}; exit $code; }}"
