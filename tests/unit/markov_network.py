"""A decoder small enough to be written down in NumPy: each token is told by the one before it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from tiny_models import make_tokens
from torch import Tensor, nn

from lmshape.models.network import Network
from lmshape.store.tokens import Tokens

VOCABULARY, WIDTH, BLOCKS = 23, 12, 2


class Markov(nn.Module):
    """h ← E[id], then h ← h + tanh(h A) B in each block, logits = h H.

    Parameters
    ----------
    rank : dimension of the subspace that E and every B lie in
    leaking : whether the second block takes more from the first than the hidden state
    """

    def __init__(self, rank: int = WIDTH, *, seed: int = 0, leaking: bool = False) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(num_hidden_layers=BLOCKS, model_type="markov", use_cache=False)
        basis = torch.linalg.qr(torch.randn(WIDTH, WIDTH)).Q[:rank]
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.embedding.weight.data = torch.randn(VOCABULARY, rank) @ basis + 1.0 * (rank == WIDTH)
        self.leaking = leaking
        self.blocks = nn.ModuleList(
            _Block(torch.randn(WIDTH, rank), 0.3 * torch.randn(rank, rank) @ basis) for _ in range(BLOCKS)
        )
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight.data = torch.randn(VOCABULARY, WIDTH)

    @property
    def base_model(self) -> nn.Module:
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        hidden = self.embedding(input_ids)
        earlier = None
        for block in self.blocks:
            hidden, update = block(hidden, earlier)
            earlier = update if self.leaking else None
        return SimpleNamespace(logits=self.head(hidden))

    def arrays(self) -> SimpleNamespace:
        """All weights in float64."""
        pairs = [(block.into.double().numpy(), block.out.double().numpy()) for block in self.blocks]
        embedding = self.embedding.weight.detach().double().numpy()
        return SimpleNamespace(
            embedding=embedding, blocks=pairs, head=self.head.weight.detach().double().numpy().T
        )


class _Block(nn.Module):
    def __init__(self, into: Tensor, out: Tensor) -> None:
        super().__init__()
        self.register_buffer("into", into)
        self.register_buffer("out", out)

    def forward(self, hidden: Tensor, earlier: Tensor | None) -> tuple[Tensor, Tensor]:
        update = torch.tanh(hidden @ self.into) @ self.out
        return hidden + update + (0 if earlier is None else 0.5 * earlier), update


def network_of(model: nn.Module) -> Network:
    return Network(model.eval(), torch.device("cpu"))


def spoken_by(model: Markov, *, sequences: int, length: int, draws: int, seed: int = 0) -> Tokens:
    """Tokens that the network itself has chosen: its loss is as low as it can be, and rises where it is disturbed."""
    generator = np.random.default_rng(seed)
    following = np.exp(log_softmax(through(model.arrays(), np.arange(VOCABULARY))))
    tokens = make_tokens([length] * sequences, draws=draws)
    ids = np.empty((sequences, length), dtype=np.int32)
    ids[:, 0] = generator.integers(VOCABULARY, size=sequences)
    for place in range(1, length):
        ids[:, place] = [generator.choice(VOCABULARY, p=following[one]) for one in ids[:, place - 1]]
    return replace(tokens, ids=ids.reshape(-1))


def states(weights: SimpleNamespace, ids: np.ndarray, *, upto: int) -> np.ndarray:
    """Rows of the residual stream behind a layer, float64."""
    hidden = weights.embedding[ids]
    for into, out in weights.blocks[:upto]:
        hidden = hidden + np.tanh(hidden @ into) @ out
    return hidden


def through(
    weights: SimpleNamespace, ids: np.ndarray, *, layer: int = 0, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Logits, from another state behind a layer if one is given."""
    hidden = states(weights, ids, upto=layer) if hidden is None else hidden
    for into, out in weights.blocks[layer:]:
        hidden = hidden + np.tanh(hidden @ into) @ out
    return hidden @ weights.head


def log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
