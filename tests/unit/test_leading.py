"""What the leading axis is made of, against closed forms and decompositions of the raw rows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmshape.geometry import anisotropy_null
from lmshape.geometry.leading import leading_axes, leading_kurtosis, leading_rows_of, leading_shares
from lmshape.geometry.nulls import spectrum_null
from lmshape.geometry.spectrum import ITERATED_WIDTH, covariance_eigenvalues
from lmshape.metrics import leading
from lmshape.metrics.block import measure
from lmshape.metrics.layer import Layer
from lmshape.metrics.leading import GROUPS, MOST_ROWS, first_newlines, groups_of, sampled_rows
from lmshape.metrics.registry import MEASURED, METRICS
from lmshape.site import Site
from lmshape.store.activations import Activations, ActivationWriter, Rows
from lmshape.store.statistics import read_statistics
from lmshape.store.tokens import Tokens

pytestmark = pytest.mark.slow

DRAWS, SEQUENCES, WINDOW, WIDTH = 4, 5, 16, 12
N = DRAWS * SEQUENCES * WINDOW
NEWLINE, LONG = 7, 9  # ids: a newline, and a token whose rows are sinks
SITES = (Site("embedding", 0), Site("block", 1))


def tokens(
    texts: dict[int, str] | None = None, *, sequences: int = SEQUENCES, window: int = WINDOW
) -> Tokens:
    every = DRAWS * sequences
    ids = np.tile(np.arange(window), every).astype(np.int32)
    ids[:window] = np.where(np.arange(window) == NEWLINE, 0, ids[:window])  # a sequence without a newline
    return Tokens(
        ids=ids,
        sequence=np.repeat(np.arange(every), window).astype(np.int32),
        position=np.tile(np.arange(window), every).astype(np.int32),
        draw=np.repeat(np.arange(DRAWS), sequences * window).astype(np.int32),
        special=np.zeros(every * window, dtype=bool),
        sequence_bytes=np.full(every, 3 * window, dtype=np.int32),
        attributes={},
        texts={NEWLINE: "\n\n", LONG: "of", 0: "The\n"} if texts is None else texts,
    )


def cloud(width: int = WIDTH, sequences: int = SEQUENCES) -> np.ndarray:
    """Rows with a spread spectrum, far from the origin; position 0 and some later ones are off along an axis each."""
    known = tokens(sequences=sequences)
    rows = (
        np.random.default_rng(3).standard_normal((len(known.ids), width)) * np.geomspace(3, 0.3, width) + 20
    )
    rows[known.position == 0, 0] += 900
    rows[(known.ids == LONG) & (known.sequence % 3 == 0), 1] += 1200
    rows[known.ids == NEWLINE, 0] += 60
    return rows.astype(np.float32)


def sinks_of(rows: np.ndarray, known: Tokens) -> np.ndarray:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    return (known.position == 0) | (norms > 10 * np.median(norms))


def layer_of(rows: np.ndarray, known: Tokens) -> Layer:
    sinks = sinks_of(rows, known)
    return Layer(
        rows=Rows(rows, chunk_bytes=70 * rows[0].nbytes),
        other=None,
        draw=known.draw,
        sequence=known.sequence,
        kept={"all": np.ones(len(rows), dtype=bool), "no_sink": ~sinks},
        rows_per_draw={},
        tokens=known,
        sinks=sinks,
    )


def decomposed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues of the covariance, axes (rows), coordinates: from singular values of the raw rows."""
    centered = rows - rows.mean(axis=0)
    left, sizes, axes = np.linalg.svd(centered, full_matrices=False)
    return sizes**2 / (len(rows) - 1), axes, left * sizes


def test_one_displaced_row_carries_all_but_its_part_of_the_mean() -> None:
    x = np.zeros((50, 4))
    x[7, 2] = 5.0
    shares = leading_shares(x, np.arange(50) != 7)
    np.testing.assert_allclose(shares, [49 / 50, 1 / 50], rtol=1e-12)
    assert leading_kurtosis(x) == pytest.approx(50 - 2 + 1 / 49, rel=1e-12)


