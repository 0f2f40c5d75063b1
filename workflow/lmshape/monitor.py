"""The geometry of each block while a model trains: a fixed batch of held-out tokens, every so many steps.

For the study's own pretraining, and for any loop that has a transformers model: `observe` before each update.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.fingerprint import code_fingerprint
from lmshape.geometry.angular import mean_cosine
from lmshape.geometry.dimension import intrinsic_dimension
from lmshape.geometry.scalars import anisotropy_of, effective_rank_of, participation_ratio_of
from lmshape.geometry.spectrum import covariance_eigenvalues
from lmshape.models.passes import next_token_nll
from lmshape.models.residual import ResidualStream, residual_stream, run
from lmshape.site import Site
from lmshape.texts.corpus import span
from lmshape.texts.tokenizer import TextTokenizer, load_tokenizer
from lmshape.training.pretrain import Row, write_rows
from lmshape.training.recipe import Recipe

FEWEST_TOKENS = 64  # under which no dimension means anything
METRICS = (
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

    def __init__(self, ids: ArrayLike | Tensor, *, every: int, causal: bool = True) -> None:
        """Take the tokens.

        Parameters
        ----------
        ids : (sequences, length) token ids, held out from training; 512 to 1024 tokens cost a few forward passes
        every : steps from one measurement to the next
        causal : whether the model predicts the next token, so that its loss on the tokens is measured, too

        Raises
        ------
        InputError
            When there are under 64 tokens, or `every` is under 1.
        """
        self.ids = torch.as_tensor(np.asarray(ids), dtype=torch.int64)
        if self.ids.ndim != 2 or self.ids.numel() < FEWEST_TOKENS:
            raise InputError(
                f"`ids` has shape {tuple(self.ids.shape)}; it must be (sequences, length), with {FEWEST_TOKENS} tokens "
                "at the least. Take 512 or more."
            )
        if every < 1:
            raise InputError(f"`every` is {every}; it must be at least 1. It counts steps.")
        self.every, self.causal = every, causal
        self.rows: list[Row] = []
        self._first_of_type = np.unique(self.ids.numpy().ravel(), return_index=True)[1]
        self._known: tuple[PreTrainedModel, ResidualStream] | None = None

    def observe(self, model: PreTrainedModel, step: int, *, last: bool = False) -> None:
        """Measure the model at a step that is due, or the `last`; the model and all random states stay as they are."""
        if (step % self.every and not last) or (self.rows and self.rows[-1][0] == step):
            return
        self.rows += [(step, layer, metric, value) for layer, metric, value in self.measure(model)]

    @torch.no_grad()  # not inference mode: what a pass caches in a model must serve a backward pass later
    def measure(self, model: PreTrainedModel) -> list[tuple[int, str, float]]:
        """Return layer, metric and value of every block."""
        found: list[tuple[int, str, float]] = []
        ids = self.ids.to(model.device)

        def take(site: Site, hidden: Tensor) -> None:
            if site.name == "block":
                rows = hidden.reshape(-1, hidden.shape[-1]).float().cpu().numpy()
                values = shape_of(rows, first_of_type=self._first_of_type)
                found.extend((site.layer, name, value) for name, value in values.items())

        with _at_rest(model):
            stream = self._stream_of(model, ids)
            with stream.observed(take):
                output = run(model, ids)
        if self.causal:
            loss = float(next_token_nll(output.logits, ids)[:, 1:].float().cpu().double().mean())
            found.append((len(stream.blocks), "loss", loss if isfinite(loss) else nan))
        return found

    def write(self, path: Path) -> None:
        """Write the rows so far as CSV, whole or not at all."""
        write_rows(path, self.rows)

    def identity(self) -> str:
        """Hash of the tokens, the interval and the code behind the numbers."""
        told = f"{self.every} {self.causal} {code_fingerprint('lmshape.monitor')}"
        return hashlib.sha256(told.encode() + self.ids.numpy().tobytes()).hexdigest()

    def _stream_of(self, model: PreTrainedModel, ids: Tensor) -> ResidualStream:
        if self._known is None or self._known[0] is not model:
            self._known = model, residual_stream(model, ids[:1, :8])
        return self._known[1]


def held_out(text: str, start: float, end: float) -> str:
    """Return what a text holds beside the span that a run is trained on: what is behind it, else what is before it."""
    behind = span(text, end, 1.0) if end < 1 else ""
    return behind or (span(text, 0.0, start) if start > 0 else "")


def monitor_of(text: str, tokenizer_folder: Path, recipe: Recipe) -> GeometryMonitor:
    """Watch a pretraining run on windows from all over a held-out text.

    Raises
    ------
    InputError
        When the text holds too few of them.
    """
    ids = TextTokenizer.of(load_tokenizer(tokenizer_folder)).encode_long(text)
    there, needed = len(ids) // recipe.window, recipe.probe_tokens // recipe.window
    if there < needed:
        raise InputError(
            f"the text beside the training text holds {len(ids)} tokens; `probe_tokens` asks for "
            f"{needed * recipe.window} in windows of {recipe.window}. Train on a smaller `span` of the text."
        )
    chosen = np.linspace(0, there - 1, needed).round().astype(int)
    windows = ids[: there * recipe.window].reshape(there, recipe.window)[chosen]
    return GeometryMonitor(windows, every=recipe.probe_every, causal=recipe.architecture == "gpt_neox")


@contextmanager
def _at_rest(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off meanwhile; a part that was at rest before, as a frozen one is, stays so."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, trains in training.items():
            module.training = trains


def shape_of(rows: np.ndarray, *, first_of_type: np.ndarray) -> dict[str, float]:
    """Measure a block's rows in the cheap ways.

    Parameters
    ----------
    rows : (n, d), a row a token
    first_of_type : rows of which no two are of the same token

    Returns
    -------
    Name → value, NaN where there is none. `id_twonn_types` is `id_twonn` of `first_of_type`: the nearest
    neighbor of a token is mostly the same token elsewhere. `norm_median` and `activation_max` need no geometry.
    """
    if not np.isfinite(rows).all():
        return dict.fromkeys(METRICS, nan)
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
