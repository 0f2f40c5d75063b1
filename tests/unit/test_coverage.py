"""How often intervals hold what a metric reads on average at this n: 95 % of samples, by their own word.

The rows are those of a made-up layer: tokens of a vocabulary of Zipf's shape, in sequences of which each has a
topic, a scale and rows that follow each other, with tails heavier than a Gaussian's; 5 draws of 8 sequences. The
truth is the mean over all samples. Every metric of a layer is held to it, measured by its family as in a study;
those that cannot be are listed, each with its reason.
"""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from lmshape.geometry.angular import leave_one_out_norms
from lmshape.geometry.resample import Estimate, jackknife
from lmshape.geometry.rows import unique_rows
from lmshape.metrics.layer import Layer
from lmshape.metrics.registry import MEASURED, METRICS
from lmshape.store.activations import Rows

pytestmark = pytest.mark.slow

SAMPLES = 200
DRAWS, SEQUENCES, LENGTH, WIDTH = 5, 8, 20, 20
TYPES, TOPIC_AXES = 200, 5
FOLLOW = 0.6  # correlation of a row with the one before it
FREEDOM = 5  # of Student's t: moderately heavy tails
MASSIVE_SHARE, MASSIVE = 0.03, 1000.0  # of the rows, in one coordinate: over 1000 x the median magnitude
FAMILIES = ("spectral", "angular", "neighbor", "linearity", "comparison")

# Known without error: the interval is the number itself.
NULLS = (
    "anisotropy_null",
    "effective_rank_null",
    "participation_ratio_null",
    "linearity_null",
    "neighborhood_overlap_null",
)
# Made of the same deviates for every layer: their chance is in the interval, but not in how samples differ.
SURROGATES = ("id_twonn_surrogate",)
# Whole numbers: their rounding is in the interval, which therefore holds more than 95 %.
WHOLE = ("components_90", "components_95", "components_99")
# Not defined on rows of 20 columns.
UNDEFINED = ("effective_rank_bulk",)
# The maximum of a sample does not tell how far the next one goes: no interval.
MAXIMA = ("norm_max", "activation_max")
EXCEPTIONS = (*NULLS, *SURROGATES, *WHOLE, *UNDEFINED, *MAXIMA)
LAYER_METRICS = tuple(name for name, metric in METRICS.items() if metric.family in FAMILIES)
COVERED = tuple(name for name in LAYER_METRICS if name not in EXCEPTIONS)
# Binomial error of a coverage of 95 % over 200 samples is 1.5 %: 90 and 99 % leave 3.2 and 2.6 of them. The seed is
# fixed: of the coverages that are exact, one in 600 or so is out of these limits by chance.
LEAST, MOST = 0.90, 0.99
SEED = 0


