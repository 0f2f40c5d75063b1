"""What each rule says of its jobs: files, digest, resources, and how the command line spells them."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hub_locks import ENTRY, checkpoint, lock_of

from lmshape import cli, paths
from lmshape.errors import InputError
from lmshape.figures import FIGURES
from lmshape.hub.lock import write_lock
from lmshape.jobs import RULES, Jobs, Machine, Rule, Wildcards, dated_results
from lmshape.jobs.cells import MeasureOwn, WeightsReader
from lmshape.jobs.hub import mark_unasked, refuse_foreign_files
from lmshape.jobs.machine import PROFILE_SETTINGS, machine_of
from lmshape.jobs.rule import LEAST_DISK_MEGABYTES, Given, cell_wildcards, layer_wildcards
from lmshape.receipt import write_receipt
from lmshape.schema import Yaml
from lmshape.study.study import load_study

pytestmark = pytest.mark.slow

OWN = 'def mine(x):\n    """A number of mine."""\n    return x.mean()\n'
TINY = {"architecture": "gpt_neox", "width": 32, "blocks": 2, "heads": 4, "learning_rate": 0.003}
PROBED = TINY | {"probe_every": 2, "keep_checkpoints": False}
MODELS: dict[str, Yaml] = {
    "local": {"kind": "decoder", "folder": "runs/local", "tokens_per_step": 10},
    "trained": {"kind": "decoder", "folder": "results/pretrained/trained"},
    "run": ENTRY,
}
DATASETS: dict[str, Yaml] = {
    "texts": {"book": {"path": "book.txt"}},
    "datasets": {
        "book": {"text": "book", "span": [0.5, 1.0]},
        "clean": {"text": "book", "clean": True},
        "random": {"order": "random"},
    },
}
CONFIG: dict[str, Yaml] = {
    "study": "small",
    "models": ["local", "trained", {"run": {"checkpoints": [16, 512]}}],
    "datasets": ["book", "random"],
    "checkpoints": [0, 4],
    "metrics": ["spectral", "neighbor", "loss", "mine"],
    "own_metrics": "mine.py",
    "rows": ["all", "no_sink", "one_per_type"],
    "sampling": {"window": 32, "draws": 3, "rows_per_draw": 128},
    "registry": {"models": "models.yaml", "datasets": "datasets.yaml"},
    "loss_logs": {"theirs": "theirs.csv"},
    "pretraining": {
        "text": "book",
        "span": [0.0, 0.5],
        "steps": 8,
        "linear_every": 4,
        "sequences": 4,
        "window": 32,
        "vocabulary": 300,
        "runs": {"trained": TINY, "shaky": PROBED},
    },
}

CELL = {"model": "local", "checkpoint": "checkpoint-4", "dataset": "book"}
HUB_CELL = {"model": "run", "checkpoint": "step512", "dataset": "book"}
BLOCK = CELL | layer_wildcards("00-02")
JOBS: dict[str, dict[str, str]] = {  # one of each rule
    "fetch_text": {"text": "book"},
    "clean_text": {"text": "book"},
    "train_tokenizer": {},
    "pretrain": {"run": "trained"},
    "tokenize": {"model": "local", "dataset": "book"},
    "resolve": {"model": "run"},
    "fetch_tokenizer": {"model": "run"},
    "download": {"model": "run", "checkpoint": "step512"},
    "release": {"model": "run", "checkpoint": "step512", "reader": "book"},
    "extract": CELL,
    "measure": BLOCK,
    "measure_own": BLOCK,
    "measure_cell": CELL,
    "truncate": CELL,
    "gather": {"model": "local"},
    "tables": {},
    "spikes": {},
    "truncation_tables": {},
    "claims": {},
    "model_figures": {"model": "local"},
    "figures": {},
    "explore": {},
    "index": {},
    "report": {},
}
READERS = {name for name, rule in RULES.items() if issubclass(rule, WeightsReader)}
ON_A_CLUSTER = Machine(on_cluster=True, partition="cpu", gpu_partition="gpu")


def write_study(root: Path) -> None:
    """Write the registry and what it names: a local run, a text, a lock, own metrics, a log of losses."""
    root.mkdir(parents=True, exist_ok=True)
    facts = {"model_type": "gpt_neox", "num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 1000}
    for step in (0, 4, 8):
        folder = root / f"runs/local/checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(facts))
        (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        (folder / "tokenizer.json").touch()
    (root / "book.txt").write_text("x" * 100_000)
    (root / "mine.py").write_text(OWN)
    (root / "theirs.csv").write_text("step,loss\n1,2.0\n2,1.9\n")
    (root / "models.yaml").write_text(yaml.safe_dump(MODELS))
    (root / "datasets.yaml").write_text(yaml.safe_dump(DATASETS))
    lock_steps(root)


def lock_steps(root: Path, *, revised: int = 0) -> None:
    """Write the lock of the published run, whose step 512 has been found with other weights so many times."""
    locked = [checkpoint(16), checkpoint(512, revised=revised)]
    write_lock(root / "results/revisions/run.tsv", lock_of(locked))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_study(tmp_path / "study")
    monkeypatch.chdir(tmp_path / "study")  # where jobs run
    return tmp_path / "study"


def jobs_of(root: Path, machine: Machine | None = None, **changes: Yaml) -> Jobs:
    return Jobs(load_study({**CONFIG, **changes}, root), machine)


def job_of(name: str) -> Wildcards:
    return Wildcards(**JOBS[name])


def test_every_rule_has_a_job_here() -> None:
    assert JOBS.keys() == RULES.keys()


# ---- files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_inputs_have_the_same_names_in_all_jobs_of_a_rule(name: str, root: Path) -> None:
    jobs = jobs_of(root, keep_activations=name != "measure_cell")
    found = jobs.rules[name].inputs(job_of(name))
    functions = jobs.inputs(name)
    assert functions.keys() == found.keys() and functions
    for job in all_jobs(jobs, name):
        assert jobs.rules[name].inputs(job).keys() == found.keys()
    for read, files in functions.items():
        assert files(JOBS[name]) == found[read]


@pytest.mark.parametrize("name", RULES)
def test_files_are_filled_in_and_no_two_jobs_write_the_same(name: str, root: Path) -> None:
    rule, job = jobs_of(root).rules[name], job_of(name)
    files = [*rule.outputs(job), rule.log(job)]
    assert len(files) >= 2 and len(set(files)) == len(files)
    assert not [file for file in files if "{" in file or "//" in file]
    assert all(file.startswith("results/") for file in files)
    for wildcard in JOBS[name]:
        other = Wildcards(**{**JOBS[name], wildcard: "shaky" if wildcard == "run" else "x"})
        if wildcard in ("text", "checkpoint", "dataset", "reader", "first", "last", "run"):
            assert not set(files) & {*rule.outputs(other), rule.log(other)}, wildcard


def test_every_input_is_an_output_of_a_job_or_a_file_of_the_user(root: Path) -> None:
    """Follow the inputs of the report down to what lies there already."""
    for keep in (True, False):
        jobs = jobs_of(root, keep_activations=keep)
        mark_unasked(jobs.study, root)
        names = [
            name
            for name in RULES
            if name not in ({"measure_cell"} if keep else {"extract", "measure", "measure_own"})
        ]
        made = {
            file for name in names for job in all_jobs(jobs, name) for file in jobs.rules[name].outputs(job)
        }
        for name in names:
            for job in all_jobs(jobs, name):
                for files in jobs.rules[name].inputs(job).values():
                    for file in [files] if isinstance(files, str) else files:
                        assert file in made or Path(file).exists(), (name, file)


def all_jobs(jobs: Jobs, name: str) -> list[Wildcards]:
    """List the jobs of a rule in a study."""
    return list(jobs.rules[name].jobs())


def test_ancient_marks_what_is_no_reason_to_run_again(root: Path) -> None:
    """Weights that are downloaded once more run no finished cell again, unless they are others than before."""
    for revised, marked in ((0, True), (1, False)):
        lock_steps(root, revised=revised)
        jobs = Jobs(load_study(CONFIG, root), ancient=lambda file: f"ancient {file}")
        for name in READERS:
            weights = jobs.rules[name].inputs(Wildcards(**HUB_CELL))["weights"]
            assert str(weights).startswith("ancient ") == marked, name


def test_a_comparison_with_the_final_checkpoint_reads_its_activations(root: Path) -> None:
    jobs = jobs_of(root, keep_activations=True, metrics=["comparison_final", "neighbor"])
    for name, model in jobs.study.models.items():
        last = list(model.measured)[-1]
        for job in all_jobs(jobs, "measure"):
            if job.model == name:
                own = [] if job.checkpoint == last else replace(job, checkpoint=last).fill(paths.ACTIVATIONS)
                assert jobs.rules["measure"].inputs(job)["final"] == own
    with pytest.raises(
        InputError, match="`comparison_final`, which compares the activations of two checkpoints"
    ):
        jobs_of(root, keep_activations=False, metrics=["comparison_final"])


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("metrics", [["spectral", "neighbor", "mine"], ["neighbor"], ["mine"], ["loss"]])
def test_what_reads_archives_reads_what_is_written_after_them(
    keep: bool, metrics: list[str], root: Path
) -> None:
    """Snakemake restores the archives that a failed job found; the file without which it runs again is another."""
    jobs = jobs_of(root, keep_activations=keep, metrics=metrics, layers_per_job=1)
    rule = "measure" if keep else "measure_cell"
    last: dict[str, set[str]] = {}
    for job in all_jobs(jobs, rule):
        outputs = jobs.rules[rule].outputs(job)
        last |= dict.fromkeys(outputs, {file for file in outputs if not file.endswith(".h5")})
    for job in all_jobs(jobs, "gather"):
        read = jobs.rules["gather"].inputs(job)
        files = {file for some in read.values() for file in ([some] if isinstance(some, str) else some)}
        assert set(read["statistics"]) <= files
        for archive in set(read["statistics"]) & last.keys():
            assert last[archive] <= files and last[archive], archive


# ---- digests ---------------------------------------------------------------------------------------------


def digests(root: Path, jobs: dict[str, dict[str, str]] = JOBS, **changes: Yaml) -> dict[str, str]:
    """The digests of jobs alone, without those of the jobs behind them."""
    found = jobs_of(root, **changes)
    return {name: found.rules[name].digest(Wildcards(**wildcards)) for name, wildcards in jobs.items()}


def changed(root: Path, jobs: dict[str, dict[str, str]] = JOBS, **changes: Yaml) -> set[str]:
    """Name the rules whose digest is another one after a change to the configuration."""
    before, after = digests(root, jobs), digests(root, jobs, **changes)
    return {name for name in jobs if before[name] != after[name]}


def section(name: str, **changes: Yaml) -> dict[str, Yaml]:
    return {name: {**CONFIG.get(name, {}), **changes}}


CELLS = {"extract", "measure_cell", "truncate"}
WRITTEN_DOWN = {"index"}  # the page tells how the study was made
OF_EACH_MODEL = [name for name, figure in FIGURES.items() if figure.of_each_model]
LOCAL_AS_BEFORE = {"local": {"datasets": CONFIG["datasets"]}}
SHOWS_DATASETS = {"spikes", "claims", "figures", "explore", "index"}
EVERY_STUDY = {"gather", "spikes", "truncation_tables", "index"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"disk_budget_gb": 3}, set()),
        ({"keep_weights": True}, set()),
        ({"weights_in": "cache"}, set()),
        ({"keep_activations": False}, set()),
        ({"scratch": "tmpdir"}, set()),
        ({"figures": ["controls"]}, {"figures", "model_figures"}),
        ({"figures": ["controls", *OF_EACH_MODEL]}, {"figures"}),
        ({"datasets": ["book", "random", "clean"]}, {"gather", "model_figures"} | SHOWS_DATASETS),
        ({"datasets": ["book", "random", "clean"], "models": [LOCAL_AS_BEFORE, "trained"]}, SHOWS_DATASETS),
        (section("pretraining", threads=2), set()),
        (section("extraction", device="cpu"), WRITTEN_DOWN),
        (section("extraction", device_map="auto"), WRITTEN_DOWN),
        (section("extraction", batch_tokens=64), WRITTEN_DOWN),
        (section("extraction", dtype="float32"), CELLS | WRITTEN_DOWN),
        (section("sampling", seed=1), {"tokenize"} | WRITTEN_DOWN),
        (section("sampling", window=16), {"tokenize"} | WRITTEN_DOWN),
        (section("sampling", draws=4), {"tokenize"} | WRITTEN_DOWN),
        (section("sampling", rows_per_draw=64), {"tokenize", "measure", "measure_cell"} | WRITTEN_DOWN),
        ({"rows": ["no_sink", "all", "one_per_type"]}, set()),
        ({"rows": ["all"]}, {"measure", "measure_own", "measure_cell", "truncate"}),
        ({"rows": ["all", "no_sink"]}, {"measure", "measure_cell"}),
        ({"truncation": {"sequences": 1}}, {"truncate"}),
        ({"truncation": {"ranks": [2, 4]}}, {"truncate"}),
        ({"truncation": {"checkpoints": "all"}}, set()),
        ({"metrics": ["anisotropy", "neighbor", "loss", "mine"]}, {"gather"}),
        ({"metrics": ["spectral", "angular", "neighbor", "loss", "mine"]}, {"gather"}),
        ({"metrics": ["neighbor", "loss", "mine"]}, {"gather"}),
        ({"layers_per_job": 2}, {"gather"}),
        ({"checkpoints": [0, 4, 8]}, {"gather"}),
        ({"models": list(reversed(CONFIG["models"]))}, set()),
        ({"models": ["local", "trained"]}, set()),
        ({"study": "other"}, EVERY_STUDY),
        (section("pretraining", steps=12), {"pretrain"}),
        (section("pretraining", seed=1), {"pretrain"}),
        (section("pretraining", vocabulary=301), {"train_tokenizer"}),  # the others read it
        (section("pretraining", span=[0.0, 0.4]), {"pretrain", "train_tokenizer"}),
        (section("pretraining", runs={"trained": TINY | {"learning_rate": 0.1}, "shaky": PROBED}), {"pretrain"}),
        (section("pretraining", runs={"trained": TINY, "shaky": PROBED | {"width": 64}}), set()),
        (section("pretraining", runs={"trained": TINY}), {"spikes", "figures", "index"}),
        ({"loss_logs": {}}, {"spikes", "figures"}),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_change_runs_what_depends_on_it_and_nothing_else(
    changes: dict[str, Yaml], rules: set[str], root: Path
) -> None:
    known = {name: wildcards for name, wildcards in JOBS.items() if wildcards.get("model") != "run"}
    assert changed(root, known, **changes) == rules


@pytest.mark.parametrize("keep", [True, False])
def test_a_digest_covers_every_job_behind(keep: bool, root: Path) -> None:
    """After a failure nothing is taken for done that shows what was there before: inputs lead to the jobs behind."""
    jobs = jobs_of(root, keep_activations=keep)
    names = [name for name in RULES if name not in ({"measure_cell"} if keep else APART)]
    every = {(name, job) for name in names for job in all_jobs(jobs, name)}
    writer = {file: step for step in every for file in jobs.rules[step[0]].outputs(step[1])}
    of_weights = {"resolve", "fetch_tokenizer", "download", "release"}  # they come again, and are the same
    for name, job in every:
        found = jobs.rules[name].inputs(job)
        files = {file for some in found.values() for file in ([some] if isinstance(some, str) else some)}
        reads = {writer[file] for file in files if file in writer}
        reads = {step for step in reads if step[0] not in of_weights}
        if name in of_weights:
            continue
        behind: set[tuple[str, Wildcards]] = set()
        waiting = [(name, job)]
        while waiting:
            new = set(jobs.behind(waiting.pop())) - behind
            behind |= new
            waiting += new
        assert reads <= behind <= every, (name, job)


APART = {"extract", "measure", "measure_own"}


def test_a_change_counts_for_all_that_comes_of_it(root: Path) -> None:
    def whole(**changes: Yaml) -> dict[str, str]:
        jobs = jobs_of(root, **changes)
        return {name: jobs.digest(name)(wildcards) for name, wildcards in JOBS.items()}

    before, after = whole(), whole(**section("extraction", dtype="float32"))
    same = {name for name in JOBS if before[name] == after[name]}
    hub = {"resolve", "fetch_tokenizer", "download", "release"}
    assert same == hub | {"fetch_text", "clean_text", "train_tokenizer", "pretrain", "tokenize"}
    assert before == whole(**section("pretraining", threads=2))


def test_where_a_study_lies_is_no_part_of_a_result(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(root)
    elsewhere = root.with_name("elsewhere") / "deeper"
    shutil.copytree(root, elsewhere)
    monkeypatch.chdir(elsewhere)
    assert digests(elsewhere) == before


def test_where_the_machine_has_its_gpus_is_no_part_of_a_result(root: Path) -> None:
    found = [
        Jobs(load_study(CONFIG, root), machine) for machine in (Machine(), Machine(gpus=2), ON_A_CLUSTER)
    ]
    for name, wildcards in JOBS.items():
        assert len({jobs.digest(name)(wildcards) for jobs in found}) == 1, name


def test_other_weights_under_the_same_name_are_downloaded_and_read_again(root: Path) -> None:
    of_run = {"download": JOBS["download"], **dict.fromkeys(READERS, HUB_CELL)}
    before = digests(root, of_run)
    lock_steps(root, revised=1)
    after = digests(root, of_run)
    assert not [name for name in of_run if before[name] == after[name]]


def test_files_of_the_user_where_a_download_would_go_are_refused(root: Path) -> None:
    folder = root / "results/weights/run/step512"
    folder.mkdir(parents=True)
    study = jobs_of(root).study
    refuse_foreign_files(study, root)
    (folder / "lmshape.json").write_text('{"repository": "tiny/run", "files": {"model.safetensors": 3}}')
    for name in ("model.safetensors", ".read-book"):
        (folder / name).write_text("abc")
    refuse_foreign_files(study, root)
    (folder / "training_args.bin").touch()
    with pytest.raises(
        InputError,
        match=r"and holds training_args.bin, which lmshape did not write there in this form. Move it",
    ):
        refuse_foreign_files(study, root)


def test_weights_of_the_user_where_a_run_would_be_trained_are_refused(root: Path, tmp_path: Path) -> None:
    study = jobs_of(root).study
    (run,) = list(study.trained)[:1]
    folder = root / "results/pretrained" / run
    elsewhere = tmp_path / "mine"
    (elsewhere / "checkpoint-4").mkdir(parents=True)
    (elsewhere / "checkpoint-4/notes.txt").touch()
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(elsewhere)
    told = f"`results/pretrained/{run}` is where the run {run} of `pretraining` will lie, and "
    with pytest.raises(InputError, match=f"{told}is a link, .* or make `results/pretrained` the link"):
        refuse_foreign_files(study, root)
    folder.unlink()
    elsewhere.rename(folder)
    refuse_foreign_files(study, root)
    (folder / "checkpoint-4/model.safetensors").touch()
    with pytest.raises(InputError, match=f"{told}holds checkpoint-4/model.safetensors"):
        refuse_foreign_files(study, root)
    write_receipt(folder)
    refuse_foreign_files(study, root)


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("results/tokenizers/run", "the tokenizer of `run`"),
        ("results/pretrained/tokenizer", "the tokenizer of the runs of `pretraining`"),
    ],
)
def test_a_folder_of_the_user_where_a_tokenizer_would_go_is_refused(
    folder: str, told: str, root: Path
) -> None:
    (root / folder).mkdir(parents=True)
    (root / folder / "tokenizer.json").write_text("{}")
    with pytest.raises(
        InputError, match=f"`{folder}` is where {told} will lie, and holds tokenizer.json, which"
    ):
        refuse_foreign_files(jobs_of(root).study, root)
    write_receipt(root / folder)
    refuse_foreign_files(jobs_of(root).study, root)


def test_weights_of_an_older_lmshape_are_released(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its receipts name no files; the lock of the same commit does."""
    monkeypatch.chdir(root)
    jobs = jobs_of(root)
    folder, lock = root / "results/weights/run/step512", jobs.study.models["run"].lock
    assert lock is not None
    locked = lock.named("step512")
    assert locked is not None
    folder.mkdir(parents=True)
    for file in locked.files:
        (folder / Path(file.path).name).write_bytes(bytes(file.bytes))
    (folder / "optimizer.bin").touch()
    (folder / "lmshape.json").write_text(json.dumps({"repository": "tiny/run", "commit": locked.commit}))
    for reader in jobs.study.readers("run", "step512"):
        jobs.rules["release"].run(Wildcards(model="run", checkpoint="step512", reader=reader), Given())
    assert not [file for file in locked.weights if (folder / Path(file.path).name).exists()]
    assert (folder / "optimizer.bin").exists()


