"""Threads of matrix products: their number, and a temporary limit if threadpoolctl is installed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


@cache
def _pools() -> ThreadpoolController | None:
    """Return the libraries that multiply, looked for once: a search of all that is loaded takes milliseconds."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def product_threads() -> int:
    """Return the number of threads of matrix products here; 1 if only threadpoolctl could tell."""
    pools = _pools()
    return max((pool["num_threads"] for pool in pools.info()), default=1) if pools else 1


def product_threads_of(count: int | None) -> AbstractContextManager:
    """Give a context in which matrix products use so many threads, None: as many as before."""
    pools = _pools()
    return pools.limit(limits=count) if pools else nullcontext()
