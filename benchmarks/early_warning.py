"""How often spikes are found, and predicted, where the truth is known: writes docs/spikes.md.

    python -m benchmarks.early_warning
    python -m benchmarks.early_warning --studies 40 --print     # a try: nothing written

Spikes and what moves before them are planted into noise (`benchmarks.planted_spikes`): made-up studies of 6 runs with
3 spikes each and 2 without, read as a study reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pandas as pd

from benchmarks import REPOSITORY
from benchmarks.pages import parser_of, publish, table
from benchmarks.planted_spikes import NOISES, Precursor, planted_loss, planted_runs
from lmshape.dynamics.early_warning import early_warnings
from lmshape.dynamics.spikes import find_spikes

PAGE = REPOSITORY / "docs/spikes.md"
COMMAND = "python -m benchmarks.early_warning"
GEOMETRY, BASELINE = ("id_twonn", 1), ("norm_median", 1)
OTHERS = {("effective_rank", 1): Precursor(), ("activation_max", 1): Precursor()}
NONE = Precursor()
CASES = {
    "neither warns": (NONE, NONE),
    "the geometry warns": (Precursor(size=3), NONE),
    "the baseline warns": (NONE, Precursor(size=3)),
    "both warn": (Precursor(size=3), Precursor(size=3)),
    "the geometry warns, downwards": (Precursor(size=-3), NONE),
    "the geometry does the same 3 times a run without a spike": (Precursor(size=3, unheeded=3), NONE),
}
LEADS = (4, 10, 16)


def detection(count: int) -> Iterator[list[str]]:
    """Rows: noise, height, share of spikes found, error of their onsets, false spikes in 100 000 steps."""
    for kind, height in product(NOISES, (4, 6, 10, 20)):
        rng = np.random.default_rng(height)
        found, errors, false = 0, [], 0
        for _ in range(count):
            onset = int(rng.integers(200, 400))
            loss = planted_loss(rng, [onset], noise=0.1, height=0.1 * height, kind=kind)
            near = [spike for spike in find_spikes(loss) if -5 <= spike.onset - onset <= 20]
            found += bool(near)
            errors += [near[0].onset - onset] if near else []
        for _ in range(count):
            false += len(find_spikes(planted_loss(rng, [], steps=1000, noise=0.1, kind=kind)))
        error = f"{np.median(errors):+.0f}, {np.quantile(errors, 0.9):+.0f}" if errors else "–"
        yield [kind, f"{height}", f"{found / count:.0%}", error, f"{false / count * 100:.1f}"]


def studies(case: tuple[Precursor, Precursor], count: int, *, seed: int = 0) -> pd.DataFrame:
    """Return the row of `warnings` of the geometric series in each of many studies."""
    rows = []
    for number in range(count):
        rng = np.random.default_rng((seed, number))
        watched = planted_runs(rng, {GEOMETRY: case[0], BASELINE: case[1], **OTHERS})
        found = early_warnings(watched)["warnings"]
        rows.append(found[(found["metric"] == GEOMETRY[0])].iloc[0])
    return pd.DataFrame(rows).reset_index(drop=True)


def coverage(rows: pd.DataFrame, name: str, truth: float) -> float:
    """Share of the studies whose interval holds the truth."""
    return float(((rows[f"{name}_low"] <= truth) & (truth <= rows[f"{name}_high"])).mean())


def warning_rows(count: int) -> Iterator[list[str]]:
    """Rows of the verdicts on each case."""
    for seed, (name, case) in enumerate(CASES.items()):
        rows = studies(case, count, seed=seed)
        auc, gain, move = (float(rows[column].mean()) for column in ("auc", "auc_gain", "move_before"))
        sure = rows[["move_before_low", "move_before_high"]]
        yield [
            name,
            f"{auc:.2f}",
            f"{coverage(rows, 'auc', auc):.0%}",
            f"{gain:+.2f}",
            f"{(rows['auc_gain_low'] > 0).mean():.0%}",
            f"{(rows['auc_gain_high'] < 0).mean():.0%}",
            f"{move:+.1f}",
            f"{(sure['move_before_low'] > 0).mean():.0%}",
            f"{(sure['move_before_high'] < 0).mean():.0%}",
            f"{rows['hit_rate'].mean():.0%}",
            f"{coverage(rows, 'hit_rate', float(rows['hit_rate'].mean())):.0%}",
            f"{rows['false_alarms_per_10k'].mean():.1f}",
            f"{rows['average_precision'].mean():.2f}",
        ]


def lead_rows(count: int) -> Iterator[list[str]]:
    """Rows: planted lead, the estimated lead, how often its interval holds it, and the share of spikes predicted."""
    for lead in LEADS:
        rows = studies((Precursor(size=6, lead=lead), NONE), count, seed=100 + lead)
        told = rows["lead_steps"]
        inside = (rows["lead_steps_low"] - 2 <= lead) & (lead <= rows["lead_steps_high"] + 2)
        yield [f"{lead}", f"{told.mean():.1f}", f"{inside.mean():.0%}", f"{rows['hit_rate'].mean():.0%}"]


def report(count: int) -> str:
    """Return the tables."""
    parts = [
        f"{count} runs or studies per row; shares have standard errors of up to {50 / count**0.5:.0f} points.",
        "### Spikes",
        table(
            "noise | height in its standard deviations | found | error of the onset in steps: median, 90 % | "
            "false spikes in 100 000 steps",
            detection(count),
        ),
        "### Warnings",
        table(
            "truth | area | its interval holds the mean | gain | significantly better | significantly worse | move | "
            "significant rise | significant fall | spikes predicted | its interval holds the mean | "
            "false alarms in 10 000 steps | average precision",
            warning_rows(count),
        ),
        "### Leads",
        table(
            "planted lead in steps | estimate | within 2 steps of the interval | spikes predicted",
            lead_rows(count),
        ),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Read the arguments, measure, and write or print."""
    parser = parser_of(__doc__, PAGE)
    parser.add_argument("--studies", type=int, default=60, help="runs, or studies, of each row")
    arguments = parser.parse_args()
    text = report(arguments.studies)
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
