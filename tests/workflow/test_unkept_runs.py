"""Runs that no model is made of are trained for their spikes, and lie in no other stage's way."""

from __future__ import annotations

from conftest import CONFIG, RUN, StudyFolder

PROBED = {"architecture": "gpt_neox", **RUN, "steps": 12, "probe_every": 2, "probe_tokens": 64}


def configure(study: StudyFolder, **runs: object) -> None:
    pretraining = CONFIG["pretraining"]
    study.configure(pretraining=pretraining | {"runs": pretraining["runs"] | runs})


def test_they_are_trained_because_their_spikes_are_looked_for(new_study: StudyFolder) -> None:
    """Beside a run that is a model and probed, too; a run that is neither stays untrained."""
    probed = CONFIG["pretraining"]["runs"]["small-decoder"] | {"probe_every": 4, "probe_tokens": 64}
    unkept = {"shaky": PROBED | {"keep_checkpoints": False}, "idle": {"architecture": "gpt_neox", **RUN}}
    configure(new_study, **{"small-decoder": probed}, **unkept)
    planned = new_study.planned("results/tables/spikes.parquet")
    assert (planned["pretrain"], planned["pretrain_unkept"], planned["spikes"]) == (2, 1, 1)


def test_without_spikes_to_look_for_nothing_more_is_trained(new_study: StudyFolder) -> None:
    configure(new_study, shaky=PROBED | {"keep_checkpoints": False})
    assert "pretrain_unkept" not in new_study.planned("results/tables/metrics.parquet")
