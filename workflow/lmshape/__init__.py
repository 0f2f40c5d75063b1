"""Measure the shape of a language model's activations, and how it changes during training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmshape.profiling import profile

__version__ = "0.1.0"
__all__ = ["profile"]


def __getattr__(name: str) -> Any:
    """Import `profile` when it is asked for: `lmshape.geometry` needs neither PyTorch nor pandas."""
    if name == "profile":
        from lmshape.profiling import profile

        return profile
    raise AttributeError(f"module 'lmshape' has no attribute '{name}'")
