"""The registry's files, and what a folder of checkpoints tells about a model."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path

import pytest

from lmshape.errors import InputError
from lmshape.study.models import Model, read_model, require_weights
from lmshape.study.registry import REPOSITORY, Dataset, Text, read_registry

GPT_NEOX = {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
    "num_hidden_layers": 6,
    "hidden_size": 64,
    "max_position_embeddings": 256,
    "vocab_size": 1000,
}
GPT2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_positions": 1024, "vocab_size": 50257}


def make_run(root: Path, *steps: int | str, config: dict | None = None, folder: str = "run") -> None:
    """Lay out a training run as `save_pretrained` does, with empty weights."""
    for step in steps:
        checkpoint = root / folder / (f"checkpoint-{step}" if isinstance(step, int) else step)
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_text(json.dumps(config or GPT_NEOX))
        (checkpoint / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (checkpoint / "tokenizer.json").touch()


def model_of(root: Path, **entry: object) -> Model:
    defaults = {"kind": "decoder", "folder": "run", "step_pattern": r"checkpoint-(\d+)", "license": ""}
    return read_model("m", defaults | entry, root=root, pretraining=None)


def refusal_of(root: Path, **entry: object) -> str:
    with pytest.raises(InputError) as error:
        model_of(root, **entry)
    return str(error.value)


def test_a_local_run_is_read_from_its_folder(tmp_path: Path) -> None:
    make_run(tmp_path, 100, 20, 3)
    (tmp_path / "run" / "logs").mkdir()
    (tmp_path / "run" / "checkpoint-7").write_text("a file, not a folder")
    model = model_of(tmp_path, tokens_per_step=10)
    assert (model.architecture, model.blocks, model.width) == ("gpt_neox", 6, 64)
    assert (model.context, model.vocabulary, model.parameters) == (256, 1000, None)
    assert list(model.checkpoints) == ["checkpoint-3", "checkpoint-20", "checkpoint-100"]
    last = model.checkpoints["checkpoint-100"]
    assert (last.step, last.tokens_seen, last.folder) == (100, 1000.0, Path("run/checkpoint-100"))
    assert model.tokenizer == Path("run/checkpoint-3")
    assert model.pretraining is None


def test_other_names_of_the_same_facts(tmp_path: Path) -> None:
    make_run(tmp_path, 0, config=GPT2)
    model = model_of(tmp_path)
    assert (model.architecture, model.blocks, model.width, model.context) == ("gpt2", 12, 768, 1024)
    assert math.isnan(model.checkpoints["checkpoint-0"].tokens_seen)


def test_the_registry_goes_before_config_json(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    model = model_of(tmp_path, blocks=2, context=8, architecture="mine", parameters=5)
    assert (model.blocks, model.context, model.architecture, model.parameters) == (2, 8, "mine", 5)


def test_a_model_without_longest_sequence_and_one_with_offset_positions(tmp_path: Path) -> None:
    bloom = {"model_type": "bloom", "n_layer": 2, "hidden_size": 8, "vocab_size": 10}
    make_run(tmp_path, 0, config=bloom)
    assert model_of(tmp_path).context is None
    roberta = GPT_NEOX | {"model_type": "roberta", "architectures": ["RobertaForMaskedLM"]}
    roberta |= {"max_position_embeddings": 514, "pad_token_id": 1}
    make_run(tmp_path, 0, config=roberta, folder="roberta")
    assert model_of(tmp_path, folder="roberta", kind="encoder").context == 512


def test_a_step_pattern_of_ones_own_and_names_made_safe_for_paths(tmp_path: Path) -> None:
    make_run(tmp_path, "step 10 (2B tokens)", "step 5 (1B tokens)")
    model = model_of(tmp_path, step_pattern=r"step (\d+) .*")
    assert {name: one.step for name, one in model.checkpoints.items()} == {
        "step-5--1B-tokens-": 5,
        "step-10--2B-tokens-": 10,
    }
    assert model.checkpoints["step-5--1B-tokens-"].folder == Path("run/step 5 (1B tokens)")


def test_the_tokenizer_of_the_run_or_the_one_that_is_named(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "vocab.txt").touch()
    assert model_of(tmp_path, tokenizer="words").tokenizer == Path("words")
    (tmp_path / "run" / "tokenizer.json").touch()
    assert model_of(tmp_path).tokenizer == Path("run")


def test_an_absolute_folder(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    model = model_of(Path("/"), folder=str(tmp_path / "run"))
    assert model.checkpoints["checkpoint-0"].folder == tmp_path / "run" / "checkpoint-0"


def test_folders_that_hold_no_run_are_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path) == f"`m.folder` = 'run': no such folder in {tmp_path}. Correct the path."
    (tmp_path / "run").mkdir()
    pattern = r"`m`: no folder in run matches `step_pattern` = 'checkpoint-(\d+)'. "
    remedy = " Name the folder that holds the checkpoints, or their pattern."
    assert refusal_of(tmp_path) == f"{pattern}The folder is empty.{remedy}"
    (tmp_path / "run" / "step1").mkdir()
    (tmp_path / "run" / "log.txt").touch()
    assert refusal_of(tmp_path) == f"{pattern}It holds log.txt, step1/.{remedy}"


def test_an_inventory_of_many_files_is_cut_short(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / "run" / f"step{number}").mkdir(parents=True)
    assert "step6/, step7/, …." in refusal_of(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "checkpoint-(",
            "`m`: `step_pattern` = 'checkpoint-(': not a regular expression (missing ), unterminated",
        ),
        (r"checkpoint-\d+", r"`m`: `step_pattern` = 'checkpoint-\d+': needs a group around the step, as in "),
        ("(checkpoint)-.*", "`m`: no folder in run matches `step_pattern` = '(checkpoint)-.*'."),
    ],
)
def test_a_pattern_must_find_a_number(tmp_path: Path, pattern: str, message: str) -> None:
    make_run(tmp_path, 1)
    assert message in refusal_of(tmp_path, step_pattern=pattern)


def test_two_checkpoints_of_one_step_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, 10, "backup-10")
    assert refusal_of(tmp_path, step_pattern=r".*-(\d+)") == (
        "`m`: backup-10 and checkpoint-10 in run are both of step 10. "
        "Move one away, or make `step_pattern` narrower."
    )


def test_what_config_json_does_not_say_must_be_given(tmp_path: Path) -> None:
    make_run(tmp_path, 0, config={"model_type": "new", "hidden_size": 4})
    assert "`m`: it holds new, for which transformers has no decoder" in refusal_of(tmp_path)
    shutil.rmtree(tmp_path / "run")
    make_run(tmp_path, 0, config={"model_type": "gpt2", "hidden_size": 4})
    assert refusal_of(tmp_path) == (
        "`m`: blocks, vocabulary cannot be known, since run/checkpoint-0/config.json has none of "
        "num_hidden_layers, n_layer, n_layers, num_layers, vocab_size. "
        "Give what is unknown in the registry of models."
    )
    assert model_of(tmp_path, blocks=1, vocabulary=2).blocks == 1


def test_checkpoints_without_a_readable_config(tmp_path: Path) -> None:
    make_run(tmp_path, 0, 1)
    first, second = (tmp_path / "run" / f"checkpoint-{step}" / "config.json" for step in (0, 1))
    first.unlink()
    assert model_of(tmp_path).blocks == 6
    second.write_text("{")
    assert "`m`: " in (message := refusal_of(tmp_path)) and "is not JSON (" in message
    assert message.endswith("Save the model again.")
    second.write_text("[]")
    assert "config.json is not a configuration of a model. Save the model again." in refusal_of(tmp_path)
    second.unlink()
    assert "cannot be known, since no checkpoint has a config.json." in refusal_of(tmp_path)


@pytest.mark.parametrize(
    ("kind", "head"), [("encoder", "GPTNeoXForCausalLM"), ("decoder", "BertForMaskedLM")]
)
def test_a_model_of_the_other_kind_is_refused(tmp_path: Path, kind: str, head: str) -> None:
    make_run(tmp_path, 0, config=GPT_NEOX | {"architectures": [head]})
    message = f"`m.kind` = '{kind}': its config.json says {head}. Correct `kind`."
    assert refusal_of(tmp_path, kind=kind) == message


def test_a_checkpoint_without_tokenizer_is_named_once(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    (tmp_path / "run" / "checkpoint-0" / "tokenizer.json").unlink()
    assert refusal_of(tmp_path, folder="run/checkpoint-0").endswith(
        "in run/checkpoint-0. Give the folder that holds it as `tokenizer` in the registry of models."
    )


def test_a_missing_folder_with_a_whole_path_is_named_alone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    message = refusal_of(tmp_path, folder=str(folder))
    assert message == f"`m.folder` = '{folder}': no such folder. Correct the path."


def test_a_run_without_tokenizer_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, 0)
    (tmp_path / "run" / "checkpoint-0" / "tokenizer.json").unlink()
    message = refusal_of(tmp_path)
    assert message.startswith("`m`: no tokenizer (tokenizer.json, ")
    assert message.endswith(
        "in run or run/checkpoint-0. Give the folder that holds it as `tokenizer` in the registry of models."
    )
    assert "in words." in refusal_of(tmp_path, tokenizer="words")


def test_checkpoints_without_weights_are_refused(tmp_path: Path) -> None:
    make_run(tmp_path, *range(8))
    checkpoints = tuple(model_of(tmp_path).checkpoints.values())
    require_weights("m", checkpoints, root=tmp_path)
    for step in range(1, 8):
        (tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors").unlink()
    with pytest.raises(InputError) as error:
        require_weights("m", checkpoints, root=tmp_path)
    message = str(error.value)
    assert message.startswith("`m`: 7 of its 8 checkpoints cannot be loaded: checkpoint-1, checkpoint-2, ")
    assert (
        "checkpoint-5 and 2 others. The first: " in message
        and "It holds config.json, tokenizer.json." in message
    )
    assert message.endswith("Save them whole, or leave them out under `checkpoints`.")


def test_a_folder_that_the_study_would_have_to_make(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, folder="results/pretrained/wiki") == (
        "`m.folder` = 'results/pretrained/wiki': no such folder, and `pretraining.runs` has no run `wiki` "
        "that would make it."
    )
    make_run(tmp_path, 0, folder="results/pretrained/wiki")
    assert model_of(tmp_path, folder="results/pretrained/wiki").pretraining is None


MODELS = "my-run: {kind: decoder, folder: run}\n"
DATASETS = """
texts:
  mine: {path: mine.txt}
  far: {url: "https://example.org/x.zip", sha256: "%s", bytes: 7}
