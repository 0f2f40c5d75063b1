"""How many layers' moments are held at a time; imports nothing, since the rules ask for it as well."""

from __future__ import annotations

MOMENT_BYTES = 2**30


def layer_bytes(width: int, draws: int) -> int:
    """Bytes of the moments of a layer: a matrix in float64 for each draw, sinks apart."""
    return 16 * draws * width**2


def layers_at_once(width: int, draws: int) -> int:
    """Layers whose moments come from one pass: as many as 1 GiB holds, one at least."""
    return max(1, MOMENT_BYTES // layer_bytes(width, draws))
