"""Jobs ask for what they take: more for larger models, a GPU where it is worth one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_plan import model_of

from lmshape.models import Extraction
from lmshape.study.costs import (
    LEAST_MINUTES,
    extraction_flops,
    extraction_megabytes,
    extraction_seconds,
    gpus_that_hold,
    measuring_megabytes,
    measuring_seconds,
    minutes_for,
    wants_gpu,
)
from lmshape.study.models import Model
from lmshape.texts.tokens import Sampling

SAMPLING = Sampling(protocol="windows", window=512, draws=5, rows_per_draw=4096, seed=0)
EXTRACTION = Extraction(dtype="auto", device="auto", device_map="none", batch_tokens="auto")
FAMILIES = ("spectral", "angular", "neighbor", "linearity")
ROWS = ("all", "no_sink", "one_per_type")
PYTHIA = {  # blocks and width of each size, parameters
    "14m": (6, 128, 14e6),
    "160m": (12, 768, 162e6),
    "410m": (24, 1024, 405e6),
    "1b": (16, 2048, 1.01e9),
    "2.8b": (32, 2560, 2.78e9),
    "12b": (36, 5120, 11.8e9),
}


def pythia(size: str) -> Model:
    blocks, width, parameters = PYTHIA[size]
    model = model_of(blocks=blocks, width=width)
    return replace(model, vocabulary=50_304, parameters=int(parameters))


def measuring(width: int, sites: int = 10, threads: int = 1, **changes: object) -> float:
    options = {"families": FAMILIES, "rows": ROWS, "sites": sites, "threads": threads} | changes
    return measuring_seconds(width, SAMPLING, **options)


@pytest.mark.parametrize(("size", "gpu"), [("14m", False), ("410m", False), ("1b", True), ("12b", True)])
def test_a_gpu_is_for_models_from_a_billion_parameters_on(size: str, gpu: bool) -> None:
    assert wants_gpu(extraction_flops(pythia(size), SAMPLING)) is gpu


def test_a_large_model_gets_what_it_needs() -> None:
    twelve = pythia("12b")
    assert (
        48_000 < extraction_megabytes(twelve, EXTRACTION, on_gpu=False) < 64_000
    )  # 47 GB of float32 weights
    assert 24_000 < extraction_megabytes(twelve, EXTRACTION, on_gpu=True) < 70_000
    assert extraction_megabytes(pythia("14m"), EXTRACTION, on_gpu=False) < 6000


def test_costs_grow_with_the_model() -> None:
    models = [pythia(size) for size in PYTHIA]
    for on_gpu in (False, True):
        seconds = [extraction_seconds(one, SAMPLING, threads=8, on_gpu=on_gpu) for one in models]
        assert seconds == sorted(seconds)
    times = [measuring(one.width) for one in models]
    sizes = [measuring_megabytes(one.width, SAMPLING) for one in models]
    assert times == sorted(times) and sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("width", "core_seconds"),
    [(128, 15.2), (512, 19.2), (768, 31.0), (1024, 41.9), (2048, 129.4)],
)
def test_the_estimate_is_what_was_measured_or_a_little_more(width: int, core_seconds: float) -> None:
    """CPU seconds of a site of 25 600 rows, all four families, on two cores; docs/cluster.md says how."""
    a_site = measuring(width, 2) - measuring(width, 1)
    assert 0.8 * core_seconds < a_site < 2 * core_seconds


def test_threads_sites_and_choices_count() -> None:
    fixed = measuring(512, sites=0)
    assert measuring(512, threads=8) - fixed == pytest.approx((measuring(512) - fixed) / 8)
    assert measuring(512, rows=("all",)) < measuring(512)
    assert (
        measuring(512, families=("angular",)) < measuring(512, families=("angular", "own")) < measuring(512)
    )
    on_gpu = measuring(2048, on_gpu=True, threads=8)
    assert measuring(2048, sites=0) < on_gpu < measuring(2048, threads=8)
    assert measuring(2048, families=("angular",), on_gpu=True) == measuring(2048, families=("angular",))
    paper = replace(SAMPLING, protocol="paper")
    assert (
        measuring_seconds(
            512, paper, families=("released", "released_linearity"), rows=("all",), sites=3, threads=1
        )
        > 0
    )


def test_gpus_that_hold_the_weights() -> None:
    twelve = pythia("12b")  # 23.6 GB, a quarter more
    assert [gpus_that_hold(twelve, EXTRACTION, gigabytes) for gigabytes in (80, 40, 24, 16)] == [1, 1, 2, 2]
    wide = replace(EXTRACTION, dtype="float32")
    assert [gpus_that_hold(twelve, wide, gigabytes) for gigabytes in (80, 40, 24, 16)] == [1, 2, 3, 4]
    assert extraction_megabytes(twelve, wide, on_gpu=True) > 20_000 + extraction_megabytes(
        twelve, EXTRACTION, on_gpu=True
    )


def test_time_limits_are_three_times_the_estimate_and_at_least_ten_minutes() -> None:
    assert minutes_for(1) == LEAST_MINUTES == 10
    assert minutes_for(3600) == 180
