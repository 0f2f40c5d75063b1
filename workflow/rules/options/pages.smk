"""Findings, explorer and report."""


def findings_options(wildcards):
    described = {
        "study": study.name,
        "sampling": dataclasses.asdict(study.sampling),
        "extraction": dataclasses.asdict(study.extraction),
        "datasets": {
            name: describe_dataset(dataset) for name, dataset in study.datasets.items()
        },
    }
    return flags(
        provenance=json.dumps(described),
        runs=trained_files("summary.json"),
        own_metrics=own_path(),
    )


def describe_dataset(dataset):
    """One line for the reader of the report."""
    text = "no text"
    if dataset.text:
        about = filter(
            None, [study.texts[dataset.text].origin, study.texts[dataset.text].license]
        )
        span = f"{dataset.span[0]:.0%} to {dataset.span[1]:.0%}"
        text = f"{dataset.text}, {span}{', cleaned' if dataset.clean else ''}; {'; '.join(about)}"
    order = {
        "text": f"tokens of {text}",
        "shuffled": f"the same tokens, shuffled within each sequence ({text})",
        "random": "tokens drawn uniformly from the model's vocabulary",
    }
    return order[dataset.order]


def findings_fingerprint(wildcards):
    return (
        code_fingerprint("lmshape.pages.findings", "lmshape.figures")
        + words_of_the_report()
        + own_fingerprint()
    )


def report_fingerprint(wildcards):
    return code_fingerprint("lmshape.pages.report") + words_of_the_report()


def explorer_options(wildcards):
    return flags(dataset=list(study.datasets), own_metrics=own_path())


def explorer_fingerprint(wildcards):
    return (
        code_fingerprint("lmshape.explore")
        + words_in("workflow/report/explore")
        + own_fingerprint()
    )


def words_of_the_report():
    return words_in("workflow/report")


@cache
def words_in(folder):
    """A page's words count as much as its code."""
    pages = [path for path in sorted((REPOSITORY / folder).glob("*")) if path.is_file()]
    return hashlib.sha256(b"".join(page.read_bytes() for page in pages)).hexdigest()[
        :12
    ]


def snakefile_option(wildcards):
    """Where the repository lies is no part of the result, hence no parameter."""
    return flags(snakefile=REPOSITORY / "Snakefile")