def test_a_change_to_the_registry(root: Path) -> None:
    def with_model(name: str, **entry: Yaml) -> set[str]:
        before = digests(root)
        (root / "models.yaml").write_text(yaml.safe_dump({**MODELS, name: {**MODELS[name], **entry}}))
        after = digests(root)
        (root / "models.yaml").write_text(yaml.safe_dump(MODELS))
        return {rule for rule in JOBS if before[rule] != after[rule]}

    assert with_model("local", tokens_per_step=20) == CELLS  # their files say how many tokens were seen
    assert with_model("local", license="mit") == set()
    assert with_model("local", unstable=True) == {"tables", "claims", "index"}
    assert with_model("local", recipe="twins") == {"tables"}
    assert with_model("run", license="mit") == {"resolve"}


def test_own_metrics_count_where_they_are_computed_and_shown(root: Path) -> None:
    before = digests(root)
    own = {"measure_own", "measure_cell", "gather", "explore", "index"}
    for text, rules in ((OWN + "# a comment\n", set()), (OWN.replace("mean", "max"), own)):
        (root / "mine.py").write_text(text)
        after = digests(root)
        assert {name for name in JOBS if before[name] != after[name]} == rules


@pytest.mark.parametrize("name", RULES)
def test_code_counts_where_there_is_some(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is verified against the hub's digests, and marks, depend on no code."""
    before = digests(root)[name]
    for module in ("lmshape.jobs.rule", "lmshape.jobs.texts", "lmshape.jobs.pages", "lmshape.metrics.block"):
        monkeypatch.setattr(f"{module}.code_fingerprint", lambda *names: "another")
    assert (digests(root)[name] == before) == (name in ("fetch_tokenizer", "download", "release"))


# ---- resources -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RULES)
def test_a_second_attempt_asks_for_twice_the_memory_and_time(name: str, root: Path) -> None:
    resources, wildcards = jobs_of(root).resources(name), JOBS[name]
    for key, options in (("mem_mb", {}), ("runtime", {"threads": 2})):
        first, second = (resources[key](wildcards, attempt=attempt, **options) for attempt in (1, 2))
        assert isinstance(first, int) and second == 2 * first > 0
    assert resources["disk_mb"](wildcards) > 0
    assert ("gpu" in resources) == ("slurm_partition" in resources) == (name in READERS)


@pytest.mark.parametrize("name", RULES)
def test_functions_carry_the_signature_that_snakemake_asks_for(name: str, root: Path) -> None:
    jobs = jobs_of(root)
    functions: list[Callable[..., object]] = [*jobs.inputs(name).values(), *jobs.resources(name).values()]
    for function in (*functions, jobs.digest(name), jobs.threads(name), jobs.priority(name)):
        assert next(iter(inspect.signature(function).parameters)) == "wildcards"
    assert jobs.threads(name)(JOBS[name]) >= (0 if name == "download" else 1)


@pytest.mark.parametrize("keep", [True, False])
def test_a_checkpoint_is_finished_before_the_next_one_is_begun_and_a_model_too(
    keep: bool, root: Path
) -> None:
    """The model with the fewest operations comes first; what reads, measures and shows comes before what is new."""
    models = ["local", {"trained": {"checkpoints": [0, 4, 8]}}, {"run": {"checkpoints": [16, 512]}}]
    jobs = jobs_of(root, keep_activations=keep, models=models)
    for name in ("extract", "measure") if keep else ("measure_cell",):
        by_priority = sorted(all_jobs(jobs, name), key=jobs.rules[name].priority, reverse=True)
        order = list(dict.fromkeys((job.model, job.checkpoint) for job in by_priority))
        trained = [("trained", f"checkpoint-{step}") for step in (0, 4, 8)]
        local = [("local", f"checkpoint-{step}") for step in (0, 4)]
        assert order == [*trained, *local, ("run", "step16"), ("run", "step512")]
    ranks = ["download", *RANKS[keep], "model_figures"]
    for first, second in pairwise(ranks):
        least = min(map(jobs.rules[second].priority, all_jobs(jobs, second)))
        assert max(map(jobs.rules[first].priority, all_jobs(jobs, first))) < least, (first, second)


RANKS = {
    True: ["extract", "release", "measure", "gather"],
    False: ["measure_cell", "release", "gather"],
}


@pytest.mark.parametrize(
    ("device", "machine", "gpus", "partition"),
    [
        ("auto", Machine(), 0, None),
        ("auto", Machine(gpus=4), 1, None),
        ("cpu", Machine(gpus=4), 0, None),
        ("cuda", Machine(), 1, None),
        ("auto", ON_A_CLUSTER, 0, "cpu"),  # a small model is not worth a GPU
        ("cuda", ON_A_CLUSTER, 1, "gpu"),
        ("cpu", ON_A_CLUSTER, 0, "cpu"),
        ("auto", Machine(on_cluster=True, partition="cpu"), 0, "cpu"),
    ],
)
@pytest.mark.parametrize("name", sorted(READERS))
def test_gpus_of_a_small_model(
    name: str, device: str, machine: Machine, gpus: int, partition: str | None, root: Path
) -> None:
    resources = jobs_of(root, machine, extraction={"device": device}).resources(name)
    assert (resources["gpu"](CELL), resources["slurm_partition"](CELL)) == (gpus, partition)


@pytest.mark.parametrize(("device_map", "gpus"), [("none", 1), ("auto", 4)])
def test_gpus_of_a_large_model_on_a_cluster(device_map: str, gpus: int, root: Path) -> None:
    large = {**ENTRY, "blocks": 80, "width": 8192, "parameters": 60 * 10**9}
    (root / "models.yaml").write_text(yaml.safe_dump({**MODELS, "run": large}))
    (root / "results/revisions/run.tsv").unlink()
    sampling = {"window": 512, "draws": 5, "rows_per_draw": 4096}
    (root / "book.txt").write_text("x" * 10**6)
    models = [{"run": {"checkpoints": [512], "datasets": ["book"]}}]
    for machine, found in ((ON_A_CLUSTER, gpus), (Machine(gpus=8), 1), (Machine(on_cluster=True), 0)):
        jobs = jobs_of(root, machine, models=models, sampling=sampling, extraction={"device_map": device_map})
        assert jobs.resources("extract")["gpu"](HUB_CELL) == found


# ---- the command line's spelling, and the machine --------------------------------------------------------


def test_a_cell_and_a_block_as_the_command_line_spells_them() -> None:
    assert cell_wildcards("local/checkpoint-4/book") == CELL
    assert layer_wildcards("0-6") == layer_wildcards("00-06") == {"first": "00", "last": "06"}


@pytest.mark.parametrize("cell", ["", "local", "local/book", "a/b/c/d", "local//book", "/b/c"])
def test_what_is_no_cell_is_refused(cell: str) -> None:
    with pytest.raises(InputError, match="is not MODEL/CHECKPOINT/DATASET"):
        cell_wildcards(cell)


@pytest.mark.parametrize("layers", ["", "3", "-3", "3-", "a-b", "0-1-2", "1.5-2"])
def test_what_is_no_block_of_layers_is_refused(layers: str) -> None:
    with pytest.raises(InputError, match="is not a block of layers"):
        layer_wildcards(layers)


def test_wildcards_of_snakemake_are_taken_as_far_as_a_rule_knows_them() -> None:
    job = Wildcards.of({"model": "local", "step": "4"})
    assert (job.model, job.dataset) == ("local", "")
    assert job.fill("{model}/x") == "local/x"


@pytest.mark.parametrize(
    ("device", "gpus", "place"), [("auto", 1, "cuda"), ("auto", 0, "cpu"), ("cpu", 1, "cpu")]
)
def test_a_cell_is_measured_where_its_forward_passes_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, place: str
) -> None:
    rule = jobs_of(root, keep_activations=False, extraction={"device": device}).rules["measure_cell"]
    measured = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(rule, "extract", lambda job, given, activations, card, held: card.write_text("{}"))
    monkeypatch.setattr(
        rule.measuring, "measure", lambda job, activations, block, on: measured.append(on.type)
    )
    rule.run(job_of("measure_cell"), Given(gpus=gpus))
    assert set(measured) == {place}


