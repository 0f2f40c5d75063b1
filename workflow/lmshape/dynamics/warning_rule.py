"""How a warning is counted: the numbers, stated before any run was looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningRule:
    """The numbers of an early warning; all counts but the last three are of a series' own values.

    Attributes
    ----------
    window, least : values behind a score, at most and at least; none from before the last spike's end
    horizon : values before an onset in which an alarm is a hit
    latest : values before an onset whose mean tells which way a series moves
    fewest_spikes, fewest_runs : with fewer there are no intervals
    rate : false alarms per 10 000 quiet steps at which hits are counted
    """

    window: int = 16
    least: int = 8
    horizon: int = 10
    latest: int = 3
    fewest_spikes: int = 5
    fewest_runs: int = 3
    rate: float = 10.0

    def __str__(self) -> str:
        """Spell the rule as a table does."""
        return " ".join(f"{name}={value:g}" for name, value in asdict(self).items())


RULE = WarningRule()
