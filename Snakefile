"""The study, from the root of the repository: workflow/Snakefile, default target included."""

workflow.include("workflow/Snakefile", overwrite_default_target=True)
