"""Room for the activations of local runs: in one book with downloads, held from the marker to the deletion."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk_rooms import in_background, refusal, take

from lmshape.ending import running
from lmshape.hub import budget
from lmshape.hub.budget import reserve
from lmshape.hub.passing import Passing, failed_mark, forget_rooms, unmeasured_mark


@pytest.fixture(autouse=True)
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working directory, and no patience between looks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(budget, "SECONDS_BETWEEN_LOOKS", 0.005)


def cell(name: str, size: int = 100) -> Passing:
    return Passing(
        marker=f"results/room/mine/{name}/wiki",
        activations=f"results/activations/mine/{name}/wiki.h5",
        activation_bytes=size,
    )


def admit(name: str, size: int = 100, *, bytes: int = 250, patience: float = 0.02) -> Passing:
    """Take room at once, or be refused."""
    one = cell(name, size)
    reserve(one, budget=bytes, keeps=False, patience=patience)
    return one


def extract(one: Passing) -> Path:
    """Make the activations; Snakemake then deletes the marker."""
    file = Path(one.activations)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    Path(one.marker).unlink()
    return file


def test_room_is_held_from_the_marker_until_the_activations_are_deleted() -> None:
    one = admit("step0")
    assert Path(one.marker).exists()
    assert one.held() == one.total == 100
    file = extract(one)
    assert one.held() == 100
    file.unlink()
    assert one.held() == 0


def test_cells_and_downloads_share_a_budget() -> None:
    admit("step0")
    take("step0")  # the download of another model
    assert refusal(lambda: admit("step1")) == (
        "`mine/step1/wiki` needs 100 B; of the 250 B of `disk_budget_gb` are held: mine/step0/wiki 100 B, run/step0 "
        "100 B. Nothing has moved for hours. Look at the logs of their extraction, or delete their weights."
    )
    assert "are held: mine/step0/wiki 100 B, run/step0 100 B" in refusal(lambda: take("step1"))


def test_room_is_waited_for() -> None:
    file = extract(admit("step0", 200))
    thread = in_background(lambda: reserve(cell("step1"), budget=250, keeps=False))
    assert thread.is_alive()
    assert not Path(cell("step1").marker).exists()
    file.unlink()
    thread.join(5)
    assert not thread.is_alive()
    assert Path(cell("step1").marker).exists()


def test_an_extraction_that_has_failed_holds_nothing_until_it_is_tried_again() -> None:
    one = admit("step0", 200)
    failed_mark(Path(one.marker)).touch()
    assert one.held() == 0
    admit("step1")
    assert admit("step0", 100).held() == 100


def test_where_measuring_has_failed_nobody_waits_for_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    one = admit("step0", 200)
    extract(one)
    unmeasured_mark(Path(one.marker)).touch()
    monkeypatch.setattr(budget, "ANOTHER_ATTEMPT_SECONDS", 0.02)
    assert refusal(lambda: admit("step1", patience=60)) == (
        "`mine/step1/wiki` needs 100 B; of the 250 B of `disk_budget_gb` are held: mine/step0/wiki 200 B. Measuring "
        "them has failed. Look at the logs below results/logs/measure, and run again."
    )


def test_a_cell_that_does_not_fit_is_refused_at_once() -> None:
    assert refusal(lambda: admit("step0", 300)) == (
        "`mine/step0/wiki` needs 300 B of disk, `disk_budget_gb` allows 250 B. Raise it to at least 0.01, or take "
        "fewer tokens or datasets."
    )


def test_kept_weights_do_not_keep_activations_from_passing() -> None:
    one = admit("step0", 200)
    thread = in_background(lambda: reserve(cell("step1"), budget=250, keeps=True))
    assert thread.is_alive()
    extract(one).unlink()
    thread.join(5)
    assert not thread.is_alive()


def test_rooms_of_a_run_that_has_ended_are_forgotten_and_those_of_one_that_goes_on_are_not() -> None:
    one = admit("step0")
    Path(".snakemake").mkdir()
    with running.begin(Path.cwd(), "snakemake --cores 2"):
        forget_rooms(Path.cwd())
        assert one.held() == 100
    forget_rooms(Path.cwd())
    assert one.held() == 0
