"""The shape of one model's layers in one call, for a transformers model, a folder or a hub name.

It is the workflow's own way, on files in a temporary folder: tokens, activations, statistics, rows of the table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from transformers import PreTrainedModel

from lmshape.checkpoints import FINAL, NO_STEP
from lmshape.errors import InputError, Problems, first_line, some_of
from lmshape.metrics import skdim
from lmshape.metrics.block import measure_block
from lmshape.metrics.registry import MEASURED, measured_families, metric_names
from lmshape.models.extract import extract
from lmshape.models.network import read_config
from lmshape.models.opened import Opening
from lmshape.store.hdf5 import Attributes
from lmshape.store.tokens import Tokens
from lmshape.store.weights import config_facts, has_weights, kind_of
from lmshape.tables.columns import COLUMNS, read_parquet, without_categories
from lmshape.tables.gather import gather
from lmshape.texts.corpus import PACKED, read_span
from lmshape.texts.tokenizer import load_tokenizer, tokenizer_files
from lmshape.texts.tokens import Sampling, rows_in, sample_tokens, tokens_of_ids, tokens_of_texts

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from transformers import PreTrainedTokenizerBase

DEFAULT_METRICS = ("spectral", "angular", "neighbor", "loss")
WINDOW, ROWS_PER_DRAW = 512, 4096


def profile(
    model: PreTrainedModel | str | Path,
    texts: str | Path | Sequence[str] | ArrayLike,
    tokenizer: PreTrainedTokenizerBase | str | Path | None = None,
    *,
    layers: Literal["all"] | Iterable[int] = "all",
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    rows: str | Sequence[str] = ("all", "no_sink"),
    draws: int = 5,
    window: int | None = None,
    rows_per_draw: int | None = None,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int | Literal["auto"] = "auto",
    name: str | None = None,
) -> pd.DataFrame:
    """Measure every layer of one model.

    Parameters
    ----------
    model : a causal or masked language model of transformers, which is used where it is and left as it was; a folder
        as `save_pretrained` writes it; a name of the hub, `EleutherAI/pythia-70m` or `EleutherAI/pythia-70m@step1000`
    texts : one long text or the path of its file, cut into windows as a study does; a list of texts, a sequence each;
        token ids (sequences, length), or a list of rows of them
    tokenizer : of texts; a folder, or None for the one beside the weights
    layers : numbers of layers, 0 for the embedding, l after block l; the final norm goes with the last
    metrics : name or names of metrics or families: `lmshape metrics`
    rows : which token rows, one or several of `all`, `no_sink`, `one_per_type`; the last for neighbor metrics and skdim
    draws : disjoint sets of sequences, from whose spread the intervals come
    window : tokens of a sequence of a text; None: 512, or the model's context where that is shorter
    rows_per_draw : rows of a draw that neighbor metrics use; None: 4096 of one text, or what it has; all of other input
    seed : of the choice of windows
    device, dtype, batch_tokens : as `extraction` of a study has them; a loaded model keeps its device and number type
    name : of the model in the table; None: the end of its path

    Returns
    -------
    One row per number, with its 95 % interval: the columns of the table `metrics`. Of the same tokens it holds the same
    numbers as a study's.

    Raises
    ------
    InputError
        For a model that cannot be opened, a text too short or not plain, an unknown metric or layer, too few rows or
        draws.
    """
    least = {"rows_per_draw": (rows_per_draw, 1), "window": (window, 2), "draws": (draws, 2)}
    for key, (given, fewest) in least.items():
        if given is not None and given < fewest:
            raise InputError(
                f"`{key}` is {given}; it must be at least {fewest}. Leave it out for the default."
            )
    rows = [rows] if isinstance(rows, str) else rows
    chosen = _metric_names([metrics] if isinstance(metrics, str) else metrics, rows)
    weights = model if isinstance(model, PreTrainedModel) else find_model(model)
    if isinstance(weights, PreTrainedModel):
        config = {**weights.config.to_dict(), "architectures": [type(weights).__name__]}
    else:
        config = read_config(weights).to_dict()
    facts = config_facts(config)
    reader = _tokenizer(tokenizer, weights)
    sampling = Sampling(
        protocol="windows",
        window=window or min(WINDOW, facts["context"] or WINDOW),
        draws=draws,
        rows_per_draw=rows_per_draw or 0,
        seed=seed,
    )
    tokens, most = _tokens(texts, reader, sampling, context=facts["context"])
    with TemporaryDirectory(prefix="lmshape-") as temporary:
        folder = Path(temporary)
        activations, losses, table = (
            folder / name for name in ("activations.h5", "losses.json", "table.parquet")
        )
        extract(
            weights,
            tokens,
            opening=Opening(
                kind=kind_of(config),
                threads=torch.get_num_threads(),
                dtype=dtype,
                device=device,
                batch_tokens=batch_tokens,
            ),
            output=activations,
            loss_output=losses,
            attributes=_attributes(model, name),
            seed=seed,
            mask_token_id=int(tokens.attributes["mask_token_id"]),
        )
        for first, last in _blocks(layers, facts["blocks"]):
            measure_block(
                activations,
                folder / "statistics",
                families=measured_families(chosen),
                first=first,
                last=last,
                rows=sorted(rows),
                rows_per_draw=most,
                skdim=chosen,
            )
        archives = sorted((folder / "statistics").glob("*/*.h5"))
        gather(archives, [losses], table, study="profile", metrics=chosen)
        whole = {pa.int64(): pd.Int64Dtype()}.get  # of the loss there is no width
        found = without_categories(read_parquet(table, columns=COLUMNS.names))
        return found.to_pandas(types_mapper=whole)


def _metric_names(metrics: Sequence[str], rows: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics that names and families stand for; `InputError` for an unknown one, or without such rows."""
    Problems(skdim.problems(metrics)).raise_all(what="`metrics`")
    chosen = metric_names(metrics)
    others = [name for name in measured_families(chosen) if not MEASURED[name].chosen_rows(rows)]
    if others and set(rows) <= {"one_per_type"}:
        raise InputError(
            f"`rows` is {list(rows)}, which {', '.join(others)} cannot take. Add `all`, or leave these metrics out."
        )
    return chosen


