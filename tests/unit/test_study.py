"""A study from its configuration: what it plans, and every way in which it is refused."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest
import yaml
from layers import write_statistics

from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.metrics.registry import METRIC_FAMILIES, families_of, measured_families, metric_names
from lmshape.schema import Yaml, read_yaml
from lmshape.store.statistics import write_loss_card
from lmshape.study.registry import REPOSITORY
from lmshape.study.study import Cell, Study, check_loss_logs, load_study
from lmshape.texts.tokens import Sampling

CONFIG_JSON = {
    "model_type": "gpt_neox",
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "max_position_embeddings": 256,
    "vocab_size": 1000,
}
MODELS = """
run-a: {kind: decoder, folder: runs/a, tokens_per_step: 10, recipe: twins, unstable: true}
run-b: {kind: decoder, folder: runs/b}
planned: {kind: decoder, folder: results/pretrained/tiny}
planned-encoder: {kind: encoder, folder: results/pretrained/tiny-encoder}
"""
DATASETS = """
texts:
  book: {path: book.txt}
  packed: {path: book.txt.xz, bytes: 1000000}
  packed-unknown: {path: book.txt.xz}
  far: {url: "https://example.org/far.zip", md5: a1fa5ffddb56f4953e226637dabbb36a, bytes: 900}
datasets:
  book: {text: book}
  book-shuffled: {text: book, order: shuffled}
  tail: {text: book, span: [0.999, 1.0]}
  packed: {text: packed}
  packed-unknown: {text: packed-unknown}
  far: {text: far}
  random: {order: random}
"""
TINY = {"architecture": "gpt_neox", "width": 32, "blocks": 2, "heads": 4, "learning_rate": 0.003}
PRETRAINING = {
    "text": "book",
    "steps": 20,
    "linear_every": 8,
    "sequences": 4,
    "window": 128,
    "vocabulary": 300,
    "span": [0.0, 0.9],
    "runs": {"tiny": TINY, "tiny-encoder": TINY | {"architecture": "bert"}},
}


NO_TENSORS = (2).to_bytes(8, "little") + b"{}"  # a whole safetensors file


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs of checkpoints with empty weights, a book of 20 kB, and a registry of them."""
    for run, steps in {"a": (0, 1, 10, 100, 1000), "b": (0, 50)}.items():
        for step in steps:
            folder = tmp_path / "runs" / run / f"checkpoint-{step}"
            folder.mkdir(parents=True)
            (folder / "config.json").write_text(json.dumps(CONFIG_JSON))
            (folder / "model.safetensors").write_bytes(NO_TENSORS)
            (folder / "tokenizer.json").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text(MODELS)
    (tmp_path / "config" / "datasets.yaml").write_text(DATASETS)
    (tmp_path / "book.txt").write_text("x" * 20_000)
    (tmp_path / "book.txt.xz").write_text("x" * 20)
    return tmp_path


def study_of(root: Path, **config: Yaml) -> Study:
    return load_study({"models": ["run-a"], "datasets": ["book"]} | config, root)


def refusal_of(root: Path, **config: Yaml) -> str:
    with pytest.raises(InputError) as error:
        check_loss_logs(study_of(root, **config), root)
    return str(error.value)


def test_the_embedded_study() -> None:
    study = load_study(read_yaml(REPOSITORY / "config" / "config.yaml"), REPOSITORY)
    assert list(study.models) == ["wiki-decoder", "wiki-encoder"] == list(study.trained)
    assert list(study.datasets) == ["wiki", "wiki-shuffled", "wiki-random"]
    for model in study.models.values():
        assert model.pretraining == model.name and model.blocks == 6
        steps = [checkpoint.step for checkpoint in model.checkpoints.values()]
        assert (steps[0], steps[-1]) == (0, study.pretraining.runs[model.name].steps)
    assert study.measured_families == ("spectral", "angular", "leading", "neighbor", "linearity")
    assert study.pretraining.span[1] <= study.datasets["wiki"].span[0]  # what is measured is held out


def test_the_study_of_loss_spikes_trains_one_model_and_probes_all_its_runs() -> None:
    study = load_study(read_yaml(REPOSITORY / "config/studies/spikes.yaml"), REPOSITORY)
    assert list(study.models) == ["wiki-decoder-unstable"]
    assert study.trained.keys() == study.pretraining.runs.keys()
    assert all(recipe.probe_every for recipe in study.trained.values())
    kept = [name for name, recipe in study.trained.items() if recipe.keep_checkpoints]
    assert kept == list(study.models) and len(study.trained) == 9


