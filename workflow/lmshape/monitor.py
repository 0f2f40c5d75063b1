"""The geometry of each block while a model trains: a fixed batch of held-out tokens, every so many steps.

For the study's own pretraining, and for any loop: `observe` before each update. `lmshape.callback` does it in Trainer.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmshape.errors import InputError, suggest
from lmshape.fingerprint import code_fingerprint
from lmshape.geometry.angular import mean_cosine
from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.scalars import anisotropy_of, effective_rank_of, participation_ratio_of
from lmshape.geometry.spectrum import covariance_eigenvalues
from lmshape.models.extract import next_token_nll
from lmshape.models.network import at_rest, loaded_network
from lmshape.models.opened import PROBE_TOKENS, SEES_AHEAD, check_ids, sees_ahead
from lmshape.models.residual import ResidualStream, residual_stream, run
from lmshape.site import Site
from lmshape.texts.corpus import span
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer
from lmshape.training.pretrain import Probe, write_rows
from lmshape.training.recipe import GEOMETRY_COLUMNS, Recipe

FEWEST_TOKENS = 64  # under which no dimension means anything
MONITORED = (
    "anisotropy",
    "effective_rank",
    "participation_ratio",
    "mean_cosine",
    "id_twonn",
    "id_twonn_types",
    "norm_median",
    "activation_max",
)


class GeometryMonitor:
    """Measures a model's blocks on the same tokens every `every` steps, and keeps the numbers.

    Attributes
    ----------
    rows : (step, layer, metric, value) so far; layer l is the residual stream after block l. The loss stands at
        the last layer. NaN where activations are not finite, or all rows of a block are equal

    Examples
    --------
    >>> monitor = GeometryMonitor(held_out_ids, every=100)  # doctest: +SKIP
    >>> for step, batch in enumerate(loader):  # doctest: +SKIP
    ...     monitor.observe(model, step)
    ...     update(model, batch)
    >>> monitor.write(Path("geometry.csv"))  # doctest: +SKIP
    """

    def __init__(
        self, ids: ArrayLike | Tensor, *, every: int, causal: bool = True, blocks: str | None = None
    ) -> None:
        """Take the tokens.

        Parameters
        ----------
        ids : (sequences, length) token ids, held out from training; 512 to 1024 tokens cost a few forward passes
        every : steps from one measurement to the next
        causal : whether the model predicts the next token, so that its loss on the tokens is measured, too
        blocks : name of the list of blocks, as `transformer.h`, of a model that is none of transformers and takes ids

        Raises
        ------
        InputError
            When there are under 64 tokens, or `every` is under 1.
        """
        self.ids = torch.as_tensor(np.asarray(ids), dtype=torch.int64)
        if self.ids.ndim != 2 or self.ids.numel() < FEWEST_TOKENS:
            raise InputError(
                f"`ids` has shape {tuple(self.ids.shape)}; it must be (sequences, length), with at least "
                f"{FEWEST_TOKENS} tokens. Take 512 or more."
            )
        if every < 1:
            raise InputError(f"`every` is {every}; it must be at least 1. It counts steps.")
        self.every, self.causal, self.blocks = every, causal, blocks
        self.rows: list[Probe] = []
        self._first_of_type = np.unique(self.ids.numpy().ravel(), return_index=True)[1]
        self._known: tuple[nn.Module, ResidualStream] | None = None

    def observe(self, model: nn.Module, step: int, *, last: bool = False) -> None:
        """Measure the model at a step that is due, or the `last`; the model and all random states stay as they are.

        Raises
        ------
        InputError
            As `measure`.
        """
        if (step % self.every and not last) or (self.rows and self.rows[-1][0] == step):
            return
        self.rows += [(step, layer, metric, value) for layer, metric, value in self.measure(model)]

    @torch.no_grad()  # not inference mode: what a pass caches in a model must serve a backward pass later
    def measure(self, model: nn.Module) -> list[tuple[int, str, float]]:
        """Return layer, metric and value of every block; of a compiled or distributed model, those of the plain one.

        A model of transformers that predicts no next token has no loss, and a warning says why.

        Raises
        ------
        InputError
            For weights that are spread over processes, for a model that is none of transformers without `blocks`, and
            for ids that it cannot read.
        """
        found: list[tuple[int, str, float]] = []
        model = self._unwrapped(model)
        ids = self.ids.to(next(model.parameters()).device)

        def take(site: Site, hidden: Tensor) -> None:
            if site.name == "block":
                rows = hidden.reshape(-1, hidden.shape[-1]).float().cpu().numpy()
                values = shape_of(rows, first_of_type=self._first_of_type)
                found.extend((site.layer, name, value) for name, value in values.items())

        with at_rest(model), _uncompiled():
            stream = self._stream_of(model, ids)
            with stream.observed(take):
                output = model(ids) if self.blocks else run(model, ids)
        if self.causal:
            loss = _mean_nll(output, ids)
            found.append((len(stream.blocks), "loss", loss if isfinite(loss) else nan))
        return found

    def write(self, path: Path) -> None:
        """Write the rows so far as CSV, whole or not at all, after those of earlier steps in the file."""
        first = self.rows[0][0] if self.rows else inf
        write_rows(path, [*(row for row in _read_rows(path) if row[0] < first), *self.rows])

    def identity(self) -> str:
        """Hash of the tokens, the interval and the code behind the numbers."""
        told = f"{self.every} {self.causal} {code_fingerprint('lmshape.monitor')}"
        return hashlib.sha256(told.encode() + self.ids.numpy().tobytes()).hexdigest()

    def _stream_of(self, model: nn.Module, ids: Tensor) -> ResidualStream:
        if self._known is None or self._known[0] is not model:
            named = self.blocks and self._named_blocks(model, self.blocks)
            self._known = model, named or self._found_in(cast(PreTrainedModel, model), ids)
        return self._known[1]

    def _named_blocks(self, model: nn.Module, name: str) -> ResidualStream:
        kinds = nn.ModuleList | nn.Sequential
        lists = {name: part for name, part in model.named_modules() if isinstance(part, kinds)}
        if name not in lists:
            raise InputError(f"`blocks` is `{name}`, no list of modules here.{suggest(name, lists)}")
        return ResidualStream(tuple(lists[name]), body=model, width=0, normed=False)

    def _found_in(self, model: PreTrainedModel, ids: Tensor) -> ResidualStream:
        network = loaded_network(model)
        check_ids(ids.shape[1], int(ids.max()), network)
        stream = residual_stream(model, ids[:1, :PROBE_TOKENS])
        why = network.no_loss or (SEES_AHEAD if sees_ahead(network, stream, ids[:1, :PROBE_TOKENS]) else "")
        if self.causal and why:
            warnings.warn(f"`{type(model).__name__}`: {why}", stacklevel=2)
            self.causal = False
        return stream

    def _unwrapped(self, model: nn.Module) -> nn.Module:
        compiled = dict(model.named_children()).get("_orig_mod")
        if compiled is not None:
            return self._unwrapped(compiled)
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            return self._unwrapped(model.module)
        if _is_spread(model):
            raise InputError(
                f"the weights of `{type(model).__name__}` are spread over processes (FSDP, ZeRO-3), and one of them "
                "cannot pass its blocks. Measure its checkpoints instead."
            )
        if not self.blocks and not isinstance(model, PreTrainedModel):
            raise InputError(
                f"`{type(model).__name__}` is neither a transformers model nor a known wrapper. Pass the model "
                "in it, or name the list of its blocks: `GeometryMonitor(..., blocks='transformer.h')`."
            )
        return model


def _is_spread(model: nn.Module) -> bool:
    """Whether FSDP holds the weights, in DTensors or flat in wrappers, or DeepSpeed's ZeRO-3, which marks them."""
    wrapped = any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules())
    marks = ("placements", "ds_status")
    return wrapped or any(hasattr(parameter, mark) for parameter in model.parameters() for mark in marks)


