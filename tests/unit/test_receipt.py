"""Only what a receipt names, with the size that it names, is ever deleted."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lmshape import paths
from lmshape.digest import check_digest
from lmshape.errors import InputError
from lmshape.hub.budget import clear_unneeded, release
from lmshape.jobs import RULES
from lmshape.paths import partial_folder
from lmshape.receipt import RECEIPT, delete_own, foreign_files, own_files, place_of, read_told, write_receipt
from lmshape.study.registry import REPOSITORY
from lmshape.writing import name_whole_folder

WEIGHTS = "model.safetensors"


def downloaded(folder: Path) -> Path:
    """A checkpoint as a download leaves it."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_text("weights")
    (folder / "config.json").write_text("{}")
    write_receipt(folder, repository="some/where", commit="0" * 40)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_receipt_names_what_is_there(tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "one")
    told = json.loads((folder / RECEIPT).read_text())
    assert told["files"] == {"config.json": 2, WEIGHTS: 7}
    assert told["repository"] == "some/where"
    assert {path.name for path in own_files(folder)} == {"config.json", WEIGHTS}
    assert foreign_files(folder) == []


def test_no_flipped_bit_makes_a_receipt_say_something_else(tmp_path: Path) -> None:
    write_receipt(downloaded(tmp_path / "one"), place="weights/one", digests={WEIGHTS: "0" * 64})
    told, file = read_told(tmp_path / "one"), tmp_path / "one" / RECEIPT
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        file.write_bytes(whole[: bit // 8] + bytes([whole[bit // 8] ^ 1 << bit % 8]) + whole[bit // 8 + 1 :])
        assert read_told(tmp_path / "one") in ({}, told), bit


def test_another_size_or_name_is_the_users(tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "one")
    (folder / WEIGHTS).write_text("other weights")
    (folder / "optimizer.bin").write_text("mine")
    assert [path.name for path in foreign_files(folder)] == [WEIGHTS, "optimizer.bin"]
    delete_own(folder)
    assert names(folder) == [WEIGHTS, "optimizer.bin"]


@pytest.mark.parametrize("name", ["../mine", "/etc/hostname"])
def test_a_receipt_names_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    size = Path(tmp_path / name).stat().st_size if Path(tmp_path / name).exists() else 1
    folder = downloaded(tmp_path / "one")
    write_receipt(folder, files={name: size})
    assert own_files(folder) == []


@pytest.mark.parametrize("damage", ["", "[]", '{"files": [1]}', '{"files": {"config.json": "2"}}', '{"fi'])
def test_a_damaged_receipt_names_nothing(damage: str, tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "one")
    (folder / RECEIPT).write_text(damage)
    assert own_files(folder) == []


def test_links_are_ours_and_what_they_lead_to_is_not(tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_text("weights")
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / WEIGHTS).symlink_to(cached)
    write_receipt(folder)
    delete_own(folder)
    assert cached.exists() and not folder.exists()


@pytest.mark.parametrize(
    "digests", [None, {WEIGHTS: "git:3ab313fff6f41bb35969cd359e9ddfb8033b3ac2"}], ids=["sha256", "git"]
)
def test_what_has_changed_in_a_folder_of_ours_is_refused_and_in_a_copy_it_is_not(
    digests: dict[str, str] | None, tmp_path: Path
) -> None:
    folder = tmp_path / "runs/one"
    folder.parent.mkdir()
    name_whole_folder(downloaded(tmp_path / "new"), folder, digests)
    copied = Path(shutil.copytree(folder, tmp_path / "mine/one"))
    check_digest(folder / WEIGHTS)
    for one in (folder, copied):
        (one / WEIGHTS).write_text("Weights")
    check_digest(copied / WEIGHTS)
    with pytest.raises(InputError, match=f"`{folder / WEIGHTS}` has changed .* Move `{folder}` elsewhere"):
        check_digest(folder / WEIGHTS)


def test_a_checkpoint_of_a_run_that_is_being_trained_has_the_place_that_it_will_have(tmp_path: Path) -> None:
    assert (
        place_of(tmp_path / ".run.partial/step1") == place_of(tmp_path / "run/.step1.partial") == "run/step1"
    )


def test_a_linked_folder_and_one_with_the_receipt_of_another_are_the_users(tmp_path: Path) -> None:
    """A copy of a download that is trained further has its names and sizes."""
    ours = tmp_path / "results/weights/published/step1"
    downloaded(tmp_path / "new")
    ours.parent.mkdir(parents=True)
    name_whole_folder(tmp_path / "new", ours)
    copied = Path(shutil.copytree(ours, tmp_path / "results/weights/mine/step1"))
    linked = tmp_path / "results/weights/published/step2"
    linked.symlink_to(downloaded(tmp_path / "data/published/step2"))
    for folder in (copied, linked):
        delete_own(folder)
        assert foreign_files(folder)
        assert names(folder)[-1] == WEIGHTS
    assert clear_unneeded(tmp_path, needed=set()) == [ours]


def test_the_beginning_of_a_download_is_ours(tmp_path: Path) -> None:
    folder = partial_folder(tmp_path / "one")
    folder.mkdir()
    write_receipt(folder, files={WEIGHTS: 100})
    (folder / f"{WEIGHTS}.partial").write_text("half")
    (folder / f".{WEIGHTS}.partial.xet/.cache").mkdir(parents=True)
    (folder / f".{WEIGHTS}.partial.xet/.cache/part").write_text("half")
    delete_own(folder)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["mine/checkpoint-8", "published/step1", "published/.step1.partial"])
def test_a_run_of_the_user_below_the_weights_of_a_study_stays(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "results/weights" / name
    folder.mkdir(parents=True)
    for file in (WEIGHTS, "optimizer.bin", "training_args.bin", "pytorch_model.bin.index.json"):
        (folder / file).write_text("mine")
    assert clear_unneeded(tmp_path, needed=set()) == []
    release(folder, "wiki", of=["wiki"], keep=False)
    assert [file for file in names(folder) if not file.startswith(".read")] == [
        WEIGHTS,
        "optimizer.bin",
        "pytorch_model.bin.index.json",
        "training_args.bin",
    ]


def test_downloaded_weights_go_and_what_the_user_has_put_beside_them_stays(tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "results/weights/published/step1")
    (folder / "training_args.bin").write_text("mine")
    assert clear_unneeded(tmp_path, needed=set()) == [folder]
    assert names(folder) == ["config.json", RECEIPT, "training_args.bin"]


def test_a_new_folder_takes_over_what_is_not_ours(tmp_path: Path) -> None:
    for step in (1, 2):
        downloaded(tmp_path / f"first/checkpoint-{step}")
    name_whole_folder(tmp_path / "first", tmp_path / "run")
    for note in ("notes.txt", "checkpoint-2/notes.txt"):
        (tmp_path / "run" / note).write_text("mine")
    downloaded(tmp_path / "second/checkpoint-1")
    name_whole_folder(tmp_path / "second", tmp_path / "run")
    assert names(tmp_path / "run") == [
        "checkpoint-1/config.json",
        f"checkpoint-1/{RECEIPT}",
        f"checkpoint-1/{WEIGHTS}",
        "checkpoint-2/notes.txt",
        RECEIPT,
        "notes.txt",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_make_clean_leaves_what_is_not_known_to_be_ours(tmp_path: Path) -> None:
    (tmp_path / "workflow").symlink_to(REPOSITORY / "workflow")
    (tmp_path / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
    folders = (
        paths.WEIGHTS,
        paths.TOKENIZER,
        "results/pretrained/tokenizer",
        "results/pretrained/run.partial",
    )
    patterns = {file for rule in RULES.values() for file in (*rule.writes, rule.log_file)} - {*folders}
    for file in (
        re.sub(r"{\w+}", "x", pattern) for pattern in (*patterns, paths.MEASURED_MARK, paths.STATISTICS)
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for folder in (re.sub(r"{\w+}", "x", pattern) for pattern in folders):
        downloaded(tmp_path / folder)
        for name in (".snakemake_timestamp", ".read-book")[: 1 + ("weights" in folder)]:
            (tmp_path / folder / name).touch()
    (tmp_path / "results/README.md").touch()
    mine = (
        "results/weights/mine/checkpoint-8/model.bin",
        "results/pretrained/mine/model.bin",
        "results/mine/notes",
    )
    for file in mine:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    command = ["make", "--silent", "clean", f"PYTHON={sys.executable}"]
    said = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=True).stdout
    assert names(tmp_path / "results") == sorted(
        ["README.md", *(file.removeprefix("results/") for file in mine)]
    )
    assert said.startswith("left, since it is not known to be ours: ") and all(file in said for file in mine)