def test_defaults(root: Path) -> None:
    study = study_of(root)
    assert (study.name, study.rows, study.layers_per_job) == (
        "study",
        ("all", "no_sink", "one_per_type"),
        None,
    )
    assert study.sampling == Sampling(protocol="windows", window=128, draws=5, rows_per_draw=1024, seed=0)
    extraction = study.extraction
    assert (extraction.dtype, extraction.device, extraction.batch_tokens) == ("auto", "auto", "auto")
    assert extraction.device_map == "none"
    families = ("spectral", "angular", "leading", "neighbor", "linearity", "loss")
    assert study.metrics == tuple(name for family in families for name in METRIC_FAMILIES[family])
    assert study.keep_activations and study.pretraining is None


def test_the_configuration_is_not_changed(root: Path) -> None:
    config = {"models": ["run-a"], "datasets": ["book"]}
    load_study(config, root)
    assert config == {"models": ["run-a"], "datasets": ["book"]}


def test_cells_by_model_step_and_dataset(root: Path) -> None:
    study = study_of(root, models=["run-b", "run-a"], datasets=["book", "random"], checkpoints="last")
    assert study.cells() == [
        Cell("run-b", "checkpoint-50", "book"),
        Cell("run-b", "checkpoint-50", "random"),
        Cell("run-a", "checkpoint-1000", "book"),
        Cell("run-a", "checkpoint-1000", "random"),
    ]


def test_the_checkpoint_of_a_cell(root: Path) -> None:
    study = study_of(root, models=["run-a", "run-b"])
    checkpoint = study.checkpoint(Cell("run-a", "checkpoint-100", "book"))
    assert (checkpoint.step, checkpoint.tokens_seen) == (100, 1000.0)
    assert checkpoint.folder == Path("runs/a/checkpoint-100")
    assert math.isnan(study.checkpoint(Cell("run-b", "checkpoint-50", "book")).tokens_seen)


@pytest.mark.parametrize("form", ["list", "mapping"])
def test_models_may_differ_in_checkpoints_and_datasets(root: Path, form: str) -> None:
    choices = {"run-a": {"checkpoints": {"log": 3}, "datasets": ["random"]}, "run-b": None}
    models = choices if form == "mapping" else [{"run-a": choices["run-a"]}, "run-b"]
    study = study_of(root, models=models, datasets=["book", "book-shuffled"], checkpoints=[0])
    assert list(study.models["run-a"].checkpoints) == ["checkpoint-0", "checkpoint-10", "checkpoint-1000"]
    assert list(study.models["run-b"].checkpoints) == ["checkpoint-0"]
    assert study.datasets_of == {"run-a": ("random",), "run-b": ("book", "book-shuffled")}
    assert list(study.datasets) == ["book", "book-shuffled", "random"]


def test_runs_that_differ_in_their_seed_share_a_recipe(root: Path) -> None:
    study = study_of(root, models=["run-a", "run-b"])
    assert [model.recipe for model in study.models.values()] == ["twins", None]
    assert [model.unstable for model in study.models.values()] == [True, False]


def test_datasets_that_no_model_takes_are_left_out(root: Path) -> None:
    study = study_of(root, models={"run-a": {"datasets": ["random"]}}, datasets=["book"])
    assert list(study.datasets) == ["random"]


@pytest.mark.parametrize(
    ("layers_per_job", "blocks"),
    [
        ("all", [(0, 4)]),
        (1, [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]),
        (2, [(0, 1), (2, 3), (4, 4)]),
        (5, [(0, 4)]),
        (99, [(0, 4)]),
    ],
)
def test_layers_are_split_into_jobs(root: Path, layers_per_job: int | str, blocks: list) -> None:
    assert study_of(root, layers_per_job=layers_per_job).blocks_of("run-a") == blocks


def test_metrics_by_family_and_by_name(root: Path) -> None:
    study = study_of(root, metrics=["id_mle", "angular", "mean_cosine", "loss"])
    assert study.metrics == (*METRIC_FAMILIES["angular"], "id_mle", "loss", "bits_per_byte")
    assert families_of(study.metrics) == ("angular", "neighbor", "loss")
    assert study.measured_families == ("angular", "neighbor")
    assert study_of(root, metrics=["bits_per_byte"]).metrics == ("bits_per_byte",)


