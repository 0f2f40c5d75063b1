"""Room within the disk budget for the activations of a local run: a published run takes its room with its download.

Only where there is a budget, and activations pass. A cell that is done keeps the inputs that it was made with, so that
a budget that comes, goes or changes runs nothing again.
"""


localrules:
    admit,


# No thread: what waits for room must not hold what the measuring needs that makes room.
# Its inputs are those of the extraction: a cell that can never be extracted takes no room from the others.
rule admit:
    input:
        weights=weights_that_are_there,
        tokens=ancient(paths.TOKENS),
    output:
        temp(paths.ROOM),
    log:
        "results/logs/admit/{model}/{checkpoint}/{dataset}.log",
    benchmark:
        "results/benchmarks/admit/{model}/{checkpoint}/{dataset}.tsv"
    priority: admission_priority
    conda:
        "../../envs/lmshape.yaml"
    threads: 0
    resources:
        mem_mb=100,
        runtime=720,
        disk_mb=10,
        admissions=1,
        options=admission_options,
    message:
        "Wait for room for the activations of {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
    shell:
        "python -m lmshape admit {resources.options} --output {output} > {log} 2>&1"
