"""Download by Xet in a separate process, since hf_xet cannot be stopped from within when it hangs.

The process gets its order as a line of JSON, and answers in lines: how many bytes came so far, in the end the path of
the file or why there is none. It ends with the process that started it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO, Any

from huggingface_hub import constants, hf_hub_download
from tqdm import tqdm

from lmshape.downloading import reason_of
from lmshape.progress import progress

# Without a byte, after which Xet is given up; on a slow line bytes are counted as they come.
SILENCE_SECONDS = 180.0
START_SECONDS = 120.0  # for the first line: a busy machine, a slow disk


class XetFailed(ConnectionError):
    """A file does not come by Xet, for whatever reason."""


def xet_is_there() -> bool:
    """Whether hf_xet is installed and not turned off."""
    return find_spec("hf_xet") is not None and not constants.HF_HUB_DISABLE_XET


@contextmanager
def without_xet() -> Iterator[None]:
    """Keep the hub's library from Xet in this process."""
    before, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def bring_by_xet(order: Mapping[str, Any], *, size: int) -> Path:
    """Let a process of its own download a file of the hub, and return where it lies.

    Parameters
    ----------
    order : arguments of `huggingface_hub.hf_hub_download`
    size : of the file, in bytes

    Raises
    ------
    XetFailed
        When the process says so, ends without a word, or no byte comes for `SILENCE_SECONDS`.
    """
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
    }
    with (
        progress(size, description=Path(str(order["filename"])).name, unit="B") as bar,
        subprocess.Popen([sys.executable, "-m", __name__], text=True, **pipes) as process,
    ):
        try:
            return _watched(process, order, bar)
        finally:
            process.kill()


def _watched(process: subprocess.Popen[str], order: Mapping[str, Any], bar: tqdm) -> Path:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    lines: Queue[str] = Queue()
    Thread(target=_pass_on, args=(process.stdout, lines), daemon=True).start()
    patience = START_SECONDS
    try:
        while line := lines.get(timeout=patience):
            patience, told = SILENCE_SECONDS, json.loads(line)
            if "path" in told:
                return Path(told["path"])
            if "failed" in told:
                raise XetFailed(told["failed"])
            bar.update(told["bytes"] - bar.n)
    except Empty:
        raise XetFailed(f"no byte came for {patience:g} s") from None
    raise XetFailed(f"its process ended with {process.wait()}")


def _pass_on(stream: IO[str], lines: Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


class _Told(tqdm):
    """The hub library's progress bar, of received or of written bytes: each step is told to the other process."""

    most = 0

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "file": open(os.devnull, "w", encoding="utf-8")})

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        _Told.most = max(_Told.most, int(self.n))
        _tell(bytes=_Told.most)
        return shown


def _tell(**words: int | str) -> None:
    print(json.dumps(words), flush=True)


def _end_with_the_other_process() -> None:
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Download the file that the first line of standard input orders."""
    order = json.loads(sys.stdin.readline())
    Thread(target=_end_with_the_other_process, daemon=True).start()
    _tell(bytes=0)
    try:
        _tell(path=hf_hub_download(**order, tqdm_class=_Told))
    except Exception as error:  # RuntimeError is all that hf_xet says, and others may come from around it
        _tell(failed=reason_of(error))


if __name__ == "__main__":
    main()
