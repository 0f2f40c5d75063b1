"""How often each rule of a claim is right where the truth is known: writes docs/claims.md.

python -m benchmarks.claims                          # everything: a few minutes on one core
python -m benchmarks.claims --studies 40 --print     # a try: nothing written
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import numpy as np

from benchmarks import REPOSITORY
from benchmarks.pages import parser_of, publish, table
from benchmarks.planted_claims import CASES, DRAWS, Case, study
from lmshape.claims import CLAIMS, rows_of

PAGE = REPOSITORY / "docs/claims.md"
COMMAND = "python -m benchmarks.claims"
NOISES = (0.005, 0.01, 0.02, 0.04)
STUDIES = 200
MANY = 40  # draws, which know the noise of their mean
BY_SLUG = {claim.slug: claim for claim in CLAIMS}


def verdict(case: Case, noise: float, draws: int, generator: np.random.Generator) -> str:
    """Test the claim of a case on one study: the verdict of the row that answers it."""
    rows = rows_of(BY_SLUG[case.slug], study(case, noise, generator, draws))
    return next(row["verdict"] for row in rows if row["part"] == "answer")


def rates(case: Case, noise: float, studies: int, draws: int = DRAWS) -> tuple[float, float, float]:
    """Shares of studies with the right verdict, the wrong one, and none; where none is right, any is wrong."""
    generator = np.random.default_rng((CASES.index(case), int(1000 * noise)))
    found = Counter(verdict(case, noise, draws, generator) for _ in range(studies))
    decided = found["supported"] + found["contradicted"]
    wrong = decided - found[case.right] * (case.right != "undecided")
    return found[case.right] / studies, wrong / studies, 1 - decided / studies


def rows(cases: Iterable[Case], studies: int) -> list[list[str]]:
    """Return the rows of the table: a row per truth, right and wrong at each noise, and where the noise is known.

    Many draws of the same error know the noise, which five have to estimate. Where five are always right, they are
    spared.
    """
    lines = []
    for case in cases:
        found = [rates(case, noise, studies) for noise in NOISES]
        if found[-1][0] < 1:
            found.append(rates(case, NOISES[-1], studies, MANY))
        cells = [f"{right:.0%} / {wrong:.1%}".replace("%", "") for right, wrong, _ in found]
        cells += [""] * (len(NOISES) + 1 - len(cells))
        lines.append([f"`{case.slug}`", case.name + (" *" if not case.clear else ""), case.right, *cells])
        print(*lines[-1], flush=True)
    return lines


def main() -> None:
    """Read the arguments, plant, and write or print."""
    parser = parser_of(__doc__, PAGE)
    parser.add_argument("--studies", type=int, default=STUDIES, help="studies per truth and noise")
    parser.add_argument("--claim", action="append", help="slug of a claim; may be repeated; all without")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    chosen = [case for case in CASES if not arguments.claim or case.slug in arguments.claim]
    noises = " | ".join(f"{noise:.1%}" for noise in NOISES)
    head = f"claim | truth | right | {noises} | {NOISES[-1]:.1%}, {MANY} draws"
    text = table(head, rows(chosen, arguments.studies))
    minutes = (time.perf_counter() - begun) / 60
    text += f"\n\n{arguments.studies} studies per cell, each measured anew; {minutes:.0f} minutes."
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