def test_a_group_far_off_carries_the_share_of_the_others() -> None:
    """m of n rows displaced together: they carry (n − m)/n, the others m/n, whatever the distance."""
    x = np.zeros((40, 3))
    x[:8] += np.array([3.0, 4.0, 0.0])
    np.testing.assert_allclose(leading_shares(x, np.arange(40) >= 8), [32 / 40, 8 / 40], rtol=1e-12)


def test_gaussian_rows_have_kurtosis_3_and_shares_of_their_number() -> None:
    x = np.random.default_rng(0).standard_normal((40_000, 6)) * [3, 1, 1, 1, 1, 1]
    assert leading_kurtosis(x) == pytest.approx(3, abs=6 * np.sqrt(24 / 40_000))
    share = leading_shares(x, np.arange(40_000) >= 4_000)[0]
    assert share == pytest.approx(0.1, abs=6 * np.sqrt(2 * 0.1 * 0.9 / 40_000))


def carrying(x: np.ndarray) -> float:
    """Estimate from the three moments that a spectral archive holds."""
    squares = np.square(x - x.mean(axis=0)).sum(axis=1)
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    return leading_rows_of(eigenvalues, rows=len(x), fourth_moment=np.square(squares).sum() / (len(x) - 1))


@pytest.mark.parametrize("massive", [1, 3, 30, 3000])
@pytest.mark.parametrize("size", [30, 300])
def test_rows_that_carry_the_axis_are_counted_from_moments_as_from_coordinates(
    massive: int, size: int
) -> None:
    rng = np.random.default_rng(massive)
    x = rng.standard_normal((6000, 12)) * np.arange(1, 13) ** -0.5
    x[:massive, 0] += size * np.exp(0.1 * rng.standard_normal(massive))
    assert carrying(x) == pytest.approx(len(x) / leading_kurtosis(x), rel=0.03)


def test_too_small_a_leading_axis_has_no_count_of_rows() -> None:
    assert np.isnan(carrying(np.random.default_rng(0).standard_normal((500, 40))))
    assert np.isnan(leading_rows_of(np.zeros(3), rows=9, fourth_moment=0.0))