def test_figures_in_the_order_of_the_page(root: Path) -> None:
    assert study_of(root).figures == tuple(FIGURES)
    assert study_of(root, figures=[]).figures == ()
    assert study_of(root, figures=["controls", "anisotropy_by_layer"]).figures == (
        "anisotropy_by_layer",
        "controls",
    )
    with pytest.raises(
        InputError, match=r"anisotropy_by_lager.: unknown figure. Nearest: anisotropy_by_layer"
    ):
        study_of(root, figures=["anisotropy_by_lager"])


def test_names_of_metrics_by_themselves() -> None:
    assert families_of(["id_mle"]) == families_of(["neighbor"]) == ("neighbor",)
    assert measured_families(["loss", "spectral"]) == ("spectral",)
    with pytest.raises(InputError, match="unknown metric or metric family `anisotrpy`. Nearest: anisotropy"):
        metric_names(["anisotrpy"])


def test_random_tokens_follow_a_text_only_in_the_paper_protocol(root: Path) -> None:
    registry = DATASETS.replace("{order: random}", "{text: book, order: random}")
    (root / "config" / "datasets.yaml").write_text(registry)
    (root / "book.txt").write_text("x" * 70_000)
    study = study_of(root, datasets=["random", "book"])
    assert study.text_of("random") is None and study.text_of("book").name == "book"
    study = study_of(root, datasets=["random", "book"], sampling={"protocol": "paper"})
    assert study.text_of("random").name == "book"


def test_a_run_that_the_study_trains_need_not_exist(root: Path) -> None:
    study = study_of(root, models=["planned"], pretraining=PRETRAINING)
    model = study.models["planned"]
    assert list(model.checkpoints) == [f"checkpoint-{step}" for step in (0, 1, 2, 4, 8, 16, 20)]
    assert (model.blocks, model.width, model.context, model.vocabulary) == (2, 32, 128, 300)
    assert (model.pretraining, model.architecture, model.parameters) == ("tiny", "gpt_neox", None)
    assert model.tokenizer == Path("results/pretrained/tokenizer")
    assert model.checkpoints["checkpoint-20"].tokens_seen == 20 * 4 * 128
    assert study.pretraining.runs["tiny"].learning_rate == 0.003


def test_the_plan_is_the_same_once_the_run_exists(root: Path) -> None:
    before = study_of(root, models=["planned"], pretraining=PRETRAINING)
    (root / "results/pretrained/tiny/checkpoint-7").mkdir(parents=True)
    assert study_of(root, models=["planned"], pretraining=PRETRAINING) == before


