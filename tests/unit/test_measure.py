"""The statistics of a layer against numpy and scipy on the raw rows, and rows that have none."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from layers import layer_of
from other_readers import reader
from scipy.spatial.distance import cdist

from lmshape.errors import InputError
from lmshape.geometry.distance_ratios import KEPT_ORDERS
from lmshape.geometry.rows import one_per_type
from lmshape.metrics.block import measure, measured_family
from lmshape.metrics.metric import Family
from lmshape.metrics.registry import FAMILIES, MEASURED
from lmshape.site import Site
from lmshape.store.activations import Activations, ActivationWriter
from lmshape.store.statistics import LayerStatistics, read_statistics
from lmshape.store.tokens import Tokens

SITES = (Site("embedding", 0), Site("block", 1), Site("block", 2), Site("final_norm", 2))
DRAWS, SEQUENCES, WINDOW, WIDTH = 3, 5, 16, 24
N = DRAWS * SEQUENCES * WINDOW
SCALES = np.geomspace(1, 30, WIDTH)


def tokens() -> Tokens:
    sequences = DRAWS * SEQUENCES
    return Tokens(
        ids=np.arange(N, dtype=np.int32),
        sequence=np.repeat(np.arange(sequences), WINDOW).astype(np.int32),
        position=np.tile(np.arange(WINDOW), sequences).astype(np.int32),
        draw=np.repeat(np.arange(DRAWS), SEQUENCES * WINDOW).astype(np.int32),
        special=np.zeros(N, dtype=bool),
        sequence_bytes=np.full(sequences, 3 * WINDOW, dtype=np.int32),
        attributes={},
    )


def clouds(seed: int = 0) -> dict[Site, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = {site: (rng.standard_normal((N, WIDTH)) * SCALES + 100).astype(np.float32) for site in SITES}
    rows[SITES[2]][::WINDOW, 3] += 30_000  # massive activations, as trained decoders have them
    return rows


def stored(path: Path, rows: dict[Site, np.ndarray]) -> Path:
    attributes = {"model": "m", "checkpoint": "step7", "dataset": "wiki", "blocks": 2}
    with ActivationWriter(path, sites=SITES, width=WIDTH, tokens=tokens(), attributes=attributes) as writer:
        for site in SITES:
            writer.write(site, 0, rows[site])
    return path


def measured(
    folder: Path, rows: dict[Site, np.ndarray], family: str, rows_per_draw: int | None = None
) -> dict[tuple[Site, str], LayerStatistics]:
    source = stored(folder / "activations.h5", rows)
    target = folder / f"{family}.h5"
    measure(source, target, family=MEASURED[family], first=0, last=2, rows_per_draw=rows_per_draw)
    _, layers = read_statistics(target)
    return {(layer.site, layer.rows): layer for layer in layers}


def parts(x: np.ndarray, draw: np.ndarray) -> list[np.ndarray]:
    """All rows, then the rows without each draw."""
    return [x.astype(np.float64), *(x[draw != j].astype(np.float64) for j in range(DRAWS))]


def kept_rows(x: np.ndarray, rows: str) -> np.ndarray:
    if rows == "all":
        return np.ones(len(x), dtype=bool)
    norms = np.linalg.norm(x.astype(np.float64), axis=1)
    return (tokens().position > 0) & (norms <= 10 * np.median(norms))


@pytest.mark.parametrize("rows", ["all", "no_sink"])
@pytest.mark.parametrize("site", SITES)
def test_spectra_equal_squared_singular_values(tmp_path: Path, site: Site, rows: str) -> None:
    given = clouds()
    arrays = measured(tmp_path, given, "spectral")[site, rows].arrays
    kept = kept_rows(given[site], rows)
    for j, part in enumerate(parts(given[site][kept], tokens().draw[kept])):
        centered = np.linalg.svd(part - part.mean(axis=0), compute_uv=False) ** 2 / (len(part) - 1)
        uncentered = np.linalg.svd(part, compute_uv=False) ** 2
        # products of columns keep an eigenvalue to the rounding of the largest one
        np.testing.assert_allclose(arrays["eigenvalues"][j], centered, rtol=1e-9, atol=1e-14 * centered[0])
        largest, total = arrays["leading_uncentered"][j]
        assert largest / total == pytest.approx(uncentered[0] / uncentered.sum(), rel=1e-12)


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_mean_cosines_equal_the_mean_over_pairs(tmp_path: Path, rows: str) -> None:
    given = clouds()
    arrays = measured(tmp_path, given, "angular")[SITES[1], rows].arrays
    kept = kept_rows(given[SITES[1]], rows)
    for j, part in enumerate(parts(given[SITES[1]][kept], tokens().draw[kept])):
        for name, x in (("mean_cosine", part), ("mean_cosine_centered", part - part.mean(axis=0))):
            directions = x / np.linalg.norm(x, axis=1, keepdims=True)
            pairs = (directions @ directions.T)[np.triu_indices(len(x), 1)]
            assert arrays[name][j] == pytest.approx(pairs.mean(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_distances_equal_scipy_on_the_first_unique_rows(tmp_path: Path, rows: str) -> None:
    given = clouds()
    x = given[SITES[2]]
    x[5] = x[9]  # 9 repeats 5 within the draw
    x[WINDOW * SEQUENCES + 3] = x[5]  # another draw: no repetition
    layer = measured(tmp_path, given, "neighbor", rows_per_draw=60)[SITES[2], rows]
    kept = kept_rows(x, rows)
    for j in range(DRAWS):
        mine = x[kept & (tokens().draw == j)].astype(np.float64)
        _, first = np.unique(mine, axis=0, return_index=True)
        mine = mine[np.sort(first)][:60]
        reference = np.sort(cdist(mine, mine), axis=1)[:, 1:]
        orders = [order - 1 for order in KEPT_ORDERS if order < 60]
        np.testing.assert_allclose(
            layer.arrays["distances"][j][:, : len(orders)], reference[:, orders], rtol=1e-12
        )
        assert np.isnan(layer.arrays["distances"][j][:, len(orders) :]).all()
        np.testing.assert_allclose(
            layer.arrays["log_distance_sum"][j], np.log(reference[:, :19]).sum(axis=1), rtol=1e-11
        )
    assert layer.attributes["flag"] == ""
    assert layer.attributes["n_rows"] == kept.sum()
    assert layer.attributes["n_unique"] == kept.sum() - 1
    assert (layer.attributes["d"], layer.attributes["draws"]) == (WIDTH, DRAWS)


def test_all_rows_that_every_draw_has_are_used_without_a_limit(tmp_path: Path) -> None:
    given = clouds()
    given[SITES[1]][:7] = 0
    given[SITES[1]][0, 0] = -0.0  # equal to 0.0 all the same
    layer = measured(tmp_path, given, "neighbor")[SITES[1], "all"]
    assert layer.arrays["distances"].shape == (DRAWS, SEQUENCES * WINDOW - 6, 9)
    assert layer.attributes["n_unique"] == N - 6
    assert layer.attributes["flag"] == ""


def test_fewer_unique_rows_than_wanted_are_flagged_and_measured(tmp_path: Path) -> None:
    layer = measured(tmp_path, clouds(), "neighbor", rows_per_draw=100)[SITES[1], "all"]
    assert layer.attributes["flag"] == "fewer unique rows: 80 of 100 per draw"
    assert np.isfinite(layer.arrays["distances"]).all()


def test_too_few_unique_rows_are_nan_with_the_reason(tmp_path: Path) -> None:
    given = clouds()
    given[SITES[1]][: SEQUENCES * WINDOW - 40] = 7
    layer = measured(tmp_path, given, "neighbor", rows_per_draw=60)[SITES[1], "all"]
    assert layer.attributes["flag"] == "fewer unique rows: 41 of 60 per draw"
    assert layer.arrays["distances"].shape == (DRAWS, 41, 9)
    assert np.isfinite(layer.arrays["distances"][:, :, :8]).all()
    assert np.isnan(layer.arrays["distances"][:, :, 8]).all()
    given[SITES[1]][: SEQUENCES * WINDOW - 39] = 7
    layer = measured(tmp_path, given, "neighbor", rows_per_draw=60)[SITES[1], "all"]
    assert layer.attributes["flag"] == "too few unique rows: 40 per draw; id needs 41"
    assert layer.arrays["distances"].shape == (DRAWS, 40, 9)
    assert np.isnan(layer.arrays["distances"]).all() and np.isnan(layer.arrays["log_distance_sum"]).all()
    assert np.isnan(layer.arrays["surrogate_distances"]).all()
    np.testing.assert_allclose(layer.arrays["duplicate_share"], [40 / 80, 0, 0], rtol=1e-15)


def repeating(path: Path, x: np.ndarray, types: int = 50) -> tuple[Path, Tokens]:
    """One layer whose token ids repeat."""
    ids = np.random.default_rng(8).integers(0, types, N).astype(np.int32)
    own = replace(tokens(), ids=ids)
    with ActivationWriter(path, sites=SITES[:1], width=WIDTH, tokens=own, attributes={"seed": 4}) as writer:
        writer.write(SITES[0], 0, x)
    return path, own


def test_one_row_of_each_token_id_is_measured_in_the_neighbor_family_alone(tmp_path: Path) -> None:
    x = clouds()[SITES[0]]
    source, own = repeating(tmp_path / "activations.h5", x, types=90)
    for family in ("angular", "neighbor", "spectral"):
        measure(source, tmp_path / f"{family}.h5", family=MEASURED[family], first=0, last=0, rows_per_draw=60)
        _, layers = read_statistics(tmp_path / f"{family}.h5")
        assert [layer.rows for layer in layers][2:] == (["one_per_type"] if family == "neighbor" else [])
    _, [*_, layer] = read_statistics(tmp_path / "neighbor.h5")
    chosen = one_per_type(own.ids, own.draw, seed=4)
    counts = np.unique(own.draw[chosen], return_counts=True)[1]
    assert layer.attributes["n_rows"] == counts.sum() < N
    assert (
        layer.attributes["flag"] == "few types: 47 per draw"
    )  # a draw has fewer token ids than rows are wanted: no doubt in that
    assert layer.arrays["distances"].shape == (DRAWS, counts.min(), 9)
    mine = x[chosen & (own.draw == 1)][: counts.min()].astype(np.float64)
    reference = np.sort(cdist(mine, mine), axis=1)[:, [1, 2, 4]]
    np.testing.assert_allclose(layer.arrays["distances"][1][:, :3], reference, rtol=1e-12)


def test_copies_among_one_row_of_each_token_id_are_flagged(tmp_path: Path) -> None:
    x = clouds()[SITES[0]]
    x[: SEQUENCES * WINDOW : 2] = 1
    source, own = repeating(tmp_path / "activations.h5", x, types=1000)
    measure(source, tmp_path / "s.h5", family=MEASURED["neighbor"], first=0, last=0, rows=["one_per_type"])
    _, [layer] = read_statistics(tmp_path / "s.h5")
    types = min(len(set(own.ids[own.draw == j])) for j in range(DRAWS))
    assert layer.attributes["flag"].startswith("fewer unique rows: ")
    assert layer.attributes["flag"].endswith(f" of {types} per draw")


def test_a_row_that_repeats_a_sink_is_a_point_where_the_sink_is_left_out(tmp_path: Path) -> None:
    given = clouds()
    x = given[SITES[1]]
    sinks = np.flatnonzero(tokens().position == 0)
    x[sinks + 1] = x[sinks]
    found = measured(tmp_path, given, "neighbor")
    for rows in ("all", "no_sink"):
        kept, layer = kept_rows(x, rows), found[SITES[1], rows]
        for j, distances in enumerate(layer.arrays["distances"]):
            mine = x[kept & (tokens().draw == j)].astype(np.float64)
            _, first = np.unique(mine, axis=0, return_index=True)
            mine = mine[np.sort(first)][: len(distances)]
            nearest = np.sort(cdist(mine, mine), axis=1)[:, [1, 2, 4]]
            np.testing.assert_allclose(distances[:, :3], nearest, rtol=1e-12)
    assert found[SITES[1], "all"].arrays["duplicate_share"].min() > 0
    assert not found[SITES[1], "no_sink"].arrays["duplicate_share"].any()


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_decimated_distances_are_those_of_a_random_part_of_the_rows(tmp_path: Path, rows: str) -> None:
    given = clouds()
    x = given[SITES[2]]
    layer = measured(tmp_path, given, "neighbor", rows_per_draw=64)[SITES[2], rows]
    for j in range(DRAWS):
        mine = x[kept_rows(x, rows) & (tokens().draw == j)][:64].astype(np.float64)
        order = np.random.default_rng(0).permutation(64)
        for share in (2, 4, 8):
            part = mine[np.sort(order[: 64 // share])]
            nearest = np.sort(cdist(part, part), axis=1)[:, 1:3]
            np.testing.assert_allclose(layer.arrays[f"decimated_{share}"][j], nearest, rtol=1e-12)


@pytest.mark.parametrize("rows", ["all", "no_sink"])
def test_the_surrogate_has_the_covariance_of_the_rows_that_are_taken(tmp_path: Path, rows: str) -> None:
    given = clouds()
    layer = measured(tmp_path, given, "neighbor", rows_per_draw=60)[SITES[1], rows]
    kept = kept_rows(given[SITES[1]], rows)
    x = np.concatenate([given[SITES[1]][kept & (tokens().draw == j)][:60] for j in range(DRAWS)])
    x = x.astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1]
    for j in range(DRAWS):
        deviates = np.random.default_rng((0, j)).standard_normal((60, WIDTH))
        sample = deviates * np.sqrt(variances / variances[0])
        reference = np.sort(cdist(sample, sample), axis=1)[:, 1:3]
        np.testing.assert_allclose(layer.arrays["surrogate_distances"][j], reference, rtol=1e-9)


def test_rows_that_only_rounding_keeps_apart_have_no_surrogate(tmp_path: Path) -> None:
    x = np.full((N, WIDTH), 1e4)
    x[np.arange(N), np.arange(N) % WIDTH] += 1e-13 * 2.0 ** (4 + np.arange(N) // WIDTH % 10)
    arrays, _ = MEASURED["neighbor"].statistics(layer_of(x, tokens().draw))["all"]
    assert np.isnan(arrays["surrogate_distances"]).all() and np.isfinite(arrays["log_distance_sum"]).all()


def test_an_archive_keeps_less_than_two_megabytes_of_a_layer(tmp_path: Path) -> None:
    sizes = MEASURED["neighbor"].missing(rows=6400, width=128, draws=5, rows_per_draw=1024)
    assert 3 * sum(array.nbytes for array in sizes.values()) < 2e6


@pytest.mark.parametrize("family", ["angular", "neighbor", "spectral"])
def test_rows_that_are_not_finite_flag_their_layer_alone(tmp_path: Path, family: str) -> None:
    given = clouds()
    fine = measured(tmp_path, given, family, rows_per_draw=50)
    given[SITES[1]][17, 3] = np.nan
    given[SITES[1]][18, 4] = np.inf
    layers = measured(tmp_path, given, family, rows_per_draw=50)
    for rows in ("all", "no_sink"):
        layer = layers[SITES[1], rows]
        assert layer.attributes["flag"] == f"not finite: 2 of {N} rows"
        for name, array in layer.arrays.items():
            assert array.shape == fine[SITES[1], "all"].arrays[name].shape
            assert np.isnan(array).all()
        assert layers[SITES[2], rows].attributes["flag"] == ""


@pytest.mark.parametrize("family", ["angular", "neighbor", "spectral"])
@pytest.mark.parametrize(
    ("window", "draws", "flag"),
    [
        (2, 2, "too few rows: 1 with one draw left out; 2 needed"),
        (2, 1, "too few draws: 1; an interval needs 2"),
        (1, 2, "too few draws: 0; an interval needs 2"),
    ],
)
def test_rows_without_an_interval_are_nan_with_the_reason(
    tmp_path: Path, family: str, window: int, draws: int, flag: str
) -> None:
    n = window * draws
    few = Tokens(
        ids=np.arange(n),
        sequence=np.repeat(np.arange(draws), window),
        position=np.tile(np.arange(window), draws),
        draw=np.repeat(np.arange(draws), window),
        special=np.zeros(n, dtype=bool),
        sequence_bytes=np.ones(draws),
        attributes={},
    )
    source = tmp_path / "activations.h5"
    with ActivationWriter(source, sites=SITES[:1], width=4, tokens=few, attributes={}) as writer:
        writer.write(SITES[0], 0, np.random.default_rng(0).standard_normal((n, 4)).astype(np.float32))
    measure(source, tmp_path / "s.h5", family=MEASURED[family], first=0, last=0, rows=["no_sink"])
    _, [layer] = read_statistics(tmp_path / "s.h5")
    assert layer.attributes["flag"] == flag
    assert layer.attributes["n_rows"] == (window - 1) * draws  # position 0 is a sink
    assert all(np.isnan(array).all() for array in layer.arrays.values())


def test_one_distant_row_changes_all_rows_but_not_the_rest(tmp_path: Path) -> None:
    given = clouds()
    before = measured(tmp_path, given, "spectral")[SITES[1], "no_sink"].arrays["eigenvalues"]
    distances = measured(tmp_path, given, "neighbor")
    given[SITES[1]][WINDOW] *= 1e5  # position 0 of the second sequence
    layers = measured(tmp_path, given, "spectral")
    everything = layers[SITES[1], "all"].arrays["eigenvalues"][0]
    assert everything[0] / everything.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(layers[SITES[1], "no_sink"].arrays["eigenvalues"], before)
    after = measured(tmp_path, given, "neighbor")
    for rows, tolerance in (("no_sink", 1e-12), ("all", 0.03)):
        old, new = (layers[SITES[1], rows].arrays["distances"] for layers in (distances, after))
        np.testing.assert_allclose(np.median(new, axis=1), np.median(old, axis=1), rtol=tolerance)


def test_equal_rows_have_no_variance(tmp_path: Path) -> None:
    given = clouds()
    given[SITES[1]][:] = np.random.default_rng(1).standard_normal(WIDTH) * 1e4
    arrays = measured(tmp_path, given, "spectral")[SITES[1], "all"].arrays
    assert (arrays["eigenvalues"] == 0).all()
    assert (arrays["leading_uncentered"][:, 0] > 0).all()


def test_the_archive_describes_itself_and_repeats_byte_by_byte(tmp_path: Path) -> None:
    source = stored(tmp_path / "activations.h5", clouds())
    for name in ("one.h5", "two.h5"):
        measure(source, tmp_path / name, family=MEASURED["neighbor"], first=1, last=2, rows_per_draw=50)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
    attributes, layers = read_statistics(tmp_path / "one.h5")
    with Activations(source) as activations:
        assert attributes == {
            **activations.attributes,
            "family": "neighbor",
            "first": 1,
            "last": 2,
            "rows_per_draw": 50,
        }
    assert [layer.site for layer in layers[::3]] == list(SITES[1:])  # the final norm goes with the last block


@pytest.mark.parametrize("name", sorted(MEASURED.keys() - {"own", "skdim"}))  # of one axis, as linearity's
def test_every_axis_of_an_archive_has_a_name(tmp_path: Path, name: str) -> None:
    rows = clouds()
    rows[SITES[1]][3, 0] = np.nan  # of it there are no statistics, and arrays of NaN
    source = stored(tmp_path / "activations.h5", rows)
    measure(source, tmp_path / "s.h5", family=MEASURED[name], first=0, last=2, rows_per_draw=50)
    _, layers = read_statistics(tmp_path / "s.h5")
    with h5py.File(tmp_path / "s.h5") as file:
        for layer in layers:
            group = file[layer.site.path][layer.rows]
            assert layer.arrays.keys() == {key for key, item in group.items() if not item.is_scale}
            for key, array in layer.arrays.items():
                named = {axis[0].name: axis[0].shape for axis in group[key].dims}
                assert list(named.values()) == [(size,) for size in array.shape]
                assert all(scale.startswith(f"{group.name}/") for scale in named)


def test_an_archive_opens_in_xarray(tmp_path: Path) -> None:
    xarray = reader("xarray")
    reader("h5netcdf")
    source = stored(tmp_path / "activations.h5", clouds())
    for name in ("neighbor", "leading"):
        measure(source, tmp_path / "s.h5", family=MEASURED[name], first=1, last=1, rows_per_draw=50)
        _, layers = read_statistics(tmp_path / "s.h5")
        for layer in layers:
            group = f"{layer.site.path}/{layer.rows}"
            with xarray.open_dataset(tmp_path / "s.h5", engine="h5netcdf", group=group) as opened:
                assert {key: array.shape for key, array in opened.items()} == {
                    key: array.shape for key, array in layer.arrays.items()
                }
                if name == "neighbor":
                    assert opened["distances"].dims == ("draw", "row", "order")


def test_only_the_rows_that_are_asked_for_are_measured(tmp_path: Path) -> None:
    source = stored(tmp_path / "activations.h5", clouds())
    measure(source, tmp_path / "a.h5", family=MEASURED["angular"], first=0, last=0, rows=["no_sink"])
    _, layers = read_statistics(tmp_path / "a.h5")
    assert [(layer.site, layer.rows) for layer in layers] == [(SITES[0], "no_sink")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": ["no_sinks"]}, "unknown choice of rows `no_sinks`. Nearest: no_sink"),
        ({"rows_per_draw": 0}, "`rows_per_draw` is 0; it must be at least 1"),
        ({"first": 3, "last": 9}, "no layer of the store, 0 to 2, lies in `first`=3 … `last`=9"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: dict, message: str) -> None:
    source = stored(tmp_path / "activations.h5", clouds())
    given = {"family": MEASURED["spectral"], "first": 0, "last": 2, **arguments}
    with pytest.raises(InputError, match=message):
        measure(source, tmp_path / "a.h5", **given)
    assert not (tmp_path / "a.h5").exists()


def test_a_log_file_gets_a_line_for_each_site(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    measured(tmp_path, clouds(), "angular")
    lines = capfd.readouterr().err.split("\n")
    assert [line.split(" measured in ")[0] for line in lines] == [
        "angular: layers/00",
        "angular: layers/01",
        "angular: layers/02",
        "angular: final_norm",
        "",
    ]


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InputError, match="unknown metric family `spectra`. Nearest: spectral"):
        measured_family("spectra")


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_family_its_metrics_and_its_measuring_have_one_name(family: Family) -> None:
    assert {metric.family for metric in family.metrics} <= {family.name}
    assert family.measured is None or family.measured.name == family.name


def test_a_measuring_job_imports_nothing_heavy() -> None:
    code = (
        "import sys, lmshape.metrics.block;"
        "print({'torch', 'transformers', 'pandas', 'skdim', 'numba', 'scipy.stats', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
