"""Threads of matrix products: their number, and a temporary limit if threadpoolctl is installed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

try:
    import threadpoolctl
except ImportError:
    threadpoolctl = None


def product_threads() -> int:
    """Return the number of threads of matrix products here; 1 if only threadpoolctl could tell."""
    pools = threadpoolctl.threadpool_info() if threadpoolctl else ()
    return max((pool["num_threads"] for pool in pools if pool["user_api"] == "blas"), default=1)


def product_threads_of(count: int | None) -> AbstractContextManager:
    """Give a context in which matrix products use so many threads, None: as many as before."""
    return threadpoolctl.threadpool_limits(count, user_api="blas") if threadpoolctl else nullcontext()
