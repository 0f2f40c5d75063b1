"""The shape of learning: models x checkpoints x layers x datasets, from weights and text to figures."""

import os

from snakemake.utils import min_version

min_version("9.0")

CONFIG = "config/config.yaml"  # of the working directory, else the embedded study's

if not workflow.overwrite_configfiles:

    configfile: CONFIG if os.path.exists(CONFIG) else os.path.join(workflow.basedir, CONFIG)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/texts.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/hub.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/truncate.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/pages.smk"


rule all:
    default_target: True
    input:
        "results/index.html",
        "results/explore.html",
    message:
        "The study is complete: open results/index.html."


onstart:
    delete_unneeded_weights(study, Path.cwd())


onsuccess:
    print(jobs.summary(Path.cwd(), seen_from=Path(workflow.workdir_init)))


onerror:
    shell("python -m lmshape missing --log {log:q}")
