"""Jobs before the cells: texts, tokenizer and runs of the embedded study, tokens of each model and dataset."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from lmshape import paths
from lmshape.digest import check_digest, write_digest
from lmshape.fingerprint import code_fingerprint
from lmshape.jobs.rule import LEAST_DISK_MEGABYTES, Files, Given, Rule, Wildcards
from lmshape.store.weights import file_key
from lmshape.study.costs import pretraining_megabytes, pretraining_seconds, weights_of
from lmshape.study.registry import REPOSITORY, Text
from lmshape.study.study import Study
from lmshape.texts.tokenizer import named_tokens, tokenizer_files
from lmshape.training.recipe import Pretraining, Recipe


def text_file(text: str, *, clean: bool) -> str:
    """Return the file of a text, with its markup or cleaned of it."""
    return (paths.CLEAN_TEXT if clean else paths.TEXT_FILE).format(text=text)


def whole_text(file: Path) -> str:
    """Read a text of the study; one that has changed since it was written is refused."""
    from lmshape.texts.corpus import read_text

    check_digest(file)
    return read_text(file)


def trained_files(study: Study, name: str, *, probed: bool = False) -> list[str]:
    """Return a file of each run that is trained, or of each whose geometry is probed."""
    runs = [run for run, recipe in study.trained.items() if recipe.probe_every or not probed]
    return [f"{paths.PRETRAINED.format(run=run)}/{name}" for run in runs]


def by_run(files: list[str]) -> dict[str, Path]:
    """Name files of runs by their run."""
    return {Path(file).parent.name: Path(file) for file in files}


class FetchText(Rule):
    """A text, fetched and verified."""

    stage = "texts and tokens"
    code = ("lmshape.texts.fetch.fetch",)
    log_file = "results/logs/fetch_text/{text}.log"
    writes = (paths.TEXT_FILE,)
    memory_megabytes = 500
    time_minutes = 60

    def jobs(self) -> Iterator[Wildcards]:
        """The texts of the study: those of its datasets, and that which it trains on."""
        used = {text.name for name in self.study.datasets if (text := self.study.text_of(name))}
        used |= {self.study.pretraining.text} if self.study.pretraining else set()
        return (Wildcards(text=name) for name in self.study.texts if name in used)

    def text(self, job: Wildcards) -> Text:
        """Return the text of a job."""
        return self.study.texts[job.text]

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        """A local text; where there is a checksum, that tells of changes, and the file is not an input."""
        text = self.text(job)
        return {"source": [] if text.path is None or text.sha256 or text.md5 else str(text.path)}

    def facts(self, job: Wildcards) -> object:
        """A text of the repository is named relative to it: where the clone lies is not part of the result."""
        text = self.text(job)
        source = text.path or text.url or json.dumps(text.hf, sort_keys=True)
        if text.path and text.path.is_relative_to(REPOSITORY):
            source = text.path.relative_to(REPOSITORY)
        content = file_key(text.path) if text.path and not (text.sha256 or text.md5) else ""
        rows = [text.column] if text.is_of_rows else []
        return [str(source), text.md5, text.sha256, text.bytes, content, *rows]

    def disk_megabytes(self, job: Wildcards) -> int:
        return LEAST_DISK_MEGABYTES + (self.text(job).raw_bytes(Path()) or 10**9) // 10**6

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.texts.fetch import fetch, write_hub_dataset, write_rows_of

        text, destination = self.text(job), Path(job.fill(paths.TEXT_FILE))
        if text.path and text.is_of_rows:
            write_rows_of(text.path, destination, column=text.column)
        elif text.hf and not (text.path or text.url):
            write_hub_dataset(**text.hf, destination=destination)
        else:
            source = str(text.path or text.url)
            fetch(source, destination, md5=text.md5, sha256=text.sha256, size=text.bytes)
        write_digest(destination)


class CleanText(FetchText):
    """A text without Wikipedia's markup."""

    code = ("lmshape.texts.corpus.clean_file",)
    log_file = "results/logs/clean_text/{text}.log"
    writes = (paths.CLEAN_TEXT,)
    memory_megabytes = 1000

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"text": job.fill(paths.TEXT_FILE)}

    def facts(self, job: Wildcards) -> object:
        return None

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.texts.corpus import clean_file

        text, cleaned = Path(job.fill(paths.TEXT_FILE)), Path(job.fill(paths.CLEAN_TEXT))
        check_digest(text)
        clean_file(text, cleaned)
        write_digest(cleaned)