def test_a_clipping_of_infinity_clips_nothing(root: Path) -> None:
    runs = {"tiny": TINY | {"gradient_clip": math.inf}}
    study = study_of(root, pretraining=PRETRAINING | {"runs": runs})
    assert study.pretraining.runs["tiny"].gradient_clip == math.inf


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"models": ["run-c"]},
            "`models[0]` = 'run-c': unknown model; the registry of models does not hold it. Nearest: run-",
        ),
        (
            {"models": {"rn-a": None}},
            "`models.rn-a`: unknown model; the registry of models does not hold it.",
        ),
        ({"models": [{"run-c": None}]}, "`models[0].run-c`: unknown model; the registry of models does not"),
        ({"models": []}, "`models`: must not be empty. Name at least one model of the registry."),
        ({"models": {}}, "`models`: must not be empty. Name at least one model of the registry."),
        ({"models": "run-a"}, "`models` = 'run-a': must be a list or a mapping of keys to values."),
        ({"models": [3]}, "`models[0]` = 3: must be text or a mapping of keys to values."),
        (
            {"models": [{"run-a": None, "checkpoints": "last"}]},
            "`models[0]`: must have one key, not 2: run-a, checkpoints. Below a model, indent",
        ),
        (
            {"models": {"run-a": {"checkpoint": "all"}}},
            "`models.run-a.checkpoint`: unknown key. Nearest: check",
        ),
        (
            {"models": {"run-a": {"datasets": ["bok"]}}},
            "`models.run-a.datasets[0]` = 'bok': unknown dataset; the registry of datasets does not hold it. "
            "Nearest: book",
        ),
        (
            {"datasets": ["bok"]},
            "`datasets[0]` = 'bok': unknown dataset; the registry of datasets does not hold",
        ),
        ({"datasets": ["book", "book"]}, "`datasets`: lists book more than once. Keep one."),
        (
            {"datasets": []},
            "`datasets`: must not be empty. Name at least one dataset of the registry.",
        ),
        (
            {"metrics": ["anisotrpy"]},
            "`metrics[0]` = 'anisotrpy': unknown metric or metric family. Nearest: anis",
        ),
        ({"metrics": ["loss", "loss"]}, "`metrics`: lists loss more than once. Keep one."),
        ({"rows": ["no_snk"]}, "`rows[0]` = 'no_snk': unknown variant of the rows. Nearest: no_sink."),
        ({"sampling": {"windw": 3}}, "`sampling.windw`: unknown key. Nearest: window"),
        (
            {"sampling": {"protocol": "papr"}},
            "`sampling.protocol` = 'papr': unknown protocol. Nearest: paper.",
        ),
        (
            {"sampling": {"draws": -3}},
            "`sampling.draws` = -3: must be at least 2. The intervals come from the spread over draws; "
            "take 5 or more.",
        ),
        ({"sampling": {"draws": 1}}, "`sampling.draws` = 1: must be at least 2."),
        ({"sampling": {"draws": 2.5}}, "`sampling.draws` = 2.5: must be a whole number."),
        (
            {"sampling": {"rows_per_draw": 63}},
            "`sampling.rows_per_draw` = 63: must be at least 64. Neighbor met",
        ),
        (
            {"sampling": {"window": 0}},
            "`sampling.window` = 0: must be at least 2. It is the number of tokens of",
        ),
        ({"sampling": {"seed": -1}}, "`sampling.seed` = -1: must be at least 0."),
        (
            {"extraction": {"dtype": "float23"}},
            "`extraction.dtype` = 'float23': unknown dtype. Nearest: float",
        ),
        (
            {"extraction": {"device": "gpu"}},
            "`extraction.device` = 'gpu': not valid. Valid: auto, cpu, cuda, cuda",
        ),
        ({"extraction": {"batch_tokens": 0}}, "`extraction.batch_tokens` = 0: must be at least 1."),
        (
            {"layers_per_job": 0},
            "`layers_per_job` = 0: must be at least 1. Write `all` or a number of layers.",
        ),
        (
            {"layers_per_job": "each"},
            "`layers_per_job` = 'each': not valid. Write `all` or a number of layers.",
        ),
        (
            {"checkpoints": []},
            "`checkpoints`: must not be empty. Write `all`, `last`, a list of names",
        ),
        ({"checkpoints": "lst"}, "`checkpoints` = 'lst': not valid. Write `all`, `last`, a list of names or"),
        ({"checkpoints": {"log": 1}}, "`checkpoints.log` = 1: must be at least 2."),
        ({"checkpoints": {"every": 0}}, "`checkpoints.every` = 0: must be at least 1."),
        ({"checkpoints": {"each": 2}}, "`checkpoints.each`: unknown key."),
        (
            {"checkpoints": {"log": 5, "every": 2}},
            "`checkpoints`: must have one key, not 2: log, every. Write",
        ),
        ({"checkpoints": [-1]}, "`checkpoints[0]` = -1: must be at least 0."),
        ({"disk_budget_gb": math.nan}, "`disk_budget_gb` = nan: must be a number or empty. Write gig"),
        ({"disk_budget_gb": math.inf}, "`disk_budget_gb` = inf: must be at most 1000000000.0. Write gig"),
        ({"keep_activations": "yes"}, "`keep_activations` = 'yes': must be true or false."),
        ({"study": "my study"}, "`study` = 'my study': not valid. Names become folders; use letters, digits"),
        ({"modls": []}, "`modls`: unknown key. Nearest: models"),
        (
            {"registry": {"models": 3}},
            "`registry.models` = 3: must be text or a mapping of keys to values or a list.",
        ),
        ({"registry": {"model": "x"}}, "`registry.model`: unknown key. Nearest: models."),
        ({"registry": {"models": "no.yaml"}}, "no.yaml`: no such file."),
    ],
)
def test_what_the_configuration_says_wrongly(root: Path, config: dict[str, Yaml], message: str) -> None:
    refusal = refusal_of(root, **config)
    assert message in refusal
    assert "faults" not in refusal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"text": "bok"},
            "`pretraining.text` = 'bok': unknown text; the registry of datasets does not hold it.",
        ),
        ({"steps": 0}, "`pretraining.steps` = 0: must be at least 1."),
        (
            {"vocabulary": 100},
            "`pretraining.vocabulary` = 100: must be at least 259. A byte-level vocabulary holds",
        ),
        ({"span": [0.9, 0.1]}, "`pretraining.span` = [0.9, 0.1]: must end after it begins."),
        ({"runs": {}}, "`pretraining.runs`: must not be empty."),
        (
            {"runs": {"tokenizer": TINY}},
            "`pretraining.runs.tokenizer`: not allowed. The tokenizer of all runs lies",
        ),
        (
            {"runs": {"tiny": TINY | {"depth": 3}}},
            "`pretraining.runs.tiny.depth`: unknown key. Nearest: width",
        ),
        ({"runs": {"tiny": {"width": 8}}}, "`pretraining.runs.tiny.architecture`: this key is missing."),
        (
            {"runs": {"tiny": TINY | {"architecture": "gpt"}}},
            "`pretraining.runs.tiny.architecture` = 'gpt': unknown architecture. Nearest: gpt_neox.",
        ),
        (
            {"runs": {"tiny": TINY | {"learning_rate": "1e-3"}}},
            "`pretraining.runs.tiny.learning_rate` = '1e-3': must be a number. This is text: write 5, not",
        ),
        (
            {"runs": {"tiny": TINY | {"gradient_clip": 0}}},
            "`pretraining.runs.tiny.gradient_clip` = 0: must be more than 0. Write `.inf` to clip nothing.",
        ),
        (
            {"runs": {"tiny": TINY | {"heads": 5}}},
            "`pretraining.runs.tiny`: `width` 32 is not a multiple of `heads` 5. Change one of the two.",
        ),
    ],
)
def test_a_pretraining_that_cannot_be(root: Path, change: dict[str, Yaml], message: str) -> None:
    assert message in refusal_of(root, models=["planned"], pretraining=PRETRAINING | change)


