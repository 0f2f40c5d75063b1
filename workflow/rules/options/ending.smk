"""The beginning and the end of a run."""


def clear_unneeded_weights():
    """Weights of models and checkpoints that the study no longer has would hold its disk budget for ever."""
    if not study.keep_weights:
        chosen = [model.checkpoints.values() for model in study.models.values()]
        needed = {one.folder for checkpoints in chosen for one in checkpoints}
        for folder in clear_unneeded(Path.cwd(), needed):
            print(f"Deleted downloaded weights that the study does not have: {folder}")


def study_summary():
    """Where the results are, in the words of someone who has just waited for them."""
    figures = "\n".join(f"  results/figures/{figure}.png" for figure in study.figures)
    return (
        "\nFindings: results/findings.html\nExplore:  results/explore.html\nReport:   results/report.html\n"
        f"Tables:   results/tables/\nFigures:\n{figures}\n"
    )