@pytest.mark.parametrize(("rows", "width"), [(90, 7), (20, 31), (12, 12), (1100, ITERATED_WIDTH + 20)])
def test_axes_equal_singular_vectors(rows: int, width: int) -> None:
    x = np.random.default_rng(1).standard_normal((rows, width)) * np.geomspace(5, 0.1, width) + 100
    found = leading_axes(x, count=3)
    eigenvalues, axes, coordinates = decomposed(x)
    np.testing.assert_allclose(found.eigenvalues, eigenvalues[:3], rtol=1e-9)
    assert found.total == pytest.approx(eigenvalues.sum(), rel=1e-12)
    np.testing.assert_allclose(np.abs((found.axes * axes[:3]).sum(axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(np.square(found.coordinates(x)), np.square(coordinates[:, :3]), atol=1e-6)


def test_equal_rows_have_no_axis() -> None:
    x = np.full((9, 4), 1e6) + 1 / 3
    found = leading_axes(x)
    assert found.total == 0 and not found.axes.any() and not found.eigenvalues.any()
    assert np.isnan(leading_shares(x, np.arange(9) > 4)).all() and np.isnan(leading_kurtosis(x))


def test_fewer_axes_than_asked_for_are_zeros() -> None:
    found = leading_axes(np.array([[0.0, 0.0], [2.0, 0.0]]))
    np.testing.assert_allclose(found.eigenvalues, [2, 0, 0], atol=1e-15)
    assert found.axes.shape == (3, 2) and not found.axes[1:].any()


def test_groups_are_whole_numbers_from_0() -> None:
    with pytest.raises(ValueError, match="groups are numbered from 0"):
        leading_shares(np.eye(3), [-1, 0, 0])
    with pytest.raises(ValueError, match="whole numbers are needed"):
        leading_shares(np.eye(3), [0.5, 0, 0])


def test_first_newlines_are_white_space_past_position_0() -> None:
    known = tokens()
    found = first_newlines(known)
    assert found.sum() == DRAWS * SEQUENCES - 1  # the first sequence has none
    assert set(known.position[found]) == {NEWLINE} and not found[known.sequence == 0].any()
    assert first_newlines(tokens({})) is None


@pytest.mark.parametrize(("width", "sequences"), [(WIDTH, SEQUENCES), (340, SEQUENCES)])
@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_the_family_equals_decompositions_of_the_raw_rows(rows: str, width: int, sequences: int) -> None:
    """Both ways to the axes: through the covariance, and through products of rows where these are fewer."""
    x, known = cloud(width, sequences), tokens(sequences=sequences)
    layer = layer_of(x, known)
    arrays, attributes = leading.statistics(layer)[rows]
    groups, newlines = groups_of(layer.sinks, known), first_newlines(known)
    assert attributes["flag"] == ""
    for entry in range(DRAWS + 1):
        kept = layer.kept[rows] & (known.draw != entry - 1)
        part = x[kept].astype(np.float64)
        eigenvalues, _, coordinates = decomposed(part)
        squares = coordinates[:, 0] ** 2
        np.testing.assert_allclose(
            arrays["rows"][entry], [(groups[kept] == group).sum() for group in range(3)]
        )
        for name, power in (("second", 1), ("fourth", 2)):
            reference = [(squares[groups[kept] == group] ** power).sum() for group in range(3)]
            np.testing.assert_allclose(arrays[name][entry], reference, rtol=1e-7)
        newline = squares[newlines[kept]]
        np.testing.assert_allclose(arrays["first_newline"][entry], [len(newline), newline.sum()], rtol=1e-7)
        assert arrays["eigenvalues"][entry, 0] == pytest.approx(eigenvalues[0], rel=1e-9)
        assert arrays["total"][entry] == pytest.approx(eigenvalues.sum(), rel=1e-9)
        without, _, _ = decomposed(x[kept & (known.position > 0)].astype(np.float64))
        np.testing.assert_allclose(
            arrays["without_position_0"][entry], [without[0], without.sum()], rtol=1e-9
        )


def test_the_metrics_are_what_they_say() -> None:
    x, known = cloud(), tokens()
    layer = layer_of(x, known)
    arrays, _ = leading.statistics(layer)["all"]
    values = {name: METRICS[name].compute(arrays) for name, one in METRICS.items() if one.family == "leading"}
    _, _, coordinates = decomposed(x.astype(np.float64))
    squares = coordinates[:, 0] ** 2
    groups = groups_of(layer.sinks, known)
    parts = ("leading_share_position_0", "leading_share_other_sinks", "leading_share_rest")
    for group, name in enumerate(parts):
        assert values[name].value == pytest.approx(squares[groups == group].sum() / squares.sum(), rel=1e-9)
    assert sum(values[name].value for name in parts) == pytest.approx(1, rel=1e-12)
    kurtosis = len(x) * (squares**2).sum() / squares.sum() ** 2
    assert values["leading_kurtosis"].value == pytest.approx(kurtosis, rel=1e-9)
    share = squares[first_newlines(known)].sum() / squares.sum()
    assert values["leading_share_first_newline"].value == pytest.approx(share, rel=1e-9)
    for name, count in (("position_0", (groups == 0).sum()), ("other_sinks", (groups == 1).sum())):
        null = values[f"leading_share_{name}_null"]
        assert (null.value, null.low, null.high) == pytest.approx((count / N,) * 3, rel=1e-12)
    eigenvalues = covariance_eigenvalues(x[known.position > 0])
    found = values["anisotropy_without_position_0"].value
    assert found == pytest.approx(eigenvalues[0] / eigenvalues.sum(), rel=1e-9)
    assert values["leading_share_position_0"].low < values["leading_share_position_0"].value


def test_without_position_0_and_other_sinks_it_is_the_anisotropy_without_sinks() -> None:
    x, known = cloud(), tokens()
    arrays, _ = leading.statistics(layer_of(x, known))["no_sink"]
    np.testing.assert_array_equal(arrays["without_position_0"][:, 0], arrays["eigenvalues"][:, 0])
    np.testing.assert_array_equal(arrays["without_position_0"][:, 1], arrays["total"])
    assert METRICS["leading_share_rest"].compute(arrays).value == 1


def test_unknown_texts_leave_the_newline_alone_without_a_number() -> None:
    arrays, attributes = leading.statistics(layer_of(cloud(), tokens({})))["all"]
    assert np.isnan(METRICS["leading_share_first_newline"].compute(arrays).value)
    assert "no texts of tokens" in attributes["flag_leading_share_first_newline"]
    assert np.isfinite(METRICS["leading_share_position_0"].compute(arrays).value)


def test_rows_without_variance_have_reasons_and_not_numbers() -> None:
    arrays, _ = leading.statistics(layer_of(np.ones((N, WIDTH), np.float32), tokens()))["all"]
    for metric in METRICS.values():
        if metric.family == "leading" and not metric.name.endswith("_null"):
            assert np.isnan(metric.compute(arrays).value) and metric.undefined


def test_a_layer_without_tokens_is_refused() -> None:
    given = layer_of(cloud(), tokens())
    bare = Layer(
        rows=given.rows,
        other=None,
        draw=given.draw,
        sequence=given.sequence,
        kept=given.kept,
        rows_per_draw={},
    )
    with pytest.raises(ValueError, match="no tokens and sinks"):
        leading.statistics(bare)


def test_arrays_without_statistics_are_the_same() -> None:
    arrays, _ = leading.statistics(layer_of(cloud(), tokens()))["all"]
    absent = leading.missing(rows=N, width=WIDTH, draws=DRAWS)
    assert {name: array.dtype for name, array in absent.items()} == {
        name: array.dtype for name, array in arrays.items()
    }
    numbers = [name for name in arrays if not name.startswith("sample_")]
    assert {name: absent[name].shape for name in numbers} == {name: arrays[name].shape for name in numbers}
    assert all(np.isnan(absent[name]).all() for name in numbers) and not len(absent["sample_group"])


def test_sampled_rows_are_on_the_axes_and_say_what_they_stand_for() -> None:
    x, known = cloud(), tokens()
    layer = layer_of(x, known)
    arrays, attributes = leading.statistics(layer)["all"]
    index, weight = sampled_rows(groups_of(layer.sinks, known), layer.kept["all"])
    _, _, coordinates = decomposed(x.astype(np.float64))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(axis=0), np.arange(WIDTH)])
    np.testing.assert_allclose(
        arrays["sample_coordinates"], (coordinates * signs)[index, :3], atol=1e-4
    )  # float32 of hundreds
    np.testing.assert_array_equal(arrays["sample_position"], known.position[index])
    np.testing.assert_array_equal(arrays["sample_token"], known.ids[index])
    np.testing.assert_array_equal(arrays["sample_draw"], known.draw[index])
    assert arrays["sample_weight"].sum() == pytest.approx(N, rel=1e-6) and weight.sum() == pytest.approx(N)
    assert json.loads(attributes["texts"]) == {str(NEWLINE): "\n\n", str(LONG): "of", "0": "The\n"}


def test_all_kinds_of_rows_are_sampled_and_few_of_each() -> None:
    group = np.repeat([0, 1, 2], [80, 20, 5000])
    index, weight = sampled_rows(group, np.ones(5100, dtype=bool))
    counts = [int((group[index] == place).sum()) for place in range(3)]
    assert counts == [MOST_ROWS["position_0"], 20, MOST_ROWS["rest"]]
    np.testing.assert_allclose(
        [weight[group[index] == place][0] for place in range(3)], [80 / 50, 1, 5000 / 300]
    )
    again, _ = sampled_rows(np.where(np.arange(5100) == 2000, 1, group), np.ones(5100, dtype=bool))
    shared = set(index) & set(again)
    assert len(shared) >= len(index) - 2  # a row that becomes a sink changes no others
    assert tuple(MOST_ROWS) == GROUPS


def test_the_family_is_measured_like_any_other(tmp_path: Path) -> None:
    known, x = tokens(), cloud()
    attributes = {"model": "m", "checkpoint": "step7", "dataset": "wiki", "blocks": 1}
    with ActivationWriter(
        tmp_path / "a.h5", sites=SITES, width=WIDTH, tokens=known, attributes=attributes
    ) as writer:
        for site in SITES:
            writer.write(site, 0, x if site.name == "block" else np.zeros_like(x))
    measure(
        tmp_path / "a.h5",
        tmp_path / "s.h5",
        family=MEASURED["leading"],
        first=0,
        last=1,
        rows=["all", "one_per_type"],
    )
    _, entries = read_statistics(tmp_path / "s.h5")
    assert [(entry.site, entry.rows) for entry in entries] == [(site, "all") for site in SITES]
    direct, _ = leading.statistics(layer_of(x, known))["all"]
    np.testing.assert_allclose(entries[1].arrays["second"], direct["second"], rtol=1e-12)
    assert sum(array.nbytes for array in entries[1].arrays.values()) < 30_000
    with Activations(tmp_path / "a.h5") as kept:
        assert kept.tokens.texts[NEWLINE] == "\n\n"
    chosen = read_statistics(tmp_path / "s.h5", sites=SITES[1:], arrays=("total",))[1]
    assert [(entry.site, list(entry.arrays)) for entry in chosen] == [(SITES[1], ["total"])]


@pytest.mark.parametrize(("n", "d"), [(4000, 100), (150, 400), (300, 299)])
def test_the_null_of_a_spectrum_is_that_of_gaussian_rows(n: int, d: int) -> None:
    small = min(n - 1, d)
    null = spectrum_null(n, d, np.arange(1, small + 1))
    assert (np.diff(null) < 0).all() and null.sum() == pytest.approx(1, abs=0.1 / small)
    x = np.random.default_rng(5).standard_normal((n, d))
    found = covariance_eigenvalues(x)
    # eigenvalues are rigid: each lies within its spacing of its quantile
    np.testing.assert_allclose(found[: small // 2] / found.sum(), null[: small // 2], rtol=0.06)
    assert null[0] < anisotropy_null(n, d) * 1.001


def test_the_null_of_many_rows_is_level() -> None:
    np.testing.assert_allclose(spectrum_null(10**8, 10, [1, 5, 10]), 0.1, rtol=1e-3)
    with pytest.raises(ValueError, match="needs 2 rows"):
        spectrum_null(1, 10, [1])


def test_the_interval_of_the_share_covers_the_truth_at_its_rate() -> None:
    """Rows at position 0, one in 16, lie off along an axis by 8 ± 2: the share of a draw of many is known."""
    part, offset, spread = 1 / WINDOW, 8.0, 2.0
    along = part * ((offset * (1 - part)) ** 2 + spread**2 + 1)
    truth = along / (along + (1 - part) * ((offset * part) ** 2 + 1))
    known, random = tokens(sequences=20), np.random.default_rng(11)
    rows = (len(known.ids), 6)
    covered = 0
    for _ in range(200):
        x = random.standard_normal(rows)
        first = known.position == 0
        x[first, 0] += offset + spread * random.standard_normal(first.sum())
        arrays, _ = leading.statistics(layer_of(x, known))["all"]
        estimate = METRICS["leading_share_position_0"].compute(arrays)
        covered += estimate.low <= truth <= estimate.high
    assert 0.90 <= covered / 200 <= 0.99