WATCHED = TINY | {"steps": 7, "keep_checkpoints": False, "probe_every": 2, "probe_tokens": 128}


def test_runs_that_no_model_is_made_of_are_trained_if_they_are_probed(root: Path) -> None:
    runs = {"tiny": TINY, "watched": WATCHED | {"seed": 5, "cycle": 3}, "idle": TINY}
    study = study_of(root, models=["planned"], pretraining=PRETRAINING | {"runs": runs, "span": [0.0, 0.5]})
    assert list(study.trained) == ["tiny", "watched"]
    watched = study.trained["watched"]
    assert (watched.steps, watched.seed, watched.cycle, watched.keep_checkpoints) == (7, 5, 3, False)
    assert all(0 < step < 7 for step in watched.checkpoint_steps)
    assert study.trained["tiny"].seed == 0 and study.trained["tiny"].keep_checkpoints


@pytest.mark.parametrize(
    ("runs", "span", "message"),
    [
        ({"tiny": TINY, "w": WATCHED}, [0.0, 1.0], "`pretraining.runs.w.probe_every`: the geometry is measured on"),
        ({"tiny": TINY | {"steps": 3}}, [0.0, 0.5], "`steps` 3 are not the study's"),
        ({"tiny": WATCHED}, [0.0, 0.5], "`pretraining.runs.tiny` keeps no checkpoints to be measured"),
        ({"tiny": TINY, "w": WATCHED | {"probe_tokens": 10}}, [0.0, 0.5], "must be at least 64"),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_watched(root: Path, runs: Yaml, span: Yaml, message: str) -> None:
    changed = PRETRAINING | {"runs": runs, "span": span}
    assert message in refusal_of(root, models=["planned"], pretraining=changed)


def test_a_job_reads_no_log_that_the_plan_has_read(root: Path) -> None:
    (root / "loss.csv").write_text("no log any more\n")
    assert list(study_of(root, loss_logs={"mine": "loss.csv"}).loss_logs) == ["mine"]


def test_logs_of_other_runs(root: Path) -> None:
    (root / "loss.csv").write_text("step,loss\n1,2\n")
    (root / "geometry.csv").write_text("step,layer,metric,value\n")
    logs = {"plain": "loss.csv", "watched": {"losses": "loss.csv", "geometry": "geometry.csv"}}
    study = study_of(root, loss_logs=logs)
    assert [len(log.files) for log in study.loss_logs.values()] == [1, 2]
    assert "`loss_logs.mine` = 'gone.csv': no such file" in refusal_of(root, loss_logs={"mine": "gone.csv"})
    (root / "play.txt").write_text("First Citizen:\nBefore we proceed any further\n")
    said = refusal_of(
        root, loss_logs={"mine": "play.txt", "other": {"losses": "loss.csv", "geometry": "loss.csv"}}
    )
    assert (
        "`loss_logs.mine`: `" in said and "play.txt`: has no column for the loss, only First Citizen:" in said
    )
    assert "`loss_logs.other`: `" in said and "not step, layer, metric, value" in said
    assert "`loss_logs.mine.losses`: this key is missing" in refusal_of(
        root, loss_logs={"mine": {"geometry": "loss.csv"}}
    )
    both = {"models": ["planned"], "pretraining": PRETRAINING, "loss_logs": {"tiny": "loss.csv"}}
    assert "`loss_logs.tiny`: a run of `pretraining` has this name" in refusal_of(root, **both)


def test_faults_of_configuration_and_registry_are_told_together(root: Path) -> None:
    config = {"models": ["rn-a"], "datasets": ["bok"], "metrics": ["los"], "sampling": {"draws": 0}}
    first, *rest = refusal_of(root, **config, sede=3).splitlines()
    assert first == "5 faults in the configuration:"
    assert sorted(line[2:].split(" ")[0].rstrip(":") for line in rest) == [
        "`datasets[0]`",
        "`metrics[0]`",
        "`models[0]`",
        "`sampling.draws`",
        "`sede`",
    ]
    (root / "config" / "models.yaml").write_text("a: {}\n")
    assert refusal_of(root, sede=3).startswith("2 faults in the configuration:")


def test_missing_models_and_datasets(root: Path) -> None:
    with pytest.raises(InputError) as error:
        load_study({}, root)
    assert "`models`: this key is missing." in str(error.value)
    assert "`datasets`: this key is missing." in str(error.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"models": ["run-a", "run-a"]}, "`models` lists run-a more than once. Keep one."),
        ({"models": ["run-a", {"run-a": None}]}, "`models` lists run-a more than once. Keep one."),
        ({"checkpoints": [500]}, "`run-a` has no checkpoint `500`. Nearest steps that exist: 10, 100, 1000."),
        ({"checkpoints": [0, "checkpoint-0"]}, "`checkpoints` of `run-a` lists checkpoint-0 more than once."),
        (
            {"sampling": {"window": 257}},
            "`sampling.window` = 257: longer than the context of `run-a`, 256 tokens. Lower it to 256 or",
        ),
        (
            {"sampling": {"draws": 20}},
            "`texts.book`: 20000 bytes, of which `datasets.book` takes 20000; it needs 25600 at the very "
            "least, one a token. Take a larger text, a wider `span`, or fewer draws or rows",
        ),
        ({"datasets": ["tail"]}, "of which `datasets.tail` takes 20; it needs 6400 at the very least"),
        ({"datasets": ["far"]}, "`texts.far`: 900 bytes, of which `datasets.far` takes 900; it needs 6400"),
        (
            {"sampling": {"protocol": "paper"}},
            "`datasets.book` takes 20000; it needs 65536 at the very least",
        ),
        (
            {"datasets": ["random"], "sampling": {"protocol": "paper"}},
            "`datasets.random`: the protocol `paper` takes the lengths of random sequences from a text. "
            "Give the dataset a `text`.",
        ),
        (
            {"models": ["planned"]},
            "`planned.folder` = 'results/pretrained/tiny': no such folder, and `pretraining.runs` has no run "
            "`tiny` that would make it.",
        ),
        (
            {"models": ["planned"], "pretraining": PRETRAINING | {"runs": {"tinny": TINY}}},
            "has no run `tiny` that would make it. Nearest: tinny.",
        ),
        (
            {
                "models": ["planned-encoder"],
                "pretraining": PRETRAINING | {"runs": {"tiny-encoder": TINY}},
            },
            "`planned-encoder.kind` = 'encoder': `pretraining.runs.tiny-encoder` trains a decoder, gpt_neox.",
        ),
        (
            {"models": ["planned"], "pretraining": PRETRAINING | {"sequences": 150}},
            "`texts.book`: 20000 bytes, of which `pretraining` takes 18000; it needs 19200 at the very least",
        ),
    ],
)
def test_what_the_configuration_refers_to_in_vain(root: Path, config: dict[str, Yaml], message: str) -> None:
    refusal = refusal_of(root, **config)
    assert message in refusal
    assert "faults" not in refusal


