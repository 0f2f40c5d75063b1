"""The residual stream of a network: found by tracing the hidden state, read and replaced by hooks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.site import Site

Take = Callable[[Site, Tensor], None]
Change = Callable[[Tensor], Tensor]
Input = tuple[tuple, dict]  # positional arguments of a module's call, and keyword arguments


@dataclass(frozen=True, slots=True)
class ResidualStream:
    """The places at which the residual stream can be read.

    Parameters
    ----------
    blocks : the block of each layer, in order; the same one again where layers share their weights (ALBERT)
    body : the network without its head: the largest module around the blocks that a pass calls
    width : entries of a hidden state
    normed : whether a norm follows the last block (BERT has none)
    """

    blocks: tuple[nn.Module, ...]
    body: nn.Module
    width: int
    normed: bool

    @property
    def sites(self) -> list[Site]:
        """Embedding, blocks and, where there is one, final norm."""
        blocks = [Site("block", layer) for layer in range(1, len(self.blocks) + 1)]
        final = [Site("final_norm", len(self.blocks))] if self.normed else []
        return [Site("embedding", 0), *blocks, *final]

    @contextmanager
    def observed(self, take: Take) -> Iterator[None]:
        """Give the hidden state of every site to `take` in the passes made meanwhile, whole ones.

        `take` gets the site and the hidden state (batch, length, width), which the next block may overwrite.
        """

        def enter(args: tuple, kwargs: dict) -> None:
            take(Site("embedding", 0), _entering(args, kwargs))

        def leave(layer: int, output: Any) -> None:
            take(Site("block", layer), _leaving(output))

        def leave_body(module: nn.Module, args: tuple, output: Any) -> None:
            take(self.sites[-1], _leaving(output))

        with ExitStack() as hooks:
            hooks.enter_context(self.hooked(enter, leave))
            if self.normed:
                hooks.enter_context(self.body.register_forward_hook(leave_body))
            yield

    @contextmanager
    def hooked(
        self, enter: Callable[[tuple, dict], Input | None], leave: Callable[[int, Any], Any]
    ) -> Iterator[None]:
        """Call hooks in the passes made meanwhile, whole ones; what they return other than None takes the place.

        Parameters
        ----------
        enter : gets what goes into the first layer, positional and keyword arguments
        leave : gets a layer, from 1, and what its block returns
        """
        calls = 0  # only the number of calls tells the layers of one shared block apart

        def into(module: nn.Module, args: tuple, kwargs: dict) -> Input | None:
            return enter(args, kwargs) if calls % len(self.blocks) == 0 else None

        def out_of_block(module: nn.Module, args: tuple, output: Any) -> Any:
            nonlocal calls
            calls += 1
            return leave((calls - 1) % len(self.blocks) + 1, output)

        with ExitStack() as hooks:
            hooks.enter_context(self.blocks[0].register_forward_pre_hook(into, with_kwargs=True))
            for block in dict.fromkeys(self.blocks):
                hooks.enter_context(block.register_forward_hook(out_of_block))
            yield


def run(model: nn.Module, ids: Tensor) -> Any:
    """Forward pass of ids (batch, length) without padding."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids))


@torch.no_grad()  # not inference mode: a model may keep of this pass what a backward pass needs later
def residual_stream(model: PreTrainedModel, ids: Tensor) -> ResidualStream:
    """Find the residual stream: as many calls as there are layers, each on what the one before gave out.

    No architecture is known by name. A layer is a call of an entry of a module list, or of a single module, so
    that layers may share one block; of all lists and modules, the stream is where the calls make a chain. Entries
    of a list that text does not call, as those that attend to images, are not layers. Whether a norm follows is
    read off the same pass: then what leaves the body is another tensor than the last block's output. (Another
    tensor, not other values: those of a diverged checkpoint are NaN on either side.)

    Parameters
    ----------
    model : network with its head
    ids : (1, length) int64, any few tokens; one pass is made with them

    Raises
    ------
    InputError
        When there is no such chain, or what passes along it is not (batch, length, width).
    """
    base, layers = model.base_model, text_config(model.config).num_hidden_layers
    calls = _watch(model, list(base.modules()), ids)
    for stack in _candidates(base, layers):
        chain = [call for call in calls if call.module in stack]
        whole = len(chain) == layers or (len(stack) == layers and 0 < len(chain) < layers)
        last = chain[-1].out if whole and _is_chain(chain) else None
        if last is not None:
            _check_shape(last, ids, model.config.model_type)
            blocks = tuple(call.module for call in chain)
            body = _body(base, blocks, calls)
            normed = _alike(last, body.out) and not _same(last, body.out)
            return ResidualStream(blocks, body.module, last.shape[-1], normed)
    raise InputError(
        f"no stack of {layers} blocks was found in `{model.config.model_type}` "
        "that a hidden state passes through one after the other; this architecture cannot be read."
    )


