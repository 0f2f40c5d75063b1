"""The loss of a decoder with fewer directions behind each layer.

A truncation reads weights, as an extraction does: downloaded ones stay until it has, and come again where it is due.
"""


rule truncate:
    input:
        **jobs.inputs("truncate"),
    output:
        paths.TRUNCATION_FILE,
    log:
        "results/logs/truncate/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/truncate/{model}/{checkpoint}/{dataset}.tsv"
    priority: jobs.priority("truncate")
    conda:
        "../../envs/lmshape.yaml"
    threads: jobs.threads("truncate")
    resources:
        **jobs.resources("truncate"),
    params:
        digest=jobs.digest("truncate"),
    message:
        "Truncate the residual stream of {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        job_command(
            "truncate --cell {wildcards.model}/{wildcards.checkpoint:q}/{wildcards.dataset} "
            "--threads {threads} --gpus {resources.gpu} > {log} 2>&1"
        )
