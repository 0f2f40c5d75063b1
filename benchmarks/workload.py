"""What a study does with one decoder, beside the forward passes that it makes and beside its peers.

python -m benchmarks.workload                    # about ten minutes on 2 cores; writes to docs/benchmarks.md
python -m benchmarks.workload --sites 1 --print  # a try: one site, nothing written
"""

from __future__ import annotations

import datetime
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from benchmarks import BENCH, REPOSITORY
from benchmarks.assets import DECODER, ROWS_PER_DRAW, activations, checkpoint
from benchmarks.extraction import Extraction, first
from benchmarks.machine import description
from benchmarks.pages import parser_of, publish, table
from lmshape.geometry import nearest_neighbors
from lmshape.heap import keep_freed_memory
from lmshape.metrics.block import Archive, measure_together, measured_family
from lmshape.metrics.layer import Layer
from lmshape.metrics.linearity import statistics as linearity_statistics
from lmshape.store.activations import Activations, Rows

PAGE = REPOSITORY / "docs/benchmarks.md"
COMMAND = "python -m benchmarks.workload"
FAMILIES = ("neighbor", "linearity", "spectral", "leading", "angular")
SITE = 15  # the block whose rows the peers search
NEIGHBORS = 64
REPEATS = 5
PASSED_TOKENS = 4096  # of the forward passes that are timed; the time is proportional to the tokens
WIDE = 2048  # width of the pairs for linearity


def seconds(task: Callable[[], object]) -> float:
    """Return the CPU seconds of a task."""
    begun = time.process_time()
    task()
    return time.process_time() - begun


def searches(x: np.ndarray, k: int, repeats: int) -> tuple[float, float]:
    """Return median CPU seconds of our search and of scikit-learn's brute force in float64, by turns."""
    double = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    peer = NearestNeighbors(n_neighbors=k, algorithm="brute", n_jobs=1).fit(double)
    ours, theirs = [], []
    for number in range(repeats + 1):
        times = seconds(lambda: nearest_neighbors(x, k)), seconds(peer.kneighbors)
        if number:  # the first compiles
            ours.append(times[0])
            theirs.append(times[1])
    return statistics.median(ours), statistics.median(theirs)


def search_section(store: Path, rows: int, repeats: int) -> str:
    """Search the rows of one draw, and isotropic noise of their shape."""
    with Activations(store) as cloud:
        site = next(site for site in cloud.sites if site.layer == SITE)
        x = cloud.rows(site).take(np.arange(rows))
    noise = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)
    lines = []
    for name, points in (("SmolLM2, block 15", x), ("isotropic noise", noise)):
        for k in (NEIGHBORS, 2):
            ours, theirs = searches(points, k, repeats)
            numbers = [f"{ours:.3f}", f"{theirs:.3f}", f"{ours / theirs:.2f}"]
            lines.append([f"{name}, {len(x)} × {x.shape[1]}, k = {k}", *numbers])
    return table("search | lmshape | scikit-learn, float64 | ratio", lines)


def families_section(store: Path, passed: Extraction, sites: int) -> str:
    """Measure all families at the last sites of a store and compare with the passes of as many tokens."""
    with Activations(store) as cloud:
        layers, tokens = sorted({site.layer for site in cloud.sites}), cloud.tokens
        every = len(cloud.sites)
    some = layers[-sites:]
    few = first(tokens, PASSED_TOKENS)
    passed.bare(few)
    whole = seconds(lambda: passed.bare(few)) * len(tokens.ids) / PASSED_TOKENS
    measured = sum(1 + (layer == layers[-1]) for layer in some)  # the final norm goes with the last block

    def spent(names: Sequence[str]) -> float:
        with tempfile.TemporaryDirectory(dir=BENCH) as folder:
            archives = [Archive(Path(folder) / f"{name}.h5", measured_family(name)) for name in names]
            options = {"first": some[0], "last": some[-1], "rows_per_draw": ROWS_PER_DRAW}
            return seconds(partial(measure_together, store, archives, **options)) / measured

    times = {**{f"{name}, alone": spent([name]) for name in FAMILIES}, "all, together": spent(FAMILIES)}
    lines = [[name, f"{own:.2f}", f"{own * every / whole:.2f}"] for name, own in times.items()]
    about = f"{len(tokens.ids)} tokens, {measured} of {every} sites measured; forward passes {whole:.0f} CPU seconds."
    return f"{about}\n\n{table('families | CPU seconds per site | / forward passes', lines)}"


def linearity_section(width: int) -> str:
    """Measure the linearity of pairs beside the two matrix products that its sums need."""
    rng = np.random.default_rng(0)
    n = 10 * width
    x = rng.standard_normal((n, width), dtype=np.float32) * np.arange(1, width + 1, dtype=np.float32) ** -0.3
    y = x + np.tanh(x[:, ::-1]) + 0.1 * rng.standard_normal((n, width), dtype=np.float32)
    sequence = np.arange(n) // 128
    kept = {"all": np.ones(n, dtype=bool), "no_sink": np.arange(n) % 128 > 0}
    layer = Layer(
        rows=Rows(y),
        other=Rows(x),
        draw=np.arange(n) * 5 // n,
        sequence=sequence,
        kept=kept,
        rows_per_draw=dict.fromkeys(kept),
    )
    a, b = x.astype(np.float64), y.astype(np.float64)
    products = seconds(lambda: (a.T @ a, a.T @ b))
    ours = seconds(lambda: linearity_statistics(layer))
    numbers = [f"{ours:.1f}", f"{products:.1f}", f"{ours / products:.1f}"]
    head = "linearity of `all` and `no_sink`, 5 draws | CPU seconds | x'x and x'y alone | ratio"
    return table(head, [[f"{n} × {width}", *numbers]])


def compare(sites: int, width: int, repeats: int) -> str:
    """Measure everything on one thread and return the section."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as a measuring job does
    store = activations(DECODER)
    with threadpool_limits(1):
        parts = [
            f"{datetime.date.today():%d %B %Y}. {description(1)} Load of the machine before: {os.getloadavg()[0]:.1f}.",
            "CPU seconds of one thread; searches are medians of runs by turns.",
            search_section(store, ROWS_PER_DRAW, repeats),
            families_section(store, Extraction.of(checkpoint(DECODER)), sites),
            linearity_section(width),
        ]
    return "\n\n".join(parts)


def main() -> None:
    """Write the section of the study's own workload, or print it."""
    parser = parser_of(str(__doc__), PAGE)
    parser.add_argument("--sites", type=int, default=31, help="layers that are measured, the last ones")
    parser.add_argument("--width", type=int, default=WIDE, help="of the pairs for linearity")
    arguments = parser.parse_args()
    publish(compare(arguments.sites, arguments.width, REPEATS), PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
