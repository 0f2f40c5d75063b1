"""The study's tables, as Parquet and CSV.

`metrics` is the tidy table of all models. `checkpoints` says which weights a checkpoint holds and how well it
predicts. `audit` says of each site which rows repeat, which are sinks, and how exact its neighbor distances are.
`profiles`, `phases` and `contrasts` are what `lmshape.dynamics` makes of the curves over layers and over training.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa

from lmshape.dynamics.contrasts import CONTRAST_COLUMNS, contrasts
from lmshape.dynamics.phases import PHASE_COLUMNS, PHASED, phases
from lmshape.dynamics.profiles import CELL, PROFILE_COLUMNS, PROFILED, profiles
from lmshape.hub.integrity import DISTRUSTED
from lmshape.tables.columns import (
    AUDITS_KEY,
    CHECKPOINTS_KEY,
    COLUMNS,
    declare,
    frame_of,
    interval,
    joined,
    read_parquet,
    real,
    shared,
    text,
    write_table,
)
from lmshape.tables.gather import AUDIT_COLUMNS

_KEYS = ["model", "checkpoint", "dataset"]

CHECKPOINT_COLUMNS = declare(
    *shared(CELL),
    text("repository", "repository on the hub, or folder, that the weights came from"),
    text(
        "revision", "branch or tag of the repository, as the hub spells it; name of the folder for local runs"
    ),
    text("commit", "commit of the repository that the weights came from; empty for local folders"),
    text("weights_sha256", "fingerprint of the weights"),
    text(
        "duplicate_of",
        "first other checkpoint of the model with equal weights, trusted ones first, then by step; empty when none",
    ),
    text(
        "verdict",
        "what the audit of the hub says of the weights: `lmshape audit`; of local folders `duplicate` or empty",
    ),
    text(
        "same_weights_as",
        "checkpoints of the lock with equal weights, studied or not, and main; empty when none",
    ),
    text("note", "what else the audit says, with the source of a known fault; empty when nothing"),
    *interval(real, "loss", "nats per token"),
    text("flag", "the reason of an empty value, or of a doubt about the checkpoint; empty when fine"),
)

# Of the models' own tables, for what is computed draw by draw.
_FOLLOWED = (
    "study model family kind checkpoint step tokens_seen dataset site layer depth rows metric value ci_low ci_high "
    "flag verdict interval replicates"
).split()


def combine(
    metric_files: Sequence[Path],
    output_dir: Path,
    *,
    groups: Mapping[str, str] | None = None,
    unstable: Collection[str] = (),
) -> None:
    """Write the study's tables as .parquet and .csv from the metrics of each model.

    Parameters
    ----------
    metric_files : what `gather` wrote, one file per model; the tables keep their order
    output_dir : folder of the tables; each file is replaced when the new one is whole
    groups : model → recipe, for models that differ in their seed alone: `lmshape.dynamics.trajectories`
    unstable : models that are not examples of their kind, and not in `contrasts`
    """
    # without the numbers behind each estimate, which are ten times the rest
    models = [read_parquet(path, columns=COLUMNS.names) for path in metric_files]
    metrics = pa.concat_tables(models).replace_schema_metadata(None)
    frame = frame_of(metrics.select([*CELL.split(), "metric", "value", "ci_low", "ci_high", "flag"]))
    weights = pd.DataFrame([entry for model in models for entry in _weights(model)])
    audits = [row for model in models for row in json.loads(model.schema.metadata[AUDITS_KEY])]
    followed = pd.concat([_followed(Path(path)) for path in metric_files], ignore_index=True)
    tables = {
        "metrics": (metrics, COLUMNS),
        "checkpoints": (checkpoint_rows(frame, weights), CHECKPOINT_COLUMNS),
        "audit": (pa.Table.from_pylist(audits, schema=AUDIT_COLUMNS), AUDIT_COLUMNS),
        "profiles": (profiles(followed), PROFILE_COLUMNS),
        "phases": (phases(followed, groups), PHASE_COLUMNS),
        "contrasts": (contrasts(followed[~followed["model"].isin(unstable)]), CONTRAST_COLUMNS),
    }
    for name, (table, columns) in tables.items():
        write_table(table, columns, Path(output_dir) / name)


def tables_of_model(metric_file: Path, metrics: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Return `checkpoints` and the rows of some `metrics` of one model alone, from what `gather` wrote of it."""
    chosen = [("metric", "in", [*metrics, "loss"])]
    model = read_parquet(metric_file, columns=COLUMNS.names, filters=chosen)
    frame = frame_of(model)
    if frame.empty:  # of a study without loss that measures none of them
        return {"metrics": frame, "checkpoints": frame_of(CHECKPOINT_COLUMNS.empty_table())}
    weights = pd.DataFrame(_weights(model))
    return {"metrics": frame, "checkpoints": checkpoint_rows(frame, weights)}


def _followed(path: Path) -> pd.DataFrame:
    """Rows of the metrics that are followed over layers and steps, at the blocks, with their replicates."""
    chosen = [("metric", "in", {PROFILED, *PHASED}), ("site", "==", "block")]
    return frame_of(read_parquet(path, columns=_FOLLOWED, filters=chosen))


def _weights(model: pa.Table) -> Iterator[dict[str, str]]:
    name = model["model"][0].as_py()
    for checkpoint, identity in json.loads(model.schema.metadata[CHECKPOINTS_KEY]).items():
        yield {"model": name, "checkpoint": checkpoint, **identity}


def checkpoint_rows(metrics: pd.DataFrame, weights: pd.DataFrame) -> pd.DataFrame:
    """Say of each checkpoint and dataset whose weights they are and what the loss is.

    Parameters
    ----------
    metrics : the tidy table
    weights : model, checkpoint, commit, weights_sha256

    Returns
    -------
    The columns of CHECKPOINT_COLUMNS, a row for each model, checkpoint and dataset.
    """
    cells = metrics[CELL.split()].drop_duplicates()
    loss = metrics.loc[metrics["metric"] == "loss", [*_KEYS, "value", "ci_low", "ci_high", "flag"]]
    loss = loss.rename(columns={"value": "loss", "ci_low": "loss_low", "ci_high": "loss_high"})
    frame = cells.merge(weights, on=["model", "checkpoint"]).merge(loss, on=_KEYS, how="left")
    others = _same_weights(frame)
    reasons = zip(frame["flag"].fillna("loss not gathered"), others, strict=True)
    flags = [joined(flag, other and f"same weights as {other}") for flag, other in reasons]
    return frame.assign(duplicate_of=others, flag=flags)


def _same_weights(frame: pd.DataFrame) -> pd.Series:
    """Name for each row the first checkpoint of its model with equal weights; nothing where that is the row itself."""
    ordered = frame.assign(doubted=frame["verdict"].isin(DISTRUSTED)).sort_values(
        ["doubted", "step"], kind="stable"
    )
    equal = ordered.groupby(["model", "weights_sha256"])["checkpoint"]
    first = equal.transform("first").reindex(frame.index)
    return first.where((first != frame["checkpoint"]) & (frame["weights_sha256"] != ""), "")
