"""Inputs and options of the jobs, in the order of the stations: functions of their wildcards and of the study.

Parameters hold only what a result depends on, so that nothing else runs a job again.
"""


include: "options/texts.smk"
include: "options/pretrain.smk"
include: "options/download.smk"
include: "options/tokenize.smk"
include: "options/admit.smk"
include: "options/failures.smk"
include: "options/extract.smk"
include: "options/measure.smk"
include: "options/gather.smk"
include: "options/shapes.smk"
include: "options/truncate.smk"
include: "options/tables.smk"
include: "options/figures.smk"
include: "options/pages.smk"
include: "options/ending.smk"


# Snakemake asks for the signature of these functions several times for every job: said once, a large plan takes a tenth
# less time.
for function in list(globals().values()):
    if inspect.isfunction(function) and "wildcards" in function.__code__.co_varnames:
        function.__signature__ = inspect.signature(function)
