"""The columns of the table `phases`."""

from __future__ import annotations

from lmshape.dynamics.pieces import MOST_PIECES
from lmshape.dynamics.shapes import SHAPES
from lmshape.tables.columns import COLUMN_DESCRIPTIONS, declare


def _with_interval(name: str, text: str) -> dict[str, str]:
    return {
        name: text,
        f"{name}_low": "lower end of its 95 % interval",
        f"{name}_high": "upper end of its 95 % interval",
    }


_STEPS = ("peak_step", "trough_step", *(f"boundary_{place}_step" for place in range(1, MOST_PIECES)))
_SLOPES = tuple(f"slope_{place}" for place in range(1, MOST_PIECES + 1))

PHASE_DESCRIPTIONS = {
    "study": COLUMN_DESCRIPTIONS["study"],
    "model": "name of the model; of models that differ in their seed alone, the name of the recipe",
    **{name: COLUMN_DESCRIPTIONS[name] for name in ("kind", "dataset", "rows", "metric")},
    "band": "early, middle or last block: after a quarter, half and all of the blocks",
    "layer": "that block",
    "seeds": "training runs in the row: 1, or those of the recipe",
    "checkpoints": "checkpoints in the course: trusted, of a known step, with a number",
    "draws": "number of independent draws of sequences behind the intervals",
    "shape": "; ".join(f"{name}: {meaning}" for name, meaning in SHAPES.items()) + "; empty: not measurable",
    "moves": "rises and falls that are sure, in their order: what the shape is made of",
    "least": "change of the natural logarithm of the value that makes a rise or fall",
    "noise": "difference of the logarithm between two checkpoints that the draws explain, 95 % for all pairs at once",
    "p_monotone": "p-value of the course having no rise or fall of `least`",
    "p_unimodal": "p-value of its having one at most, which is neither a rise and a fall nor a fall and a rise",
    "p_three_phase": "p-value of its having two at most",
    **_with_interval(
        "peak_step", "step of the highest turn from rise to fall; without one, of the largest value"
    ),
    **_with_interval(
        "trough_step", "step of the lowest turn from fall to rise; without one, of the least value"
    ),
    **_with_interval("collapse_depth", "share of the value lost in the first move; empty if that is no fall"),
    "collapse_step": "step at which that fall ends",
    "recovery_step": "first step after it at which half of the fall, in the logarithm, is made good; empty if never",
    "pieces": f"straight pieces of the logarithm over log(1 + step), as few as fit, {MOST_PIECES} at most",
    **{
        name: text
        for step in _STEPS[2:]
        for name, text in _with_interval(
            step, "step at which the slope changes; empty beyond the last"
        ).items()
    },
    **{
        name: text
        for slope in _SLOPES
        for name, text in _with_interval(
            slope, "change of the logarithm per decade of steps in that piece; empty beyond the last"
        ).items()
    },
    "flag": "the reason of an empty shape, or of a doubt about the course; empty when fine",
}

PHASE_COLUMNS = declare(
    PHASE_DESCRIPTIONS,
    integers=[
        "layer",
        "seeds",
        "checkpoints",
        "draws",
        "pieces",
        "collapse_step",
        "recovery_step",
        *(name for step in _STEPS for name in (step, f"{step}_low", f"{step}_high")),
    ],
    reals=[
        "least",
        "noise",
        "p_monotone",
        "p_unimodal",
        "p_three_phase",
        *(name for real in ("collapse_depth", *_SLOPES) for name in (real, f"{real}_low", f"{real}_high")),
    ],
)
