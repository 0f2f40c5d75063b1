"""The sections of docs/benchmarks.md: who is run on what, and the tables of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.clouds import Cloud, Exact
from benchmarks.methods import Task
from benchmarks.pages import table
from benchmarks.runs import Run

Runner = Callable[[Task, str, Path, int], Run]

SEARCHES = ("product_numpy", "product_torch", "faiss", "scikit_learn")
SEARCHES_OF_MANY = ("faiss", "scikit_learn")  # k > 2: the product has been timed
# LLM-Microscope's loop over 20 000 rows would take two hours; the article takes 4096.
LOOP_ROWS = (2048, 4096, 8192)
DIMENSIONS = (("scikit_dimension", "ours_fit"), ("dadapy", "ours_fit"))
LOOP = ("llm_microscope", "ours_fit20")
SPECTRA = ("ours", "ours_spectra", "svd", "llm_microscope", "representation_geometry")


def neighbors_section(cloud: Cloud, path: Path, k: int, rate: float, runner: Runner) -> str:
    """Return the heading and the table of one cloud and one k; `rate` in GFLOP/s of float32."""
    x = np.load(path)
    exact = Exact.of(x, k=k)
    names = list(SEARCHES if k == 2 else SEARCHES_OF_MANY)
    names += ["dadapy"] if cloud.name == "decoder-15" and k == 2 else []
    ours = runner("neighbors", "ours", path, k)
    runs = [ours, *(runner("neighbors", name, path, k) for name in names)]
    work = 2e-9 * len(x) ** 2 * x.shape[1]
    rows = [_search_row(run, ours.seconds, work / rate, exact) for run in runs]
    head = "method | seconds | runs | times ours | of the product's rate | memory, MiB | largest error"
    return f"### {cloud.title}: {len(x)} × {x.shape[1]}, k = {k}\n\n{table(head, rows)}"


def _search_row(run: Run, base: float, product_seconds: float, exact: Exact) -> list[str]:
    if run.failure:
        return [f"{run.title}: {run.failure}", *["–"] * 6]
    error = f"{exact.largest_error(run.found):.0e}" if run.found.size else "–"
    share = f"{100 * product_seconds / run.seconds:.0f} %"
    return [*_timing(run, base), share, f"{run.megabytes:.0f}", error]


def dimension_section(path: Path, fewer: Sequence[Path], runner: Runner) -> str:
    """Return the table from rows to a dimension: each peer beside ours by the same formula, the loop on fewer rows."""
    rows = []
    for (name, own), place in [*((pair, path) for pair in DIMENSIONS), *((LOOP, place) for place in fewer)]:
        peer, ours = (runner("dimension", method, place, 2) for method in (name, own))
        count = str(len(np.load(place, mmap_mode="r")))
        if peer.failure or ours.failure:
            rows.append([f"{peer.title}: {peer.failure or ours.failure}", count, *["–"] * 6])
            continue
        values = [f"{peer.found[0]:.6g}", f"{ours.found[0]:.6g}"]
        seconds = [
            f"{peer.seconds:.2f}",
            str(peer.runs),
            f"{ours.seconds:.3f}",
            f"{peer.seconds / ours.seconds:.1f}",
        ]
        rows.append([peer.title, count, *values, *seconds])
    head = "method | rows | its value | ours, same formula | seconds | runs | ours | times ours"
    return table(head, rows)


def spectrum_section(path: Path, runner: Runner) -> str:
    """Return the table of anisotropy and effective rank against the decomposition of the rows in float64."""
    runs = {name: runner("spectrum", name, path, 0) for name in SPECTRA}
    base, exact = runs["ours"].seconds, runs["svd"].found
    rows = []
    for name, run in runs.items():
        if run.failure:
            rows.append([f"{run.title}: {run.failure}", *["–"] * 6])
            continue
        errors = [_error(*pair) for pair in zip(run.found, exact, strict=True)]
        errors = ["reference"] * 2 if name == "svd" else errors
        rows.append([*_timing(run, base), f"{run.megabytes:.0f}", *errors])
    head = "method | seconds | runs | times ours | memory, MiB | error of anisotropy | of effective rank"
    return table(head, rows)


def _timing(run: Run, base: float) -> list[str]:
    return [run.title, f"{run.seconds:.2f}", str(run.runs), f"{run.seconds / base:.2f}"]


def _error(found: float, exact: float) -> str:
    return "–" if np.isnan(found) else f"{abs(found / exact - 1):.0e}"
