"""The figures of a model are there as soon as it is measured, and are those of the study without the other models."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import StudyFolder, copy_of

from lmshape import cli
from lmshape.errors import InputError
from lmshape.figures import FIGURES, TABLES, render
from lmshape.tables.columns import read_table, write_parquet
from lmshape.tables.study_tables import tables_of_model

OF_EACH_MODEL = [name for name, figure in FIGURES.items() if figure.of_each_model]
MODELS = ("small-decoder", "small-encoder")  # of six cells, and of one


@pytest.fixture(scope="module")
def measured_anew(
    finished_study: StudyFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyFolder, list[str]]:
    """The miniature study, measured once more from its activations, and the jobs of that in their order."""
    study = copy_of(finished_study, tmp_path_factory.mktemp("anew") / "study")
    for name in ("statistics", "metrics", "shapes", "figures"):
        shutil.rmtree(study.path / "results" / name)
    study.configure(figures=list(OF_EACH_MODEL))
    targets = [f"results/figures/{model}/{OF_EACH_MODEL[0]}.png" for model in MODELS]
    run = study.snakemake("--cores", "1", *targets)
    assert run.returncode == 0, run.stdout
    return study, re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)$", run.stdout, re.MULTILINE)


def test_figures_of_the_first_model_come_before_the_cells_of_the_second(
    measured_anew: tuple[StudyFolder, list[str]],
) -> None:
    """The model with the least to do is the first, wherever it stands in the configuration."""
    study, jobs = measured_anew
    assert jobs == ["measure", "gather", "model_figures", *["measure"] * 6, "gather", "model_figures"]
    figures = study.path.glob("results/figures/small-encoder/*.png")
    cells = study.path.glob("results/statistics/small-decoder/*/*/measured-*")
    assert max(path.stat().st_mtime for path in figures) < min(path.stat().st_mtime for path in cells)


def test_a_figure_of_a_model_needs_no_table_of_the_study() -> None:
    assert OF_EACH_MODEL and {table for name in OF_EACH_MODEL for table in FIGURES[name].tables} == set(
        TABLES
    )
    assert not [name for name in OF_EACH_MODEL if FIGURES[name].draws_losses]


def test_a_model_has_its_figures_and_no_others(measured_anew: tuple[StudyFolder, list[str]]) -> None:
    study, _ = measured_anew
    for model in MODELS:
        folder = study.path / "results/figures" / model
        assert {path.name for path in folder.iterdir()} == {
            f"{name}.{kind}" for name in OF_EACH_MODEL for kind in ("png", "svg", "csv")
        }
        for name in OF_EACH_MODEL:
            drawn = pd.read_csv(folder / f"{name}.csv")
            several = (
                model == "small-decoder" or "over_training" not in name
            )  # the encoder has one checkpoint
            assert set(drawn["model"]) == ({model} if several else set()), name


@pytest.mark.parametrize("model", MODELS)
def test_tables_of_a_model_are_its_part_of_the_studys(model: str, finished_study: StudyFolder) -> None:
    results = finished_study.path / "results"
    found = tables_of_model(results / f"metrics/{model}.parquet", ["anisotropy", "id_twonn"])
    for name, table in found.items():
        whole = read_table(results / f"tables/{name}.parquet")
        rows = whole[whole["model"] == model]
        if name == "metrics":
            rows = rows[rows["metric"].isin(["anisotropy", "id_twonn", "loss"])]
        pd.testing.assert_frame_equal(
            table[list(rows.columns)], rows.reset_index(drop=True), check_exact=True
        )


@pytest.mark.parametrize("name", OF_EACH_MODEL)
def test_a_figure_of_a_model_is_that_of_a_study_of_it_alone(
    name: str, finished_study: StudyFolder, tmp_path: Path
) -> None:
    results = finished_study.path / "results"
    for table in ("metrics", "checkpoints"):
        whole = pq.read_table(results / f"tables/{table}.parquet")
        of_model = pc.equal(whole["model"].cast("string"), "small-decoder")
        write_parquet(whole.filter(of_model), tmp_path / f"{table}.parquet")
    told = {"losses": {}, "datasets": ["wiki", "wiki-random"]}
    alone = render(name, results / "metrics/small-decoder.parquet", output_stem=tmp_path / "alone", **told)
    of_study = render(name, tmp_path, output_stem=tmp_path / "study", **told)
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in of_study]


def test_the_verb_draws_any_figure_of_a_model(finished_study: StudyFolder, tmp_path: Path, capsys) -> None:
    study = copy_of(finished_study, tmp_path / "study")
    shutil.rmtree(study.path / "results/tables")  # others are still being measured
    told = {"configfile": study.path / "config.yaml", "directory": study.path}
    cli.figure("cone", model="small-encoder", **told)
    stem = study.path / "results/figures/small-encoder/cone"
    assert capsys.readouterr().out.split() == [f"{stem}.{kind}" for kind in ("png", "svg", "csv")]
    assert set(pd.read_csv(f"{stem}.csv")["model"]) == {"small-encoder"}
    with pytest.raises(InputError, match="unknown model `small-encodr`. Nearest: small-encoder"):
        cli.figure("cone", model="small-encodr", **told)
    with pytest.raises(InputError, match="`phases` is a table of whole studies"):
        cli.figure("phases", model="small-encoder", **told)
    (study.path / "results/metrics/small-encoder.parquet").unlink()
    with pytest.raises(InputError, match=r"small-encoder.parquet` does not exist. Make it first"):
        cli.figure("cone", model="small-encoder", **told)