def text_config(config: Any) -> Any:
    """Return the part of a configuration that is of text: of a vision-language model, that of its text model."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def _check_shape(state: Tensor, ids: Tensor, architecture: str) -> None:
    """Refuse several streams beside each other, padded sequences, and other orders of the axes."""
    if state.ndim != 3 or state.shape[:2] != ids.shape:
        raise InputError(
            f"the blocks of `{architecture}` pass on a tensor of shape {tuple(state.shape)} for tokens of shape "
            f"{tuple(ids.shape)}, and not (batch, length, width); this architecture cannot be read."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Call:
    """One call of a module in a pass, and the hidden states that went in and came out."""

    module: nn.Module
    into: Tensor | None
    out: Tensor | None


def _watch(model: nn.Module, modules: Sequence[nn.Module], ids: Tensor) -> list[_Call]:
    """Run a pass; return the calls of the modules in the order in which they ended."""
    calls: list[_Call] = []

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        calls.append(_Call(module, _tensor(_entering(args, kwargs)), _tensor(_leaving(output))))

    with ExitStack() as hooks:
        for module in modules:
            hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        run(model, ids)
    return calls


def _candidates(base: nn.Module, layers: int) -> Iterator[set[nn.Module]]:
    """Yield the modules whose calls may be the layers, outer ones first: those of a list, then single ones."""
    lists = [module for module in base.modules() if isinstance(module, nn.ModuleList)]
    yield from (set(entries) for entries in lists)
    if layers > 1:  # any module at all is called once
        yield from ({module} for module in base.modules())


def _is_chain(calls: Sequence[_Call]) -> bool:
    through = all(_alike(call.into, call.out) for call in calls)
    return through and all(_same(one.out, following.into) for one, following in pairwise(calls))


def _body(base: nn.Module, blocks: Sequence[nn.Module], calls: Sequence[_Call]) -> _Call:
    """Return the call of the largest part around the blocks that gives a hidden state, as a head takes it."""
    last = {call.module: call for call in calls}
    state = last[blocks[-1]].out
    around = (part for part in base.modules() if part in last and set(blocks) <= set(part.modules()))
    return next((last[part] for part in around if _alike(last[part].out, state)), last[blocks[-1]])


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and one.shape == other.shape


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return False
    return one.shape == other.shape and one.device == other.device and one.data_ptr() == other.data_ptr()


def _tensor(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) else None


def _entering(args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Return what a module is given first: a block, the hidden state."""
    return args[0] if args else kwargs.get("hidden_states")


def _leaving(output: Any) -> Any:
    """Return what a module gives: a block, the hidden state itself, or as the first of several."""
    values = tuple(output.values()) if isinstance(output, Mapping) else output
    return values[0] if isinstance(values, tuple | list) and values else output


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

    def enter(args: tuple, kwargs: dict) -> Input | None:
        if site.layer > 0:
            return None
        changed = change(_entering(args, kwargs))
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def leave(layer: int, output: Any) -> Any:
        return leaving_with(output, change(_leaving(output))) if layer == site.layer else None

    with stream.hooked(enter, leave):
        yield


@dataclass(frozen=True, slots=True, eq=False)
class Shortcut:
    """The way from a site to the output without computing the blocks before it.

    Those blocks are called and give back what they get; embedding, masks, positions, final norm and head are computed
    as always. Where a later block takes more from an earlier one than the hidden state, this is not what the whole pass
    gives: callers on this path compare the two first.

    Attributes
    ----------
    stream : of the network
    outputs : what each block returned in a pass, for its form
    """

    stream: ResidualStream
    outputs: Sequence[Any]

    @classmethod
    @torch.inference_mode()
    def of(cls, stream: ResidualStream, model: nn.Module, ids: Tensor) -> Shortcut:
        """Make a pass of a few ids (1, length) to see what blocks return."""
        outputs: list[Any] = []
        with stream.hooked(lambda args, kwargs: None, lambda layer, output: outputs.append(output)):
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
            calls = count()
            for block in dict.fromkeys(self.stream.blocks):
                patches.enter_context(_forward_as(block, self._skipping(block, site, state, calls)))
            yield

    def _skipping(
        self, block: nn.Module, site: Site, state: Tensor, calls: Iterator[int]
    ) -> Callable[..., Any]:
        """Return a block's forward that computes nothing up to the site; `calls` numbers those of all blocks."""
        whole = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            layer = next(calls) % len(self.stream.blocks) + 1
            if layer > site.layer:
                return whole(*args, **kwargs)
            hidden = state if layer == site.layer else _entering(args, kwargs)
            return leaving_with(self.outputs[layer - 1], hidden)

        return forward


@contextmanager
def _forward_as(block: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Give a block another forward; one that was set on the module, as for weights on the disk, is set again."""
    before = vars(block).get("forward")
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before


def leaving_with(output: Any, hidden: Tensor) -> Any:
    """Return what a block returned with another hidden state in it: the output itself, or the first of several."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, Mapping):
        changed: Any = copy.copy(output)
        changed[next(iter(output))] = hidden
        return changed
    if hasattr(output, "_replace"):  # a named tuple
        return output._replace(**{output._fields[0]: hidden})
    return type(output)([hidden, *output[1:]])


def _check(stream: ResidualStream, site: Site) -> None:
    if site not in stream.sites or site.name == "final_norm":
        raise ValueError(f"`site` is {site}; it must be the embedding or one of {len(stream.blocks)} blocks.")