class Network:
    """A network that stays the same; its samples differ in the sequences alone."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        self.scale = np.arange(1, WIDTH + 1) ** -0.5
        self.types = rng.standard_normal((TYPES, WIDTH)) * self.scale
        self.mean = 0.3 * rng.standard_normal(WIDTH)
        self.weights = rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)
        frequency = 1 / np.arange(3, TYPES + 3)
        self.frequency = frequency / frequency.sum()

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens' own rows, and rows in context, (n, d) in the order of draw, sequence and position."""
        shape = (DRAWS * SEQUENCES, LENGTH, WIDTH)
        context = rng.standard_normal(shape) * self.scale
        for position in range(1, LENGTH):
            fresh = np.sqrt(1 - FOLLOW**2) * context[:, position]
            context[:, position] = FOLLOW * context[:, position - 1] + fresh
        tails = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (*shape[:2], 1)))
        volume = np.exp(0.15 * rng.standard_normal((len(context), 1, 1)))
        topic = rng.standard_normal((len(context), 1, WIDTH)) * self.scale * (np.arange(WIDTH) < TOPIC_AXES)
        tokens = self.types[rng.choice(TYPES, shape[:2], p=self.frequency)]
        rows = self.mean + tokens + 0.5 * topic + 0.7 * volume * tails * context
        return tokens.reshape(-1, WIDTH), rows.reshape(-1, WIDTH)

    def update(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return what a block adds: in part linear in its input, in part not, in part noise."""
        noise = 0.3 * rng.standard_normal(x.shape)
        return 0.3 * x @ self.weights + 0.7 * np.tanh(1.5 * x @ self.weights.T) + noise


def estimates(network: Network, rng: np.random.Generator) -> dict[str, Estimate]:
    """Return every metric of one sample: of rows in context, but for two that would be 0 of these."""
    tokens, x = network.sample(rng)
    massive = x.copy()
    massive[rng.random(len(x)) < MASSIVE_SHARE, 0] += MASSIVE
    own = {"massive_count": massive_counts(massive), "duplicate_share": duplicate_shares(tokens)}
    return {
        **measured("spectral", x),
        **measured("angular", x),
        **measured("neighbor", x),
        **measured("linearity", after := x + network.update(x, rng), before=x),
        **measured("comparison", after, before=x),
        **{name: METRICS[name].compute(arrays) for name, arrays in own.items()},
    }


def massive_counts(x: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the angular family would keep, without its passes over rows that do not fit into memory."""
    norms = leave_one_out_norms(x, np.arange(len(x)) // (SEQUENCES * LENGTH))
    return {name: np.array([getattr(part, name) for part in norms]) for name in ("rows", "massive_count")}


def duplicate_shares(x: np.ndarray) -> dict[str, np.ndarray]:
    draws = x.reshape(DRAWS, -1, WIDTH)
    return {"duplicate_share": np.array([1 - len(unique_rows(rows)) / len(rows) for rows in draws])}


def measured(family: str, x: np.ndarray, before: np.ndarray | None = None) -> dict[str, Estimate]:
    sequence = np.arange(len(x)) // LENGTH
    layer = Layer(
        rows=Rows(x),
        other=None if before is None else Rows(before),
        draw=sequence // SEQUENCES,
        sequence=sequence,
        kept={"all": np.ones(len(x), dtype=bool)},
        rows_per_draw={},
    )
    arrays, _ = MEASURED[family].statistics(layer)["all"]
    return {name: METRICS[name].compute(arrays) for name in of_family(family)}


def of_family(family: str) -> list[str]:
    return [name for name in LAYER_METRICS if METRICS[name].family == family]


@pytest.fixture(scope="module")
def samples() -> dict[str, list[Estimate]]:
    network, rng = Network(), np.random.default_rng(SEED)
    with threadpool_limits(1, user_api="blas"):  # products of 20 columns: threads would only wait
        found = [estimates(network, rng) for _ in range(SAMPLES)]
    return {name: [sample[name] for sample in found] for name in found[0]}


def coverage(estimates: list[Estimate]) -> float:
    truth = np.mean([estimate.value for estimate in estimates])
    return float(np.mean([estimate.low <= truth <= estimate.high for estimate in estimates]))


@pytest.mark.parametrize("name", COVERED)
def test_an_interval_covers_as_often_as_it_says(name: str, samples: dict[str, list[Estimate]]) -> None:
    assert LEAST <= coverage(samples[name]) <= MOST


@pytest.mark.parametrize("name", WHOLE)
def test_the_interval_of_a_whole_number_covers_at_least_as_often(name: str, samples: dict) -> None:
    """Not more than its rounding allows: where the draws agree to a part of a component, it is all of the error."""
    assert coverage(samples[name]) >= LEAST
    assert max(estimate.high - estimate.low for estimate in samples[name]) < 0.25 * WIDTH


@pytest.mark.parametrize("name", SURROGATES)
def test_the_interval_of_a_surrogate_covers_at_least_as_often(name: str, samples: dict) -> None:
    """Wider than the samples differ, as its deviates are the same in all of them, and still no wider than it says."""
    assert coverage(samples[name]) >= LEAST
    assert max((estimate.high - estimate.low) / estimate.value for estimate in samples[name]) < 0.5


@pytest.mark.parametrize("name", MAXIMA)
def test_a_maximum_has_no_interval(name: str, samples: dict) -> None:
    assert np.isnan([[estimate.low, estimate.high] for estimate in samples[name]]).all()
    assert np.isfinite([estimate.value for estimate in samples[name]]).all()


@pytest.mark.parametrize("entries", [False, True], ids=MAXIMA)
def test_a_jackknife_of_a_maximum_would_not_cover(entries: bool) -> None:
    network, rng, found = Network(), np.random.default_rng(SEED), []
    for _ in range(SAMPLES):
        _, x = network.sample(rng)
        sizes = np.abs(x).max(axis=1) if entries else np.linalg.norm(x, axis=1)
        maxima = sizes.reshape(DRAWS, -1).max(axis=1)
        found.append(jackknife(maxima.max(), [np.delete(maxima, j).max() for j in range(DRAWS)]))
    assert coverage(found) < 0.8


@pytest.mark.parametrize("name", NULLS)
def test_the_interval_of_a_null_is_the_number_itself(name: str, samples: dict) -> None:
    (value,) = {estimate.value for estimate in samples[name]}
    assert value > 0
    for estimate in samples[name]:
        assert [estimate.low, estimate.high] == pytest.approx([value, value], rel=1e-12)


def test_no_metric_of_a_layer_is_left_out(samples: dict[str, list[Estimate]]) -> None:
    assert set(samples) == {*COVERED, *EXCEPTIONS} == set(LAYER_METRICS)
    assert {name for name in LAYER_METRICS if METRICS[name].interval == "none"} == set(MAXIMA)
