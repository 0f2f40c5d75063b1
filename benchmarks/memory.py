"""Time and peak memory of one measuring job on a layer that is large beside the machine.

`python benchmarks/memory.py --rows 200000 --width 4096 --family spectral linearity` writes a synthetic activation
store, 6.6 GB here, measures one block of it as the workflow does, in a process of its own for each family and then for
all of them together, and prints what each process has needed: the peak of its resident memory, its wall time and its
CPU time. The store is deleted in the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lmshape.metrics.registry import MEASURED
from lmshape.site import Site
from lmshape.store.activations import ActivationWriter
from lmshape.store.tokens import Tokens

WINDOW = 512
DRAWS = 5
WRITTEN_ROWS = 4096
SINK = 3000.0  # added to one coordinate of the first row of each window, as trained decoders do


def rows(n: int, width: int, *, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (n, width) rows with a spectrum that decays as 1/i, a mean, and massive activations, in pieces."""
    rng = np.random.default_rng(seed)
    scales = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    mean = rng.standard_normal(width, dtype=np.float32)
    for start in range(0, n, WRITTEN_ROWS):
        piece = rng.standard_normal((min(WRITTEN_ROWS, n - start), width), dtype=np.float32) * scales + mean
        piece[(start + np.arange(len(piece))) % WINDOW == 0, width // 3] += SINK
        yield start, piece


def write_store(path: Path, n: int, width: int, sites: list[Site]) -> None:
    """Write the activations of one cell."""
    sequences = -(-n // WINDOW)
    tokens = Tokens(
        ids=np.random.default_rng(0).integers(0, 50_000, n),
        sequence=np.arange(n) // WINDOW,
        position=np.arange(n) % WINDOW,
        draw=np.arange(n) // WINDOW * DRAWS // sequences,
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.full(sequences, 4 * WINDOW),
        attributes={},
    )
    with ActivationWriter(path, sites=sites, width=width, tokens=tokens, attributes={"seed": 0}) as writer:
        for seed, site in enumerate(sites):
            for start, piece in rows(n, width, seed=seed):
                writer.write(site, start, piece)


def measured(
    store: Path, folder: Path, *, families: list[str], choices: list[str], rows_per_draw: int | None
) -> tuple[float, float, float]:
    """Measure block 1 in a process of its own; return wall seconds, CPU seconds and the peak of memory in GB."""
    code = (
        "from pathlib import Path\n"
        "from lmshape.heap import keep_freed_memory\n"
        "from lmshape.metrics.block import MEASURED, Archive, measure_together\n"
        "keep_freed_memory()\n"
        f"archives = [Archive(Path({str(folder)!r}, f'{{name}}.h5'), MEASURED[name]) for name in {families!r}]\n"
        f"measure_together(Path({str(store)!r}), archives, first=1, last=1, rows={choices!r}, "
        f"rows_per_draw={rows_per_draw!r})"
    )
    command = [sys.executable, "-c", code]
    started = time.monotonic()
    job = subprocess.Popen(command)
    _, status, usage = os.wait4(job.pid, 0)  # of this process alone, not the largest of all so far
    job.returncode = os.waitstatus_to_exitcode(status)
    if job.returncode:
        raise subprocess.CalledProcessError(job.returncode, command)
    seconds = time.monotonic() - started
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e9


def main() -> None:
    """Write, measure, print, delete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000, help="tokens of the layer, n")
    parser.add_argument("--width", type=int, default=4096, help="entries of a row, d")
    parser.add_argument(
        "--family", nargs="+", default=["spectral", "angular"], help="metric families, one by one"
    )
    parser.add_argument("--choices", nargs="+", default=["all", "no_sink"], help="which rows")
    parser.add_argument(
        "--rows-per-draw", type=int, help="unique rows of a draw in `neighbor`; all by default"
    )
    parser.add_argument("--folder", type=Path, help="where the store is written; the system's by default")
    arguments = parser.parse_args()
    paired = any(MEASURED[family].paired for family in arguments.family)
    sites = [*([Site("embedding", 0)] if paired else []), Site("block", 1)]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store = Path(folder) / "activations.h5"
        write_store(store, arguments.rows, arguments.width, sites)
        size = store.stat().st_size / 1e9
        print(f"{arguments.rows} rows of {arguments.width}, {len(sites)} sites, {size:.1f} GB", flush=True)
        several = [arguments.family] if len(arguments.family) > 1 else []
        for families in (*([family] for family in arguments.family), *several):
            output = Path(folder) / "-".join(families)
            output.mkdir()
            choices, most = arguments.choices, arguments.rows_per_draw
            spent = measured(store, output, families=families, choices=choices, rows_per_draw=most)
            names = " + ".join(families)
            print("{}: {:.0f} s, {:.0f} CPU s, peak {:.2f} GB resident".format(names, *spent), flush=True)


if __name__ == "__main__":
    main()
