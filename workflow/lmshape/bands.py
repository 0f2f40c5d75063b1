"""The few blocks that stand for a network: an early, a middle and the last one."""

from __future__ import annotations

import math


def named_layers(blocks: int) -> dict[str, int]:
    """Few blocks that stand for a network of `blocks` blocks; equal ones are named once, the last first.

    A quarter and half of the way up (rounded up), and the last block; none where there is no block.
    """
    places = {"last": blocks, "middle": middle_layer(blocks), "early": math.ceil(blocks / 4)}
    kept: dict[str, int] = {}
    for name, layer in places.items():
        if layer > 0 and layer not in kept.values():
            kept[name] = layer
    return dict(sorted(kept.items(), key=lambda item: item[1]))


def middle_layer(blocks: int) -> int:
    """Layer that stands for the middle of a network, however few its blocks."""
    return math.ceil(blocks / 2)
