"""Loss spikes: found in the losses of all runs, with what moves before them; runs that no model needs among them."""


localrules:
    spikes,


rule spikes:
    input:
        metrics="results/tables/metrics.parquet",
        losses=trained_files("loss.csv"),
        geometry=probed_files("geometry.csv"),
        logs=loss_log_files,
    output:
        expand(
            "results/tables/{table}.{format}",
            table=["spikes", "warnings", "alarms", "before_spikes"],
            format=["parquet", "csv"],
        ),
    log:
        "results/logs/spikes.log",
    benchmark:
        "results/benchmarks/spikes.tsv"
    conda:
        "../../envs/lmshape.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
        disk_mb=100,
    params:
        options=spike_options,
        code=code_fingerprint("lmshape.tables.loss_spikes"),
    message:
        "Find the spikes of the losses, and what moves before them"
    shell:
        "python -m lmshape spikes {params.options} --output results/tables > {log} 2>&1"
