"""Whom the hub knows, and where it is: tokens, gates, other origins, no network."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from downloads import Bring, assert_right
from huggingface_hub import constants
from loopback_hub import LoopbackHub
from runs import ENTRY, lmshape, locked, published, write_registry

from lmshape import downloading
from lmshape.errors import InputError
from lmshape.hub import client
from lmshape.hub.lock import LockedCheckpoint
from lmshape.hub.published import read_run
from lmshape.jobs.plan import describe_verdicts
from lmshape.paths import LOCK
from lmshape.study.study import study_of

TOKEN = "hf_secretOfTheTest"
GATED = "access must be granted .* Accept its terms .* `hf auth login` or set HF_TOKEN"

pytestmark = pytest.mark.usefixtures("quick")


def test_a_gate_says_how_to_log_in_and_a_token_opens_it(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    hub.gate("tiny/run", TOKEN)
    one = locked(tmp_path).named("step2")
    with pytest.raises(InputError, match=GATED):
        bring(one)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert_right(bring(one), one)


def test_a_token_that_the_gate_does_not_know_is_refused(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    hub.gate("tiny/run", TOKEN)
    hub.set(tokens=["hf_ofSomebodyElse"])
    monkeypatch.setenv("HF_TOKEN", "hf_ofSomebodyElse")
    with pytest.raises(InputError, match=GATED) as error:
        bring(locked(tmp_path).named("step2"))
    assert "hf_of" not in str(error.value)


def test_a_token_that_nobody_knows_is_named_as_the_fault(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(
        InputError, match=r"refuses it \(.*401.* a token has expired .* `hf auth login` or set HF_TOKEN"
    ) as error:
        locked(tmp_path)
    assert "hf_expired" not in str(error.value)


def test_what_is_forbidden_without_a_gate_is_told_too(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring
) -> None:
    hub.fault("resolve/", "status", status=403)
    with pytest.raises(InputError, match=r"refuses it \(403 Forbidden.* `hf auth login` or set HF_TOKEN"):
        bring(one)


def test_a_private_repository_is_there_for_its_owner(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    hub.hide("tiny/run", TOKEN)
    with pytest.raises(InputError, match="shows no such repository. .* for a private or gated one log in"):
        locked(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert len(locked(tmp_path).checkpoints) == 6


def test_a_gate_before_the_listing_is_told_as_one(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    hub.gate("tiny/run", TOKEN, listing=True)
    with pytest.raises(InputError, match=GATED):
        locked(tmp_path)


def test_what_a_gate_hides_of_the_shape_is_asked_of_the_reader(hub: LoopbackHub, tmp_path: Path) -> None:
    published(hub)
    hub.gate("tiny/run", TOKEN)
    lock = locked(tmp_path / "results/revisions")
    assert (lock.facts, len(lock.checkpoints)) == ({}, 6)  # and the audit goes on
    (tmp_path / LOCK.format(model="tiny")).parent.mkdir(parents=True, exist_ok=True)
    with pytest.raises(
        InputError, match="architecture, blocks, width, vocabulary are not in the registry, and the"
    ):
        read_run("tiny", ENTRY, root=tmp_path, ask=None)


def test_a_saved_login_is_used(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, only_the_loopback: Path
) -> None:
    published(hub)
    hub.gate("tiny/run", TOKEN)
    (only_the_loopback / "token").write_text(TOKEN)
    one = locked(tmp_path).named("step2")
    assert_right(bring(one), one)


def test_the_token_stays_with_the_hub(
    hub: LoopbackHub, tmp_path: Path, bring: Bring, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.set(redirect=True)
    published(hub)
    hub.gate("tiny/run", TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    one = locked(tmp_path).named("step2")
    assert_right(bring(one), one)
    assert {request.authorized for request in hub.requests if request.cdn} == {False}
    assert {request.authorized for request in hub.asked("resolve/") if not request.cdn} == {True}


def test_offline_says_what_to_do(
    one: LockedCheckpoint, bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    words = "HF_HUB_OFFLINE is set, so the hub is not asked. Unset it, or .* `lmshape lock MODEL`"
    for ask in (lambda: bring(one), lambda: bring(one, "cache"), lambda: locked(tmp_path, update=True)):
        with pytest.raises(InputError, match=words):
            ask()


def test_offline_a_kept_lock_and_the_cache_are_enough(
    hub: LoopbackHub, one: LockedCheckpoint, bring: Bring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring(one, "cache").rename(tmp_path / "elsewhere")
    hub.clear_log()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locked(tmp_path, choice=["step16"]).named("step16") == one
    assert_right(bring(one), one)
    assert not hub.requests


def test_a_dead_hub_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 cannot be used after 2 attempts"):
        locked(tmp_path)


@pytest.mark.parametrize("path", ["/refs", "/tree/", r"config\.json"])
def test_answers_that_are_no_json_are_told(hub: LoopbackHub, tmp_path: Path, path: str) -> None:
    """As of a portal that wants somebody to log in first."""
    published(hub)
    hub.fault(path, "flip")
    with pytest.raises(InputError, match=r"of `tiny/run`.*: .* answers with something else than JSON"):
        locked(tmp_path)


def test_a_listing_that_never_comes_is_given_up(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    monkeypatch.setattr(client, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(downloading, "ATTEMPTS", 2)
    hub.fault("/refs", "hang", seconds=3)
    with pytest.raises(InputError, match="the revisions of `tiny/run`: .* cannot be used after 2 attempts"):
        locked(tmp_path)


def test_listings_of_a_hub_that_has_too_much_to_do_are_asked_for_again(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    published(hub)
    for path, status in (("/refs", 429), ("/refs", 503), ("/tree/", 503), (r"config\.json", 500)):
        hub.fault(path, "status", status=status, times=1)
    assert len(locked(tmp_path).checkpoints) == 6


def test_unknown_errors_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        client.ask_hub(lambda: 1 // 0, what="nothing")


def test_only_what_may_pass_is_asked_again() -> None:
    assert downloading.is_transient(httpx2.ReadError("reset"))
    assert not downloading.is_transient(ValueError("no"))


def test_a_gate_is_told_by_lock_and_plan_before_it_stops_anybody(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(hub)
    entry = {**ENTRY, "gated": True}
    write_registry(tmp_path, {"tiny": entry})
    words = f"gated. Accept its terms at {hub.endpoint}/tiny/run, then log in with `hf auth login` or set HF_TOKEN"
    assert client.gate(entry) == words
    lock = lmshape("lock", "--configfile", "config.yaml", cwd=tmp_path)
    assert f"tiny: {words}" in lock.stderr
    (tmp_path / "text.txt").write_text("A text of the test. " * 500)
    study = study_of(tmp_path / "config.yaml", tmp_path)
    assert f"gate       tiny: {words}" in describe_verdicts(study)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert client.gate(entry) == "" == client.gate(ENTRY)
