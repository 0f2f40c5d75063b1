"""Figures: their tables, losses and captions."""


def figure_losses(wildcards):
    return trained_files("loss.csv") if FIGURES[wildcards.figure].draws_losses else []


def figure_tables(wildcards):
    return [
        f"results/tables/{name}.parquet" for name in FIGURES[wildcards.figure].tables
    ]


def figure_options(wildcards):
    losses = by_run(figure_losses(wildcards))
    return flags(dataset=list(study.datasets), losses=losses)


def figure_fingerprint(wildcards):
    return code_fingerprint("lmshape.figures", FIGURES[wildcards.figure].code)


def figure_caption(wildcards):
    """For the report. A resource, since words that change draw no figure again."""
    return str(REPOSITORY / f"workflow/report/{wildcards.figure}.rst")


def figure_labels(wildcards):
    return {"figure": wildcards.figure.replace("_", " ")}
