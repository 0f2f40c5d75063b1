"""Write a layer while the next one is computed."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor

from lmshape.store import ActivationWriter, Site

WAITING = 4  # matrices that may wait for the disk: bounds the memory when it is slower than the network


class BackgroundWriter:
    """Put hidden states into an activation store from a thread of its own.

    A write that fails raises its error at a later `take`, or at the end.
    """

    def __init__(self, writer: ActivationWriter) -> None:
        self._writer = writer
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error is not None)
        if error is None:
            for write in self._waiting:
                write.result()

    def take(self, rows: np.ndarray, site: Site, hidden: Tensor) -> None:
        """Accept the hidden state (batch, length, width) of the tokens at `rows` (batch, length)."""
        # a copy: later blocks may work in place
        values = hidden.to("cpu", torch.float32, copy=True).flatten(0, -2).numpy()
        self._waiting.append(self._thread.submit(self._write, site, rows.ravel(), values))
        if len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def _write(self, site: Site, rows: np.ndarray, values: np.ndarray) -> None:
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        for start, run in zip(rows[np.r_[0, ends]], np.split(values, ends), strict=True):
            self._writer.write(site, int(start), run)