datasets:
  mine: {text: mine}
  part: {text: far, clean: true, span: [0.5, 1], order: shuffled}
  random: {order: random}
""" % ("0" * 64)


def registry_of(root: Path, models: str = MODELS, datasets: str = DATASETS):  # noqa: ANN201
    (root / "m.yaml").write_text(models)
    (root / "d.yaml").write_text(datasets)
    return read_registry(Path("m.yaml"), Path("d.yaml"), root=root)


def test_the_registry_is_typed_and_has_its_defaults(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    assert registry.models["my-run"]["license"] == ""
    assert registry.texts["mine"] == Text(
        name="mine", path=Path("mine.txt"), url=None, md5=None, sha256=None, bytes=None, license="", origin=""
    )
    assert (registry.texts["far"].path, registry.texts["far"].bytes) == (None, 7)
    plain = Dataset(name="mine", text="mine", clean=False, span=(0.0, 1.0), order="text")
    assert registry.datasets["mine"] == plain
    assert registry.datasets["part"].span == (0.5, 1.0)
    assert registry.datasets["random"].text is None


def test_files_of_the_repository_are_found_from_anywhere(tmp_path: Path) -> None:
    files = (Path("config/models.yaml"), Path("config/datasets.yaml"))
    registry = read_registry(*files, root=tmp_path)
    assert {"wiki", "wiki-shuffled", "wiki-random", "enwik8"} <= registry.datasets.keys()
    excerpt = REPOSITORY / "data" / "enwik8-excerpt.xz"
    assert registry.texts["enwik8-excerpt"].path == (
        excerpt if excerpt.exists() else Path("data/enwik8-excerpt.xz")
    )


def test_published_runs_keep_their_keys_and_have_their_defaults(tmp_path: Path) -> None:
    entry = """
      kind: encoder
      repository: o/n
      revision: s{step}
      steps: [0, {from: 1, to: 9, every: 2}]
      also: [{repository: o/early, step_pattern: (.*)}]
    """
    found = registry_of(tmp_path, models=f"theirs:{entry}").models["theirs"]
    assert found["steps"] == [0, {"from": 1, "to": 9, "every": 2}]
    assert found["also"] == [{"repository": "o/early", "step_pattern": "(.*)"}]
    assert (found["gated"], found["remote_code"], found["unverified"]) == (False, False, [])


def test_known_faults_are_part_of_the_registry(tmp_path: Path) -> None:
    assert registry_of(tmp_path).issues == ()
    files = [Path(f"config/{name}.yaml") for name in ("models", "datasets", "known_issues")]
    found = read_registry(*files, root=tmp_path)
    assert {issue.verdict for issue in found.issues} >= {"wrong_weights", "expected_duplicate"}
    (tmp_path / "i.yaml").write_text("[]")
    (tmp_path / "m.yaml").write_text(MODELS)
    assert read_registry(Path("m.yaml"), Path("d.yaml"), Path("i.yaml"), root=tmp_path).issues == ()


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (
            "my-run: {kind: decoder}",
            "m.yaml: `my-run`: must have one of two keys, and not both. Give `folder`, a training run on",
        ),
        (
            "my-run: {kind: decodr, folder: x}",
            "m.yaml: `my-run.kind` = 'decodr': unknown kind. Nearest: decoder",
        ),
        (
            "my-run: {kind: decoder, folder: x, block: 3}",
            "m.yaml: `my-run.block`: unknown key. Nearest: blocks.",
        ),
        ("my-run: {kind: decoder, folder: x, blocks: 0}", "`my-run.blocks` = 0: must be at least 1."),
        ("my-run:", "m.yaml: `my-run` = None: must be a mapping of keys to values."),
        (
            "a/b: {kind: decoder, folder: x}",
            "m.yaml: `a/b`: not valid. Names become folders; use letters, digits",
        ),
        (
            "a: {kind: decoder, folder: x}\na: {kind: decoder, folder: y}",
            "the key `a` appears twice, the second",
        ),
        ("", "m.yaml: the file: must be a mapping of keys to values."),
        (
            "a: {kind: decoder, folder: x, repository: o/n}",
            "m.yaml: `a`: must have one of two keys, and not both. Give `folder`, a training run on this machine, or "
            "`repository`, one on the hub.",
        ),
        (
            "a: {kind: decoder, repository: gpt2}",
            "m.yaml: `a.repository` = 'gpt2': not valid. Write owner/name, as in EleutherAI/pythia-410m.",
        ),
        (
            "a: {kind: decoder, repository: o/n, revision: ''}",
            "m.yaml: `a.revision` = '': must not be empty.",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: []}",
            "m.yaml: `a.steps`: must not be empty. Write steps in",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: 5}",
            "m.yaml: `a.steps` = 5: must be a list. Write steps in ascending order, ranges as {from: 1000, to: 143000, "
            "every: 1000}.",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: [-1]}",
            "m.yaml: `a.steps[0]` = -1: must be at least 0.",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: ['0']}",
            "m.yaml: `a.steps[0]` = '0': must be a whole number or",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: [{from: 0, to: 9}]}",
            "m.yaml: `a.steps[0].every`: this key is missing.",
        ),
        (
            "a: {kind: decoder, repository: o/n, steps: [{from: 0, to: 9, every: 0}]}",
            "m.yaml: `a.steps[0].every` = 0: must be at least 1.",
        ),
        (
            "a: {kind: decoder, repository: o/n, main_step: -5}",
            "m.yaml: `a.main_step` = -5: must be at least 0.",
        ),
        ("a: {kind: decoder, repository: o/n, also: []}", "m.yaml: `a.also`: must not be empty."),
        (
            "a: {kind: decoder, repository: o/n, also: [{steps: [1]}]}",
            "m.yaml: `a.also[0].repository`: this key is missing.",
        ),
        (
            "a: {kind: decoder, repository: o/n, also: [{repository: o/m, blocks: 3}]}",
            "m.yaml: `a.also[0].blocks`: unknown key. Valid: repository, revision, step_pattern, subfolder, steps, "
            "main_step.",
        ),
        (
            "a: {kind: decoder, repository: o/n, gigabytes: 0}",
            "m.yaml: `a.gigabytes` = 0: must be more than 0.",
        ),
    ],
)
def test_faults_of_models_yaml(tmp_path: Path, models: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        registry_of(tmp_path, models=models)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "mine: {path: mine.txt}",
            "mine: {}",
            "d.yaml: `texts.mine`: needs `path`, a file on this machine, or",
        ),
        (
            "sha256",
            "license",
            "`texts.far`: a download needs `md5` or `sha256` of the raw text to be verified.",
        ),
        (
            '"%s"' % ("0" * 64),
            "abc",
            "`texts.far.sha256` = 'abc': not valid. It has 64 digits of 0-9 and a-f.",
        ),
        ("https://", "", "`texts.far.url` = 'example.org/x.zip': not valid. Start with http:// or https://;"),
        ("{text: mine}", "{text: mime}", "d.yaml: `datasets.mine.text`: unknown text `mime`. Nearest: mine."),
        ("{text: mine}", "{clean: true}", "d.yaml: `datasets.mine.text`: this key is missing."),
        ("shuffled", "shufled", "`datasets.part.order` = 'shufled': unknown order. Nearest: shuffled."),
        ("[0.5, 1]", "[0.5, 0.5]", "`datasets.part.span` = [0.5, 0.5]: must end after it begins."),
        ("[0.5, 1]", "[0.5, 1.5]", "`datasets.part.span[1]` = 1.5: must be at most 1."),
        ("[0.5, 1]", "[0.5]", "must have at least 2 entries. Write the first and the last share of the text"),
        ("bytes: 7", "bytes: 0", "d.yaml: `texts.far.bytes` = 0: must be at least 1."),
        ("bytes: 7", "size: 7", "d.yaml: `texts.far.size`: unknown key."),
    ],
)
def test_faults_of_datasets_yaml(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in DATASETS
    with pytest.raises(InputError) as error:
        registry_of(tmp_path, datasets=DATASETS.replace(old, new))
    assert message in str(error.value)


def test_faults_of_both_files_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        registry_of(tmp_path, models="a: {kind: decoder}", datasets=DATASETS.replace("shuffled", "x"))
    first, *rest = str(error.value).splitlines()
    assert first == "2 faults in the registry (m.yaml, d.yaml):"
    assert [line[:10] for line in rest] == ["- m.yaml: ", "- d.yaml: "]


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml`: no such file\."):
        read_registry(Path("nowhere.yaml"), Path("config/datasets.yaml"), root=tmp_path)


def test_a_checkpoint_that_is_being_saved_is_left_out_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path, 0, 4, 8)
    weights = tmp_path / "run/checkpoint-8/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert list(model_of(tmp_path).checkpoints) == ["checkpoint-0", "checkpoint-4"]
    assert "`m`: checkpoint-8 is left out until it is whole." in capsys.readouterr().err
    weights.write_bytes(whole)
    assert list(model_of(tmp_path).checkpoints) == ["checkpoint-0", "checkpoint-4", "checkpoint-8"]
    for step in (0, 4, 8):
        (tmp_path / f"run/checkpoint-{step}/model.safetensors").unlink()
    assert "no checkpoint is whole yet" in refusal_of(tmp_path)


def test_an_old_checkpoint_without_weights_is_no_one_being_saved(tmp_path: Path) -> None:
    make_run(tmp_path, 0, 4)
    (tmp_path / "run/checkpoint-0/model.safetensors").unlink()
    assert list(model_of(tmp_path).checkpoints) == ["checkpoint-4"], "it was deleted just now"
    os.utime(tmp_path / "run/checkpoint-0", (10**9, 10**9))
    checkpoints = tuple(model_of(tmp_path).checkpoints.values())
    with pytest.raises(InputError, match="1 of its 2 checkpoints cannot be loaded: checkpoint-0"):
        require_weights("m", checkpoints, root=tmp_path)


def test_what_was_measured_of_a_deleted_checkpoint_stays(tmp_path: Path) -> None:
    make_run(tmp_path, 0, 4)
    (tmp_path / "results/losses/m/checkpoint-0").mkdir(parents=True)
    shutil.rmtree(tmp_path / "run/checkpoint-0")
    model = model_of(tmp_path)
    assert [(one.step, one.gone) for one in model.checkpoints.values()] == [(0, True), (4, False)]
    assert model.tokenizer == Path("run/checkpoint-4")


def test_what_was_measured_of_a_folder_that_was_a_checkpoint_itself_stays_too(tmp_path: Path) -> None:
    make_run(tmp_path, 4)
    for name in ("final", "checkpoint-0", "notes"):
        (tmp_path / "results/losses/m" / name).mkdir(parents=True)
    found = [(one.name, one.step, one.gone) for one in model_of(tmp_path).checkpoints.values()]
    assert found == [("final", -1, True), ("checkpoint-0", 0, True), ("checkpoint-4", 4, False)]
