"""The comparison runs and compares right, on tiny clouds and without any peer installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[2]
sys.path.append(str(REPOSITORY))  # `benchmarks` is a folder beside the library, not part of it

from benchmarks import (  # noqa: E402
    assets,
    clouds,
    coming_from,
    corrections,
    extraction,
    methods,
    pages,
    runs,
    sections,
    worker,
    workload,
)

from lmshape import geometry  # noqa: E402
from lmshape.errors import InputError  # noqa: E402
from lmshape.store.tokens import Tokens  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((150, 12)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path, cloud: np.ndarray) -> Path:
    path = tmp_path / "cloud.npy"
    np.save(path, cloud)
    return path


@pytest.mark.parametrize("name", ["ours", "scikit_learn"])
def test_searches_agree_with_direct_differences(cloud: np.ndarray, name: str) -> None:
    found = methods.METHODS["neighbors"][name].run(cloud, 5)
    assert found.shape == (150, 5)
    assert clouds.Exact.of(cloud, k=5).largest_error(found) < 1e-12


def test_a_wrong_distance_is_seen(cloud: np.ndarray) -> None:
    exact = clouds.Exact.of(cloud, k=3, checked=10)
    found = methods.ours(cloud, 3)
    found[exact.rows[4], 2] *= 1.25
    assert exact.largest_error(found) == pytest.approx(0.25)
    found[exact.rows[4], 2] = np.nan
    assert exact.largest_error(found) == np.inf


def test_spectra_agree_with_the_decomposition_of_the_rows(cloud: np.ndarray) -> None:
    exact = methods.svd(cloud, 0)
    np.testing.assert_allclose(methods.ours_spectrum(cloud, 0), exact, rtol=1e-12)
    np.testing.assert_allclose(methods.ours_spectra(cloud, 0), exact, rtol=1e-12)
    assert 1 / 12 < exact[0] < 1 < exact[1] < 12


def test_dimensions_agree_with_scikit_dimension(cloud: np.ndarray) -> None:
    np.testing.assert_allclose(methods.scikit_dimension(cloud, 2), methods.ours_fit(cloud, 2), rtol=1e-9)


@pytest.mark.parametrize("product", [methods.product_numpy, methods.product_torch])
def test_the_bare_product_returns_nothing(cloud: np.ndarray, product: object) -> None:
    assert product(cloud, 2).shape == (0,)


def test_a_slow_method_runs_twice_and_a_fast_one_three_times(
    monkeypatch: pytest.MonkeyPatch, cloud: np.ndarray
) -> None:
    calls = []
    method = methods.Method("counted", lambda x, k: calls.append(len(x)) or x)
    assert worker.measure(method, cloud, 1)[1]["runs"] == 3
    assert calls == [worker.WARM_ROWS, 150, 150, 150]
    monkeypatch.setattr(worker, "ENOUGH_SECONDS", 1e-12)
    assert worker.measure(method, cloud, 1)[1]["runs"] == 2


def test_a_method_runs_in_its_own_process(saved: Path, cloud: np.ndarray) -> None:
    found = runs.run("neighbors", "ours", saved, 2, threads=1)
    assert found.failure == "" and found.seconds > 0
    np.testing.assert_array_equal(found.found, methods.ours(cloud, 2))


def test_an_absent_peer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, saved: Path) -> None:
    monkeypatch.setattr(runs, "BENCH", tmp_path)
    assert runs.run("neighbors", "dadapy", saved, 2, threads=1).failure == "not installed: dadapy"


def test_the_worker_needs_nothing_of_the_project() -> None:
    program = "import benchmarks.worker, sys, json; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert not {"lmshape", "torch", "scipy"} & set(json.loads(loaded.stdout))


def test_the_table_of_a_cloud(saved: Path, cloud: np.ndarray) -> None:
    def runner(task: str, name: str, path: Path, k: int) -> runs.Run:
        if name == "faiss":
            return runs.Run("faiss", np.empty(0), np.nan, 0, np.nan, "no module")
        seconds = {"ours": 0.5, "scikit_learn": 2.0}.get(name, 1.0)
        found = methods.ours(cloud, k) if name in ("ours", "scikit_learn") else np.empty(0)
        return runs.Run(name, found, seconds, 3, 10.0)

    noise = clouds.Cloud("isotropic", "noise", None, 0, (2,))
    rate = 2e-9 * 150**2 * 12  # the product would take one second
    lines = sections.neighbors_section(noise, saved, 2, rate, runner).splitlines()
    cells = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ")[1:] for line in lines[4:]}
    assert cells["ours"][:4] == ["0.50", "3", "1.00", "200 %"]
    assert cells["scikit_learn"][:4] == ["2.00", "3", "4.00", "50 %"]
    assert cells["product_numpy"][-1] == "–"
    assert cells["faiss: no module"] == ["–"] * 6


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    begin, end = pages.BEGIN.format(command="it"), pages.END.format(command="it")
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    pages.replace_between(page, "it", "new")
    pages.replace_between(page, "it", "newer")
    assert page.read_text() == f"before\n{begin}\n\nnewer\n\n{end}\nafter\n"
    with pytest.raises(ValueError, match="once"):
        pages.replace_between(page, "another", "new")


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="has 1 cells, and the head 2"):
        pages.table("a | b", [["1"]])


@pytest.mark.parametrize(
    "page, command",
    [
        ("benchmarks", "make bench"),
        ("benchmarks", extraction.COMMAND),
        ("benchmarks", workload.COMMAND),
        ("corrections", corrections.COMMAND),
        ("coming_from", coming_from.COMMAND),
    ],
)
def test_the_pages_have_their_markers(tmp_path: Path, page: str, command: str) -> None:
    copy = tmp_path / "page.md"
    copy.write_text((REPOSITORY / f"docs/{page}.md").read_text())
    pages.replace_between(copy, command, "new")


def test_our_calls_on_the_page_of_other_packages_run() -> None:
    x = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
    names = {"x": x, "y": np.tanh(x)}
    for _, _, own, _ in coming_from.CALLS:
        found = coming_from.evaluated(own, vars(geometry) | names)
        assert np.isfinite(found).all(), own
    assert coming_from.evaluated("n = len(x); n + 1", dict(names)) == 61
    assert coming_from.cells([[1.0, 2.2]], np.array([[1.0, 2.0]])) == ("1e-01", "")
    assert coming_from.cells(None, 0.5) == ("none", "0.5")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    with pytest.raises(InputError, match="absent"):
        assets.verified(weights, assets.ENCODER)
    weights.write_bytes(b"other")
    with pytest.raises(InputError, match="has the sha256"):
        assets.verified(weights, assets.ENCODER)


@pytest.fixture
def site() -> corrections.Site:
    """Five draws of 60 tokens of 40 types; position 0 is far out, and the first two rows of a draw are the same."""
    draw = np.repeat(np.arange(5), 60)
    position = np.tile(np.arange(60), 5)
    generator = np.random.default_rng(1)
    x = generator.standard_normal((300, 8)).astype(np.float32)
    x[position == 2] = x[position == 1]
    x[position == 0] *= 1000
    ids = generator.integers(0, 40, 300)
    tokens = Tokens(ids, draw, position, draw, np.zeros(300, bool), np.zeros(5, int), {})
    return corrections.Site.of(x, tokens)


def test_draws_are_unique_and_equally_many(site: corrections.Site) -> None:
    assert [len(rows) for rows in corrections.unique_draws(site, np.ones(300, dtype=bool))] == [59] * 5
    assert [len(rows) for rows in corrections.unique_draws(site, site.no_sink)] == [58] * 5


def test_the_corrections_of_a_layer(site: corrections.Site) -> None:
    assert len(corrections.dimension_row(site)) + 1 == len(corrections.DIMENSION_HEAD.split(" | "))
    cells = corrections.anisotropy_row(site)
    assert len(cells) + 1 == len(corrections.ANISOTROPY_HEAD.split(" | "))
    released, sinks = float(cells[0]), int(cells[-1])
    everything, sinkless = (float(cell.split()[0]) for cell in cells[1:3])
    assert released == everything > 2 * sinkless
    assert sinks == 5


def test_the_linearity_of_a_block_less_its_residual_stream_and_its_sinks(site: corrections.Site) -> None:
    # two sequences in a draw, position 0 in the first and in the second half of them by turns
    second = (site.tokens.position >= 30) ^ (site.tokens.draw % 2 == 1)
    tokens = replace(site.tokens, sequence=2 * site.tokens.draw + second)
    noise = np.random.default_rng(2).standard_normal(site.x.shape).astype(np.float32)
    far, sinks = np.float32(1000) * (1 + tokens.draw[:, None]), ~site.no_sink[:, None]
    x = np.where(sinks, far, site.x).astype(np.float32)
    update = np.where(sinks, -0.5 * far, noise).astype(np.float32)  # a linear map of the sinks alone
    cells = corrections.linearity_row(x, x + update, tokens)
    assert len(cells) + 1 == len(corrections.LINEARITY_HEAD.split(" | "))
    released, cut, residual, held_out, both, sinkless, null = (float(cell.split()[0]) for cell in cells)
    assert released == cut >= held_out > 0.9
    assert residual >= both > 0.9 > 0.1 > sinkless
    assert null == pytest.approx(8 / 300, abs=5e-4)


def test_copies_raise_the_released_dimension(site: corrections.Site) -> None:
    released, distinct = (float(cell) for cell in corrections.dimension_row(site)[:2])
    assert released > distinct
