"""Forward passes in which the residual stream behind a site is another one, whatever the architecture.

No architecture is known by name: the places are those that `lmshape.networks.residual` has found, and what a block
returns, a tensor, a tuple or a mapping, comes back with another hidden state in it and all else as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lmshape.networks.residual import ResidualStream, run
from lmshape.store import Site

Change = Callable[[Tensor], Tensor]


@contextmanager
def replaced(stream: ResidualStream, site: Site, change: Change) -> Iterator[None]:
    """Replace the hidden state of a site in the passes made meanwhile, whole ones.

    Parameters
    ----------
    stream : of the network
    site : the embedding or a block
    change : makes of the hidden state (batch, length, width) the one that goes on; it must leave what it gets as it is
    """
    _check(stream, site)
    layers = len(stream.blocks)
    calls = 0  # of blocks: only their number tells the layers of one shared block apart

    def into(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        return _entering_with(args, kwargs, change) if calls % layers == 0 and site.layer == 0 else None

    def out_of_block(module: nn.Module, args: tuple, output: object) -> object:
        nonlocal calls
        calls += 1
        is_here = (calls - 1) % layers + 1 == site.layer
        return leaving_with(output, change(_hidden(output))) if is_here else None

    with ExitStack() as hooks:
        hooks.enter_context(stream.blocks[0].register_forward_pre_hook(into, with_kwargs=True))
        for block in dict.fromkeys(stream.blocks):
            hooks.enter_context(block.register_forward_hook(out_of_block))
        yield


@dataclass(frozen=True, slots=True, eq=False)
class Shortcut:
    """The way from a site to the output without computing the blocks before it.

    Those blocks are called and give back what they get; embedding, masks, positions, final norm and head are computed
    as always. Where a later block takes more from an earlier one than the hidden state, this is not what the whole pass
    gives: whoever goes this way compares the two first.

    Attributes
    ----------
    stream : of the network
    outputs : what each block returned in a pass, for its form
    """

    stream: ResidualStream
    outputs: Sequence[object]

    @classmethod
    @torch.inference_mode()
    def of(cls, stream: ResidualStream, model: nn.Module, ids: Tensor) -> Shortcut:
        """Make a pass of a few ids (1, length) to see what blocks return."""
        outputs: list[object] = []
        with ExitStack() as hooks:
            for block in dict.fromkeys(stream.blocks):
                seen = block.register_forward_hook(lambda module, args, output: outputs.append(output))
                hooks.enter_context(seen)
            run(model, ids)
        return cls(stream, outputs)

    @contextmanager
    def resumed(self, site: Site, state: Tensor) -> Iterator[None]:
        """Let the passes made meanwhile go on from a state (batch, length, width) behind a site.

        The next block may overwrite the state.
        """
        if site.layer == 0:
            with replaced(self.stream, site, lambda hidden: state):
                yield
            return
        _check(self.stream, site)
        with ExitStack() as patches:
            calls = _Calls()
            for block in dict.fromkeys(self.stream.blocks):
                patches.enter_context(_forward_as(block, self._skipping(block, site, state, calls)))
            yield

    def _skipping(self, block: nn.Module, site: Site, state: Tensor, calls: _Calls) -> Callable[..., object]:
        """Return a block's forward that computes nothing up to the site."""
        whole = block.forward

        def forward(*args: object, **kwargs: object) -> object:
            layer = calls.next_layer(len(self.stream.blocks))
            if layer > site.layer:
                return whole(*args, **kwargs)
            hidden = state if layer == site.layer else _into(args, kwargs)
            return leaving_with(self.outputs[layer - 1], hidden)

        return forward


@dataclass(slots=True)
class _Calls:
    """How many blocks have been called."""

    count: int = 0

    def next_layer(self, layers: int) -> int:
        self.count += 1
        return (self.count - 1) % layers + 1


@contextmanager
def _forward_as(block: nn.Module, forward: Callable[..., object]) -> Iterator[None]:
    """Give a block another forward; one that was set on the module, as for weights on the disk, is set again."""
    before = vars(block).get("forward")
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before


def leaving_with(output: object, hidden: Tensor) -> object:
    """Return what a block returned with another hidden state in it: the output itself, or the first of several."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, Mapping):
        changed = copy.copy(output)
        changed[next(iter(output))] = hidden
        return changed
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: hidden})
    return type(output)([hidden, *output[1:]])


def _hidden(output: object) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return next(iter(output.values())) if isinstance(output, Mapping) else output[0]


def _into(args: tuple, kwargs: Mapping[str, object]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _entering_with(args: tuple, kwargs: dict, change: Change) -> tuple[tuple, dict]:
    if args:
        return (change(args[0]), *args[1:]), kwargs
    return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}


def _check(stream: ResidualStream, site: Site) -> None:
    if site not in stream.sites or site.name == "final_norm":
        raise ValueError(f"`site` is {site}; it must be the embedding or one of {len(stream.blocks)} blocks.")
