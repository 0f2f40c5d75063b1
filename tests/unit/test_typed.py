"""Models as people type them: a folder, a repository of the hub; a study's own registry on top of ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tiny_models import ARCHITECTURES, BLOCKS, WIDTH

from lmshape.errors import InputError
from lmshape.study.registry import Registry, known_as, read_registry
from lmshape.study.study import load_study

REPOSITORY = Path(__file__).parents[2]
TEXTS = {"texts": {"mine": {"path": "mine.txt"}}, "datasets": {"mine": {"text": "mine"}}}
SAMPLING = {"window": 16, "draws": 2, "rows_per_draw": 64}


def run_of(folder: Path, name: str, *steps: int) -> Path:
    """Save a run of a tiny model as Trainer does; the tokenizer is a file that only has to be there."""
    for step in steps:
        place = folder / f"checkpoint-{step}"
        ARCHITECTURES[name].build(step).save_pretrained(place)
        (place / "tokenizer.json").write_text("{}")
    return folder


def study_of(root: Path, **config: object):  # noqa: ANN201
    (root / "mine.txt").write_text("words and words " * 1000)
    base = {"datasets": ["mine"], "registry": {"datasets": TEXTS}, "sampling": SAMPLING, "truncation": False}
    return load_study({**base, **config}, root)


@pytest.mark.parametrize(("name", "kind"), [("gpt_neox", "decoder"), ("bert", "encoder")])
def test_a_folder_is_a_model_with_what_its_config_says(name: str, kind: str, tmp_path: Path) -> None:
    run_of(tmp_path / "runs/my-run", name, 0, 8)
    for typed in ("./runs/my-run", "runs/my-run", str(tmp_path / "runs/my-run")):
        model = study_of(tmp_path, models=[typed]).models["my-run"]
        assert (model.kind, model.blocks, model.width) == (kind, BLOCKS, WIDTH)
        assert [one.step for one in model.checkpoints.values()] == [0, 8]


def test_checkpoints_of_a_folder_can_be_chosen(tmp_path: Path) -> None:
    run_of(tmp_path / "runs/my-run", "gpt_neox", 0, 4, 8)
    study = study_of(tmp_path, models=[{"./runs/my-run": {"checkpoints": "last"}}])
    assert list(study.models["my-run"].checkpoints) == ["checkpoint-8"]


def test_folders_with_names_that_no_path_of_ours_can_hold_stay_apart(tmp_path: Path) -> None:
    typed = [f"./{name}" for name in ("а б", "в г", "д е", "ж з", "и к", "л м", "н о", "п р")]
    names, known = known_as(typed, read_registry([], [], root=REPOSITORY), root=tmp_path)
    assert len({known.models[names[one]]["folder"] for one in typed}) == len(typed)


def test_letters_lose_their_marks_alone_and_the_root_has_a_name() -> None:
    typed = ["./Übung ä 1", "./runs/\N{LATIN CAPITAL LETTER U}\N{COMBINING DIAERESIS}bung ä 2", "/"]
    names, _ = known_as(typed, read_registry([], [], root=REPOSITORY), root=Path("/data"))
    assert list(names.values()) == ["Ubung-a-1", "Ubung-a-2", "model-2"]


def test_naming_ones_run_pretrains_nothing_beside_it(tmp_path: Path) -> None:
    embedded = yaml.safe_load((REPOSITORY / "config/config.yaml").read_text())
    run_of(tmp_path / "my-run", "gpt_neox", 0, 8)
    config = {**embedded, "models": ["./my-run"], "datasets": ["mine"], "sampling": SAMPLING}
    config = {**config, "registry": {"datasets": TEXTS}}
    assert study_of(tmp_path, **config).trained == {}


def test_repositories_of_the_registry_are_its_models() -> None:
    registry = read_registry([], [], root=REPOSITORY)
    names, known = known_as(["EleutherAI/pythia-70m", "pythia-160m"], registry, root=REPOSITORY)
    assert names == {"EleutherAI/pythia-70m": "pythia-70m"}  # the other is one
    assert known.models == registry.models


def test_others_are_named_by_the_end_of_their_path(tmp_path: Path) -> None:
    registry = Registry({"run": {"folder": "elsewhere"}}, {}, {})
    names, known = known_as(["me/run", "you/model", "/data/a/run", "/data/b/run"], registry, root=tmp_path)
    assert names == {"me/run": "me-run", "you/model": "model", "/data/a/run": "a-run", "/data/b/run": "b-run"}
    assert known.models["model"]["repository"] == "you/model"
    assert known.models["a-run"]["folder"] == "/data/a/run"
    assert "kind" not in known.models["model"]


def test_the_same_run_typed_twice_is_one_model(tmp_path: Path) -> None:
    names, _ = known_as(["./run", "./run/"], Registry({}, {}, {}), root=tmp_path)
    assert names == {"./run": "run", "./run/": "run"}


@pytest.mark.parametrize("models", [3, None, [3], [["a/b"]], {"a": 1}, {3: None}, "a/b"])
def test_what_is_no_list_is_left_to_the_schema(models: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`models"):
        study_of(tmp_path, models=models)


def test_the_same_run_in_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    run_of(tmp_path / "run", "gpt_neox", 0)
    for models in (["./run", "run/"], {"./run": None, "run/": None}):
        with pytest.raises(InputError, match="`models` lists run more than once. Keep one."):
            study_of(tmp_path, models=models)


def test_own_entries_come_on_top_of_ours(tmp_path: Path) -> None:
    own = {"mine": {"folder": "x"}, "pythia-70m": {"kind": "decoder", "folder": "copy"}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    registry = read_registry(["own.yaml", {"mine": {"folder": "y"}}], [], root=tmp_path)
    assert len(registry.models) > 150
    assert registry.models["mine"]["folder"] == "y"
    assert registry.models["pythia-70m"]["folder"] == "copy"
    assert "wiki" in registry.datasets