def _uncompiled() -> AbstractContextManager:
    """Run compiled parts as they were written: hooks are not part of what was compiled."""
    compiler = "torch._dynamo" in sys.modules  # else nothing is compiled, and its import takes seconds
    return torch.compiler.set_stance("force_eager") if compiler else nullcontext()


def _mean_nll(output: Any, ids: Tensor) -> float:
    """Return the mean loss of the next token, nats; NaN where there are no logits of every token."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    logits = output[0] if logits is None else logits
    if logits.shape[:2] != ids.shape:
        return nan
    return float(next_token_nll(logits, ids)[:, 1:].float().cpu().double().mean())


def _read_rows(path: Path) -> list[Probe]:
    """Read what `write_rows` has written; no rows where there is no file.

    Raises
    ------
    InputError
        For a file with other columns, which is not to be overwritten.
    """
    if not path.is_file():
        return []
    header, *lines = path.read_text().splitlines() or [""]
    if header != ",".join(GEOMETRY_COLUMNS):
        raise InputError(
            f"`{path}` exists and has other columns than {', '.join(GEOMETRY_COLUMNS)}. Name another file."
        )
    cells = (line.split(",") for line in lines)
    return [(int(step), int(layer), metric, float(value or nan)) for step, layer, metric, value in cells]


def held_out(text: str, start: float, end: float) -> str:
    """Return the text outside of the span that a run is trained on: the part after it, else the part before it."""
    return span(text, end, 1.0) or span(text, 0.0, start)


def monitor_of(text: str, tokenizer_folder: Path, recipe: Recipe) -> GeometryMonitor:
    """Watch a pretraining run on windows from all over a held-out text.

    Raises
    ------
    InputError
        When the text holds too few of them.
    """
    ids = TextTokenizer(load_tokenizer(tokenizer_folder)).encode_long(text)
    there, needed = len(ids) // recipe.window, recipe.probe_tokens // recipe.window
    if there < needed:
        raise InputError(
            f"the text outside the training text has {len(ids)} tokens; `probe_tokens` asks for "
            f"{needed * recipe.window} in windows of {recipe.window}. Train on a smaller `span` of the text."
        )
    chosen = np.linspace(0, there - 1, needed).round().astype(int)
    windows = ids[: there * recipe.window].reshape(there, recipe.window)[chosen]
    return GeometryMonitor(windows, every=recipe.probe_every, causal=recipe.architecture == "gpt_neox")


def shape_of(rows: np.ndarray, *, first_of_type: np.ndarray) -> dict[str, float]:
    """Measure the cheap numbers of a block's rows.

    Parameters
    ----------
    rows : (n, d), one row per token
    first_of_type : rows of which no two are of the same token

    Returns
    -------
    Name → value, NaN if it is undefined. `id_twonn_types` is `id_twonn` of `first_of_type`: the nearest
    neighbor of a token is mostly the same token elsewhere. `norm_median` and `activation_max` need no geometry.
    """
    if not np.isfinite(rows).all():
        return dict.fromkeys(MONITORED, nan)
    eigenvalues = covariance_eigenvalues(rows)
    return {
        "anisotropy": float(anisotropy_of(eigenvalues)),
        "effective_rank": float(effective_rank_of(eigenvalues)),
        "participation_ratio": float(participation_ratio_of(eigenvalues)),
        "mean_cosine": _or_nan(mean_cosine, rows),
        "id_twonn": _or_nan(intrinsic_dimension, rows),
        "id_twonn_types": _or_nan(intrinsic_dimension, rows[first_of_type]),
        "norm_median": float(np.median(np.linalg.norm(rows.astype(np.float64), axis=1))),
        "activation_max": float(np.abs(rows).max()),
    }


def _or_nan(estimate: Callable[[np.ndarray], float], rows: np.ndarray) -> float:
    try:
        value = estimate(rows)
    except ValueError:  # a block whose rows are all equal has no direction and no dimension
        return nan
    return value if isfinite(value) else nan
