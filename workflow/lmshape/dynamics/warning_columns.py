"""Columns of the tables `spikes`, `warnings`, `alarms` and `before_spikes`, and what they mean."""

from __future__ import annotations

from lmshape.tables.columns import declare

SPIKE_COLUMNS = declare(
    {
        "study": "name of the study, from the config",
        "run": "name of the training run, or of the log and its run",
        "source": "pretraining: a run of the study; log: of `loss_logs`",
        "spike": "number of the spike in its run, from 1; 0 where the run has none",
        "onset": "step at which the loss leaves its baseline",
        "peak_step": "step at which it is largest",
        "peak_loss": "nats per token there; infinite where the loss is not finite",
        "baseline": "median of the calm losses before the onset, nats per token",
        "height": "peak_loss - baseline",
        "threshold": "nats over the baseline that make a spike",
        "recovery_step": "first step at which the loss is back for good; empty where it is not",
        "steps": "steps from the onset to the recovery, or to the last high one",
        "logged": "losses in the run's log",
        "rule": "numbers of the rule: `lmshape.dynamics.spikes`",
        "flag": "no spike; did not come back; not finite, and how often; empty when fine",
    },
    integers=["spike", "onset", "peak_step", "recovery_step", "steps", "logged"],
    reals=["peak_loss", "baseline", "height", "threshold"],
)

_SERIES = {
    "study": "name of the study, from the config",
    "source": "probe: measured while the runs trained; checkpoints: at those of the models",
    "blocks": "blocks of the runs' models: layers of others are not theirs",
    "kind": "geometric, or baseline: needs no geometry",
    "metric": "name of the series: `lmshape.dynamics.warning_series`",
    "layer": "l after block l; empty for what is of the whole run",
}

WARNING_COLUMNS = declare(
    {
        **_SERIES,
        "spikes": "spikes with values enough before them",
        "unscored": "spikes without",
        "runs": "runs with such a spike",
        "quiet_windows": "windows without a spike, as long as those before a spike",
        "every": "steps from one value to the next, median",
        "auc": "area under the ROC curve of an alarm on it: 0.5 by chance",
        "auc_low": "lower end of its 95 % interval, over runs",
        "auc_high": "upper end of its 95 % interval, over runs",
        "average_precision": "area under precision over recall: spikes / (spikes + quiet_windows) by chance",
        "average_precision_low": "lower end of its 95 % interval, over runs",
        "average_precision_high": "upper end of its 95 % interval, over runs",
        "hit_rate": "share of the spikes with an alarm, at 10 false ones in 10 000 quiet steps of other runs",
        "hit_rate_low": "lower end of its 95 % interval, over runs",
        "hit_rate_high": "upper end of its 95 % interval, over runs",
        "lead_steps": "steps from the first alarm to the onset at that rate, median of the hits",
        "lead_steps_low": "lower end of its 95 % interval, over runs",
        "lead_steps_high": "upper end of its 95 % interval, over runs",
        "false_alarms_per_10k": "false alarms that this came to, in 10 000 quiet steps",
        "move_before": "move just before the onset in standard deviations of quiet moves, signed, median",
        "move_before_low": "lower end of its 95 % interval, over runs",
        "move_before_high": "upper end of its 95 % interval, over runs",
        "best_baseline": "baseline of the largest auc, with its layer; empty for baselines",
        "auc_gain": "auc less that of the best baseline",
        "auc_gain_low": "lower end of its 95 % interval, over the same runs",
        "auc_gain_high": "upper end of its 95 % interval, over the same runs",
        "p": "two-sided, of auc_gain being 0",
        "p_adjusted": "p after Holm's correction for all geometric series of the same source and blocks",
        "rule": "numbers of the rule: `lmshape.dynamics.warning_rule`",
        "flag": "not measurable, and why; too few runs or spikes for an interval; empty when fine",
    },
    integers=["blocks", "layer", "spikes", "unscored", "runs", "quiet_windows"],
    reals=[
        "every",
        *(
            f"{name}{end}"
            for name in ("auc", "average_precision", "hit_rate", "lead_steps")
            for end in ("", "_low", "_high")
        ),
        "false_alarms_per_10k",
        *(f"{name}{end}" for name in ("move_before", "auc_gain") for end in ("", "_low", "_high")),
        "p",
        "p_adjusted",
    ],
)

ALARM_COLUMNS = declare(
    {
        **_SERIES,
        "threshold": "score over which it alarms, in robust standard deviations of the values before",
        "hit_rate": "share of the spikes with an alarm",
        "false_alarm_rate": "share of the quiet windows with one",
        "false_alarms_per_10k": "false alarms in 10 000 quiet steps",
        "precision": "share of the windows with an alarm that are before a spike",
    },
    integers=["blocks", "layer"],
    reals=["threshold", "hit_rate", "false_alarm_rate", "false_alarms_per_10k", "precision"],
)

COURSE_COLUMNS = declare(
    {
        **_SERIES,
        "offset": "values before the onset, or before the end of a quiet window, from -1 back; 0 is at the onset",
        "steps": "offset in steps",
        "spikes": "spikes behind the mean",
        "change": "value less the median of those before the horizon, mean over spikes",
        "change_low": "lower end of its 95 % interval, over runs",
        "change_high": "upper end of its 95 % interval, over runs",
        "quiet": "the same in quiet windows, mean",
        "quiet_low": "2.5 % quantile over quiet windows",
        "quiet_high": "97.5 % quantile over quiet windows",
    },
    integers=["blocks", "layer", "offset", "spikes"],
    reals=["steps", "change", "change_low", "change_high", "quiet", "quiet_low", "quiet_high"],
)