@pytest.mark.parametrize("held", [True, False])
def test_a_cell_asks_for_what_its_activations_take(
    root: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Memory where they are held, which the job then does if that is free; else scratch."""
    jobs, job = jobs_of(root, keep_activations=False), job_of("measure_cell")
    if not held:
        monkeypatch.setattr(type(jobs.study.sampling), "most_tokens", 10**7)
    rule, extract, measure = (jobs.rules[name] for name in ("measure_cell", "extract", "measure"))
    size = 4 * jobs.study.sampling.most_tokens * 64 * (2 + 2)
    apart = max(extract.megabytes(job), measure.megabytes(job))
    assert rule.held_bytes(job) == (size if held else 0)
    assert rule.megabytes(job) == apart + (size // 10**6 if held else 0)
    assert rule.disk_megabytes(job) == (
        LEAST_DISK_MEGABYTES + rule.kept_megabytes(job) if held else extract.disk_megabytes(job)
    )
    told: list[int] = []

    def extracted(job: Wildcards, given: Given, activations: Path, card: Path, held_bytes: int) -> None:
        card.write_text("{}")
        told.append(held_bytes)

    monkeypatch.setattr(rule, "extract", extracted)
    monkeypatch.setattr(rule.measuring, "measure", lambda *given: None)
    for spare in (1, 0):
        monkeypatch.setattr("lmshape.jobs.cells.free_megabytes", lambda: rule.megabytes(job) + spare)  # noqa: B023
        rule.run(job, Given())
    assert told == [rule.held_bytes(job), 0]


@pytest.mark.parametrize(("gpus", "seen"), [(1, 0), (0, 1), (None, 1), (None, 0)])
def test_a_job_holds_what_was_planned_for_the_gpu_that_it_was_given(
    root: Path, monkeypatch: pytest.MonkeyPatch, gpus: int | None, seen: int
) -> None:
    """In bfloat16 on a GPU, in float32 elsewhere; run by hand it takes what the machine has."""
    changes = {"keep_activations": False, "extraction": {"dtype": "auto"}}
    (root / "config.yaml").write_text(yaml.safe_dump(CONFIG | changes))
    monkeypatch.setattr("lmshape.jobs.machine.gpu_count", lambda: seen)
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(
        RULES["measure_cell"],
        "run",
        lambda rule, job, given: found.append((rule.held_bytes(job), rule.megabytes(job))),
    )
    cli.run("measure_cell", cell="local/checkpoint-4/book", gpus=gpus, configfile=root / "config.yaml")
    planned = jobs_of(root, Machine(gpus=seen if gpus is None else gpus), **changes).rules["measure_cell"]
    job = job_of("measure_cell")
    assert found == [(planned.held_bytes(job), planned.megabytes(job))]


def profile(**settings: str | None) -> dict[str, str | None]:
    return {**dict.fromkeys(PROFILE_SETTINGS), **settings}


def test_without_a_partition_jobs_run_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmshape.jobs.machine.gpu_count", lambda: 3)
    assert machine_of(profile(), check=True) == Machine(gpus=3)


@pytest.mark.parametrize(
    ("settings", "machine"),
    [
        ({"slurm_partition": "cpu", "gpu_partition": "gpu"}, ON_A_CLUSTER),
        ({"slurm_partition": "'cpu'", "gpu_partition": "none"}, Machine(on_cluster=True, partition="cpu")),
        (
            {"slurm_partition": "cpu", "gpu_gigabytes": "80"},
            Machine(on_cluster=True, partition="cpu", gpu_gigabytes=80.0),
        ),
        ({"gpu_partition": "yes"}, Machine(on_cluster=True, gpu_partition="yes")),  # of another scheduler
        ({"gpu_partition": "none"}, Machine(on_cluster=True)),
    ],
)
def test_a_profile_with_a_partition_is_a_clusters(
    settings: dict[str, str], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lmshape.jobs.machine.gpu_count", lambda: 8
    )  # of the submitting host: no job runs there
    assert machine_of(profile(**settings), check=False) == machine


def test_a_profile_of_another_scheduler_is_not_checked_with_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmshape.jobs.machine.check_profile", lambda settings: pytest.fail("SLURM was asked"))
    assert machine_of(profile(gpu_partition="yes"), check=True).on_cluster


def test_a_profile_that_is_not_filled_in_is_refused_before_the_first_job() -> None:
    wrong = profile(slurm_partition="CHANGE_ME", slurm_account="lab")
    with pytest.raises(InputError, match="`slurm_partition` is CHANGE_ME"):
        machine_of(wrong, check=True)
    assert machine_of(wrong, check=False).on_cluster  # a job of the workflow has been checked already


# ---- blocks of layers in one job -------------------------------------------------------------------------


def test_models_share_a_rule_when_their_archives_have_the_same_blocks(root: Path) -> None:
    for size in ("all", 1, 2):
        rule = jobs_of(root, layers_per_job=size).rules["measure_cell"]
        layouts = rule.layouts()
        assert sorted(map(sorted, layouts.values())) == [["local", "trained"], ["run"]]
        for names in layouts.values():
            assert len({tuple(rule.archives(name)) for name in names}) == 1


def test_the_name_of_a_rule_fits_a_folder_of_logs_whatever_the_blocks(root: Path) -> None:
    (root / "models.yaml").write_text(yaml.safe_dump({**MODELS, "run": {**ENTRY, "blocks": 96}}))
    (root / "results/revisions/run.tsv").unlink()
    layouts = jobs_of(root, layers_per_job=1).rules["measure_cell"].layouts()
    assert len(layouts) == 2 and max(map(len, layouts)) < 60
    assert all(f"measure_cell_{layout}".isidentifier() for layout in layouts)


def test_one_job_measures_what_two_do(root: Path) -> None:
    jobs = jobs_of(root, layers_per_job=2)
    job = Wildcards(**CELL)
    apart: set[str] = set()
    for block in ("00-01", "02-02"):
        layers = Wildcards(**CELL, **layer_wildcards(block))
        measure: list[Rule] = [jobs.rules["measure"], jobs.rules["measure_own"]]
        apart |= {file for rule in measure for file in rule.outputs(layers) if file.endswith(".h5")}
    whole = jobs.rules["measure_cell"].outputs(job)
    assert apart == {file for file in whole if file.endswith(".h5")}
    assert (
        whole[-1] == jobs.rules["extract"].outputs(job)[-1] == "results/losses/local/checkpoint-4/book.json"
    )


def test_own_metrics_are_of_all_rows_and_of_those_without_sinks(root: Path) -> None:
    own = jobs_of(root).rules["measure_own"]
    assert isinstance(own, MeasureOwn) and own.rows == ["all", "no_sink"]


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("runs/local/checkpoint-4/model.safetensors", CELLS),
        ("runs/local/checkpoint-4/config.json", CELLS),
        ("runs/local/checkpoint-0/tokenizer.json", {"tokenize"}),
        ("book.txt", {"fetch_text"}),
    ],
)
def test_a_file_of_the_user_counts_by_content_and_not_by_date(file: str, rules: set[str], root: Path) -> None:
    """An older file in the place of another is a change, as `cp -p` and `rsync -a` make it."""
    known = {name: wildcards for name, wildcards in JOBS.items() if wildcards.get("model") != "run"}
    before, content = own_digests(root, known), (root / file).read_bytes()
    other = (3).to_bytes(8, "little") + b"{ }" if file.endswith("safetensors") else content + b" "
    (root / file).write_bytes(other)
    os.utime(root / file, (10**9, 10**9))
    after = own_digests(root, known)
    assert {name for name in known if before[name] != after[name]} == rules


def test_a_tokenizers_settings_count_by_the_tokens_that_they_name(root: Path) -> None:
    file = root / "runs/local/checkpoint-0/tokenizer_config.json"
    known, digests = {"tokenize": JOBS["tokenize"]}, []
    for settings in (
        {"mask_token": "[M]"},
        {"mask_token": "[M]", "name_or_path": "a"},
        {"mask_token": "<m>"},
    ):
        file.write_text(json.dumps(settings))
        digests.append(own_digests(root, known)["tokenize"])
    assert digests[0] == digests[1] != digests[2]


def own_digests(root: Path, known: dict[str, dict[str, str]]) -> dict[str, str]:
    jobs = jobs_of(root)
    return {name: jobs.rules[name].digest(Wildcards(**wildcards)) for name, wildcards in known.items()}


def test_the_summary_names_what_a_run_has_made_from_where_the_command_was_typed(root: Path) -> None:
    (root / "results/tables").mkdir(parents=True)
    jobs, before = jobs_of(root), dated_results(root)
    (root / "results/index.html").touch()
    (root / "results/tables/metrics.csv").touch()
    from_above = jobs.summary(root, before=before, seen_from=root.parent)
    assert from_above.splitlines() == [
        "",
        f"Tables:   {root.name}/results/tables",
        f"Open:     {root.name}/results/index.html",
    ]
    elsewhere = jobs.summary(root, before=before, seen_from=root / "runs").splitlines()
    assert elsewhere[-1] == f"Open:     {root}/results/index.html"
    now = dated_results(root)
    assert jobs.summary(root, before=now, seen_from=root) == ""  # after `--until` of what is in no table
    (root / "results/tables/claims.csv").touch()
    assert jobs.summary(root, before=now, seen_from=root) == "\nTables:   results/tables"


ONE_PROCESS = """
import os, sys
from lmshape.jobs.cells import MeasureCell
from lmshape.jobs.rule import Given, Wildcards
from lmshape.models import Extraction

class OneProcess(MeasureCell):
    study = type("", (), {"extraction": Extraction()})

    def __init__(self):
        pass

    def held_bytes(self, job):
        return 0

    megabytes = held_bytes

    def model(self, job):
        return type("", (), dict(kind="decoder", blocks=2, width=8, vocabulary=9, remote_code=False))

    def extract(self, *told):
        os.environ["HF_HUB_OFFLINE"] = "1"  # as `Extract.extract` begins
        from huggingface_hub import constants
        sys.exit(0 if constants.HF_HUB_OFFLINE else "transformers was imported while the hub was on")

OneProcess().run(Wildcards(model="m", checkpoint="c", dataset="d"), Given())
"""


def test_a_cell_in_one_process_asks_no_hub(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", ONE_PROCESS]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
