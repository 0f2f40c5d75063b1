"""The shape of a few layers, to be looked at: spectra and single rows from the statistics, then of all models."""


localrules:
    shapes,
    combine_shapes,


rule shapes:
    input:
        shape_statistics,
    output:
        spectra=paths.SHAPES.replace("{table}", "spectra"),
        clouds=paths.SHAPES.replace("{table}", "clouds"),
    log:
        "results/logs/shapes/{model}.log",
    benchmark:
        "results/benchmarks/shapes/{model}.tsv"
    priority: 30
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
    params:
        options=shape_options,
        code=code_fingerprint("lmshape.tables.shapes"),
    message:
        "Take spectra and points of a few layers of {wildcards.model} from its statistics"
    shell:
        "python -m lmshape shapes {wildcards.model} {params.options} "
        "--output results/shapes/{wildcards.model} > {log} 2>&1"


rule combine_shapes:
    input:
        expand(paths.SHAPES, model=study.models, table=["spectra", "clouds"]),
    output:
        expand(
            "results/tables/{table}.{format}",
            table=["spectra", "clouds"],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/combine_shapes.log",
    benchmark:
        "results/benchmarks/combine_shapes.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
    params:
        folders=[f"results/shapes/{model}" for model in study.models],
        code=code_fingerprint("lmshape.tables.shapes"),
    message:
        "Combine the spectra and points of all models into their tables"
    shell:
        "python -m lmshape combine-shapes {params.folders} --output results/tables > {log} 2>&1"
