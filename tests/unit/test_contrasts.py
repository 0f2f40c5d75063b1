"""Decoders against encoders: which interval a difference has, and that it is right as often as it says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import nct, ttest_ind

from lmshape.dynamics.contrasts import CONTRAST_COLUMNS, contrasts, hedges, welch


def model(
    name: str, kind: str, values: list[float], *, noise: float = 0.01, **cell: str | int
) -> pd.DataFrame:
    """Rows of anisotropy over the blocks of one model's checkpoint."""
    shifts = noise * np.random.default_rng(len(name)).standard_normal((len(values), 5))
    frame = pd.DataFrame({"value": values, "layer": np.arange(1, len(values) + 1), "site": "block"})
    frame["replicates"] = [
        np.array([value, *(value + shift)]) for value, shift in zip(values, shifts, strict=True)
    ]
    frame = frame.assign(
        study="test", model=name, kind=kind, checkpoint="main", step=9, dataset="wiki", rows="all"
    )
    return frame.assign(metric="anisotropy", interval="jackknife", verdict="", flag="").assign(**cell)


DOMES = {"a": [0.2, 0.9, 0.3], "bb": [0.1, 0.7, 0.2], "ccc": [0.1, 0.8, 0.1]}
FLAT = {"dddd": [0.1, 0.12, 0.1], "eeeee": [0.2, 0.2, 0.22]}


def of(frame: pd.DataFrame, quantity: str) -> pd.Series:
    return contrasts(frame).set_index("quantity").loc[quantity]


def kinds(
    decoders: dict[str, list[float]], encoders: dict[str, list[float]], **options: float
) -> pd.DataFrame:
    parts = [model(name, "decoder", values, **options) for name, values in decoders.items()]
    return pd.concat(parts + [model(name, "encoder", values, **options) for name, values in encoders.items()])


def test_with_two_models_on_each_side_the_interval_is_over_models() -> None:
    frame = kinds(DOMES, FLAT)
    assert list(contrasts(frame).columns) == CONTRAST_COLUMNS.names
    row = of(frame, "height")
    decoders, encoders = [0.9, 0.7, 0.8], [0.12, 0.22]
    expected = ttest_ind(decoders, encoders, equal_var=False)
    interval = expected.confidence_interval()
    assert (row["basis"], row["decoders"], row["encoders"], row["flag"]) == ("models", 3, 2, "")
    assert (row["decoder_mean"], row["encoder_mean"]) == (pytest.approx(0.8), pytest.approx(0.17))
    assert row["difference"] == pytest.approx(0.63) and row["p"] == pytest.approx(expected.pvalue)
    assert [row["difference_low"], row["difference_high"]] == pytest.approx([interval.low, interval.high])
    assert of(frame, "dome_index")["decoder_mean"] == pytest.approx(np.mean([0.6, 0.5, 0.7]))
    assert of(frame, "dome_index")["encoder_mean"] == pytest.approx(0.01)
    assert of(frame, "mean")["encoder_mean"] == pytest.approx(np.mean([*FLAT.values()]))


def test_with_one_on_a_side_it_is_that_of_these_models_tokens() -> None:
    frame = kinds({"a": DOMES["a"]}, FLAT)
    row = of(frame, "height")
    assert (row["basis"], row["flag"]) == ("blocks", "") and row["difference"] == pytest.approx(0.9 - 0.17)
    half = (row["difference_high"] - row["difference_low"]) / 2
    assert 0.01 < half < 0.3 and row["p"] < 0.01
    variances = [np.var(DOMES["a"], ddof=1), np.mean([np.var(values, ddof=1) for values in FLAT.values()])]
    assert row["effect"] == pytest.approx(row["difference"] / np.sqrt(np.mean(variances)))
    assert row["effect_low"] < row["effect"] < row["effect_high"]


def test_an_absent_kind_and_one_draw_leave_a_reason() -> None:
    alone = contrasts(kinds(DOMES, {}))
    assert set(alone["flag"]) == {"no encoder with a whole profile"} and list(alone["decoders"]) == [3] * 3
    assert alone[["difference", "effect", "p"]].isna().all().all()
    frame = kinds({"a": DOMES["a"]}, {"b": FLAT["dddd"]}).assign(interval="none")
    row = of(frame, "mean")
    assert (
        row["difference"] > 0 and np.isnan(row["difference_low"]) and row["flag"] == "no interval: one draw"
    )
    lost = kinds(DOMES, {"b": [0.1, np.nan, 0.1]})
    assert set(contrasts(lost)["flag"]) == {"no encoder with a whole profile"}
    same = kinds({"a": DOMES["a"], "b": DOMES["a"]}, {"c": FLAT["dddd"], "d": FLAT["dddd"]})
    assert of(same, "height")["flag"] == "no effect size: no spread over models"


def test_the_last_trusted_checkpoint_is_compared_on_each_dataset_and_choice_of_rows() -> None:
    frame = kinds(DOMES, FLAT)
    before = frame.assign(step=1, checkpoint="step1", value=0.0)
    after = frame.assign(step=10, checkpoint="step10", value=1.0, verdict="wrong_weights")
    found = contrasts(
        pd.concat([before, frame, after, frame.assign(rows="no_sink"), frame.assign(dataset="random")])
    )
    assert len(found) == 9 and set(found["difference"].round(6)) <= set(
        contrasts(frame)["difference"].round(6)
    )


def test_hedges_and_its_interval_against_scipy() -> None:
    one, two = np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.2])
    value, low, high = hedges(one, two)
    pooled = np.sqrt((2 * one.var(ddof=1) + two.var(ddof=1)) / 3)
    t = (one.mean() - two.mean()) / pooled / np.sqrt(1 / 3 + 1 / 2)
    correction = value / ((one.mean() - two.mean()) / pooled)
    assert correction == pytest.approx(0.7236, abs=1e-4)  # Hedges 1981, J(3)
    for end, tail in ((low, 0.975), (high, 0.025)):
        assert nct.cdf(t, 3, end / correction / np.sqrt(1 / 3 + 1 / 2)) == pytest.approx(tail, abs=1e-4)
    assert hedges(two, one) == pytest.approx((-value, -high, -low))
    alike = hedges(one, one)
    assert alike[0] == 0 and alike[2] == pytest.approx(
        np.sqrt(2 / np.pi) * np.sqrt(2 / 3) * 1.959964, rel=1e-5
    )  # J(4)


def test_no_error_and_unknown_errors() -> None:
    assert welch(0.5, [0.0, 0.0], [2, 2]) == (0.5, 0.5, 0.0) and welch(0.0, [0.0, 0.0], [2, 2])[2] == 1.0
    assert np.isnan(welch(0.5, [np.nan, 0.1], [2, 2])).all()


def test_intervals_of_differences_and_effects_cover_the_truth() -> None:
    """Normal models, 4 decoders and 3 encoders, 1 apart in standard deviations of 0.5."""
    generator, held = np.random.default_rng(0), []
    for _ in range(200):
        one, two = generator.normal(1, 0.5, 4), generator.normal(0, 0.5, 3)
        low, high, _ = welch(one.mean() - two.mean(), [one.var(ddof=1) / 4, two.var(ddof=1) / 3], [3, 2])
        effect = hedges(one, two)
        correction = 0.8408  # J(5): the interval is that of the corrected effect
        held.append((low <= 1 <= high, effect[1] <= 2 * correction <= effect[2], effect[0]))
    covered = np.array(held).mean(axis=0)
    assert covered[0] >= 0.92 and 0.92 <= covered[1] <= 0.98
    assert covered[2] == pytest.approx(2.0, abs=0.2)  # unbiased with the correction
