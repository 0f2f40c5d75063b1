"""How often intervals hold what a metric reads on average at this n: 95 % of samples, by their own word.

The rows are those of a made-up layer: tokens of a vocabulary of Zipf's shape, in sequences of which each has a
topic, a scale and rows that follow each other, with tails heavier than a Gaussian's; 5 draws of 8 sequences. The
truth is the mean over all samples. A check of every metric over 400 samples of seven such layers is behind the
choices of `lmshape.metric`; here a few metrics of each family stand for the others.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lmshape.geometry.angles import leave_one_out_mean_cosine
from lmshape.geometry.dimension import levina_bickel, twonn
from lmshape.geometry.gride import gride
from lmshape.geometry.linearity import linearity
from lmshape.geometry.neighbors import nearest_neighbors
from lmshape.geometry.norms import leave_one_out_norms
from lmshape.geometry.resample import Estimate, jackknife, over_draws
from lmshape.geometry.spectrum import Spectra, leave_one_out_spectra
from lmshape.metrics import METRICS

SAMPLES = 200
DRAWS, SEQUENCES, LENGTH, WIDTH = 5, 8, 20, 20
TYPES, TOPIC_AXES = 200, 5
FOLLOW = 0.6  # correlation of a row with the one before it
FREEDOM = 5  # of Student's t: moderately heavy tails
POOLED = (
    "anisotropy",
    "anisotropy_standardized",
    "effective_rank",
    "participation_ratio_corrected",
    "alpha_req",
    "rogue_share_1",
    "mean_cosine",
    "mean_cosine_centered",
    "norm_median",
)
DECIMATIONS = (2, 4, 8)
BY_DRAW = ("twonn", "gride_16", "levina_bickel", *(f"twonn_decimated_{share}" for share in DECIMATIONS))
COMPONENTS = ("components_90", "components_95")
# Binomial error of a coverage of 95 % over 200 samples is 1.5 %: 90 and 99 % leave 3.2 and 2.6 of them. With 16
# coverages that are exact, one is out of these limits in one of 40 choices of the seed; the seed is fixed.
LEAST, MOST = 0.90, 0.99
SEED = 0


class Layer:
    """A network that stays the same; its samples differ in the sequences alone."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self.scale = np.arange(1, WIDTH + 1) ** -0.5
        self.types = rng.standard_normal((TYPES, WIDTH)) * self.scale
        self.mean = 0.3 * rng.standard_normal(WIDTH)
        self.weights = rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
        frequency = 1 / np.arange(3, TYPES + 3)
        self.frequency = frequency / frequency.sum()

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Return rows (n, d) in the order of draw, sequence and position."""
        shape = (DRAWS * SEQUENCES, LENGTH, WIDTH)
        context = rng.standard_normal(shape) * self.scale
        for position in range(1, LENGTH):
            fresh = np.sqrt(1 - FOLLOW**2) * context[:, position]
            context[:, position] = FOLLOW * context[:, position - 1] + fresh
        tails = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (*shape[:2], 1)))
        volume = np.exp(0.15 * rng.standard_normal((len(context), 1, 1)))
        topic = rng.standard_normal((len(context), 1, WIDTH)) * self.scale * (np.arange(WIDTH) < TOPIC_AXES)
        tokens = self.types[rng.choice(TYPES, shape[:2], p=self.frequency)]
        return (self.mean + tokens + 0.5 * topic + 0.7 * volume * tails * context).reshape(-1, WIDTH)

    def update(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return what a block adds: in part linear in its input, in part not, in part noise."""
        noise = 0.3 * rng.standard_normal(x.shape)
        return 0.3 * x @ self.weights + 0.7 * np.tanh(1.5 * x @ self.weights.T) + noise


def estimates(layer: Layer, rng: np.random.Generator) -> dict[str, Estimate]:
    x = layer.sample(rng)
    draw = np.repeat(np.arange(DRAWS), SEQUENCES * LENGTH)
    return {**pooled(x, draw), **by_draw(x, draw), "linearity": linear(x, layer.update(x, rng), draw)}


def pooled(x: np.ndarray, draw: np.ndarray) -> dict[str, Estimate]:
    spectra, norms = leave_one_out_spectra(x, draw), leave_one_out_norms(x, draw)
    arrays = {field.name: getattr(spectra, field.name) for field in fields(Spectra)} | {
        "mean_cosine": leave_one_out_mean_cosine(x, draw, center=False),
        "mean_cosine_centered": leave_one_out_mean_cosine(x, draw, center=True),
        "norm_median": np.array([part.norm_median for part in norms]),
        "norm_max": np.array([part.norm_max for part in norms]),
    }
    return {name: METRICS[name].compute(arrays) for name in (*POOLED, *COMPONENTS, "norm_max")}


def by_draw(x: np.ndarray, draw: np.ndarray) -> dict[str, Estimate]:
    clouds = [x[draw == j] for j in range(DRAWS)]
    found = [nearest_neighbors(cloud, 20).distances for cloud in clouds]
    return {
        "twonn": over_draws([twonn(r[:, 0], r[:, 1]) for r in found]),
        "gride_16": over_draws([gride(r[:, 7], r[:, 15], n1=8, n2=16) for r in found]),
        "levina_bickel": over_draws([levina_bickel(r) for r in found]),
        **{f"twonn_decimated_{share}": decimated(clouds, share) for share in DECIMATIONS},
    }


def decimated(clouds: list[np.ndarray], share: int) -> Estimate:
    """Take one row in so many of each draw, at random, the same in every draw, as the neighbor family does."""
    order = np.random.default_rng(SEED).permutation(SEQUENCES * LENGTH)
    parts = [cloud[np.sort(order[: len(order) // share])] for cloud in clouds]
    return over_draws([twonn(*nearest_neighbors(part, 2).distances.T) for part in parts])


def linear(x: np.ndarray, update: np.ndarray, draw: np.ndarray) -> Estimate:
    kept = [np.ones(len(x), dtype=bool), *(draw != j for j in range(DRAWS))]
    value, *left_out = (linearity(x[rows], (x + update)[rows], residual=True) for rows in kept)
    return jackknife(value, left_out)


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Estimate]]:
    layer, rng = Layer(), np.random.default_rng(SEED)
    with threadpool_limits(1, user_api="blas"):  # products of 20 columns: threads would only wait
        found = [estimates(layer, rng) for _ in range(SAMPLES)]
    return {name: [sample[name] for sample in found] for name in found[0]}


def coverage(estimates: list[Estimate]) -> float:
    truth = np.mean([estimate.value for estimate in estimates])
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


@pytest.mark.parametrize("name", [*POOLED, *BY_DRAW, "linearity"])
def test_an_interval_covers_as_often_as_it_says(name: str, samples: dict[str, list[Estimate]]) -> None:
    assert LEAST <= coverage(samples[name]) <= MOST


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_interval_of_a_whole_number_covers_at_least_as_often(name: str, samples: dict) -> None:
    """Not more than its rounding allows: where the draws agree to a part of a component, it is all of the error."""
    assert coverage(samples[name]) >= LEAST
    assert max(estimate.high - estimate.low for estimate in samples[name]) < 0.25 * WIDTH


def test_a_maximum_has_no_interval_as_none_would_cover(samples: dict[str, list[Estimate]]) -> None:
    assert np.isnan([[estimate.low, estimate.high] for estimate in samples["norm_max"]]).all()
    assert np.isfinite([estimate.value for estimate in samples["norm_max"]]).all()
