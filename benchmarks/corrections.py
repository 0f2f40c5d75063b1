"""What each correction of the released protocol changes on a real decoder: writes docs/corrections.md.

    python -m benchmarks.corrections
    python -m benchmarks.corrections --print

The article's sampling (128 chunks of 512 characters, all positions) on SmolLM2-135M. The first column of each table
is the released protocol; every further one changes one thing, from the left to the right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks import REPOSITORY
from benchmarks.assets import DECODER, activations
from benchmarks.pages import parser_of, publish, table
from lmshape.geometry import (
    Estimate,
    anisotropy,
    covariance_eigenvalues,
    jackknife,
    nearest_neighbors,
    one_per_type,
    over_draws,
    sink_rows,
    twonn_fit_from_distances,
    twonn_from_distances,
    unique_rows,
)
from lmshape.geometry.nulls import gaussian_surrogate
from lmshape.geometry.released import (
    RELEASED_ROWS,
    released_anisotropy,
    released_dimension,
    released_linearity,
)
from lmshape.metrics.layer import Layer
from lmshape.metrics.linearity import statistics
from lmshape.metrics.registry import METRICS
from lmshape.store.activations import Activations, Rows
from lmshape.store.tokens import Tokens

PAGE = REPOSITORY / "docs/corrections.md"
COMMAND = "python -m benchmarks.corrections"
LAYERS = (0, 1, 2, 5, 8, 10, 12, 15, 20, 25, 28, 29, 30)
SEED = 0

DIMENSION_HEAD = (
    "layer | released | duplicates dropped | all rows, in draws | maximum likelihood | `no_sink` | `one_per_type` | "
    "surrogate"
)
ANISOTROPY_HEAD = (
    "layer | released | all rows, in draws | `no_sink` | `no_sink`, standardized | standardized | sink rows"
)
LINEARITY_HEAD = (
    "block | released | rank cut | residual | held out | residual, held out | residual, held out, `no_sink` | "
    "null, d/n"
)
# in the order of the columns after the released one
LINEARITIES = ("linearity", "linearity_residual", "linearity_held_out", "linearity_residual_held_out")

Estimator = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True, slots=True)
class Site:
    """The rows of a layer (n, d), their tokens, and which of them are not sinks."""

    x: np.ndarray
    tokens: Tokens
    no_sink: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, tokens: Tokens) -> Site:
        """Find the sinks of a layer."""
        return cls(x, tokens, ~sink_rows(x, tokens.position))


def fit20(first: np.ndarray, second: np.ndarray) -> float:
    """Fit the lowest 20 % of the ratios, as released."""
    return twonn_fit_from_distances(first, second, share=0.2)


def unique_draws(site: Site, kept: np.ndarray) -> list[np.ndarray]:
    """Return the unique rows of each draw among those kept, as many in each: (m, d) of K draws."""
    draws = [site.x[kept & (site.tokens.draw == draw)] for draw in np.unique(site.tokens.draw)]
    draws = [rows[unique_rows(rows)] for rows in draws]
    size = min(map(len, draws))
    return [rows[:size] for rows in draws]


def dimension(clouds: list[np.ndarray], *estimators: Estimator) -> list[Estimate]:
    """Return the estimates over draws that each estimator makes of one neighbor search in each draw."""
    found = [nearest_neighbors(cloud, 2).distances for cloud in clouds]
    return [over_draws([estimator(*distances.T) for distances in found]) for estimator in estimators]


def surrogate(clouds: list[np.ndarray]) -> list[np.ndarray]:
    """Return Gaussian clouds of the same sizes and the covariance of all."""
    eigenvalues = covariance_eigenvalues(np.concatenate(clouds))
    return [gaussian_surrogate(eigenvalues, len(cloud), seed=(SEED, j)) for j, cloud in enumerate(clouds)]


def dimension_row(site: Site) -> list[str]:
    """Return the cells of one layer: from the released dimension to what its spectrum alone would give."""
    first = site.x[:RELEASED_ROWS]
    distinct = nearest_neighbors(first, 2).distances
    every = unique_draws(site, np.ones(len(site.x), dtype=bool))
    fitted, likely = dimension(every, fit20, twonn_from_distances)
    types = one_per_type(site.tokens.ids, site.tokens.draw, seed=SEED)
    (sinkless,) = dimension(unique_draws(site, site.no_sink), twonn_from_distances)
    (typed,) = dimension(unique_draws(site, types), twonn_from_distances)
    (gaussian,) = dimension(surrogate(every), twonn_from_distances)
    single = [f"{released_dimension(first):.2f}", f"{fit20(*distinct.T):.2f}"]
    return [*single, *(shown(found, 2) for found in (fitted, likely, sinkless, typed, gaussian))]


def anisotropy_row(site: Site) -> list[str]:
    """Return the cells of one layer: from the released anisotropy to the controls."""
    every = np.ones(len(site.x), dtype=bool)
    plain, standardized = anisotropies(site, every)
    sinkless, both = anisotropies(site, site.no_sink)
    released = f"{released_anisotropy(site.x):.3f}"
    found = [shown(estimate, 3) for estimate in (plain, sinkless, both, standardized)]
    return [released, *found, str(int((~site.no_sink).sum()))]


def anisotropies(site: Site, kept: np.ndarray) -> tuple[Estimate, Estimate]:
    """Return the anisotropy of the rows kept, and that after dividing each coordinate by its deviation."""
    draw = site.tokens.draw
    subsets = [site.x[kept], *(site.x[kept & (draw != left_out)] for left_out in np.unique(draw))]
    plain, standardized = (
        [anisotropy(rows, standardize=standardize) for rows in subsets] for standardize in (False, True)
    )
    return tuple(jackknife(values[0], values[1:], bounds=(0.0, 1.0)) for values in (plain, standardized))


def linearity_row(x: np.ndarray, y: np.ndarray, tokens: Tokens) -> list[str]:
    """Return the cells of one block, its input x and its output y (n, d): from the released linearity to the null."""
    sinks = sink_rows(x, tokens.position) | sink_rows(y, tokens.position)
    layer = Layer(
        rows=Rows(y),
        other=Rows(x),
        draw=tokens.draw,
        sequence=tokens.sequence,
        kept={"all": np.ones(len(x), dtype=bool), "no_sink": ~sinks},
        rows_per_draw={},
    )
    (arrays, _), (sinkless, _) = statistics(layer).values()
    found = [METRICS[name].compute(arrays) for name in LINEARITIES]
    found.append(METRICS[LINEARITIES[-1]].compute(sinkless))
    null = METRICS["linearity_null"].compute(arrays).value
    return [f"{released_linearity(x, y):.3f}", *(shown(estimate, 3) for estimate in found), f"{null:.3f}"]


def linearity_rows(reader: Activations) -> list[list[str]]:
    """Return one row of the table for each block of `LAYERS`; the embedding and the final norm have none."""
    places = {place.path: place for place in reader.sites}
    found = []
    for block in filter(None, LAYERS):
        x, y = (reader.read(places[f"layers/{layer:02d}"]) for layer in (block - 1, block))
        found.append([str(block), *linearity_row(x, y, reader.tokens)])
        print(f"block {block}", flush=True)
    return found


def shown(estimate: Estimate, digits: int) -> str:
    """Return an estimate with its interval."""
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def tables() -> str:
    """Return the three tables, one row per layer, and what they were made of."""
    dimensions, anisotropies_shown = [], []
    with Activations(activations(DECODER, "paper")) as reader:
        tokens = reader.tokens
        wanted = {f"layers/{layer:02d}": str(layer) for layer in LAYERS} | {"final_norm": "final norm"}
        for place in reader.sites:
            if place.path not in wanted:
                continue
            site = Site.of(reader.read(place), tokens)
            dimensions.append([wanted[place.path], *dimension_row(site)])
            anisotropies_shown.append([wanted[place.path], *anisotropy_row(site)])
            print(f"layer {wanted[place.path]}", flush=True)
        linearities = linearity_rows(reader)
    made_of = (
        f"{len(tokens.ids)} tokens of 128 chunks, in {len(np.unique(tokens.draw))} draws of whole chunks; "
        f"released: the first {RELEASED_ROWS} rows for the dimension, all for the others."
    )
    parts = [made_of, "## Intrinsic dimension (TwoNN)", table(DIMENSION_HEAD, dimensions)]
    parts += ["## Anisotropy", table(ANISOTROPY_HEAD, anisotropies_shown)]
    return "\n\n".join([*parts, "## Linearity", table(LINEARITY_HEAD, linearities)])


def main() -> None:
    """Write the tables into the page, or print them."""
    arguments = parser_of(__doc__, PAGE).parse_args()
    publish(tables(), PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