class TrainTokenizer(Rule):
    """The byte-level BPE tokenizer of the models that the study trains."""

    stage = "texts and tokens"
    code: tuple[str, ...] = (
        "lmshape.texts.tokenizer.write_tokenizer",
        "lmshape.texts.corpus.span",
        "lmshape.texts.corpus.read_text",
    )
    log_file = "results/logs/train_tokenizer.log"
    writes = (paths.PRETRAINED_TOKENIZER,)
    disk = LEAST_DISK_MEGABYTES

    def jobs(self) -> Iterator[Wildcards]:
        return iter([Wildcards()] if self.study.trained else [])

    @property
    def pretraining(self) -> Pretraining:
        """Section `pretraining` of the study."""
        assert self.study.pretraining is not None  # the rule has jobs only where the study trains models
        return self.study.pretraining

    @property
    def text(self) -> str:
        """File of the text that models are trained on."""
        return text_file(self.pretraining.text, clean=self.pretraining.clean)

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"text": self.text}

    def facts(self, job: Wildcards) -> object:
        return [self.pretraining.vocabulary, self.pretraining.span]

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.texts.corpus import span
        from lmshape.texts.tokenizer import write_tokenizer

        text = span(whole_text(Path(self.text)), *self.pretraining.span)
        write_tokenizer(text, Path(paths.PRETRAINED_TOKENIZER), vocabulary=self.pretraining.vocabulary)


class Pretrain(TrainTokenizer):
    """A training run of the embedded study."""

    stage = "pretraining"
    submitted = True
    usual_share = 0.13
    code = (
        "lmshape.training.pretrain.pretrain",
        "lmshape.texts.corpus.span",
        "lmshape.texts.corpus.read_text",
    )
    log_file = "results/logs/pretrain/{run}.log"

    def jobs(self) -> Iterator[Wildcards]:
        return (Wildcards(run=name) for name in self.study.trained)

    def recipe(self, job: Wildcards) -> Recipe:
        """Return the recipe of a run."""
        return self.pretraining.runs[job.run]

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        return {"text": self.text, "tokenizer": paths.PRETRAINED_TOKENIZER}

    def outputs(self, job: Wildcards) -> list[str]:
        kept = self.kept_weights() if self.recipe(job).keep_checkpoints else []
        return [job.fill(file) for file in (*kept, *(f"{paths.PRETRAINED}/{name}" for name in RUN_FILES))]

    def runs_that(self, *, keep: bool) -> list[str]:
        """Name the runs that keep their checkpoints, or those that do not."""
        runs = self.study.pretraining.runs if self.study.pretraining else {}
        return [name for name, recipe in runs.items() if recipe.keep_checkpoints == keep]

    def kept_weights(self) -> list[str]:
        """Return the weights of a run, with its wildcard: runs that keep their checkpoints save at the same steps."""
        kept = self.runs_that(keep=True)
        steps = self.pretraining.runs[kept[0]].checkpoint_steps if kept else []
        return [f"{paths.PRETRAINED}/checkpoint-{step}/model.safetensors" for step in steps]

    def facts(self, job: Wildcards) -> object:
        return [self.recipe(job).as_json(), self.pretraining.span]

    def code_of(self, job: Wildcards) -> str:
        """Return the fingerprint of training, and of the monitor where the run is probed."""
        probed = self.recipe(job).probe_every > 0
        return code_fingerprint(*self.code, *["lmshape.monitor"] * probed)

    def threads(self, job: Wildcards) -> int:
        return self.pretraining.threads

    def megabytes(self, job: Wildcards) -> int:
        return pretraining_megabytes(self.recipe(job), self.pretraining.vocabulary)

    def seconds(self, job: Wildcards, threads: int) -> float:
        return pretraining_seconds(self.recipe(job), self.pretraining.vocabulary)

    def disk_megabytes(self, job: Wildcards) -> int:
        """Megabytes of the checkpoints, and of the state that a killed run goes on from."""
        size = 4 * weights_of(self.recipe(job), self.pretraining.vocabulary)
        return LEAST_DISK_MEGABYTES + (len(self.recipe(job).checkpoint_steps) + 3) * size // 10**6

    def priority(self, job: Wildcards) -> float:
        return 100 if self.recipe(job).keep_checkpoints else 90

    def run(self, job: Wildcards, given: Given) -> None:
        from lmshape.monitor import held_out, monitor_of
        from lmshape.texts.corpus import span
        from lmshape.training.pretrain import pretrain

        text, share = whole_text(Path(self.text)), self.pretraining.span
        recipe, tokenizer = self.recipe(job), Path(paths.PRETRAINED_TOKENIZER)
        monitor = monitor_of(held_out(text, *share), tokenizer, recipe) if recipe.probe_every else None
        pretrain(
            span(text, *share),
            tokenizer,
            Path(job.fill(paths.PRETRAINED)),
            recipe=recipe,
            monitor=monitor,
            threads=given.threads,
        )


