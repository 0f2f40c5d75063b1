"""Calls of other packages beside ours on the same rows: writes the table of docs/coming_from.md.

    python -m benchmarks.coming_from
    python -m benchmarks.coming_from --print

What the table shows is what runs: each call is evaluated as it is written there, with x and y, the outputs of blocks 15
and 16 of SmolLM2-135M on 2000 tokens that are not first in their sequence. Each package runs in a process of its own,
DADApy in its own environment.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import BENCH, PEERS, REPOSITORY
from benchmarks.assets import DECODER, activations
from benchmarks.pages import parser_of, publish, table
from lmshape import geometry
from lmshape.site import Site
from lmshape.store.activations import Activations

PAGE = REPOSITORY / "docs/coming_from.md"
COMMAND = "python -m benchmarks.coming_from"
BLOCKS, ROWS = (15, 16), 2000

# Package, its call, ours, and what differs. x and y are tensors for packages that take tensors.
MICROSCOPE, REPRESENTATION = "llm_microscope", "representation_geometry.metrics"
VALUES = "metric_from_eigenvalues(torch.linalg.eigvalsh(torch.cov(x.T)).numpy())"
DISTANCES = "d = Data({}); d.compute_distances(maxk=30); d.distances[:, 1:]"
CALLS = (
    (MICROSCOPE, "calculate_anisotropy_torch(x)", "anisotropy(x)", "rounding: ours is float64"),
    (MICROSCOPE, "intrinsic_dimension(x, 'cpu')", "released_dimension(x)", "rounding"),
    (
        MICROSCOPE,
        "intrinsic_dimension(x, 'cpu')",
        "intrinsic_dimension(x)",
        "ours drops repeated rows and uses all ratios of distances, its fit the lowest fifth",
    ),
    (MICROSCOPE, "procrustes_similarity(x, y)", "released_linearity(x, y)", "rounding"),
    (
        MICROSCOPE,
        "procrustes_similarity(x, y)",
        "linearity(x, y)",
        "rounding: ours is float64, cut at the numerical rank",
    ),
    (
        MICROSCOPE,
        "procrustes_similarity_centered(x, y)",
        "linearity(x, y, residual=True)",
        "its function returns nothing",
    ),
    (
        "dadapy",
        "Data(x, maxk=3).compute_id_2NN()[0]",
        "intrinsic_dimension(x, 'twonn_fit')",
        "nothing: both fit the lowest nine tenths of the ratios; our default, maximum likelihood, uses all",
    ),
    (
        "dadapy",
        DISTANCES.format("x"),
        "nearest_neighbors(x, 30).distances",
        "it expands the square; the number is the largest relative difference",
    ),
    (
        "dadapy",
        DISTANCES.format("x.astype(float) + 1000"),
        "nearest_neighbors(x.astype(float) + 1000, 30).distances",
        "and loses digits beside large norms; ours are certified",
    ),
    (
        "dadapy",
        "d, e = Data(x), Data(y); [f.compute_distances(maxk=30) for f in (d, e)]; "
        "d.return_data_overlap(distances=e.distances, dist_indices=e.dist_indices, k=30)",
        "neighborhood_overlap(x, y, k=30)",
        "nothing",
    ),
    (
        "dadapy",
        "m = MetricComparisons(np.hstack([x, y]), maxk=1999); "
        "m.return_inf_imb_two_selected_coords([*range(576)], [*range(576, 1152)])[0]",
        "information_imbalance(x, y)",
        "nothing",
    ),
    ("skdim.id", "TwoNN().fit(x).dimension_", "intrinsic_dimension(x, 'twonn_fit')", "nothing"),
    ("skdim.id", "MLE().fit(x, n_neighbors=20).dimension_", "intrinsic_dimension(x, 'mle')", "nothing"),
    (REPRESENTATION, f"{VALUES}['d_pr']", "participation_ratio(x)", "rounding"),
    (REPRESENTATION, f"{VALUES}['d_entropy']", "effective_rank(x)", "rounding"),
    (
        REPRESENTATION,
        "linear_cka(x, y)",
        "cka(x, y, debiased=False)",
        "rounding; our default is an estimate without bias",
    ),
)
PEER = """
import importlib, json, sys
import numpy as np
package, peers, *files = sys.argv[1:5]
sys.path.append(peers)
rows = [np.load(file) for file in files]
if package in ("dadapy", "skdim.id"):
    rows = [x.astype(float) for x in rows]
else:
    import torch
    rows = [torch.from_numpy(x) for x in rows]
names = vars(importlib.import_module(package)) | {"np": np} | dict(zip("xy", rows))
found = [evaluated(call, names) for call in sys.argv[5:]]
print(json.dumps([value.tolist() if hasattr(value, "tolist") else value for value in found]))
"""


def evaluated(call: str, names: dict) -> object:
    """Return the value of the last of some statements, with these names."""
    *first, last = call.split("; ")
    exec("; ".join(first), names)
    return eval(last, names)


def rows() -> list[np.ndarray]:
    """Return the rows x and y (2000, 576), float32."""
    with Activations(activations(DECODER)) as stored:
        kept = np.flatnonzero(stored.tokens.position > 0)[:ROWS]
        return [stored.read(Site("block", block))[kept] for block in BLOCKS]


def theirs(x: np.ndarray, y: np.ndarray) -> dict[str, object]:
    """Return what the calls of the others give, each package in a process of its own."""
    found: dict[str, object] = {}
    with TemporaryDirectory() as folder:
        files = [f"{folder}/{name}.npy" for name in "xy"]
        for file, cloud in zip(files, (x, y), strict=True):
            np.save(file, cloud)
        for package in dict.fromkeys(package for package, *_ in CALLS):
            calls = list(dict.fromkeys(call for one, call, *_ in CALLS if one == package))
            python = BENCH / "dadapy/bin/python" if package == "dadapy" else sys.executable
            script = inspect.getsource(evaluated) + PEER
            command = [str(python), "-c", script, package, str(PEERS), *files, *calls]
            # else glibc keeps what LLM-Microscope's loop frees: 9 MB a row, 18 GB of 2000
            environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
            printed = subprocess.check_output(command, text=True, env=environment)
            found |= zip(calls, json.loads(printed.splitlines()[-1]), strict=True)
    return found


def cells(found: object, value: object) -> tuple[str, str]:
    """Write two numbers with the digits that tell them apart; of arrays their largest relative difference."""
    if isinstance(value, np.ndarray):
        return f"{np.max(np.abs(found - value) / value):.0e}", ""
    return "none" if found is None else f"{found:.8g}", f"{value:.8g}"


def main() -> None:
    """Write the table into its page."""
    arguments = parser_of(__doc__, PAGE).parse_args()
    x, y = rows()
    found = theirs(x, y)
    lines = []
    for package, call, own, differs in CALLS:
        numbers = cells(found[call], evaluated(own, vars(geometry) | {"x": x, "y": y}))
        lines.append([package, f"`{call}`", numbers[0], f"`{own}`", numbers[1], differs])
    head = "of | its call | gives | ours | gives | what differs, and why"
    words = table(head, lines).replace(
        "---: | ---: | ---: | ---: | ---: |", "--- | ---: | --- | ---: | --- |"
    )
    publish(words, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