def test_a_text_that_is_empty_or_not_there(root: Path) -> None:
    (root / "book.txt").write_text("")
    assert refusal_of(root) == "`texts.book`: book.txt is empty. Name a file with text."
    (root / "book.txt").unlink()
    assert refusal_of(root) == f"`texts.book.path` = 'book.txt': no such file in {root}. Correct the path."


@pytest.mark.parametrize("root_of_path", ["", "{root}/"])
def test_a_text_where_the_study_would_write_over_it_is_refused(root_of_path: str, root: Path) -> None:
    path = root_of_path.format(root=root) + "results/texts/book.txt"
    (root / path).parent.mkdir(parents=True)
    (root / "book.txt").rename(root / path)
    datasets = yaml.safe_load((root / "config/datasets.yaml").read_text())
    datasets["texts"]["book"]["path"] = path
    (root / "config/datasets.yaml").write_text(yaml.safe_dump(datasets))
    assert refusal_of(root) == (
        f"`texts.book.path` = '{path}': there the study puts its own copies. Move it elsewhere."
    )


def test_packed_texts_count_by_the_size_that_is_declared(root: Path) -> None:
    assert study_of(root, datasets=["packed", "packed-unknown"]).datasets.keys() == {
        "packed",
        "packed-unknown",
    }


