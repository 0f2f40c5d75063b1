"""The shape of learning: models x checkpoints x layers x datasets, from weights and text to figures."""

import os

from snakemake.utils import min_version

min_version("9.0")

CONFIG = "config/config.yaml"  # of the working directory, else the embedded study's

if not workflow.overwrite_configfiles:

    configfile: CONFIG if os.path.exists(CONFIG) else os.path.join(workflow.basedir, CONFIG)


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/options.smk"
include: "workflow/rules/texts.smk"
include: "workflow/rules/pretrain.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/tokenize.smk"
include: "workflow/rules/admit.smk"
include: "workflow/rules/extract.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/gather.smk"
include: "workflow/rules/spikes.smk"
include: "workflow/rules/shapes.smk"
include: "workflow/rules/truncate.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/explore.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/ending.smk"


rule all:
    default_target: True
    input:
        "results/report.html",
        "results/explore.html",
    message:
        "The study is complete: every model, checkpoint, layer and dataset is in the report."


onstart:
    begin_run()
    clear_unneeded_weights()


onsuccess:
    end_run()
    print(study_summary())
