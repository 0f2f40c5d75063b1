"""What a study asks of its models and texts, checked before the first job: windows fit, texts suffice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lmshape.dynamics.loss_logs import read_loss_log
from lmshape.errors import InputError
from lmshape.metrics.registry import MEASURED
from lmshape.study.registry import Text
from lmshape.tables.loss_spikes import read_geometry

if TYPE_CHECKING:
    from lmshape.study.study import Study


LEAST_CHUNK_TOKENS = 128  # 512 characters at four a token, as tokenizers of 50 000 entries make them
PACKED = (".gz", ".xz", ".zip")  # the size of such a file says nothing about its text


def problems_of(study: Study, root: Path) -> Iterator[str]:
    """Tell every way in which a study cannot run, a sentence each."""
    yield from _long_windows(study)
    for name, dataset in study.datasets.items():
        if study.sampling.protocol == "paper" and dataset.text is None:
            yield (
                f"`datasets.{name}`: the protocol `paper` takes the lengths of random sequences from a text. "
                "Give the dataset a `text`."
            )
        text = study.text_of(name)
        if text is not None:
            yield from _text_problems(
                text,
                root,
                share=dataset.span[1] - dataset.span[0],
                needed=study.sampling.least_bytes,
                reader=f"`datasets.{name}`",
                remedy="Take a larger text, a wider `span`, or fewer draws or rows under `sampling`.",
            )
    yield from _families_without_rows(study)
    yield from _truncation_problems(study)
    yield from _pretraining_problems(study, root)
    yield from _loss_log_problems(study, root)


def _truncation_problems(study: Study) -> Iterator[str]:
    named = study.truncating.datasets if study.truncating else ()
    for name in () if isinstance(named, str) else named:
        if name not in study.datasets:
            yield (
                f"`truncation.datasets` names {name}, which no model of the study is measured on. Add it to "
                "`datasets`, or leave it out here."
            )
    for model in study.models:
        try:
            study.truncated(model)
        except InputError as error:
            yield f"`truncation.checkpoints`: {error}"


def _families_without_rows(study: Study) -> Iterator[str]:
    others = [name for name in study.measured_families if not MEASURED[name].chosen_rows(study.rows)]
    if others:
        takers = [name for name, family in MEASURED.items() if "one_per_type" in family.rows]
        yield (
            f"`rows` = [one_per_type]: only {' and '.join(takers)} take these rows, and `metrics` asks for "
            f"{', '.join(others)} too. Add `all` to `rows`, or name no other family."
        )


def _long_windows(study: Study) -> Iterator[str]:
    if study.sampling.protocol == "paper":
        yield from _long_chunks(study)
        return
    for name, model in study.models.items():
        if model.context is not None and study.sampling.window > model.context:
            yield (
                f"`sampling.window` = {study.sampling.window}: longer than the context of `{name}`, "
                f"{model.context} tokens. Lower it to {model.context} or less."
            )


def _long_chunks(study: Study) -> Iterator[str]:
    """How many tokens a chunk has only its tokenizer can tell; of this many, one of 128 chunks surely has more."""
    for name, model in study.models.items():
        if model.context is not None and model.context <= LEAST_CHUNK_TOKENS:
            yield (
                f"`sampling.protocol` = 'paper': a chunk of 512 characters has more tokens than the context of "
                f"`{name}`, {model.context}. Take the protocol `windows`, or a model with a context of 256 or more."
            )


def _pretraining_problems(study: Study, root: Path) -> Iterator[str]:
    pretraining = study.pretraining
    if pretraining is None or not study.trained:
        return
    yield from _text_problems(
        study.texts[pretraining.text],
        root,
        share=pretraining.span[1] - pretraining.span[0],
        needed=max(recipe.sequences * recipe.window for recipe in study.trained.values()),
        reader="`pretraining`",
        remedy="Take a larger text or a wider `span`.",
    )


def _loss_log_problems(study: Study, root: Path) -> Iterator[str]:
    for name, log in study.loss_logs.items():
        if name in study.trained:
            yield f"`loss_logs.{name}`: a run of `pretraining` has this name. Take another."
        for path in log.files:
            try:
                if not (root / path).is_file():
                    yield f"`loss_logs.{name}` = '{path}': no such file in {root}. Correct the path."
                elif path == log.geometry:
                    read_geometry(root / path)
                else:
                    read_loss_log(root / path, name=name)
            except InputError as error:
                yield f"`loss_logs.{name}`: {error}"


def _text_problems(
    text: Text, root: Path, *, share: float, needed: int, reader: str, remedy: str
) -> Iterator[str]:
    """Compare the bytes that there are with the tokens asked for: a token has at least one byte."""
    if text.path is not None and not (root / text.path).is_file():
        yield f"`texts.{text.name}.path` = '{text.path}': no such file in {root}. Correct the path."
        return
    size = _raw_bytes(text, root)
    if size == 0:
        yield f"`texts.{text.name}`: {text.path} is empty. Name a file with text."
    elif size is not None and size * share < needed:
        yield (
            f"`texts.{text.name}`: {size} bytes, of which {reader} takes {size * share:.0f}; "
            f"it needs {needed} at the very least, one a token. {remedy}"
        )


def _raw_bytes(text: Text, root: Path) -> int | None:
    if text.path is None:
        return text.bytes
    size = (root / text.path).stat().st_size
    if size == 0 or text.path.suffix not in PACKED:
        return size
    return text.bytes