def test_only_checkpoints_that_are_taken_need_weights(root: Path) -> None:
    (root / "runs/a/checkpoint-1/model.safetensors").unlink()
    os.utime(root / "runs/a/checkpoint-1", (10**9, 10**9))  # nobody is about to save or to delete it
    assert study_of(root, checkpoints=[0, 10])
    refusal = refusal_of(root)
    assert refusal.startswith("`run-a`: 1 of its 5 checkpoints cannot be loaded: checkpoint-1. The first: ")


def test_what_cannot_be_found_is_told_together(root: Path) -> None:
    (root / "book.txt").unlink()
    refusal = refusal_of(root, models=["run-a", "run-b", "planned"], checkpoints=[100])
    first, *rest = refusal.splitlines()
    assert first == "3 faults in what the configuration refers to:"
    assert [line[:11] for line in rest] == ["- `run-b` h", "- `planned.", "- `texts.bo"]


def test_registries_elsewhere(root: Path) -> None:
    (root / "mine.yaml").write_text(MODELS.replace("run-a", "other"))
    study = study_of(root, models=["other"], registry={"models": "mine.yaml"})
    assert list(study.models) == ["other"]


@pytest.mark.parametrize("name", ["it{s}", "{", "it}s", "<its>"])
def test_paths_that_snakemake_would_read_otherwise_are_refused(root: Path, name: str) -> None:
    for old, new in (("runs/b", f"runs/{name}"), ("book.txt", f"{name}.txt")):
        (root / old).rename(root / new)
    (root / f"{name}.csv").write_text("step,loss\n" + "".join(f"{step},2.5\n" for step in range(200)))
    (root / "config/models.yaml").write_text(MODELS.replace("runs/b", f"'runs/{name}'"))
    (root / "config/datasets.yaml").write_text(DATASETS.replace("path: book.txt}", f"path: '{name}.txt'}}"))
    _, *told = refusal_of(root, models=["run-b"], loss_logs={"mine": f"{name}.csv"}).splitlines()
    assert [line.partition(": Snakemake takes braces")[0] for line in told] == [
        f"- `run-b` = 'runs/{name}/checkpoint-50'",
        f"- `texts.book` = '{name}.txt'",
        f"- `loss_logs.mine` = '{name}.csv'",
    ]


@pytest.mark.parametrize("name", ["a<b", "<B>", "$HOME 'it'"])
def test_other_odd_names_are_taken(root: Path, name: str) -> None:
    (root / "runs/b").rename(root / "runs" / name)
    (root / "config/models.yaml").write_text(
        yaml.safe_dump({"run-b": {"kind": "decoder", "folder": f"runs/{name}"}})
    )
    assert study_of(root, models=["run-b"])


# ---- Truncations -------------------------------------------------------------------------------------------


def truncated(study: Study) -> list[tuple[str, ...]]:
    cells = [cell for model in study.models for cell in study.truncated(model)]
    return [(cell.model, cell.checkpoint, cell.dataset) for cell in cells]


