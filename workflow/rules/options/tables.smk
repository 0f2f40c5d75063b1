"""Tables that stand on other tables, or on loss curves."""


def loss_log_files(wildcards):
    return [str(file) for log in study.loss_logs.values() for file in log.files]


def spike_options(wildcards):
    logs = study.loss_logs.items()
    geometry = [f"{name}={log.geometry}" for name, log in logs if log.geometry]
    return flags(
        study=study.name,
        losses=by_run(trained_files("loss.csv")),
        log=[f"{name}={log.losses}" for name, log in logs],
        geometry=by_run(probed_files("geometry.csv")) + geometry,
        dataset=list(study.datasets),
    )


def tables_options(wildcards):
    """Which models differ in their seed alone, and which were trained to fail."""
    recipes = {name: model.recipe for name, model in study.models.items()}
    return flags(
        recipe=[f"{name}={recipe}" for name, recipe in recipes.items() if recipe],
        unstable=[name for name, model in study.models.items() if model.unstable],
    )


def claim_options(wildcards):
    """Datasets in the study's order, its text first, each with what its tokens are."""
    orders = {name: dataset.order for name, dataset in study.datasets.items()}
    return flags(dataset=[f"{name}={order}" for name, order in orders.items()])


def claims_fingerprint(wildcards):
    """Published numbers count as much as the code."""
    numbers = REPOSITORY / "workflow/lmshape/claims/published.yaml"
    digest = hashlib.sha256(numbers.read_bytes()).hexdigest()
    return code_fingerprint("lmshape.claims") + digest[:12]
