"""The residual stream of a network, found by watching the hidden state pass, and read where it passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lmshape.errors import InputError
from lmshape.store import Site

Take = Callable[[Site, Tensor], None]
Passed = tuple[Tensor | None, Tensor | None]  # what went into a module, and what came out of it


@dataclass(frozen=True, slots=True)
class ResidualStream:
    """The places at which the residual stream can be read.

    Parameters
    ----------
    blocks : the blocks, in order
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
        """Give the hidden state of every site to `take` in the passes made meanwhile.

        `take` gets the site and the hidden state (batch, length, width), which the next block may overwrite.
        """

        def into(module: nn.Module, args: tuple, kwargs: dict) -> None:
            take(Site("embedding", 0), _entering(args, kwargs))

        def out_of(site: Site) -> Callable[[nn.Module, tuple, object], None]:
            def hook(module: nn.Module, args: tuple, output: object) -> None:
                take(site, _leaving(output))

            return hook

        with ExitStack() as hooks:
            hooks.enter_context(self.blocks[0].register_forward_pre_hook(into, with_kwargs=True))
            for site, module in zip(self.sites[1:], [*self.blocks, self.body], strict=False):
                hooks.enter_context(module.register_forward_hook(out_of(site)))
            yield


def run(model: nn.Module, ids: Tensor) -> object:
    """Forward pass of ids (batch, length) without padding."""
    return model(input_ids=ids, attention_mask=torch.ones_like(ids))


@torch.inference_mode()
def residual_stream(model: PreTrainedModel, ids: Tensor) -> ResidualStream:
    """Find the residual stream: the stack of blocks whose every output is the next one's input.

    No architecture is known by name. Of the module lists with as many entries as the config has layers, it is
    the one that a hidden state passes through from entry to entry. Whether a norm follows is read off the
    same pass: then what leaves the body is another tensor than the last block's output. (Another tensor, not
    other values: those of a diverged checkpoint are NaN on either side.)

    Parameters
    ----------
    model : network with its head
    ids : (1, length) int64, any few tokens; one pass is made with them

    Raises
    ------
    InputError
        When there is no such stack, as in ALBERT, whose layers share one block.
    """
    base, count = model.base_model, model.config.num_hidden_layers
    passed = _watch(model, base.modules(), ids)
    for stack in base.modules():
        if isinstance(stack, nn.ModuleList) and len(stack) == count and _flows_through(stack, passed):
            # some heads call a part of the base model, and not the base model itself
            body = next(part for part in base.modules() if passed[part] and stack in part.modules())
            out, last = passed[stack[-1]][0][1], passed[body][0][1]
            normed = out.shape == last.shape and not _same(out, last)
            return ResidualStream(tuple(stack), body, out.shape[-1], normed)
    raise InputError(
        f"no stack of {count} blocks was found in `{model.config.model_type}` "
        "that a hidden state passes through one after the other; this architecture cannot be read."
    )


def _watch(model: nn.Module, modules: Iterable[nn.Module], ids: Tensor) -> Mapping[nn.Module, list[Passed]]:
    """Run a pass; return what went into and came out of each module, once for each call."""
    passed: dict[nn.Module, list[Passed]] = {module: [] for module in modules}

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        passed[module].append((_entering(args, kwargs), _leaving(output)))

    with ExitStack() as hooks:
        for module in passed:
            hooks.enter_context(module.register_forward_hook(hook, with_kwargs=True))
        run(model, ids)
    return passed


def _flows_through(stack: nn.ModuleList, passed: Mapping[nn.Module, list[Passed]]) -> bool:
    if any(len(passed[block]) != 1 for block in stack):
        return False
    entries, exits = zip(*(passed[block][0] for block in stack), strict=True)
    return all(_same(out, into) for out, into in zip(exits, (*entries[1:], exits[-1]), strict=True))


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return False
    return one.shape == other.shape and one.data_ptr() == other.data_ptr()


def _entering(args: tuple, kwargs: dict) -> Tensor | None:
    return args[0] if args else kwargs.get("hidden_states")


def _leaving(output: object) -> Tensor | None:
    """Return the hidden state: the output itself, or the first of several."""
    if isinstance(output, Tensor):
        return output
    first = output[0] if isinstance(output, Mapping | tuple | list) and len(output) else None
    return first if isinstance(first, Tensor) else None