def test_the_last_checkpoint_of_decoders_is_truncated_on_the_first_dataset(root: Path) -> None:
    models = ["run-a", "planned-encoder", {"run-b": {"datasets": ["book-shuffled"]}}]
    study = study_of(root, models=models, datasets=["book", "book-shuffled"], pretraining=PRETRAINING)
    assert truncated(study) == [
        ("run-a", "checkpoint-1000", "book"),
        ("run-b", "checkpoint-50", "book-shuffled"),
    ]
    assert study.readers("run-a", "checkpoint-1000") == ["book", "book-shuffled", "book@truncation"]
    assert study.readers("run-a", "checkpoint-100") == ["book", "book-shuffled"]


def measured_and_gone(root: Path, family: str) -> Path:
    """Leave of the first checkpoint of run-b its loss card alone; return where an archive of a family would lie."""
    card = root / "results/losses/run-b/checkpoint-0/random.json"
    archive = root / f"results/statistics/run-b/checkpoint-0/random/{family}/layers-00-04.h5"
    for file in (card, archive):
        file.parent.mkdir(parents=True)
    sampling = study_of(root, models=["run-b"]).sampling
    used = json.dumps({**sampling.used, "order": "random"}, sort_keys=True)
    write_loss_card(card, attributes={"sampling": used, "seed": sampling.seed}, draws=[])
    shutil.rmtree(root / "runs/b/checkpoint-0")
    return archive


def test_truncations_of_what_is_gone_are_carried_over_where_they_are(root: Path) -> None:
    write_statistics(measured_and_gone(root, "spectral"), attributes={"rows": "all no_sink"}, layers=[])
    truncation = root / "results/truncation/run-b/checkpoint-0/random.parquet"
    choice = {"models": ["run-b"], "datasets": ["random"], "metrics": ["spectral", "loss"]}
    last = ("run-b", "checkpoint-50", "random")
    assert truncated(study_of(root, **choice, truncation={"checkpoints": "all"})) == [last]
    truncation.parent.mkdir(parents=True)
    truncation.touch()
    found = truncated(study_of(root, **choice, truncation={"checkpoints": "all"}))
    assert found == [("run-b", "checkpoint-0", "random"), last]


def test_what_is_gone_cannot_be_compared_with_a_new_final_checkpoint(root: Path) -> None:
    archive = measured_and_gone(root, "comparison_final")
    choice = {"models": ["run-b"], "datasets": ["random"], "metrics": ["comparison_final"]}
    for final in ("checkpoint-50", "checkpoint-40"):
        told = {"checkpoint": "checkpoint-0", "final_checkpoint": final, "rows": "all no_sink"}
        write_statistics(archive, attributes=told, layers=[])
        if final == "checkpoint-50":
            assert study_of(root, **choice).models["run-b"].final == final
    assert "comparison_final of it on random cannot be measured" in refusal_of(root, **choice)


@pytest.mark.parametrize(
    ("section", "cells"),
    [
        (False, []),
        ({"checkpoints": [0, 100]}, [("0", "book"), ("100", "book")]),
        (
            {"checkpoints": {"log": 2}, "datasets": "all"},
            [(s, d) for s in ("0", "1000") for d in ("book", "tail")],
        ),
        ({"datasets": ["tail"]}, [("1000", "tail")]),
    ],
)
def test_what_else_can_be_truncated(root: Path, section: Yaml, cells: list[tuple[str, str]]) -> None:
    sampling = {"draws": 2, "rows_per_draw": 64, "window": 8}
    (root / "book.txt").write_text("x" * 400_000)
    study = study_of(root, models=["run-a"], datasets=["book", "tail"], truncation=section, sampling=sampling)
    assert truncated(study) == [("run-a", f"checkpoint-{step}", dataset) for step, dataset in cells]


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        (
            {"checkpoints": [3]},
            "`truncation.checkpoints`: `run-a` has no checkpoint `3`. Nearest steps that exist:",
        ),
        (
            {"datasets": ["tail"]},
            "`truncation.datasets` names tail, which no model of the study is measured on.",
        ),
        ({"datasets": ["bok"]}, "`truncation.datasets[0]` = 'bok': unknown dataset"),
        ({"sequences": 0}, "`truncation.sequences` = 0: must be at least 1."),
        ({"ranks": "all"}, "`truncation.ranks` = 'all': not valid. Write `auto` or a list of ranks."),
        (True, "`truncation` = True: not allowed. Write `off`"),
        ({"rank": [1]}, "`truncation.rank`: unknown key. Nearest: ranks."),
    ],
)
def test_truncations_that_are_refused(root: Path, section: Yaml, sentence: str) -> None:
    assert sentence in refusal_of(root, models=["run-a"], truncation=section)