RUN_FILES = ("loss.csv", "geometry.csv", "summary.json")


class Tokenize(Rule):
    """The tokens that every checkpoint of a model reads on a dataset."""

    stage = "texts and tokens"
    code = (
        "lmshape.texts.tokens.sample_tokens",
        "lmshape.texts.tokenizer.load_tokenizer",
        "lmshape.texts.corpus.read_span",
        "lmshape.store.tokens.write_tokens",
    )
    log_file = "results/logs/tokenize/{model}/{dataset}.log"
    writes = (paths.TOKENS_FILE,)
    rank = 110

    def jobs(self) -> Iterator[Wildcards]:
        of = self.study.datasets_of
        return (Wildcards(model=model, dataset=dataset) for model in of for dataset in of[model])

    def text(self, job: Wildcards) -> str:
        """Return the file of the dataset's text; empty where random tokens follow no text."""
        text = self.study.text_of(job.dataset)
        return text_file(text.name, clean=self.study.datasets[job.dataset].clean) if text else ""

    def inputs(self, job: Wildcards) -> Mapping[str, Files]:
        model = self.model(job)
        # Of a local run `facts` has the content; of one that is gone no job makes the tokens again.
        made = [str(model.tokenizer)] if model.pretraining or model.on_hub or model.gone else []
        return {"text": self.text(job) or [], "tokenizer": made}

    def tokenizer_key(self, job: Wildcards) -> object:
        """Return the content of a local tokenizer, whichever checkpoint it lies in; the folder of another one."""
        model = self.model(job)
        if model.pretraining or model.on_hub:
            return str(model.tokenizer)
        files = tokenizer_files(model.tokenizer)
        own = [path for path in files if path.name == "tokenizer.json"]
        return (
            [file_key(own[0]), named_tokens(model.tokenizer)] if own else [file_key(path) for path in files]
        )

    def facts(self, job: Wildcards) -> object:
        dataset, text = self.study.datasets[job.dataset], self.text(job)
        return {
            "tokenizer": self.tokenizer_key(job),
            "text": text,
            "span": dataset.span if text else None,
            "order": dataset.order,
            "context": self.model(job).context,
            "vocabulary": self.model(job).vocabulary if dataset.order == "random" else None,
            **self.study.sampling.used,
            "seed": self.study.sampling.seed,
        }

    def megabytes(self, job: Wildcards) -> int:
        """A text, as bytes, as characters and as tokens, and a gigabyte for Python and the tokenizer."""
        text = self.study.text_of(job.dataset)
        return 1000 + 10 * ((text.bytes or 10**8) if text else 0) // 10**6

    def disk_megabytes(self, job: Wildcards) -> int:
        return LEAST_DISK_MEGABYTES + 40 * self.study.sampling.most_tokens // 10**6

    def run(self, job: Wildcards, given: Given) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # transformers would ask the hub about the tokenizer's folder
        from lmshape.store.tokens import write_tokens
        from lmshape.texts.corpus import read_span
        from lmshape.texts.tokenizer import load_tokenizer
        from lmshape.texts.tokens import sample_tokens

        dataset, text = self.study.datasets[job.dataset], self.text(job)
        content, documents = "", None
        if text:
            check_digest(Path(text))
            content, documents = read_span(Path(text), *dataset.span)
        tokens = sample_tokens(
            load_tokenizer(self.model(job).tokenizer, remote_code=self.model(job).remote_code),
            content,
            self.study.sampling,
            order=dataset.order,
            context=self.model(job).context,
            vocabulary=self.model(job).vocabulary,
            documents=documents,
        )
        write_tokens(Path(job.fill(paths.TOKENS_FILE)), tokens)