def by_layer(table: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Write a table of `profile` for reading: one line per layer, one column per metric, of all rows; then the loss."""
    first = table["rows"].iloc[0]
    chosen = table[table["metric"].isin(metrics) & (table["rows"] == first)]
    wide = chosen.pivot(index=["layer", "site"], columns="metric", values="value")[list(metrics)]
    wide.columns.name = None
    lines = [wide.reset_index().to_string(index=False, na_rep="", float_format="{:.4g}".format)]
    loss = table[table["site"] == "output"]
    lines += [f"{metric} {value:.4g}" for metric, value in zip(loss["metric"], loss["value"], strict=True)]
    return "\n".join(lines)


def find_model(name: str | Path) -> Path:
    """Return the folder of a model: `name` itself, else what the hub has under it, in the user's cache.

    Raises
    ------
    InputError
        When there is no such folder, and the hub has no such model or cannot be reached; when it is a run's folder.
    """
    if not isinstance(name, str | Path):
        raise InputError(
            f"`{type(name).__name__}` is not a transformers model. Pass the model that it wraps, or a folder."
        )
    folder = Path(name).expanduser()
    if folder.is_dir():
        within = sorted(path.name for path in folder.iterdir() if path.is_dir() and has_weights(path))
        if within and not has_weights(folder):
            raise InputError(
                f"`{name}` holds no model but the folders of several: {some_of(within)}. Name one of them."
            )
        return folder
    if folder.is_file():
        raise InputError(f"`{name}` is a file. Pass the folder of the model.")
    from huggingface_hub import snapshot_download

    from lmshape.hub.client import ask_hub
    from lmshape.hub.transfer import by_library

    repository, _, revision = str(name).partition("@")
    wanted = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
    place = {"repo_id": repository, "revision": revision or None, "ignore_patterns": "*/*"}
    try:
        for patterns in (wanted, [*wanted, "*.bin"]):  # of weights in both formats the one that is read
            download = partial(snapshot_download, **place, allow_patterns=patterns)
            found = ask_hub(partial(by_library, download), what=f"`{name}`")
            if has_weights(found):
                break
    except InputError as error:
        raise InputError(
            f"`{name}` is not a folder here, and the hub did not give it: {first_line(error)}"
        ) from error
    return found


def _tokenizer(
    given: PreTrainedTokenizerBase | str | Path | None, weights: PreTrainedModel | Path
) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer that is given, else the one beside the weights, if there is one."""
    if given is not None and not isinstance(given, str | Path):
        return given
    if given is not None:
        return load_tokenizer(Path(given).expanduser())
    place = weights if isinstance(weights, Path) else Path(weights.name_or_path or "none")
    return load_tokenizer(place) if tokenizer_files(place) else None


def _tokens(
    texts: str | Path | Sequence[str] | ArrayLike,
    tokenizer: PreTrainedTokenizerBase | None,
    sampling: Sampling,
    *,
    context: int | None,
) -> tuple[Tokens, int | None]:
    """Return the tokens, and how many rows of a draw neighbor metrics take; None for all."""
    window, draws, most = sampling.window, sampling.draws, sampling.rows_per_draw or None
    texts, documents = _read(texts) if isinstance(texts, Path) else (texts, None)
    listed = [texts] if isinstance(texts, str) else list(cast(Sequence[Any], texts))
    if not any(isinstance(one, str) for one in listed):
        mask = None if tokenizer is None else tokenizer.mask_token_id
        return tokens_of_ids(list(map(np.asarray, listed)), draws=draws, mask_token_id=mask), most
    if tokenizer is None:
        raise InputError(
            "the weights have no tokenizer beside them, and the input is text. Give one as `tokenizer`, or token ids."
        )
    if not isinstance(texts, str):
        return tokens_of_texts(tokenizer, listed, window=window, draws=draws), most
    most = most or min(ROWS_PER_DRAW, rows_in(tokenizer, texts, window=window, draws=draws))
    sampling = replace(sampling, rows_per_draw=most)
    tokens = sample_tokens(tokenizer, texts, sampling, order="text", context=context, documents=documents)
    return tokens, most


def _read(path: Path) -> tuple[str, list[int] | None]:
    """Return a file's text, and where its documents begin; `InputError` for rows and packed files."""
    if path.suffix in PACKED:
        raise InputError(
            f"`{path}` is packed, or rows with a column of text; a profile reads plain UTF-8. Write its text out, "
            "pass a list of texts to `lmshape.profile`, or measure it in a study."
        )
    return read_span(path, 0, 1)


def _attributes(model: PreTrainedModel | str | Path, name: str | None) -> Attributes:
    """Say what the model is called; where its weights come from only the caller knows."""
    given = str(model.name_or_path or "") if isinstance(model, PreTrainedModel) else str(model)
    repository, _, revision = (given, "", "") if Path(given).is_dir() else given.partition("@")
    return {
        "model": name or Path(repository).name or type(model).__name__,
        "repository": repository,
        "revision": revision,
        "commit": "",
        "weights_sha256": "",
        "checkpoint": revision or FINAL,
        "step": NO_STEP,
        "tokens_seen": nan,
        "dataset": "texts",
    }


def _blocks(layers: Literal["all"] | Iterable[int], blocks: int) -> list[tuple[int, int]]:
    """Return the runs of neighboring layers, first and last of each.

    Raises
    ------
    InputError
        For a layer that the model does not have.
    """
    every = range(blocks + 1)
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        chosen = [*every] if layers == "all" else []
    else:
        chosen = sorted(set(layers))
    if not chosen or not set(chosen) <= {*every}:
        raise InputError(
            f"`layers` is {layers!r}; it must be `all`, or a list of numbers from 0, the embedding, to {blocks}."
        )
    runs = [list(run) for _, run in groupby(chosen, key=lambda layer: layer - chosen.index(layer))]
    return [(run[0], run[-1]) for run in runs]
