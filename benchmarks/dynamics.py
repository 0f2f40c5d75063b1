"""How often profiles and phases are read rightly where the truth is known: writes docs/dynamics.md.

    python -m benchmarks.dynamics
    python -m benchmarks.dynamics --trajectories 50 --print

Trajectories of known shape, with breaks anywhere between the checkpoints, and profiles of known shape are measured in 5
draws with noise that is correlated as in real cells (`benchmarks.trajectories`), and read as the study reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks import REPOSITORY
from benchmarks.pages import parser_of, publish, table
from benchmarks.trajectories import GRIDS, PROFILES, TRAJECTORIES, Planted, measured, profile, seeds
from lmshape.dynamics.noise import noise_of
from lmshape.dynamics.phases import describe
from lmshape.dynamics.profiles import distance, dome
from lmshape.dynamics.trajectories import UNDECIDED, least_change, segments, shape_name, together

PAGE = REPOSITORY / "docs/dynamics.md"
COMMAND = "python -m benchmarks.dynamics"
NOISES = (0.01, 0.03)
WANDER = 0.06  # of the logarithm, by which runs of one recipe differ
BLOCKS = (6, 12, 32)


@dataclass(frozen=True, slots=True)
class Read:
    """A trajectory and what was read of it, the row of the table `phases`."""

    truth: Planted
    steps: Sequence[int]
    row: dict

    @property
    def shape(self) -> str:
        """Shape of the true trajectory at its checkpoints: what can be told from them at the best."""
        values = self.truth.at(self.steps)
        return shape_name(segments(values, least_change(values)))

    @property
    def pieces_right(self) -> bool:
        """Whether it was read with as many straight pieces as it has."""
        return self.row["pieces"] == len(self.truth.breaks) - 1

    def covers(self, column: str, place: float) -> bool:
        """Whether the interval of a step holds a place on the axis log10(1 + step)."""
        low, high = (np.log10(1.0 + self.row[f"{column}_{end}"]) for end in ("low", "high"))
        return low - 1e-9 <= place <= high + 1e-9


def reads(kind: str, checkpoints: int, noise: float, count: int) -> list[Read]:
    """Measure and read trajectories of one kind, the same ones each time."""
    generator = np.random.default_rng((checkpoints, int(1000 * noise), list(TRAJECTORIES).index(kind)))
    found = []
    for _ in range(count):
        truth = TRAJECTORIES[kind](generator)
        steps = GRIDS[checkpoints]
        found.append(Read(truth, steps, describe(measured(truth, steps, noise, generator))))
    return found


def _percent(flags: Sequence[bool]) -> str:
    return f"{100 * np.mean(flags):.0f} %" if len(flags) else "–"


def verdicts(count: int) -> Iterator[list[str]]:
    """Rows of the table of shapes: right, undecided, wrong; significant turns."""
    for kind, checkpoints, noise in product(TRAJECTORIES, GRIDS, NOISES):
        found = reads(kind, checkpoints, noise, count)
        undecided = [read.row["shape"] == UNDECIDED for read in found]
        right = [read.row["shape"] == read.shape for read in found]
        wrong = [not a and not b for a, b in zip(right, undecided, strict=True)]
        turned = [read.row["p_unimodal"] < 0.05 for read in found]
        rates = [_percent(flags) for flags in (right, undecided, wrong, turned)]
        yield [kind, f"{checkpoints}", f"{100 * noise:.0f} %", *rates]


def places(count: int) -> Iterator[list[str]]:
    """Rows of the table of steps: bias, coverage and width of the peak and of the boundaries."""
    for kind, checkpoints, noise in product(("rise, fall", "fall, rise, fall"), GRIDS, NOISES):
        found = [read for read in reads(kind, checkpoints, noise, count) if read.row["moves"]]
        found = [read for read in found if "rise, fall" in read.row["moves"]]
        yield [kind, f"{checkpoints}", f"{100 * noise:.0f} %", *_peak(found), *_boundaries(found)]


def _peak(found: Sequence[Read]) -> list[str]:
    if not found:
        return ["–"] * 3
    axis = np.log10(
        1.0 + np.array([[read.row[f"peak_step{end}"] for end in ("", "_low", "_high")] for read in found])
    )
    bias = axis[:, 0] - [read.truth.peak for read in found]
    covered = [read.covers("peak_step", read.truth.peak) for read in found]
    return [f"{np.mean(bias):+.2f}", _percent(covered), f"{np.median(axis[:, 2] - axis[:, 1]):.1f}"]


def _boundaries(found: Sequence[Read]) -> list[str]:
    right = [read for read in found if read.pieces_right]
    pairs = [(read, place) for read in right for place in range(1, read.row["pieces"])]
    covered = [read.covers(f"boundary_{place}_step", read.truth.breaks[place]) for read, place in pairs]
    bias = [
        np.log10(1.0 + read.row[f"boundary_{place}_step"]) - read.truth.breaks[place] for read, place in pairs
    ]
    return [
        _percent([read.pieces_right for read in found]),
        f"{np.mean(bias):+.2f}" if bias else "–",
        _percent(covered),
    ]


def runs(count: int) -> Iterator[list[str]]:
    """Rows of the table of seeds: what one run shows, and what several say of their recipe."""
    for kind, several in product(("flat", "rise", "rise, fall"), (1, 3, 5)):
        generator = np.random.default_rng((several, list(TRAJECTORIES).index(kind)))
        found = [_run(kind, several, generator) for _ in range(count)]
        right = [read.row["shape"] == read.shape for read in found]
        wrong = [read.row["shape"] not in (UNDECIDED, read.shape) for read in found]
        turned = [read.row["p_unimodal"] < 0.05 for read in found]
        yield [kind, f"{several}", *map(_percent, (right, wrong, turned))]


def _run(kind: str, several: int, generator: np.random.Generator) -> Read:
    truth, steps = TRAJECTORIES[kind](generator), GRIDS[20]
    members = seeds(truth, steps, several, wander=WANDER, noise=NOISES[0], generator=generator)
    return Read(truth, steps, describe(members[0] if several == 1 else together("recipe", members)))


def domes(count: int) -> Iterator[list[str]]:
    """Rows of the table of profiles: bias and coverage of the dome index, and what counts as a dome."""
    for kind, blocks, noise in product(PROFILES, BLOCKS, (0.003, 0.02)):
        generator = np.random.default_rng((blocks, int(1000 * noise), list(PROFILES).index(kind)))
        yield [kind, f"{blocks}", f"{noise:g}", *_domes(PROFILES[kind], blocks, noise, generator, count)]


def _domes(
    shape: Callable, blocks: int, noise: float, generator: np.random.Generator, count: int
) -> list[str]:
    depth = np.arange(1, blocks + 1) / blocks
    true = shape(depth)
    index = float(true.max() - max(true[0], true[-1]))
    found, tops = [], np.flatnonzero(true >= true.max() - 1e-12)
    for _ in range(count):
        axis, numbers = profile(shape, blocks, noise, generator)
        found.append(dome(numbers[0], axis, noise_of(numbers)))
    covered = [one.index_low - 1e-12 <= index <= one.index_high + 1e-12 for one in found]
    seen = [one.index > one.null for one in found]
    peak = [bool(((tops >= one.peak_low) & (tops <= one.peak_high)).any()) for one in found]
    bias = np.mean([one.index for one in found]) - index
    return [f"{index:.2f}", f"{bias:+.3f}", _percent(covered), _percent(seen), _percent(peak)]


def distances(count: int) -> Iterator[list[str]]:
    """Rows of the table of distances: bias and coverage, from equal profiles to far ones."""
    for true, blocks in product((0.0, 0.005, 0.02, 0.2), BLOCKS):
        generator = np.random.default_rng((blocks, int(1000 * true)))
        found = [_distance(true, blocks, generator) for _ in range(count)]
        covered = [one.low - 1e-12 <= true <= one.high for one in found]
        bias = np.mean([one.value for one in found]) - true
        yield [f"{true:g}", f"{blocks}", f"{bias:+.4f}", _percent(covered)]


def _distance(true: float, blocks: int, generator: np.random.Generator, noise: float = 0.01):
    depth, numbers = profile(
        lambda depth: true * np.sqrt(2) * np.sin(7 * depth + 1), blocks, noise, generator
    )
    size = float(np.sqrt((2 * np.sin(7 * depth + 1) ** 2).mean()))
    scaled = numbers / size
    return distance(scaled[0], noise_of(scaled))


def report(count: int) -> str:
    """Return all tables."""
    cell = "trajectory | checkpoints | noise"
    parts = [
        f"{count} trajectories or profiles a row.\n\n### Shapes",
        table(f"{cell} | right | undecided | wrong | p_unimodal < 0.05", verdicts(count)),
        "### Steps of peaks and boundaries",
        table(
            f"{cell} | peak: bias, decades | coverage | width, decades | pieces right | boundaries: bias | coverage",
            places(count),
        ),
        "### Seeds",
        table("trajectory | runs | right | wrong | p_unimodal < 0.05", runs(count)),
        "### Dome index",
        table(
            "profile | blocks | noise | dome index | bias | coverage | over its null | peak within its interval",
            domes(count),
        ),
        "### Distance to the last profile",
        table("distance | blocks | bias | coverage", distances(count)),
    ]
    return "\n\n".join(parts)


def main() -> None:
    """Read the arguments, measure, and write or print."""
    parser = parser_of(__doc__, PAGE)
    parser.add_argument(
        "--trajectories", type=int, default=400, help="trajectories, and profiles, of each row"
    )
    arguments = parser.parse_args()
    text = report(arguments.trajectories)
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
