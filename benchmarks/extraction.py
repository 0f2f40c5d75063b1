"""The time of an extraction beside the bare forward passes that it makes, and its memory as tokens grow.

python -m benchmarks.extraction                         # minutes on 2 cores; writes to docs/benchmarks.md
python -m benchmarks.extraction --tokens 2048 --print   # a try: nothing written
"""

from __future__ import annotations

import datetime
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import REPOSITORY
from benchmarks.assets import BATCH_TOKENS, DECODER, WINDOW, checkpoint, text_of
from benchmarks.machine import cores, description
from benchmarks.pages import parser_of, publish, table
from benchmarks.worker import resident
from lmshape.models.extract import Reader, batches, write_activations
from lmshape.models.network import load_model
from lmshape.models.residual import residual_stream
from lmshape.store.tokens import Tokens
from lmshape.texts.corpus import read_text
from lmshape.texts.tokenizer import load_tokenizer
from lmshape.texts.tokens import Sampling, sample_tokens

PAGE = REPOSITORY / "docs/benchmarks.md"
COMMAND = "python -m benchmarks.extraction"
TOKENS = 4096  # two batches
REPEATS = 5
MORE = 4  # times the tokens, for the memory
PEAK_RESET = Path(
    "/proc/self/clear_refs"
)  # Linux: writing 5 sets the peak of the resident memory to what it is


@dataclass(frozen=True, slots=True)
class Extraction:
    """A loaded decoder, ready to be read."""

    reading: Reader

    @classmethod
    def of(cls, folder: Path) -> Extraction:
        """Load a decoder in float32 on the CPU."""
        network = load_model(folder, kind="decoder", dtype="float32", device=torch.device("cpu"))
        stream = residual_stream(network.model, torch.arange(1, 9)[None])
        return cls(Reader(kind="decoder", network=network, stream=stream, mask_token_id=None, seed=0))

    def bare(self, tokens: Tokens) -> None:
        """Make the passes of all batches, logits and all, and keep nothing."""
        with torch.inference_mode():
            for rows in batches(tokens, BATCH_TOKENS):
                ids = torch.as_tensor(tokens.ids[rows], dtype=torch.int64)
                self.reading.network.model(input_ids=ids).logits  # noqa: B018, the head is part of the pass

    def whole(self, tokens: Tokens) -> None:
        """Extract: the same passes, every layer written to disk, and the loss of every token."""
        with tempfile.TemporaryDirectory(dir=REPOSITORY) as folder:
            write_activations(
                Path(folder) / "activations.h5",
                tokens,
                self.reading,
                attributes={},
                batch_tokens=BATCH_TOKENS,
                bar=tqdm(disable=True),
            )


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each run, on the wall and of all cores."""

    wall: list[float]
    cpu: list[float]

    def medians(self) -> tuple[float, float]:
        """Return the median of each."""
        return statistics.median(self.wall), statistics.median(self.cpu)


def interleaved(
    *tasks: Callable[[Tokens], None], tokens: Tokens, repeats: int = REPEATS
) -> tuple[Times, ...]:
    """Run tasks by turns, after a first round that is not counted; the order is reversed every other round."""
    times = tuple(Times([], []) for _ in tasks)
    pairs = list(zip(tasks, times, strict=True))
    for number in range(repeats + 1):
        for task, taken in pairs if number % 2 else reversed(pairs):
            wall, cpu = time.perf_counter(), time.process_time()
            task(tokens)
            if number:
                taken.wall.append(time.perf_counter() - wall)
                taken.cpu.append(time.process_time() - cpu)
    return times


@contextmanager
def growth(found: list[float]) -> Iterator[None]:
    """Append how many bytes the resident memory has grown by at most; NaN outside Linux."""
    if PEAK_RESET.exists():
        PEAK_RESET.write_text("5")
    before = resident("VmRSS")
    yield
    found.append(resident("VmHWM") - before)


def first(tokens: Tokens, count: int) -> Tokens:
    """Return so many tokens, of whole windows."""
    columns = ("ids", "sequence", "position", "draw", "special")
    cut = {name: getattr(tokens, name)[:count] for name in columns}
    return replace(tokens, **cut, sequence_bytes=tokens.sequence_bytes[: count // WINDOW])


def times_section(extraction: Extraction, tokens: Tokens, repeats: int) -> str:
    """Time both by turns and return the table."""
    bare, whole = interleaved(extraction.bare, extraction.whole, tokens=tokens, repeats=repeats)
    ratios = [ours / theirs for ours, theirs in zip(whole.medians(), bare.medians(), strict=True)]
    rows = [
        ["bare forward passes", *(f"{seconds:.2f}" for seconds in bare.medians())],
        ["extraction", *(f"{seconds:.2f}" for seconds in whole.medians())],
        ["extraction / bare", *(f"{ratio:.3f}" for ratio in ratios)],
    ]
    about = f"{len(tokens.ids)} tokens in windows of {WINDOW}, batches of {BATCH_TOKENS}"
    return f"{about}; medians of {repeats} runs by turns, seconds.\n\n{table(' | wall | CPU', rows)}"


def memory_section(extraction: Extraction, *parts: Tokens) -> str:
    """Extract parts of a text and return the table of what each takes."""
    stream, rows = extraction.reading.stream, []
    for part in parts:
        grown: list[float] = []
        with growth(grown):
            extraction.whole(part)
        written = 4 * len(stream.sites) * len(part.ids) * stream.width
        rows.append([f"{size / 2**20:.0f}" for size in (written, *grown)])
    cells = [[f"{len(part.ids)} tokens", *row] for part, row in zip(parts, rows, strict=True)]
    return table(" | written, MiB | most that the resident memory grows by, MiB", cells)


def compare(extraction: Extraction, tokens: Tokens, *, repeats: int, threads: int) -> str:
    """Measure and return the section; a part of the tokens is timed."""
    few = first(tokens, len(tokens.ids) // MORE)
    parts = [
        f"{datetime.date.today():%d %B %Y}. {description(threads)}",
        times_section(extraction, few, repeats),
        memory_section(extraction, few, tokens),
    ]
    return "\n\n".join(parts)


def sampled(folder: Path, count: int) -> Tokens:
    """Return at least so many tokens of the repository's own text, raw, in windows."""
    needed = -(-count * 4 // 5)  # a quarter more is sampled
    return sample_tokens(
        load_tokenizer(folder),
        read_text(text_of(clean=False)),
        Sampling(protocol="windows", window=WINDOW, draws=1, rows_per_draw=needed, seed=0),
        order="text",
    )


def main() -> None:
    """Read the arguments, measure, and write or print."""
    parser = parser_of(__doc__, PAGE)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="tokens that are timed")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs that count")
    parser.add_argument("--threads", type=int, default=cores())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = checkpoint(DECODER)
    tokens = first(sampled(folder, MORE * arguments.tokens), MORE * arguments.tokens)
    text = compare(Extraction.of(folder), tokens, repeats=arguments.repeats, threads=arguments.threads)
    publish(text, PAGE, COMMAND, arguments)


if __name__ == "__main__":
    main()
