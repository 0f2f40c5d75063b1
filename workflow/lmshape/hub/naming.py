"""How a training run spells its checkpoints on the hub: from a step to a name, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from lmshape.errors import InputError

_PLACEHOLDER = re.compile(r"\{(step|kilo|billions)(?::0(\d)d)?\}")

Steps = Sequence[int | dict[str, int]]


@dataclass(frozen=True, slots=True)
class Naming:
    """A template such as `stage1-step{step}-tokens{billions}B`, or a pattern that only reads.

    Attributes
    ----------
    template : `{step}`, also `{step:03d}` with leading zeros; `{kilo}`, step / 1000; `{billions}`, the tokens up
        to the step in billions, rounded up. Empty for a pattern
    pattern : what a whole name matches; its first group is the step, or the step / `unit`
    unit : steps that the number in the name counts
    tokens_per_step : tokens of a training step, needed for `{billions}`
    """

    template: str
    pattern: re.Pattern[str]
    unit: int = 1
    tokens_per_step: int | None = None

    @classmethod
    def of(cls, template: str, *, tokens_per_step: int | None = None) -> Self:
        """Read a template.

        Raises
        ------
        InputError
            When no placeholder, or several, hold the step; when `{billions}` has no `tokens_per_step`; for
            braces that are no placeholder.
        """
        found = [match[1] for match in _PLACEHOLDER.finditer(template)]
        rest = _PLACEHOLDER.sub("", template)
        if len([name for name in found if name != "billions"]) != 1 or {"{", "}"} & set(rest):
            raise InputError(
                f"`{template}`: must hold the step once, as {{step}}, {{step:03d}} or {{kilo}}; besides it "
                "only {billions} is known."
            )
        if "billions" in found and tokens_per_step is None:
            raise InputError(f"`{template}`: {{billions}} needs `tokens_per_step` beside it.")
        unit = 1000 if "kilo" in found else 1
        return cls(template, re.compile(_regular_expression(template)), unit, tokens_per_step)

    @classmethod
    def reading(cls, pattern: str) -> Self:
        """Take a regular expression for whole names whose first group is the step.

        Raises
        ------
        InputError
            When it is no regular expression, or has no group.
        """
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise InputError(f"`step_pattern` = '{pattern}': no regular expression ({error}).") from None
        if not compiled.groups:
            raise InputError(
                f"`step_pattern` = '{pattern}': needs a group around the step, as in `step(\\d+)`."
            )
        return cls("", compiled)

    def name(self, step: int) -> str:
        """Spell a step.

        >>> Naming.of("stage1-step{step}-tokens{billions}B", tokens_per_step=2_097_152).name(23100)
        'stage1-step23100-tokens49B'
        """
        tokens = step * (self.tokens_per_step or 0)
        values = {"step": step, "kilo": step // 1000, "billions": -(-tokens // 10**9)}
        return _PLACEHOLDER.sub(lambda match: f"{values[match[1]]:0{match[2] or 1}d}", self.template)

    def spells(self, step: int) -> bool:
        """Whether the name of a step is its own: in thousands only whole ones are."""
        return step % self.unit == 0

    def step(self, name: str) -> int | None:
        """Read the step off a name; None for a name of another kind.

        >>> Naming.of("step_{kilo}k").step("step_20k")
        20000
        """
        match = self.pattern.fullmatch(name)
        digits = match[1] if match else None
        return int(digits) * self.unit if digits and digits.isdecimal() else None


def expand_steps(steps: Steps, *, where: str) -> tuple[int, ...]:
    """Write out `[0, 1, {from: 1000, to: 3000, every: 1000}]` as (0, 1, 1000, 2000, 3000).

    Raises
    ------
    InputError
        When the steps do not ascend, or a range ends before it begins.
    """
    expanded = tuple(step for entry in steps for step in _entry(entry, where))
    for before, after in zip(expanded, expanded[1:], strict=False):
        if after <= before:
            raise InputError(
                f"`{where}`: {after} stands behind {before}. List the steps in ascending order, once."
            )
    return expanded


def path_safe(name: str) -> str:
    """Replace whatever a path cannot hold by a dash."""
    return re.sub(r"[^A-Za-z0-9._+=-]", "-", name)


def _entry(entry: int | dict[str, int], where: str) -> Sequence[int]:
    if isinstance(entry, int):
        return (entry,)
    first, last = entry["from"], entry["to"]
    if last < first:
        raise InputError(f"`{where}`: from {first} to {last} there is no step. Exchange the two.")
    return range(first, last + 1, entry["every"])


def _regular_expression(template: str) -> str:
    pieces, end = [], 0
    for match in _PLACEHOLDER.finditer(template):
        pieces += [re.escape(template[end : match.start()]), r"\d+" if match[1] == "billions" else r"(\d+)"]
        end = match.end()
    return "".join([*pieces, re.escape(template[end:])])
