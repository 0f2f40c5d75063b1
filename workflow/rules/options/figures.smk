"""Figures: their tables, losses and captions."""


def figure_losses(wildcards):
    return trained_files("loss.csv") if wildcards.figure in DRAW_LOSSES else []


def figure_tables(wildcards):
    names = ["metrics", "checkpoints", "profiles"]
    names += TABLES_OF.get(wildcards.figure, ())
    return [f"results/tables/{name}.parquet" for name in names]


def figure_options(wildcards):
    losses = by_run(figure_losses(wildcards))
    return flags(dataset=list(study.datasets), losses=losses)


def figure_fingerprint(wildcards):
    return code_fingerprint("lmshape.figures", f"lmshape.figures.{wildcards.figure}")


def figure_caption(wildcards):
    """For the report. A resource, since words that change draw no figure again."""
    return str(REPOSITORY / f"workflow/report/{wildcards.figure}.rst")


def figure_labels(wildcards):
    return {"figure": wildcards.figure.replace("_", " ")}
