"""A cell: forward passes, then the statistics of its layers, from which every metric can be computed.

With `keep_activations: true` they are two jobs and the activations stay between them; with `false` they are one, which
holds the activations in memory or, where they are large, in scratch.
"""

if study.keep_activations:

    rule extract:
        input:
            **jobs.inputs("extract"),
        output:
            activations=paths.ACTIVATIONS,
            losses=paths.LOSS_CARD,
        log:
            "results/logs/extract/{model}/{checkpoint}/{dataset}.log",
        benchmark:
            "results/benchmarks/extract/{model}/{checkpoint}/{dataset}.tsv"
        priority: jobs.priority("extract")
        conda:
            "../../envs/lmshape.yaml"
        threads: jobs.threads("extract")
        resources:
            **jobs.resources("extract"),
        params:
            digest=jobs.digest("extract"),
        message:
            "Extract activations of {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
        shell:
            job_command(
                "extract --cell {wildcards.model}/{wildcards.checkpoint:q}/{wildcards.dataset} "
                "--threads {threads} --gpus {resources.gpu} > {log} 2>&1"
            )

    rule measure:
        input:
            **jobs.inputs("measure"),
        output:
            update(
                expand(
                    paths.STATISTICS, family=study.library_families, allow_missing=True
                )
            ),
            measured=touch(paths.MEASURED_MARK),
        log:
            "results/logs/measure/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log",
        benchmark:
            "results/benchmarks/measure/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.tsv"
        priority: jobs.priority("measure")
        conda:
            "../../envs/lmshape.yaml"
        threads: jobs.threads("measure")
        resources:
            **jobs.resources("measure"),
        params:
            digest=jobs.digest("measure"),
            job="measure",
        message:
            "Measure layers {wildcards.first}-{wildcards.last} of {wildcards.model} at {wildcards.checkpoint} on "
            "{wildcards.dataset}"
        shell:
            job_command(
                "{params.job} --cell {wildcards.model}/{wildcards.checkpoint:q}/{wildcards.dataset} "
                "--layers {wildcards.first}-{wildcards.last} --threads {threads} > {log} 2>&1"
            )

    use rule measure as measure_own with:
        output:
            paths.STATISTICS.replace("{family}", "own"),
        log:
            "results/logs/measure_own/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.log",
        benchmark:
            "results/benchmarks/measure_own/{model}/{checkpoint}/{dataset}/layers-{first}-{last}.tsv"
        params:
            digest=jobs.digest("measure_own"),
            job="measure_own",
        message:
            "Measure your own metrics on layers {wildcards.first}-{wildcards.last} of {wildcards.model} at "
            "{wildcards.checkpoint} on {wildcards.dataset}"

else:

    # A rule's outputs are the same for all its jobs: one for all models whose archives have the same blocks of layers.
    for layout, models in jobs.rules["measure_cell"].layouts().items():

        rule:
            name:
                f"measure_cell_{layout}"
            input:
                **jobs.inputs("measure_cell"),
            output:
                update(jobs.rules["measure_cell"].archives(models[0])),
                losses=paths.LOSS_CARD,
            log:
                "results/logs/extract/{model}/{checkpoint}/{dataset}.log",
            benchmark:
                "results/benchmarks/extract/{model}/{checkpoint}/{dataset}.tsv"
            wildcard_constraints:
                model=one_of(models),
            priority: jobs.priority("measure_cell")
            conda:
                "../../envs/lmshape.yaml"
            threads: jobs.threads("measure_cell")
            resources:
                **jobs.resources("measure_cell"),
            params:
                digest=jobs.digest("measure_cell"),
            message:
                "Extract and measure {wildcards.model} at {wildcards.checkpoint} on {wildcards.dataset}"
            shell:
                job_command(
                    "measure_cell --cell {wildcards.model}/{wildcards.checkpoint:q}/{wildcards.dataset} "
                    "--threads {threads} --gpus {resources.gpu} > {log} 2>&1"
                )
