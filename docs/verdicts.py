"""Write README's table of what the embedded study shows, from `docs/data`: `python docs/verdicts.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
PLACE = re.compile(r"(?<=<!-- begin: written by `python docs/verdicts.py` -->\n).*?(?=<!-- end)", re.DOTALL)
# Of the decoder alone: on another machine the encoder's training ends elsewhere.
SHOWN = (
    "dome",
    "isotropic_ends",
    "nearly_a_line",
    "grows",
    "low_dimension",
    "rise_then_fall",
    "random_tokens",
    "linear_blocks",
    "few_directions",
)
TRAJECTORIES = ("grows", "rise_then_fall")  # whose `why` begins with what is seen
MODEL = "wiki-decoder"


def with_verdicts(text: str, claims: pd.DataFrame) -> str:
    """Return a page with the table between its markers written anew."""
    lines = ["| claim | number, 95 % interval | threshold | the rule says |", "| --- | --- | --- | --- |"]
    for slug in SHOWN:
        own = claims[(claims["slug"] == slug) & (claims["model"] == MODEL) & (claims["rows"] == "all")]
        # the row that answers the claim, or, where that is over all models, the decoder's
        row = own.iloc[(own["part"] != "answer").argmin()]
        number, low, high = (f"{round(row[name], 3) + 0.0:.3f}" for name in ("number", "ci_low", "ci_high"))
        seen = f", {row['why'].split(';')[0]}" if slug in TRAJECTORIES else ""
        cells = (
            row["sentence"],
            f"{number} [{low}, {high}]{seen}",
            f"{row['threshold']:.3g}",
            row["rule_says"],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return PLACE.sub("\n" + "\n".join(lines) + "\n\n", text)


if __name__ == "__main__":
    table = pd.read_parquet(HERE / "data/claims.parquet")
    README.write_text(with_verdicts(README.read_text(encoding="utf-8"), table), encoding="utf-8")
