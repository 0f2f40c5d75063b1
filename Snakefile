"""The study, from the root of the repository: workflow/Snakefile."""


include: "workflow/Snakefile"
