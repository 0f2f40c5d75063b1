"""The registry of published runs, the list of known faults and the studies of them: what holds without the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from lmshape.schema import read_yaml

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "config"
MODELS = read_yaml(CONFIG / "models.yaml")
PUBLISHED = {name: entry for name, entry in MODELS.items() if "repository" in entry}
ISSUES = read_yaml(CONFIG / "known_issues.yaml")
DATASETS = read_yaml(CONFIG / "datasets.yaml")["datasets"]
STUDIES = ("pythia", "olmo", "encoders-vs-decoders")

ALWAYS = {"kind", "repository", "architecture", "blocks", "width", "vocabulary", "parameters", "gigabytes"}
SHARED_BLOCKS = {"albert"}  # one block's weights serve all blocks
ALIBI = {"bloom"}  # no longest sequence
EXPERTS = {"olmoe"}  # most parameters are those of experts
GATED_MLP = {"llama", "olmo", "olmo2", "olmo3", "smollm3", "mistral", "modernbert", "modernbert-decoder"}

# Names of branches that public scripts use, from model cards and issues.
OLMO_2_NAMES = {
    "olmo-2-0425-1b": {
        0: 0,
        300: 1,
        10_000: 21,
        23_100: 49,
        50_000: 105,
        140_000: 294,
        480_000: 1007,
        950_000: 1993,
        1_907_359: 4001,
    },
    "olmo-2-1124-7b": {150: 1, 1_000: 5, 101_000: 424, 175_000: 735, 300_000: 1259, 928_646: 3896},
    "olmo-2-1124-13b": {102_500: 860, 119_500: 1003, 337_000: 2827, 596_057: 5001},
}


def expand(steps: list) -> list[int]:
    """Write out ranges."""
    return [
        step
        for part in steps
        for step in ([part] if isinstance(part, int) else range(part["from"], part["to"] + 1, part["every"]))
    ]


def repositories(entry: dict) -> Iterator[dict]:
    yield entry
    yield from entry.get("also", ())


def steps_of(entry: dict) -> set[int] | None:
    """All published steps; None where only the hub knows them."""
    found = set()
    for part in repositories(entry):
        if "steps" not in part:
            return None
        found |= {*expand(part["steps"]), *([part["main_step"]] if "main_step" in part else [])}
    return found


def concerned(issue: dict) -> list[str]:
    return [name for name in PUBLISHED for pattern in issue["models"] if fnmatchcase(name, pattern)]


def test_entry_has_what_a_plan_needs():
    for name, entry in PUBLISHED.items():
        assert name == name.lower(), name
        assert ALWAYS | {"license", "source"} <= entry.keys(), name
        assert entry["kind"] in ("decoder", "encoder"), name
        assert ("context" in entry) == (entry["architecture"] not in ALIBI), name


def test_repositories_are_owner_and_name():
    for name, entry in PUBLISHED.items():
        for part in repositories(entry):
            assert re.fullmatch(r"[A-Za-z0-9-]+/[A-Za-z0-9._{}-]+", part["repository"]), name


def test_no_two_names_are_the_same_checkpoints():
    places = [
        (part["repository"], part.get("revision")) for e in PUBLISHED.values() for part in repositories(e)
    ]
    assert len(places) == len(set(places))


def test_one_key_tells_the_step():
    for name, entry in PUBLISHED.items():
        for part in repositories(entry):
            telling = [key for key in ("repository", "revision", "subfolder") if "{" in part.get(key, "")]
            assert len(telling) + ("step_pattern" in part) <= 1, name
            if not telling:
                assert len(expand(part.get("steps", [0]))) == 1, name
            if "{billions}" in part.get("revision", ""):
                assert "tokens_per_step" in entry, name
            if "{kilo}" in part["repository"]:
                assert all(step % 1000 == 0 for step in expand(part["steps"])), name


def test_steps_ascend():
    for name, entry in PUBLISHED.items():
        for part in repositories(entry):
            steps = expand(part.get("steps", []))
            assert steps == sorted(set(steps)), name
            for ends in (one for one in part.get("steps", []) if isinstance(one, dict)):
                assert (ends["to"] - ends["from"]) % ends["every"] == 0, name


def test_unverified_keys_are_keys_of_the_entry():
    for name, entry in PUBLISHED.items():
        assert set(entry.get("unverified", ())) <= entry.keys(), name


def test_parameters_fit_the_shape():
    for name, entry in PUBLISHED.items():
        blocks = 1 if entry["architecture"] in SHARED_BLOCKS else entry["blocks"]
        embedded = 128 if entry["architecture"] in SHARED_BLOCKS else entry["width"]
        expected = 12 * blocks * entry["width"] ** 2 + entry["vocabulary"] * embedded
        most = 8 if entry["architecture"] in EXPERTS else 2
        assert expected / 2 <= entry["parameters"] <= most * expected, name


def test_gigabytes_are_two_or_four_bytes_a_parameter_and_masks():
    for name, entry in PUBLISHED.items():
        masks = (
            entry["blocks"] * entry.get("context", 0) ** 2 * (entry["architecture"] in ("gpt_neox", "gpt2"))
        )
        bytes_a_parameter = (
            (entry["gigabytes"] * 1e9 - masks) / entry["parameters"],
            (entry["gigabytes"] * 1e9 / entry["parameters"]),
        )
        assert any(abs(found - stored) < 0.12 * stored for found in bytes_a_parameter for stored in (2, 4)), (
            name
        )


def test_pythia_has_154_checkpoints():
    for name in (name for name in PUBLISHED if name.startswith("pythia-")):
        steps = expand(PUBLISHED[name]["steps"])
        assert len(steps) == 154, name
        assert steps[:12] == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000], name
        assert steps[-1] == PUBLISHED[name]["main_step"] == 143_000, name


def test_non_embedding_parameters_of_pythia_are_those_of_its_cards():
    published = {
        "70m": 18_915_328,
        "160m": 85_056_000,
        "410m": 302_311_424,
        "1b": 805_736_448,
        "1.4b": 1_208_602_624,
        "2.8b": 2_517_652_480,
    }
    for size, expected in published.items():
        entry = PUBLISHED[f"pythia-{size}"]
        assert entry["parameters"] - 2 * entry["vocabulary"] * entry["width"] == expected


@pytest.mark.parametrize(
    ("name", "step", "billions"),
    [(name, step, tokens) for name, known in OLMO_2_NAMES.items() for step, tokens in known.items()],
)
def test_names_of_olmo_2(name, step, billions):
    entry = PUBLISHED[name]
    spelt = entry["revision"].format(step=step, billions=-(-step * entry["tokens_per_step"] // 10**9))
    assert spelt == f"stage1-step{step}-tokens{billions}B"
    assert steps_of(entry) is None or step in expand(entry["steps"])


def test_steps_of_olmo_2():
    small, large = PUBLISHED["olmo-2-0425-1b"], PUBLISHED["olmo-2-1124-7b"]
    assert len(expand(small["steps"])) == 195
    assert len(expand(large["steps"])) == 929
    assert not {100_000, 174_000, 317_000, 536_000, 605_000, 632_000, 672_000} & steps_of(large)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("amber", 360),
        ("bloom-560m", 8),
        ("bloom-7b1", 8),
        ("tinyllama-1.1b", 7),
        ("expanse-gpt2-small-x777", 609),
        ("smollm3-3b", 86 + 19 + 13),
        ("multiberts-seed4", 29),
    ],
)
def test_number_of_checkpoints(name, count):
    assert len(steps_of(PUBLISHED[name])) == count


def test_no_code_of_a_repository_runs_but_that_of_one():
    """As docs/stages/published.md and the key `remote_code` say."""
    assert [name for name, entry in PUBLISHED.items() if entry.get("remote_code")] == ["fuxitranyu-8b"]


def test_the_readme_counts_the_published_runs():
    words = " ".join((CONFIG / "README.md").read_text().split())
    assert f"The file has {len(PUBLISHED)} published runs" in words


def test_families_are_complete():
    for size in ("14m", "31m", "70m", "160m", "410m"):
        assert {f"pythia-{size}-seed{seed}" for seed in range(1, 10)} <= PUBLISHED.keys()
    assert {f"multiberts-seed{seed}" for seed in range(5)} <= PUBLISHED.keys()
    assert {f"multiberts-seed{seed}-final" for seed in range(25)} <= PUBLISHED.keys()
    for size in ("17m", "32m", "68m", "150m", "400m", "1b"):
        for end in ("", "-final"):
            encoder, decoder = (PUBLISHED[f"ettin-{kind}-{size}{end}"] for kind in ("encoder", "decoder"))
            shape = ("blocks", "width", "vocabulary", "context", "parameters")
            assert [encoder[key] for key in shape] == [decoder[key] for key in shape]


def test_name_and_repository_agree():
    """A line copied from its neighbour, with one of the two forgotten."""
    for name, entry in PUBLISHED.items():
        spelt = entry["repository"].partition("/")[2].lower().replace("seed_", "seed")
        stem = re.sub(r"-final$", "", name)
        if stem.startswith(("pythia-", "multiberts-", "ettin-", "bloom-")) or "-gpt2-" in stem:
            assert re.fullmatch(re.escape(stem) + r"(-intermediate|-step_\{kilo\}k)?", spelt), name


@pytest.mark.parametrize("number", range(len(ISSUES)))
def test_issue_is_about_published_steps(number):
    issue = ISSUES[number]
    assert issue.keys() - {"files"} == {"models", "steps", "verdict", "reason", "source"}
    steps = expand(issue["steps"])
    assert steps == sorted(set(steps))
    assert all(any(fnmatchcase(name, pattern) for name in PUBLISHED) for pattern in issue["models"])
    for name in concerned(issue):
        published = steps_of(PUBLISHED[name])
        assert published is None or set(steps) <= published


def test_branches_of_pythia_2_8b_with_other_weights():
    """EleutherAI/pythia#205: 86 branches share two files, one of them rightly; 68 have a file each."""
    of_main, of_the_last = (
        set(expand(issue["steps"]))
        for issue in ISSUES
        if issue["models"] == ["pythia-2.8b"] and issue["verdict"] == "wrong_weights"
    )
    assert (len(of_main), len(of_the_last), of_main & of_the_last) == (76, 9, set())
    unique = steps_of(PUBLISHED["pythia-2.8b"]) - of_main - of_the_last - {143_000}
    assert len(unique) == 68
    assert (min(unique), max(unique)) == (66_000, 142_000)


@pytest.mark.parametrize("study", STUDIES)
def test_study_fits_the_registry(study):
    config = read_yaml(CONFIG / "studies" / f"{study}.yaml")
    models = [PUBLISHED[name] for name in config["models"]]
    assert config["study"] == study
    assert config["sampling"]["window"] <= min(entry["context"] for entry in models)
    assert set(config["datasets"]) <= DATASETS.keys()
    assert not any(entry.get("gated") for entry in models)
    assert all(steps_of(entry) is not None or "revision" not in entry for entry in models)


@pytest.mark.parametrize(
    "file", ["models.yaml", "known_issues.yaml", *(f"studies/{s}.yaml" for s in STUDIES)]
)
def test_lines_are_short(file):
    lines = (CONFIG / file).read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, start=1) if len(line) > 120] == []
